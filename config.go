package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgsession/session/internal/bearer"
	"github.com/pgsession/session/internal/row"
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
	// minBytes leaves room for the cookie object and one short key.
	minBytes = 256

	// maxFound is how many sessions Manager.Sessions returns at most.
	maxFound = 1000

	// maxFindBytes bounds a value that sessions are found by. Longer ones are
	// cut off in the index, at more than this.
	maxFindBytes = 200
)

// Config says how a [Manager] works. The zero value plus a Secret is complete.
// New copies it; changing it afterwards changes nothing.
type Config struct {
	_ struct{}

	// Secret signs the cookie and is the root of every derived key. It has no
	// default and must have at least 32 bytes of randomness, for example from
	// "openssl rand -base64 48". With [FormatExpress] it may be shorter, with a
	// warning: a secret that is shared with an existing application. One that
	// tutorials print, or that follows from a few characters, is refused, except with a
	// [MemoryStore]; one that does not look random is a warning.
	Secret string

	// OldSecrets are still accepted in cookies but never used to sign. A
	// session that comes with one gets a new cookie at its next use. An empty one
	// is refused; one that everybody knows is a warning.
	OldSecrets []string

	// IdleTimeout ends a session this long after the last request that used
	// it. Default 24 h, at most 400 days. Session.SetIdleTimeout changes it for
	// one session. A record keeps the idle timeout it was created with, as in
	// Express: a new value is for new sessions.
	IdleTimeout time.Duration

	// AbsoluteTimeout ends a session this long after its creation, however
	// much it is used. Default 0: never; else a millisecond at least. It is
	// measured by the clocks of the programs, so let them agree. Before a record
	// is deleted for it, [PostgresStore] asks the database's clock as well.
	AbsoluteTimeout time.Duration

	// TouchInterval is how much an expiry must have to gain before it is
	// written again. Default: a tenth of IdleTimeout, at most one minute. A
	// session can end earlier by this much than its idle timeout says, and by
	// twice as much where its last responses could carry no cookie, as pages for
	// shared caches.
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
	// A record that is larger already may still shrink. Default 64 KiB, at least
	// 256: a session without a key has most of that.
	MaxBytes int

	// Cookie sets the cookie's format, name and attributes.
	Cookie CookieConfig

	// TrustProxy believes the X-Forwarded-Proto header when deciding whether
	// a request came by HTTPS, and X-Forwarded-Host when choosing among
	// Cookie.Domains. Set it only behind a proxy that sets or removes these
	// headers.
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

	// UserKey is the key that says whose session it is, such as "userId". Its
	// value decides what becomes of the session when it changes. Where there was
	// none, setting it is a login: the session gets a new ID and keeps its data, as
	// by [Session.Renew], which may be called as well. Set to another user, it begins
	// a fresh session with what the request sets after that (and with its
	// [Session.Bind]); of the one before nothing stays, and reads in the same request
	// find none of it. Deleted, or set to null, it ends the session as
	// [Session.Destroy] does. The same value again changes nothing. Any value but
	// null is a user, "" and 0 too. After the first byte a login is too late:
	// [ErrHeaderSent].
	//
	// Of two logins at once, as by a button clicked twice, both succeed
	// ([Session.Renew]). It is needed for MaxPerUser, and with Encrypt to find
	// sessions by it: a keyed hash of its value is then kept beside the sealed
	// data, which tells equal users from different ones and nothing else. A session
	// that was sealed while it was not set is not found (docs/operations.md). Set it
	// in every program that shares the sessions. Default none.
	UserKey string

	// MaxPerUser is how many sessions a user may have, 999 at most. Values of
	// UserKey that Key.Is refuses are not counted. A login over that
	// destroys the user's sessions that were renewed longest ago. Without an
	// index on UserKey ([PostgresOptions.IndexKeys]) each login reads the whole
	// table. Default 0: no limit.
	MaxPerUser int

	// TokenPrefix lets clients without cookies (native programs, command lines,
	// pages on another site) bring a token in the Authorization header, as
	// "Bearer shop_…", for a session that [Session.UseToken] has begun. Tokens of
	// ours begin with the prefix, by which they are told from an application's own
	// and are found where they were leaked: letters and digits with an underscore at
	// the end, 32 bytes at most. Whoever changes it ends the token of every client.
	// Default "": no tokens, and Authorization is not looked at.
	TokenPrefix string

	// DeviceBound ties sessions to the device of the browser, so that a copy of
	// its cookies ends within minutes. Default: off.
	DeviceBound DeviceBoundConfig

	// OnEvent, unless nil, is told of each session that this program has created,
	// renewed, destroyed, revoked or found expired: for notices ("a new device has
	// logged in"), counts and open sockets. Each is told at most once, never before it has
	// happened, and those of one session in their order. It may be missed: where the
	// program ends or a reply is lost, and of a Revoke of more than a thousand.
	// What must not be missed is for [PostgresOptions.Outbox]. Nothing is told of what other programs do, Express among
	// them, and of endings only by this package's stores.
	//
	// It is called from one goroutine and no request waits for it. If it panics that is
	// logged; while it hangs, up to 1024 events wait, and more are dropped
	// (Stats.EventsDropped). Default none.
	OnEvent func(Event)

	// ErrorHandler answers a request whose session could not be loaded or
	// saved, instead of the handler; nothing that the handler had prepared is
	// sent. err is one of this package's errors or came from the store, and
	// is not for the browser's eyes. The response is marked no-store. Calls of
	// the session in it do no I/O. If it panics, or writes nothing, the default
	// answers. Default: 503 with Retry-After, 409 for [ErrConflict] and
	// [ErrDestroyed], of which [ErrRenewed] is one, 500 for [ErrInvalid] and
	// [ErrHeaderSent]; 503 is also that of [ErrUnproven].
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// Logger gets warnings and errors, never with a session ID, a secret or
	// data. Default [slog.Default].
	Logger *slog.Logger
}

// Format shows no secret, whatever the verb: a printed struct is how secrets get
// into logs. Where a Config is an unexported field of a struct fmt cannot call
// it, so do not print that.
func (Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Config") }

// LogValue shows no secret.
func (Config) LogValue() slog.Value { return slog.StringValue("session.Config") }

// ConfigFromEnv returns a Config with what these environment variables say;
// everything else is left to its default.
//
//   - SESSION_SECRET: Config.Secret. It must be set, or in its place
//     SESSION_SECRET_FILE: the path of a file that holds the secret, as containers
//     are given them. The end of its line is no part of it.
//   - SESSION_SECRET_OLD: Config.OldSecrets, separated by spaces; or
//     SESSION_SECRET_OLD_FILE, the path of a file of them, one a line, for those
//     that have a space in them, too.
//   - SESSION_TIMEOUT: Config.IdleTimeout. A whole number is milliseconds, as
//     in Express; anything else is a Go duration such as 30m.
//   - SESSION_ENCRYPT: Config.Encrypt, true or false.
//
// A fault is an error that names the variable, all of them at once, and the path
// of a file but none of its content. Read it again, and give what it says to
// [Manager.SetSecrets], to change the secrets without a restart.
func ConfigFromEnv() (Config, error) {
	var cfg Config
	var errs []error
	secret, err := secretFromEnv("SESSION_SECRET")
	switch {
	case err != nil:
		errs = append(errs, err)
	case secret == "":
		errs = append(errs, errors.New(`session: SESSION_SECRET is not set: make one with "openssl rand -base64 48", keep it, and give every instance the same (or the path of a file that holds it in SESSION_SECRET_FILE)`))
	case os.Getenv("SESSION_SECRET") == "" && strings.ContainsAny(secret, "\r\n"):
		errs = append(errs, fmt.Errorf("session: SESSION_SECRET_FILE=%q: has several lines: a secret is one, and earlier ones belong into SESSION_SECRET_OLD_FILE", os.Getenv("SESSION_SECRET_FILE")))
	}
	cfg.Secret = secret
	if cfg.OldSecrets, err = oldSecretsFromEnv(); err != nil {
		errs = append(errs, err)
	}
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
	cfg.Cookie.Domains = lowerDomains(cfg.Cookie.Domains)
	cfg.DeviceBound = cfg.DeviceBound.withDefaults(cfg.Cookie.Path)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.ErrorHandler == nil {
		cfg.ErrorHandler = answerError
	}
	return cfg
}

// limits returns what the engine has to know of a config with its defaults.
func (cfg *Config) limits() limits {
	return limits{
		idleTimeout: cfg.IdleTimeout, absoluteTimeout: cfg.AbsoluteTimeout,
		touchInterval: cfg.TouchInterval, storeTimeout: cfg.StoreTimeout,
		maxBytes: cfg.MaxBytes, browserSession: cfg.Cookie.BrowserSession, encrypt: cfg.Encrypt,
		userKey: cfg.UserKey, maxPerUser: cfg.MaxPerUser,
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns every fault of a config whose gaps are filled. strict is that of
// checkSecrets.
func (cfg *Config) check(strict bool) error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: "+format, args...))
	}
	cfg.checkSecrets(strict, fault)
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
		} else if d.value > row.MaxLifetime && d.name != "IdleTimeout" {
			fault("Config.%s is %v: must be less than a hundred years", d.name, d.value)
		}
	}
	if cfg.AbsoluteTimeout < 0 {
		fault("Config.AbsoluteTimeout is %v: must not be negative; 0 means none", cfg.AbsoluteTimeout)
	} else if cfg.AbsoluteTimeout > 0 && cfg.AbsoluteTimeout < time.Millisecond {
		fault("Config.AbsoluteTimeout is %v: must be at least a millisecond; 0 means none", cfg.AbsoluteTimeout)
	}
	if cfg.IdleTimeout > maxCookieLifetime {
		fault("Config.IdleTimeout is %v: browsers keep a cookie for 400 days (9600h) at most", cfg.IdleTimeout)
	}
	if cfg.TouchInterval >= cfg.IdleTimeout && cfg.IdleTimeout > 0 {
		fault("Config.TouchInterval is %v: must be less than IdleTimeout (%v), or no session would ever be extended", cfg.TouchInterval, cfg.IdleTimeout)
	}
	if cfg.MaxBytes < 0 {
		fault("Config.MaxBytes is %d: must not be negative", cfg.MaxBytes)
	} else if cfg.MaxBytes > 0 && cfg.MaxBytes < minBytes {
		fault("Config.MaxBytes is %d: a session without a key has that much; use %d at least", cfg.MaxBytes, minBytes)
	}
	if cfg.TokenPrefix != "" && !bearer.ValidPrefix(cfg.TokenPrefix) {
		fault("Config.TokenPrefix is %q: use letters and digits with one underscore at the end, %d bytes at most, such as shop_", cfg.TokenPrefix, bearer.MaxPrefixBytes)
	}
	cfg.Cookie.check(fault)
	cfg.DeviceBound.check(&cfg.Cookie, fault)
	return errors.Join(errs...)
}

// checkFinding returns the faults of what needs a store that can find.
func (cfg *Config) checkFinding(store Store) error {
	var errs []error
	if cfg.UserKey != "" && row.Reserved(cfg.UserKey) || !utf8.ValidString(cfg.UserKey) || strings.IndexByte(cfg.UserKey, 0) >= 0 {
		errs = append(errs, fmt.Errorf("session: Config.UserKey is %q: reserved by Express or this package, or not UTF-8", cfg.UserKey))
	}
	switch _, ok := store.(Finder); {
	case cfg.MaxPerUser < 0 || cfg.MaxPerUser >= maxFound:
		errs = append(errs, fmt.Errorf("session: Config.MaxPerUser is %d: must not be negative, nor over %d; 0 means no limit", cfg.MaxPerUser, maxFound-1))
	case cfg.MaxPerUser > 0 && cfg.UserKey == "":
		errs = append(errs, errors.New("session: Config.MaxPerUser needs Config.UserKey, the key that says whose session it is"))
	case cfg.MaxPerUser > 0 && store != nil && !ok:
		errs = append(errs, errors.New("session: Config.MaxPerUser needs a store that can find sessions, a Finder"))
	}
	return errors.Join(errs...)
}

// warn logs what is allowed but probably not meant.
func (cfg *Config) warn() {
	if cfg.IdleTimeout < time.Minute {
		cfg.Logger.Warn("session: idle timeout is under a minute; SESSION_TIMEOUT is in milliseconds", "idleTimeoutMs", cfg.IdleTimeout.Milliseconds())
	}
	if cfg.Cookie.Format == FormatExpress && cfg.Encrypt {
		cfg.Logger.Warn("session: Express cannot read the data of encrypted sessions")
	}
	cfg.warnSecrets()
}
