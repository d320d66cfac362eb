package session_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// faults lists the errors that New joins.
func faults(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, faults(e)...)
	}
	return all
}

func TestConfigFaults(t *testing.T) {
	always := session.CookieConfig{Secure: session.SecureAlways}
	with := func(c session.CookieConfig, f func(*session.CookieConfig)) session.Config {
		f(&c)
		return session.Config{Secret: testSecret, Cookie: c}
	}
	cookie := func(f func(*session.CookieConfig)) session.Config { return with(session.CookieConfig{}, f) }
	const day = 24 * time.Hour
	for _, c := range []struct {
		name string
		cfg  session.Config
		want string // "" for none
	}{
		{"a secret is enough", session.Config{Secret: testSecret}, ""},
		{"no secret", session.Config{}, "Config.Secret (SESSION_SECRET) has 0 bytes, needs at least 32"},
		{"a token prefix", session.Config{Secret: testSecret, TokenPrefix: "shop_"}, ""},
		{"a token prefix without an underscore", session.Config{Secret: testSecret, TokenPrefix: "shop"}, `Config.TokenPrefix is "shop": use letters and digits with one underscore at the end`},
		{"a token prefix that begins with another", session.Config{Secret: testSecret, TokenPrefix: "shop_admin_"}, `Config.TokenPrefix is "shop_admin_": use`},
		{"a token prefix that no header can hold", session.Config{Secret: testSecret, TokenPrefix: "sh\u00f6p_"}, `use letters and digits with one underscore at the end`},
		{"secret of 31 bytes", session.Config{Secret: testSecret[:31]}, "Config.Secret (SESSION_SECRET) has 31 bytes, needs at least 32"},
		{"secret of 32 bytes", session.Config{Secret: testSecret[:32]}, ""},
		{"old secret of 31 bytes", session.Config{Secret: testSecret, OldSecrets: []string{testSecretOld, testSecretOld[:31]}}, "Config.OldSecrets[1] (SESSION_SECRET_OLD) has 31 bytes, needs at least 32"},
		{"Express without a secret", session.Config{Cookie: session.CookieConfig{Format: session.FormatExpress}}, "Config.Secret is empty"},
		{"Express with a short secret", session.Config{Secret: "cat", OldSecrets: []string{"dog"}, Cookie: session.CookieConfig{Format: session.FormatExpress}}, ""},
		{"Express with an empty old secret", session.Config{Secret: "cat", OldSecrets: []string{"dog", ""}, Cookie: session.CookieConfig{Format: session.FormatExpress}}, "Config.OldSecrets[1] (SESSION_SECRET_OLD) is empty"},
		{"negative idle timeout", session.Config{Secret: testSecret, IdleTimeout: -time.Hour}, "Config.IdleTimeout is -1h0m0s: must not be negative"},
		{"idle timeout under a millisecond", session.Config{Secret: testSecret, IdleTimeout: 999 * time.Microsecond}, "Config.IdleTimeout is 999µs: must be at least a millisecond"},
		{"idle timeout of 400 days", session.Config{Secret: testSecret, IdleTimeout: 400 * day}, ""},
		{"idle timeout over 400 days", session.Config{Secret: testSecret, IdleTimeout: 400*day + 1}, "Config.IdleTimeout is 9600h0m0.000000001s: browsers keep a cookie for 400 days"},
		{"longest idle timeout", session.Config{Secret: testSecret, IdleTimeout: math.MaxInt64}, "browsers keep a cookie for 400 days"},
		{"negative absolute timeout", session.Config{Secret: testSecret, AbsoluteTimeout: -1}, "Config.AbsoluteTimeout is -1ns: must not be negative; 0 means none"},
		{"absolute timeout over 400 days", session.Config{Secret: testSecret, AbsoluteTimeout: 1000 * day}, ""},
		{"negative touch interval", session.Config{Secret: testSecret, TouchInterval: -1}, "Config.TouchInterval is -1ns: must not be negative"},
		{"touch interval of a nanosecond", session.Config{Secret: testSecret, TouchInterval: 1}, ""},
		{"touch interval like the idle timeout", session.Config{Secret: testSecret, IdleTimeout: time.Hour, TouchInterval: time.Hour}, "Config.TouchInterval is 1h0m0s: must be less than IdleTimeout (1h0m0s)"},
		{"negative prune interval", session.Config{Secret: testSecret, PruneInterval: -1}, "Config.PruneInterval is -1ns: must not be negative"},
		{"endless prune interval", session.Config{Secret: testSecret, PruneInterval: 200 * 365 * 24 * time.Hour}, "Config.PruneInterval is 1752000h0m0s: must be less than a hundred years"},
		{"tiny prune interval", session.Config{Secret: testSecret, PruneInterval: 1}, "Config.PruneInterval is 1ns: must be at least a millisecond"},
		{"negative store timeout", session.Config{Secret: testSecret, StoreTimeout: -1}, "Config.StoreTimeout is -1ns: must not be negative"},
		{"tiny store timeout", session.Config{Secret: testSecret, StoreTimeout: 1}, "Config.StoreTimeout is 1ns: must be at least a millisecond"},
		{"negative size", session.Config{Secret: testSecret, MaxBytes: -1}, "Config.MaxBytes is -1: must not be negative"},

		{"unknown format", cookie(func(c *session.CookieConfig) { c.Format = 7 }), "Cookie.Format is CookieFormat(7): use FormatSecureCookie or FormatExpress"},
		{"unknown secure mode", cookie(func(c *session.CookieConfig) { c.Secure = -1 }), "Cookie.Secure is SecureMode(-1): use SecureAuto, SecureAlways or SecureNever"},
		{"unknown SameSite", cookie(func(c *session.CookieConfig) { c.SameSite = 9 }), "Cookie.SameSite is 9: use the constants of net/http"},
		{"name with a space", cookie(func(c *session.CookieConfig) { c.Name = "my session" }), `Cookie.Name "my session" is not a valid cookie name`},
		{"name with an equals sign", cookie(func(c *session.CookieConfig) { c.Name = "a=b" }), `Cookie.Name "a=b" is not a valid cookie name`},
		{"name with a line break", cookie(func(c *session.CookieConfig) { c.Name = "a\nb" }), `Cookie.Name "a\nb" is not a valid cookie name`},
		{"longest name", cookie(func(c *session.CookieConfig) { c.Name = strings.Repeat("n", 4096-200) }), ""},
		{"name too long", cookie(func(c *session.CookieConfig) { c.Name = strings.Repeat("n", 4096-199) }), "Cookie.Name has 3897 bytes: browsers refuse a name and value of over 4096 together"},
		{"bad domain", cookie(func(c *session.CookieConfig) { c.Domain = "exa mple.com" }), `Cookie.Domain "exa mple.com" is not a domain name`},
		{"domain with an attribute", cookie(func(c *session.CookieConfig) { c.Domain = "a.com; Path=/x" }), "is not a domain name"},
		{"domain with a dot", cookie(func(c *session.CookieConfig) { c.Domain = ".example.com" }), ""},
		{"path without a slash", cookie(func(c *session.CookieConfig) { c.Path = "app" }), `Cookie.Path "app" must begin with /`},
		{"path with a semicolon", cookie(func(c *session.CookieConfig) { c.Path = "/a;b" }), `Cookie.Path "/a;b" must begin with / and have no control characters and no semicolon`},
		{"path with a line break", cookie(func(c *session.CookieConfig) { c.Path = "/a\r\n" }), "no control characters"},
		{"path of 1,025 bytes", cookie(func(c *session.CookieConfig) { c.Path = "/" + strings.Repeat("p", 1024) }), "1024 bytes each"},

		{"SameSite None, Auto", cookie(func(c *session.CookieConfig) { c.SameSite = http.SameSiteNoneMode }), "Cookie.SameSite None needs Cookie.Secure: SecureAlways"},
		{"SameSite None, Never", cookie(func(c *session.CookieConfig) { c.SameSite, c.Secure = http.SameSiteNoneMode, session.SecureNever }), "Cookie.SameSite None needs Cookie.Secure: SecureAlways"},
		{"SameSite None, Always", with(always, func(c *session.CookieConfig) { c.SameSite = http.SameSiteNoneMode }), ""},
		{"Partitioned, Auto", cookie(func(c *session.CookieConfig) { c.Partitioned = true }), "Cookie.Partitioned needs Cookie.Secure: SecureAlways"},
		{"Partitioned, Always", with(always, func(c *session.CookieConfig) { c.Partitioned = true }), ""},
		{"__Secure-, Auto", cookie(func(c *session.CookieConfig) { c.Name = "__Secure-id" }), `Cookie.Name "__Secure-id" needs Cookie.Secure: SecureAlways`},
		{"__secure- in lower case, Never", cookie(func(c *session.CookieConfig) { c.Name, c.Secure = "__secure-id", session.SecureNever }), `Cookie.Name "__secure-id" needs Cookie.Secure: SecureAlways`},
		{"__Secure-, Always", with(always, func(c *session.CookieConfig) { c.Name, c.Domain, c.Path = "__Secure-id", "example.com", "/app" }), ""},
		{"__Host-, Auto", cookie(func(c *session.CookieConfig) { c.Name = "__Host-id" }), `Cookie.Name "__Host-id" needs Cookie.Secure: SecureAlways`},
		{"__HOST- in capitals, Auto", cookie(func(c *session.CookieConfig) { c.Name = "__HOST-id" }), `Cookie.Name "__HOST-id" needs Cookie.Secure: SecureAlways`},
		{"__Host-, Always", with(always, func(c *session.CookieConfig) { c.Name = "__Host-id" }), ""},
		{"__Host- with a Domain", with(always, func(c *session.CookieConfig) { c.Name, c.Domain = "__Host-id", "example.com" }), `Cookie.Name "__Host-id" needs Cookie.Path / and no Cookie.Domain`},
		{"__Host- with a Path", with(always, func(c *session.CookieConfig) { c.Name, c.Path = "__hOsT-id", "/app" }), `Cookie.Name "__hOsT-id" needs Cookie.Path / and no Cookie.Domain`},
		{"a name that only looks like it", cookie(func(c *session.CookieConfig) { c.Name = "__Hostid" }), ""},
	} {
		c.cfg.Logger = slog.New(slog.DiscardHandler)
		m, err := session.New(session.NewMemoryStore(), c.cfg)
		if m != nil {
			_ = m.Close()
		}
		got := faults(err)
		switch {
		case c.want == "" && len(got) != 0:
			t.Errorf("%s: got %q, want no fault", c.name, got)
		case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		case c.want != "" && !strings.HasPrefix(got[0], "session: "):
			t.Errorf("%s: got %q, want it to begin with session:", c.name, got[0])
		case c.want != "" && m != nil:
			t.Errorf("%s: got a Manager beside an error", c.name)
		}
	}
}

func TestConfigReportsAllFaultsAtOnce(t *testing.T) {
	const short = "short-secret-not-for-eyes"
	_, err := session.New(nil, session.Config{
		Secret:          short,
		OldSecrets:      []string{"another-not-for-eyes"},
		IdleTimeout:     -1,
		AbsoluteTimeout: -1,
		TouchInterval:   -1,
		PruneInterval:   -1,
		StoreTimeout:    -1,
		MaxBytes:        -1,
		Cookie: session.CookieConfig{
			Format: 9, Name: "__Host-" + strings.Repeat("x ", 2000), Domain: strings.Repeat("b d", 400), Path: "p",
			SameSite: 9, Secure: 9, Partitioned: true,
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	text := strings.Join(faults(err), "\n")
	for _, want := range []string{
		"store is nil", "Config.Secret (", "Config.OldSecrets[0]", "Config.IdleTimeout", "Config.AbsoluteTimeout",
		"Config.TouchInterval", "Config.PruneInterval", "Config.StoreTimeout", "Config.MaxBytes", "Cookie.Format",
		"Cookie.Secure is", "is not a valid cookie name", "is not a domain name", "must begin with /", "Cookie.Name has",
		"1024 bytes each", "Cookie.SameSite is 9", "Cookie.Partitioned", "needs Cookie.Secure: SecureAlways", "needs Cookie.Path /",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got nothing with %q", want)
		}
	}
	if strings.Contains(text, "not-for-eyes") {
		t.Error("got a secret in the error")
	}
}

func TestConfigFromEnv(t *testing.T) {
	for _, c := range []struct {
		name                         string
		secret, old, timeout, sealed string
		want                         session.Config
		errs                         []string // each part of one fault
	}{
		{name: "a secret is enough", secret: testSecret, want: session.Config{Secret: testSecret}},
		{name: "nothing", errs: []string{"SESSION_SECRET is not set"}},
		{
			name: "everything", secret: testSecret, old: "  one two\tthree ", timeout: "3600000", sealed: "true",
			want: session.Config{Secret: testSecret, OldSecrets: []string{"one", "two", "three"}, IdleTimeout: time.Hour, Encrypt: true},
		},
		{name: "old secrets blank", secret: testSecret, old: "   ", want: session.Config{Secret: testSecret}},
		{name: "default written out", secret: testSecret, timeout: "86400000", want: session.Config{Secret: testSecret, IdleTimeout: 24 * time.Hour}},
		{name: "milliseconds with spaces", secret: testSecret, timeout: " 60000 ", want: session.Config{Secret: testSecret, IdleTimeout: time.Minute}},
		{name: "one millisecond", secret: testSecret, timeout: "1", want: session.Config{Secret: testSecret, IdleTimeout: time.Millisecond}},
		{name: "duration", secret: testSecret, timeout: "30m", want: session.Config{Secret: testSecret, IdleTimeout: 30 * time.Minute}},
		{name: "compound duration", secret: testSecret, timeout: "1h30m", want: session.Config{Secret: testSecret, IdleTimeout: 90 * time.Minute}},
		{name: "fraction", secret: testSecret, timeout: "1.5h", want: session.Config{Secret: testSecret, IdleTimeout: 90 * time.Minute}},
		{name: "timeout zero", secret: testSecret, timeout: "0", errs: []string{`SESSION_TIMEOUT="0": must be more than zero`}},
		{name: "timeout zero as a duration", secret: testSecret, timeout: "0s", errs: []string{`SESSION_TIMEOUT="0s": must be more than zero`}},
		{name: "timeout negative", secret: testSecret, timeout: "-5", errs: []string{`SESSION_TIMEOUT="-5": must be more than zero`}},
		{name: "timeout negative, about to overflow", secret: testSecret, timeout: "-9223372036854775807", errs: []string{`SESSION_TIMEOUT="-9223372036854775807": must be more than zero`}},
		{name: "timeout a negative duration", secret: testSecret, timeout: "-30m", errs: []string{`SESSION_TIMEOUT="-30m": must be more than zero`}},
		{name: "timeout no number", secret: testSecret, timeout: "soon", errs: []string{`SESSION_TIMEOUT="soon": is neither a whole number of milliseconds nor a duration like 30m`}},
		{name: "timeout with a space", secret: testSecret, timeout: "30 m", errs: []string{`SESSION_TIMEOUT="30 m": is neither`}},
		{name: "timeout with a fraction of a millisecond", secret: testSecret, timeout: "1.5", errs: []string{`SESSION_TIMEOUT="1.5": is neither`}},
		{name: "timeout in exponents", secret: testSecret, timeout: "1e3", errs: []string{`SESSION_TIMEOUT="1e3": is neither`}},
		{name: "timeout in hexadecimal", secret: testSecret, timeout: "0x10", errs: []string{`SESSION_TIMEOUT="0x10": is neither`}},
		{name: "timeout of days", secret: testSecret, timeout: "7d", errs: []string{`SESSION_TIMEOUT="7d": is neither`}},
		{name: "timeout of blanks", secret: testSecret, timeout: "  ", errs: []string{`SESSION_TIMEOUT="  ": is neither`}},
		{name: "timeout under a millisecond", secret: testSecret, timeout: "1us", errs: []string{`SESSION_TIMEOUT="1us": must be at least a millisecond`}},
		{name: "timeout longer than a Duration", secret: testSecret, timeout: "9223372036855", errs: []string{`SESSION_TIMEOUT="9223372036855": is too long`}},
		{name: "timeout longer than an integer", secret: testSecret, timeout: "99999999999999999999", errs: []string{`SESSION_TIMEOUT="99999999999999999999": is`}},
		{name: "encrypt no boolean", secret: testSecret, sealed: "maybe", errs: []string{`SESSION_ENCRYPT="maybe": must be true or false`}},
		{name: "all at once", timeout: "x", sealed: "y", errs: []string{"SESSION_SECRET is not set", `SESSION_TIMEOUT="x"`, `SESSION_ENCRYPT="y"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SESSION_SECRET", c.secret)
			t.Setenv("SESSION_SECRET_OLD", c.old)
			t.Setenv("SESSION_TIMEOUT", c.timeout)
			t.Setenv("SESSION_ENCRYPT", c.sealed)
			cfg, err := session.ConfigFromEnv()
			got := faults(err)
			if len(got) != len(c.errs) {
				t.Fatalf("got %q, want %d faults", got, len(c.errs))
			}
			for i, want := range c.errs {
				if !strings.HasPrefix(got[i], "session: ") || !strings.Contains(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
			if len(c.errs) > 0 {
				return
			}
			if cfg.Secret != c.want.Secret || strings.Join(cfg.OldSecrets, " ") != strings.Join(c.want.OldSecrets, " ") {
				t.Error("got other secrets than set")
			}
			if cfg.IdleTimeout != c.want.IdleTimeout || cfg.Encrypt != c.want.Encrypt {
				t.Errorf("got %v, %v, want %v, %v", cfg.IdleTimeout, cfg.Encrypt, c.want.IdleTimeout, c.want.Encrypt)
			}
		})
	}
}

func TestConfigFromEnvShowsNoSecret(t *testing.T) {
	t.Setenv("SESSION_SECRET", "not-for-eyes")
	t.Setenv("SESSION_SECRET_OLD", "not-for-eyes-either also-not-for-eyes")
	t.Setenv("SESSION_TIMEOUT", "x")
	cfg, err := session.ConfigFromEnv()
	cfg.Logger = slog.New(slog.DiscardHandler)
	_, err2 := session.New(session.NewMemoryStore(), cfg)
	if text := fmt.Sprint(err, err2); strings.Contains(text, "not-for-eyes") {
		t.Error("got a secret in an error")
	}
	if got := len(faults(err2)); got != 3 {
		t.Errorf("got %d faults of New, want 3: each secret is short", got)
	}
}

func TestConfigWarnings(t *testing.T) {
	express := session.CookieConfig{Format: session.FormatExpress}
	for _, c := range []struct {
		name  string
		store session.Store
		cfg   session.Config
		want  []string
	}{
		{"nothing to warn about", newHookedStore(), session.Config{Secret: testSecret, IdleTimeout: time.Minute}, nil},
		{"memory store", session.NewMemoryStore(), session.Config{Secret: testSecret}, []string{"memory store"}},
		{"seconds for milliseconds", newHookedStore(), session.Config{Secret: testSecret, IdleTimeout: 3600 * time.Millisecond}, []string{"under a minute"}},
		{"Express, short secret", newHookedStore(), session.Config{Secret: "a kitten on the keys", Cookie: express}, []string{"under 32 bytes"}},
		{"Express, short old secret", newHookedStore(), session.Config{Secret: testSecret, OldSecrets: []string{"a kitten on the keys"}, Cookie: express}, []string{"under 32 bytes"}},
		{"Express, public old secret", newHookedStore(), session.Config{Secret: testSecret, OldSecrets: []string{"keyboard cat"}, Cookie: express}, []string{"number 1 of SESSION_SECRET_OLD"}},
		{"public secret in development", session.NewMemoryStore(), session.Config{Secret: "change me, whoever you are, at once"}, []string{"memory store", "tutorials"}},
		{"a sentence", newHookedStore(), session.Config{Secret: "nobody ever will find out what I wrote here"}, []string{"does not look random"}},
		{"Express, long secrets", newHookedStore(), session.Config{Secret: testSecret, OldSecrets: []string{testSecretOld}, Cookie: express}, nil},
		{"Express, encrypted", newHookedStore(), session.Config{Secret: testSecret, Encrypt: true, Cookie: express}, []string{"Express cannot read"}},
	} {
		log := &logRecorder{}
		c.cfg.Logger = log.logger()
		c.cfg.DisablePrune = true
		m, err := session.New(c.store, c.cfg)
		if err != nil {
			t.Errorf("%s: got %v, want no error", c.name, err)
			continue
		}
		_ = m.Close()
		text := log.String()
		if got := strings.Count(text, "level=WARN"); got != len(c.want) {
			t.Errorf("%s: got %d warnings, want %d", c.name, got, len(c.want))
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: got no warning with %q", c.name, want)
			}
		}
		for _, secret := range append([]string{c.cfg.Secret}, c.cfg.OldSecrets...) {
			if strings.Contains(text, secret) {
				t.Errorf("%s: got a secret in the log", c.name)
			}
		}
	}
}

func TestStartLog(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  session.Config
		want map[string]any
	}{
		{"defaults", session.Config{Secret: testSecret}, map[string]any{
			"store": "memory", "cookie": "session", "format": "securecookie", "secure": "auto", "sameSite": "lax",
			"idleTimeoutMs": 86400000., "absoluteTimeoutMs": 0., "touchIntervalMs": 60000., "pruneIntervalMs": 900000.,
			"prune": true, "trustProxy": false, "encrypt": false, "storeTimeoutMs": 5000., "oldSecrets": 0.,
			"secretFingerprint": fingerprint(testSecret),
		}},
		{"short idle timeout", session.Config{Secret: testSecret, IdleTimeout: 5 * time.Minute}, map[string]any{
			"idleTimeoutMs": 300000., "touchIntervalMs": 30000.,
		}},
		{"all set", session.Config{
			Secret: testSecret, OldSecrets: []string{testSecretOld}, IdleTimeout: time.Hour, AbsoluteTimeout: 12 * time.Hour,
			TouchInterval: 2 * time.Second, PruneInterval: time.Minute, DisablePrune: true, StoreTimeout: time.Second, TrustProxy: true,
			Cookie: session.CookieConfig{Format: session.FormatExpress, Name: "sid", Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode},
		}, map[string]any{
			"store": "memory", "cookie": "sid", "format": "express", "secure": "always", "sameSite": "none",
			"idleTimeoutMs": 3600000., "absoluteTimeoutMs": 43200000., "touchIntervalMs": 2000., "pruneIntervalMs": 60000.,
			"prune": false, "trustProxy": true, "storeTimeoutMs": 1000., "oldSecrets": 1.,
		}},
		{"others", session.Config{Secret: testSecret, Cookie: session.CookieConfig{
			Format: session.FormatExpress, Secure: session.SecureNever, SameSite: http.SameSiteStrictMode,
		}}, map[string]any{"cookie": "connect.sid", "secure": "never", "sameSite": "strict"}},
		{"no SameSite", session.Config{Secret: testSecret, Cookie: session.CookieConfig{SameSite: http.SameSiteDefaultMode}}, map[string]any{"sameSite": "unset"}},
	} {
		var b bytes.Buffer
		c.cfg.Logger = slog.New(slog.NewJSONHandler(&b, nil))
		m, err := session.New(session.NewMemoryStore(), c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = m.Close()
		var got map[string]any
		for line := range strings.Lines(b.String()) {
			got = nil
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err)
			}
		}
		if got["msg"] != "session: ready" || got["level"] != "INFO" {
			t.Errorf("%s: last line: got %q at %q, want session: ready at INFO", c.name, got["msg"], got["level"])
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s: got %v, want %v", c.name, name, got[name], want)
			}
		}
		for _, secret := range []string{testSecret, testSecretOld} {
			if strings.Contains(b.String(), secret) {
				t.Errorf("%s: got a secret in the log", c.name)
			}
		}
	}
}

// New has its own copy of everything in Config.
func TestConfigIsCopied(t *testing.T) {
	for _, f := range bothFormats {
		store := newHookedStore()
		cookie := session.CookieConfig{Format: f.format}
		b := login(t, newManager(t, store, session.Config{Secret: testSecretOld, Cookie: cookie}))
		old := []string{testSecretOld}
		b.m = newManager(t, store, session.Config{OldSecrets: old, Cookie: cookie})
		old[0] = strings.Repeat("overwritten", 3)
		if got := b.user(); got != "ada" {
			t.Errorf("%s: the caller's slice changed: got user %q, want ada", f.name, got)
		}
	}
}

func TestStringsOfTheEnumerations(t *testing.T) {
	for _, c := range []struct {
		got  fmt.Stringer
		want string
	}{
		{session.FormatSecureCookie, "securecookie"},
		{session.FormatExpress, "express"},
		{session.CookieFormat(5), "CookieFormat(5)"},
		{session.SecureAuto, "auto"},
		{session.SecureAlways, "always"},
		{session.SecureNever, "never"},
		{session.SecureMode(5), "SecureMode(5)"},
	} {
		if got := c.got.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestErrorHandlerIsUsed(t *testing.T) {
	store := newHookedStore()
	var saw error
	m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		saw = err
		session.From(r.Context()).Keys() // no I/O, no deadlock
		w.Header().Set("Cache-Control", "public")
		w.WriteHeader(http.StatusTeapot)
	}})
	b := login(t, m)
	store.on("Load", fails(errStoreDown))
	resp := b.visit(func(s *session.Session) { userKey.Get(s) })
	wantResponse(t, "outage", resp, http.StatusTeapot, "nothing")
	if saw == nil || resp.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got error %v, Cache-Control %q, want one, no-store", saw, resp.header.Get("Cache-Control"))
	}
}

func TestFromWithoutHandlerPanics(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{})
	r := httptest.NewRequest("GET", "/", nil)
	for name, from := range map[string]func(){
		"From":         func() { session.From(r.Context()) },
		"Manager.From": func() { m.From(r.Context()) },
	} {
		func() {
			defer func() {
				if v, ok := recover().(string); !ok || !strings.Contains(v, "Handler") {
					t.Errorf("%s: got no panic that says what to do", name)
				}
			}()
			from()
		}()
	}
}

// FuzzTimeout holds that SESSION_TIMEOUT is either refused or means what is
// written there.
func FuzzTimeout(f *testing.F) {
	for _, seed := range []string{"86400000", "30m", "-5", "0", "9223372036855", "-9223372036854775807", "1.5h", " 7 ", "+3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		d, err := session.ParseTimeout(v)
		if err != nil {
			if d != 0 || err.Error() == "" {
				t.Fatalf("%q: got %v beside error %q", v, d, err)
			}
			return
		}
		if d < time.Millisecond {
			t.Fatalf("%q: got %v, want at least a millisecond", v, d)
		}
		if ms, ok := new(big.Int).SetString(strings.TrimSpace(v), 10); ok {
			if !ms.IsInt64() || d%time.Millisecond != 0 || ms.Int64() != d.Milliseconds() {
				t.Fatalf("%q: got %v, want so many milliseconds", v, d)
			}
			return
		}
		if want, err := time.ParseDuration(strings.TrimSpace(v)); err != nil || want != d {
			t.Fatalf("%q: got %v, want %v, %v", v, d, want, err)
		}
	})
}
