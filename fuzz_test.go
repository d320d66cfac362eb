package session_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/row"
)

// Fuzz targets that go through the whole manager; their seeds are in
// testdata/fuzz. internal/fuzz/run runs all targets of the module for long.

// cookieAttributes are the attributes that a Set-Cookie header may have.
var cookieAttributes = []string{"Domain", "Path", "Expires", "Max-Age", "HttpOnly", "Secure", "Partitioned", "Priority", "SameSite"}

// parseSetCookie takes a Set-Cookie header apart; the error is what an attacker
// would like about it.
func parseSetCookie(line string) (c *http.Cookie, attributes map[string]string, err error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i := range len(line) {
		if line[i] < ' ' || line[i] > '~' {
			fault("byte %#x in the header", line[i])
		}
	}
	if c, err = http.ParseSetCookie(line); err != nil {
		return &http.Cookie{}, nil, err
	}
	_, rest, _ := strings.Cut(line, "; ")
	attributes = make(map[string]string)
	for _, attribute := range strings.Split(rest, "; ") {
		name, value, _ := strings.Cut(attribute, "=")
		if _, twice := attributes[name]; twice || !slices.Contains(cookieAttributes, name) || strings.Contains(value, ";") {
			fault("attribute %q", attribute)
		}
		attributes[name] = value
	}
	if !c.HttpOnly {
		fault("no HttpOnly")
	}
	return c, attributes, errors.Join(errs...)
}

// refusedByBrowsers says why a browser would drop the cookie or a part of it
// (RFC 6265bis, sections 5.5 to 5.7).
func refusedByBrowsers(c *http.Cookie, attributes map[string]string) error {
	const most = 400 * 24 * time.Hour
	_, secure := attributes["Secure"]
	_, partitioned := attributes["Partitioned"]
	_, domain := attributes["Domain"]
	lower := strings.ToLower(c.Name)
	host := strings.HasPrefix(lower, "__host-")
	switch {
	case !secure && (partitioned || attributes["SameSite"] == "None" || host || strings.HasPrefix(lower, "__secure-")):
		return errors.New("no Secure")
	case host && (domain || attributes["Path"] != "/"):
		return errors.New("a __Host- cookie with a Domain or Path")
	case len(c.Name)+len(c.Value) > 4096:
		return fmt.Errorf("name and value have %d bytes", len(c.Name)+len(c.Value))
	case c.MaxAge > int(most/time.Second) || time.Until(c.Expires) > most+2*time.Second:
		return errors.New("a life of over 400 days")
	}
	for name, value := range attributes {
		if len(value) > 1024 {
			return fmt.Errorf("%s has %d bytes", name, len(value))
		}
	}
	return nil
}

// FuzzConfig holds that New refuses a configuration, saying nothing of its
// secrets, or makes a Manager whose cookies browsers accept and send back.
func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, secret, old, name, domain, path, userKey string,
		idle, absolute, touch, prune, storeTimeout int64, maxBytes, maxPerUser, format, sameSite, secure int, flags uint8,
	) {
		on := func(bit int) bool { return flags>>bit&1 == 1 }
		const mark = "the-secret-mark"
		cfg := session.Config{
			Secret: mark + secret, OldSecrets: strings.Fields(old), IdleTimeout: time.Duration(idle), AbsoluteTimeout: time.Duration(absolute),
			TouchInterval: time.Duration(touch), PruneInterval: time.Duration(prune), StoreTimeout: time.Duration(storeTimeout),
			MaxBytes: maxBytes, UserKey: userKey, MaxPerUser: maxPerUser,
			Cookie: session.CookieConfig{
				Format: session.CookieFormat(format), Name: name, Domain: domain, Path: path,
				SameSite: http.SameSite(sameSite), Secure: session.SecureMode(secure), Partitioned: on(0), BrowserSession: on(1),
			},
			TrustProxy: on(2), Encrypt: on(3), DisablePrune: on(4), Logger: slog.New(slog.DiscardHandler),
		}
		if secret == "" {
			cfg.Secret = ""
		}
		m, err := session.New(session.NewMemoryStore(), cfg)
		if err != nil {
			if m != nil || strings.Contains(err.Error(), mark) {
				t.Fatal("New: got a Manager beside the error, or the secret in it")
			}
			return
		}
		defer m.Close()
		url := "http://x/"
		if on(5) {
			url = "https://x/"
		}
		lives := func(timeout int64) bool { return timeout == 0 || timeout > int64(time.Minute) }
		checkLogin(t, m, url, lives(idle) && lives(absolute))
	})
}

// checkLogin logs in, comes back and logs out, unless the configuration is too
// tight for that. lives says that the session does not end at once.
func checkLogin(t *testing.T, m *session.Manager, url string, lives bool) {
	visit := func(c *http.Cookie, use func(*session.Session)) (status int, set *http.Cookie) {
		r, w := httptest.NewRequest(http.MethodGet, url, nil), httptest.NewRecorder()
		if c != nil {
			r.Header.Set("Cookie", c.Name+"="+c.Value)
		}
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { use(session.From(r.Context())) })).ServeHTTP(w, r)
		lines := w.Header()["Set-Cookie"]
		if len(lines) == 0 {
			return w.Code, nil
		}
		set, attributes, err := parseSetCookie(lines[0])
		if err = errors.Join(err, refusedByBrowsers(set, attributes)); err != nil || len(lines) > 1 {
			t.Fatalf("Set-Cookie: got %d, %v, want one that browsers accept", len(lines), err)
		}
		return w.Code, set
	}
	status, cookie := visit(nil, func(s *session.Session) { userKey.Set(s, "ada") })
	if (status == http.StatusOK) != (cookie != nil && cookie.Value != "") {
		t.Fatalf("login: got status %d and a cookie %t, want one with 200 only", status, cookie != nil)
	}
	if cookie == nil {
		return // MaxBytes is too small, or StoreTimeout
	}
	var user string
	if status, _ = visit(cookie, func(s *session.Session) { user, _ = userKey.Get(s) }); status == http.StatusOK && lives && user != "ada" {
		t.Fatal("the cookie sent back: got nobody, want ada")
	}
	status, cookie = visit(cookie, (*session.Session).Destroy)
	if status == http.StatusOK && (cookie == nil || cookie.Value != "") {
		t.Fatalf("logout: got a cookie %t, want one without a value", cookie != nil)
	}
}

// FuzzConfigFromEnv holds that the environment is refused, in an error that
// names the variable and shows no secret, or says what the Config then says.
func FuzzConfigFromEnv(f *testing.F) {
	f.Fuzz(func(t *testing.T, secret, old, timeout, encrypt string) {
		if strings.Contains(secret+old+timeout+encrypt, "\x00") {
			return // no environment holds it
		}
		const mark = "the-secret-mark"
		if secret != "" {
			secret = mark + secret
		}
		if old != "" {
			old = mark + old
		}
		for name, value := range map[string]string{
			"SESSION_SECRET": secret, "SESSION_SECRET_OLD": old, "SESSION_TIMEOUT": timeout, "SESSION_ENCRYPT": encrypt,
		} {
			t.Setenv(name, value)
		}
		cfg, err := session.ConfigFromEnv()
		if err == nil {
			cfg.Logger = slog.New(slog.DiscardHandler)
			var m *session.Manager
			if m, err = session.New(session.NewMemoryStore(), cfg); err == nil {
				_ = m.Close()
			}
		}
		if err != nil && strings.Contains(err.Error(), mark) {
			t.Fatal("got a secret in the error")
		}
		want := strings.Fields(old)
		if cfg.Secret != secret || !slices.Equal(cfg.OldSecrets, want) {
			t.Fatal("got other secrets than the environment's")
		}
		if err != nil {
			return
		}
		if on, perr := strconv.ParseBool(encrypt); encrypt != "" && (perr != nil || on != cfg.Encrypt) {
			t.Fatalf("SESSION_ENCRYPT: got %t", cfg.Encrypt)
		}
		if timeout != "" && cfg.IdleTimeout < time.Millisecond {
			t.Fatalf("SESSION_TIMEOUT: got %v", cfg.IdleTimeout)
		}
	})
}

// rowStore is a store with one row, whose writes come to nothing.
type rowStore struct {
	*hookedStore
	data []byte
	ttl  time.Duration
}

func newRowStore(ttl time.Duration) *rowStore {
	s := &rowStore{hookedStore: newHookedStore(), ttl: ttl}
	s.on("*", fails(nil))
	s.on("Load", func(_ context.Context, c *storeCall, _ func() error) error {
		s.forget() // millions of them
		c.record = session.Record{Data: s.data, TTL: s.ttl}
		return nil
	})
	return s
}

func (s *rowStore) browser(tb testing.TB, cfg session.Config, id string) *browser {
	tb.Helper()
	m := newManager(tb, s, cfg)
	value, err := m.SignCookie(id)
	if err != nil {
		tb.Fatal(err)
	}
	name := "session"
	if cfg.Cookie.Format == session.FormatExpress {
		name = "connect.sid"
	}
	return &browser{m: m, cookie: name + "=" + value}
}

// recordedSeal is what the first version of the format made of {"user":"ada"}
// under testSecret for recordedID; it must open for ever.
const (
	recordedSeal = "o90DFt366r3FJUn1qkGO53fng2OxSYGVp4zBhZIsWsjNv15Jw3pnon4U"
	recordedUser = "ada"
)

var recordedID = strings.Repeat("i", 32)

// FuzzSealedRecord holds that no row opens but the one that was sealed: with one
// byte changed it is an error, whatever stands beside it, and never an empty
// session.
func FuzzSealedRecord(f *testing.F) {
	store := newRowStore(time.Hour)
	b := store.browser(f, session.Config{Encrypt: true, TouchInterval: session.DefaultIdleTimeout - 1}, recordedID)
	genuine, err := base64.RawStdEncoding.DecodeString(recordedSeal)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		store.data = data
		var user string
		var fresh bool
		resp := b.with(b.m).visit(func(s *session.Session) {
			user, _ = userKey.Get(s)
			fresh = s.IsNew()
		})
		p, err := row.Parse(data)
		sealed := p.Get("__sealed")
		var text string
		switch {
		case err != nil:
			if resp.status != 200 || !fresh || user != "" {
				t.Fatalf("no record: got status %d, user %q, new %t, want a new session", resp.status, user, fresh)
			}
		case sealed == nil:
			if resp.status != 200 || fresh {
				t.Fatalf("a plain record: got status %d, new %t, want it read", resp.status, fresh)
			}
		case json.Unmarshal(sealed, &text) == nil && decodes(text, genuine):
			if resp.status != 200 || user != recordedUser {
				t.Fatalf("the sealed record: got status %d, user %q, want it open", resp.status, user)
			}
		default:
			if resp.status != 503 || user != "" {
				t.Fatalf("a modified record: got status %d, user %q, want 503", resp.status, user)
			}
		}
	})
}

func decodes(text string, want []byte) bool {
	got, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && string(got) == string(want)
}

// FuzzSetCookie holds that neither the cookie object of a row nor a proxy's
// header puts anything into the response but the attributes they stand for.
func FuzzSetCookie(f *testing.F) {
	row := newRowStore(time.Nanosecond)
	var browsers []*browser
	var codecs []cookie.Codec
	for _, format := range bothFormats {
		codec, err := cookie.NewCodec([]string{testSecret}, format.format == session.FormatExpress)
		if err != nil {
			f.Fatal(err)
		}
		codecs = append(codecs, codec)
		browsers = append(browsers, row.browser(f, session.Config{TouchInterval: 1, TrustProxy: true, Cookie: session.CookieConfig{Format: format.format}}, recordedID))
	}
	f.Fuzz(func(t *testing.T, object []byte, proto string, op uint8) {
		object = object[:min(len(object), 4096)]
		row.data = slices.Concat([]byte(`{"cookie":`), object, []byte(`,"user":"ada"}`))
		for i, b := range browsers {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["X-Forwarded-Proto"] = []string{proto}
			r.Header["Cookie"] = []string{b.cookie}
			if op%5 == 4 {
				r.Header.Del("Cookie")
			}
			w := httptest.NewRecorder()
			b.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				userKey.Get(s)
				switch op % 5 {
				case 1:
					s.Renew()
				case 2:
					s.Destroy()
				case 3:
					s.SetIdleTimeout(time.Duration(math.MaxInt32) * time.Millisecond)
				case 4:
					keyA.Set(s, "new")
				}
			})).ServeHTTP(w, r)
			lines := w.Header()["Set-Cookie"]
			if w.Code != 200 || len(lines) > 1 {
				t.Fatalf("format %d: got status %d, %d cookies", i, w.Code, len(lines))
			}
			for _, line := range lines {
				checkCookie(t, codecs[i], row.data, line, proto, bothFormats[i].format)
			}
			w.Header().Del("Set-Cookie")
			for name, values := range w.Header() {
				line := name + ": " + strings.Join(values, "|")
				dropped := line == `Clear-Site-Data: "prefetchCache"|"prerenderCache"` && op%5 == 2 && overHTTPS(proto)
				if !dropped && !slices.Contains([]string{"Vary: Cookie", "Cache-Control: no-store"}, line) {
					t.Fatalf("format %d: got header %s: %q", i, name, values)
				}
			}
		}
	})
}

func checkCookie(t *testing.T, codec cookie.Codec, data []byte, line, proto string, format session.CookieFormat) {
	t.Helper()
	c, got, err := parseSetCookie(line)
	if err != nil {
		t.Fatalf("Set-Cookie: got %v", err)
	}
	if found, _ := codec.Find([]string{c.Name + "=" + c.Value}, c.Name, nil); c.Value != "" && len(found) == 0 {
		t.Fatal("Set-Cookie: got a value without a signature")
	}
	for _, name := range []string{"Expires", "Max-Age", "HttpOnly"} {
		delete(got, name)
	}
	first, _, _ := strings.Cut(proto, ",")
	configured := map[string]string{"Path": "/", "SameSite": "Lax"}
	if strings.EqualFold(strings.TrimSpace(first), "https") {
		configured["Secure"] = ""
	}
	if maps.Equal(got, configured) {
		return
	}
	if format == session.FormatSecureCookie {
		t.Fatalf("attributes: got %q, want the configuration's, %q", got, configured)
	}
	var stored struct{ Cookie map[string]any }
	if json.Unmarshal(data, &stored) != nil || !utf8.Valid(data) {
		return // encoding/json reads it otherwise
	}
	for name, value := range got {
		want := stored.Cookie[strings.ToLower(name[:1])+name[1:]]
		switch name {
		case "Path", "Domain":
			if value != want && (name != "Path" || value != "/" || want != nil) {
				t.Fatalf("%s: got %q, want the row's %q", name, value, want)
			}
		case "Secure", "Partitioned":
			if want != true {
				t.Fatalf("%s: got it set, want the row's %v", name, want)
			}
		}
	}
}

// overHTTPS reads an X-Forwarded-Proto as the library is to.
func overHTTPS(proto string) bool {
	client, _, _ := strings.Cut(proto, ",")
	return strings.EqualFold(strings.TrimSpace(client), "https")
}
