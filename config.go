package session

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Defaults of [Config] and [CookieConfig].
const (
	DefaultIdleTimeout   = 24 * time.Hour
	DefaultTouchInterval = time.Minute // at most; a tenth of the idle timeout if that is less
	DefaultPruneInterval = 15 * time.Minute
	DefaultStoreTimeout  = 5 * time.Second
	DefaultMaxBytes      = 64 << 10
)

const (
	minSecretBytes = 32
	// maxCookieLifetime is the most that browsers keep a cookie
	// (RFC 6265bis, section 5.5).
	maxCookieLifetime = 400 * 24 * time.Hour
	// maxCookieBytes bounds name and value together (RFC 6265bis, section 5.4).
	maxCookieBytes = 4096
)

// Config says how a [Manager] works. The zero value plus a Secret is complete.
// New copies it; changing it afterwards changes nothing.
type Config struct {
	_ struct{}

	// Secret signs the cookie and is the root of every derived key. It has no
	// default and must have at least 32 bytes of randomness, for example from
	// "openssl rand -base64 48". With [FormatExpress] it may be shorter, with a
	// warning: a secret that is shared with an existing application.
	Secret string

	// OldSecrets are still accepted in cookies but never used to sign. A
	// session that comes with one gets a new cookie at its next use.
	OldSecrets []string

	// IdleTimeout ends a session this long after the last request that used
	// it. Default 24 h, at most 400 days. Session.SetIdleTimeout changes it for
	// one session. A record keeps the idle timeout it was created with, as in
	// Express: a new value is for new sessions.
	IdleTimeout time.Duration

	// AbsoluteTimeout ends a session this long after its creation, however
	// much it is used. Default 0: never. It is measured by the clocks of the
	// programs, so let them agree.
	AbsoluteTimeout time.Duration

	// TouchInterval is how much an expiry must have to gain before it is
	// written again. Default: a tenth of IdleTimeout, at most one minute. A
	// session can end earlier by this much than its idle timeout says.
	TouchInterval time.Duration

	// PruneInterval is the time between two deletions of expired records,
	// give or take half of it, so that many programs do not act at once.
	// Default 15 min.
	PruneInterval time.Duration

	// DisablePrune starts no pruning goroutine: for programs that are too
	// short-lived to prune, which call [Manager.Prune], or whose table is
	// pruned elsewhere.
	DisablePrune bool

	// StoreTimeout bounds every use of the store, retries and merges
	// included. Default 5 s.
	StoreTimeout time.Duration

	// MaxBytes bounds a session's data. Larger data is not saved: ErrInvalid.
	// A record that is larger already may still shrink. Default 64 KiB.
	MaxBytes int

	// Cookie sets the cookie's format, name and attributes.
	Cookie CookieConfig

	// TrustProxy believes the X-Forwarded-Proto header when deciding whether
	// a request came by HTTPS. Set it only behind a proxy that sets or removes
	// this header.
	TrustProxy bool

	// Encrypt seals the application's keys in the record with AES-256-GCM,
	// under a key derived from Secret and the session ID: a copy of the table
	// then shows no data, and data moved to another row does not open. The
	// record's cookie object stays readable. Express cannot read such a session,
	// and SQL cannot search its keys; see UserKey. Plain records are still read, and sealed
	// when they are next saved; OldSecrets still open what they sealed. A record
	// that does not open is an error (503), never an empty session. Default
	// false.
	Encrypt bool

	// UserKey is the key that says whose session it is, such as "userId". It is
	// needed for MaxPerUser, and with Encrypt to find sessions by it: a keyed
	// hash of its value is then kept beside the sealed data, which tells equal
	// users from different ones and nothing else. A session that was sealed
	// while it was not set is not found (docs/operations.md). Default none.
	UserKey string

	// MaxPerUser is how many sessions a user may have, 999 at most. Values of
	// UserKey that Key.Is refuses are not counted. A login over that
	// destroys the user's sessions that were renewed longest ago. Without an
	// index on UserKey ([PostgresOptions.IndexKeys]) each login reads the whole
	// table. Default 0: no limit.
	MaxPerUser int

	// ErrorHandler answers a request whose session could not be loaded or
	// saved, instead of the handler; nothing that the handler had prepared is
	// sent. err is one of this package's errors or came from the store, and
	// is not for the browser's eyes. The response is marked no-store. Calls of
	// the session in it do no I/O. Default: 503 with Retry-After, 409 for
	// [ErrDestroyed], 500 for [ErrInvalid] and [ErrHeaderSent].
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Logger gets warnings and errors, never with a session ID, a secret or
	// data. Default [slog.Default].
	Logger *slog.Logger
}

// CookieConfig sets the session cookie. It is always HttpOnly.
type CookieConfig struct {
	_ struct{}

	// Format picks the codec. Default [FormatSecureCookie]. A cookie of the other
	// format is never accepted.
	Format CookieFormat

	// Name defaults to "session", with [FormatExpress] to "connect.sid".
	Name string

	// Domain defaults to none: this host only.
	Domain string

	// Path defaults to "/".
	Path string

	// SameSite defaults to Lax. [http.SameSiteDefaultMode] leaves the attribute
	// out. None needs SecureAlways.
	SameSite http.SameSite

	// Secure defaults to [SecureAuto].
	Secure SecureMode

	// Partitioned sets the attribute of that name (CHIPS). It needs
	// SecureAlways.
	Partitioned bool

	// BrowserSession leaves out Max-Age and Expires, so that the cookie ends
	// with the browser: Express's null maxAge. A session with an idle timeout
	// of its own (Session.SetIdleTimeout) still gets them.
	BrowserSession bool
}

// CookieFormat is a way to sign the session ID in the cookie.
type CookieFormat int

const (
	// FormatSecureCookie is gorilla/securecookie's format, with a key derived from
	// the secret.
	FormatSecureCookie CookieFormat = iota
	// FormatExpress is express-session's format, signed with the bare secret, so
	// that both programs accept each other's cookies. An existing session's
	// attributes come from its record, as in Express.
	FormatExpress
)

// String returns "securecookie" or "express".
func (f CookieFormat) String() string {
	switch f {
	case FormatSecureCookie:
		return "securecookie"
	case FormatExpress:
		return "express"
	}
	return fmt.Sprintf("CookieFormat(%d)", int(f))
}

// SecureMode says when the cookie has the Secure attribute.
type SecureMode int

const (
	// SecureAuto sets it on requests that came by HTTPS: over TLS, or as the
	// proxy says with Config.TrustProxy.
	SecureAuto SecureMode = iota
	// SecureAlways sets it always: browsers then send the cookie over HTTPS
	// (and to localhost) only.
	SecureAlways
	// SecureNever leaves it out even over HTTPS.
	SecureNever
)

// String returns "auto", "always" or "never".
func (s SecureMode) String() string {
	switch s {
	case SecureAuto:
		return "auto"
	case SecureAlways:
		return "always"
	case SecureNever:
		return "never"
	}
	return fmt.Sprintf("SecureMode(%d)", int(s))
}

// ConfigFromEnv returns a Config with what these environment variables say;
// everything else is left to its default.
//
//   - SESSION_SECRET: Config.Secret. It must be set.
//   - SESSION_SECRET_OLD: Config.OldSecrets, separated by spaces.
//   - SESSION_TIMEOUT: Config.IdleTimeout. A whole number is milliseconds, as
//     in Express; anything else is a Go duration such as 30m.
//   - SESSION_ENCRYPT: Config.Encrypt, true or false.
//
// A fault is an error that names the variable, all of them at once.
func ConfigFromEnv() (Config, error) {
	var cfg Config
	var errs []error
	cfg.Secret = os.Getenv("SESSION_SECRET")
	if cfg.Secret == "" {
		errs = append(errs, errors.New(`session: SESSION_SECRET is not set: make one with "openssl rand -base64 48", keep it, and give every instance the same`))
	}
	cfg.OldSecrets = strings.Fields(os.Getenv("SESSION_SECRET_OLD"))
	if v := os.Getenv("SESSION_TIMEOUT"); v != "" {
		d, err := parseTimeout(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("session: SESSION_TIMEOUT=%q: %w", v, err))
		}
		cfg.IdleTimeout = d
	}
	if v := os.Getenv("SESSION_ENCRYPT"); v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("session: SESSION_ENCRYPT=%q: must be true or false", v))
		}
		cfg.Encrypt = on
	}
	return cfg, errors.Join(errs...)
}

// parseTimeout reads a whole number of milliseconds or a Go duration.
func parseTimeout(v string) (time.Duration, error) {
	v = strings.TrimSpace(v)
	d, err := time.ParseDuration(v)
	if ms, e := strconv.ParseInt(v, 10, 64); e == nil {
		if ms > math.MaxInt64/int64(time.Millisecond) {
			return 0, errors.New("is too long: at most 400 days, 34560000000")
		}
		d, err = time.Duration(max(ms, -1))*time.Millisecond, nil // no overflow below either
	}
	switch {
	case err != nil:
		return 0, errors.New("is neither a whole number of milliseconds nor a duration like 30m or 24h")
	case d <= 0:
		return 0, errors.New("must be more than zero: milliseconds, or a duration like 30m or 24h")
	case d < time.Millisecond:
		return 0, errors.New("must be at least a millisecond")
	}
	return d, nil
}

// withDefaults returns cfg with its gaps filled.
func (cfg Config) withDefaults() Config {
	cfg.OldSecrets = append([]string(nil), cfg.OldSecrets...)
	setDefault(&cfg.IdleTimeout, DefaultIdleTimeout)
	setDefault(&cfg.TouchInterval, max(0, min(cfg.IdleTimeout/10, DefaultTouchInterval)))
	setDefault(&cfg.PruneInterval, DefaultPruneInterval)
	setDefault(&cfg.StoreTimeout, DefaultStoreTimeout)
	setDefault(&cfg.MaxBytes, DefaultMaxBytes)
	setDefault(&cfg.Cookie.Path, "/")
	setDefault(&cfg.Cookie.SameSite, http.SameSiteLaxMode)
	name := "session"
	if cfg.Cookie.Format == FormatExpress {
		name = "connect.sid"
	}
	setDefault(&cfg.Cookie.Name, name)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.ErrorHandler == nil {
		cfg.ErrorHandler = answerError
	}
	return cfg
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns every fault of a config whose gaps are filled.
func (cfg *Config) check() error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: "+format, args...))
	}
	cfg.checkSecrets(fault)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"IdleTimeout", cfg.IdleTimeout},
		{"TouchInterval", cfg.TouchInterval},
		{"PruneInterval", cfg.PruneInterval},
		{"StoreTimeout", cfg.StoreTimeout},
	} {
		if d.value < 0 {
			fault("Config.%s is %v: must not be negative", d.name, d.value)
		} else if d.value < time.Millisecond && d.name != "TouchInterval" {
			fault("Config.%s is %v: must be at least a millisecond", d.name, d.value)
		} else if d.value > maxLifetime && d.name != "IdleTimeout" {
			fault("Config.%s is %v: must be less than a hundred years", d.name, d.value)
		}
	}
	if cfg.AbsoluteTimeout < 0 {
		fault("Config.AbsoluteTimeout is %v: must not be negative; 0 means none", cfg.AbsoluteTimeout)
	}
	if cfg.IdleTimeout > maxCookieLifetime {
		fault("Config.IdleTimeout is %v: browsers keep a cookie for 400 days (9600h) at most", cfg.IdleTimeout)
	}
	if cfg.TouchInterval >= cfg.IdleTimeout && cfg.IdleTimeout > 0 {
		fault("Config.TouchInterval is %v: must be less than IdleTimeout (%v), or no session would ever be extended", cfg.TouchInterval, cfg.IdleTimeout)
	}
	if cfg.MaxBytes < 0 {
		fault("Config.MaxBytes is %d: must not be negative", cfg.MaxBytes)
	}
	cfg.Cookie.check(fault)
	return errors.Join(errs...)
}

// checkSecrets never lets a secret into the error.
func (cfg *Config) checkSecrets(fault func(string, ...any)) {
	if cfg.Cookie.Format == FormatExpress { // shared with an existing application: any length, warned about
		if cfg.Secret == "" {
			fault("Config.Secret is empty: use the secret of the Express application")
		}
		return
	}
	const remedy = `needs at least 32: make one with "openssl rand -base64 48"`
	if n := len(cfg.Secret); n < minSecretBytes {
		fault("Config.Secret (SESSION_SECRET) has %d bytes, %s", n, remedy)
	}
	for i, s := range cfg.OldSecrets {
		if len(s) < minSecretBytes {
			fault("Config.OldSecrets[%d] (SESSION_SECRET_OLD) has %d bytes, %s", i, len(s), remedy)
		}
	}
}

// check refuses what browsers refuse (RFC 6265bis, section 5.7).
func (c *CookieConfig) check(fault func(string, ...any)) {
	if c.Format != FormatSecureCookie && c.Format != FormatExpress {
		fault("Cookie.Format is %v: use FormatSecureCookie or FormatExpress", c.Format)
	}
	if c.Secure != SecureAuto && c.Secure != SecureAlways && c.Secure != SecureNever {
		fault("Cookie.Secure is %v: use SecureAuto, SecureAlways or SecureNever", c.Secure)
	}
	if err := (&http.Cookie{Name: c.Name}).Valid(); err != nil { // #nosec G124 -- never sent
		fault("Cookie.Name %q is not a valid cookie name (RFC 6265, section 4.1.1)", c.Name)
	}
	if err := (&http.Cookie{Name: "x", Domain: c.Domain}).Valid(); err != nil { // #nosec G124 -- never sent
		fault("Cookie.Domain %q is not a domain name", c.Domain)
	}
	if err := (&http.Cookie{Name: "x", Path: c.Path}).Valid(); err != nil || !strings.HasPrefix(c.Path, "/") { // #nosec G124 -- never sent
		fault("Cookie.Path %q must begin with / and have no control characters and no semicolon", c.Path)
	}
	if len(c.Name)+maxSignedBytes > maxCookieBytes {
		fault("Cookie.Name has %d bytes: browsers refuse a name and value of over 4096 together", len(c.Name))
	}
	if len(c.Domain) > 1024 || len(c.Path) > 1024 {
		fault("Cookie.Domain and Cookie.Path may have 1024 bytes each: browsers ignore a longer attribute")
	}
	switch c.SameSite {
	case http.SameSiteDefaultMode, http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode:
	default:
		fault("Cookie.SameSite is %d: use the constants of net/http", c.SameSite)
	}
	c.checkSecure(fault)
}

// checkSecure lists what needs the Secure attribute on every response.
func (c *CookieConfig) checkSecure(fault func(string, ...any)) {
	if c.Secure != SecureAlways {
		if c.SameSite == http.SameSiteNoneMode {
			fault("Cookie.SameSite None needs Cookie.Secure: SecureAlways, or browsers drop the cookie")
		}
		if c.Partitioned {
			fault("Cookie.Partitioned needs Cookie.Secure: SecureAlways, or browsers drop the cookie")
		}
	}
	// Browsers compare the prefixes without regard to case.
	lower := strings.ToLower(c.Name)
	for _, prefix := range []string{"__secure-", "__host-"} {
		if strings.HasPrefix(lower, prefix) && c.Secure != SecureAlways {
			fault("Cookie.Name %q needs Cookie.Secure: SecureAlways, or browsers drop the cookie", c.Name)
		}
	}
	if strings.HasPrefix(lower, "__host-") && (c.Domain != "" || c.Path != "/") {
		fault("Cookie.Name %q needs Cookie.Path / and no Cookie.Domain, or browsers drop the cookie", c.Name)
	}
}

// warn logs what is allowed but probably not meant.
func (cfg *Config) warn() {
	if cfg.IdleTimeout < time.Minute {
		cfg.Logger.Warn("session: idle timeout is under a minute; SESSION_TIMEOUT is in milliseconds", "idleTimeoutMs", cfg.IdleTimeout.Milliseconds())
	}
	if cfg.Cookie.Format == FormatExpress && cfg.Encrypt {
		cfg.Logger.Warn("session: Express cannot read the data of encrypted sessions")
	}
	if cfg.Cookie.Format == FormatExpress {
		short := len(cfg.Secret) < minSecretBytes
		for _, s := range cfg.OldSecrets {
			short = short || len(s) < minSecretBytes
		}
		if short {
			cfg.Logger.Warn("session: a secret has under 32 bytes and may be guessed from a cookie; replace it in Express and here, keeping the old one in SESSION_SECRET_OLD for a while")
		}
	}
}

func sameSiteName(s http.SameSite) string {
	switch s {
	case http.SameSiteLaxMode:
		return "lax"
	case http.SameSiteStrictMode:
		return "strict"
	case http.SameSiteNoneMode:
		return "none"
	}
	return "unset"
}
