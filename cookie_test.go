package session_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// expressVectors are cookies and rows that express-session and
// connect-pg-simple really produced and accepted.
type expressVectors struct {
	Sign []struct {
		Val, Secret, Signed string
	}
	Cookies []struct {
		Name               string
		Secrets            []string
		CookieHeader       any      `json:"cookie_header"` // a string, or several lines
		CookieHeaderBase64 []string `json:"cookie_header_base64"`
		Verifies           bool
		SIDSeenByStore     *string `json:"sid_seen_by_store"`
	}
	Rows []struct {
		Name, Timezone, SID, Sess string
		EpochSentByNode           int64  `json:"epoch_sent_by_node"`
		SetCookie                 string `json:"set_cookie"`
		CreatedMsApprox           int64  `json:"created_ms_approx"`
	}
}

func readExpressVectors(t testing.TB) expressVectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/express/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v expressVectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Sign) == 0 || len(v.Cookies) == 0 || len(v.Rows) == 0 {
		t.Fatal("got no vectors")
	}
	for i, signed := range v.Sign {
		if expressSigned(signed.Secret, signed.Val) != "s:"+signed.Signed {
			t.Errorf("vector %d: the test's own signature differs from cookie-signature's", i)
		}
	}
	return v
}

// expressManager signs with the first secret.
func expressManager(t testing.TB, store session.Store, secrets []string, cfg session.Config) *session.Manager {
	t.Helper()
	cfg.Cookie.Format = session.FormatExpress
	m := newManager(t, store, cfg)
	if err := m.UseSecrets(secrets[0], secrets[1:]...); err != nil { // what was recorded has one that New refuses
		t.Fatal(err)
	}
	return m
}

// expressSigned is express-session's value before encoding, made without the
// library.
func expressSigned(secret, sid string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(sid))
	return "s:" + sid + "." + strings.TrimRight(base64.StdEncoding.EncodeToString(h.Sum(nil)), "=")
}

// visitWith sends the Cookie header lines as they stand.
func visitWith(m *session.Manager, lines []string, h func(*session.Session)) *response {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["Cookie"] = lines
	return (&browser{m: m}).send(r, func(_ http.ResponseWriter, r *http.Request) { h(session.From(r.Context())) })
}

// askedFor returns the ID that the store is asked for when a session with
// these header lines is read; ok is false if it is asked for nothing.
func askedFor(t testing.TB, store *hookedStore, m *session.Manager, lines []string) (sid string, ok bool) {
	t.Helper()
	store.took()
	store.on("Load", func(_ context.Context, c *storeCall, do func() error) error {
		sid, ok = c.id, true
		return do()
	})
	resp := visitWith(m, lines, func(s *session.Session) {
		userKey.Get(s)
		if err := s.Err(); err != nil {
			t.Errorf("Err: got %v, want none", err)
		}
	})
	wantResponse(t, "read", resp, 200, "nothing")
	if calls := store.took(); ok != (calls == "Load") || !ok && calls != "" {
		t.Errorf("got calls %q, want one Load or nothing", calls)
	}
	return sid, ok
}

func TestExpressCookieVectors(t *testing.T) {
	for _, v := range readExpressVectors(t).Cookies {
		t.Run(v.Name, func(t *testing.T) {
			var lines []string
			switch h := v.CookieHeader.(type) {
			case string:
				lines = []string{h}
			case []any:
				for _, line := range h {
					lines = append(lines, line.(string))
				}
			}
			for _, line := range v.CookieHeaderBase64 {
				raw, err := base64.StdEncoding.DecodeString(line)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, string(raw))
			}
			if len(lines) == 0 {
				t.Fatal("got no Cookie header in the vector")
			}
			store := newHookedStore()
			sid, ok := askedFor(t, store, expressManager(t, store, v.Secrets, session.Config{}), lines)
			if ok != v.Verifies {
				t.Errorf("the store was asked: got %v, want %v", ok, v.Verifies)
			}
			if v.SIDSeenByStore != nil && sid != *v.SIDSeenByStore {
				t.Error("the store was asked for another ID than in Express")
			}
		})
	}
}

// Cases that were observed in the same way but whose bytes have to be built.
func TestExpressCookieCases(t *testing.T) {
	const (
		secret = "keyboard cat"
		sid    = "7pXU3S_M6m9c0ZlLQ5f8-uQm4dF0a1bC"
		plusID = "sid11xxxxxxxxxxxxxxxxxxxxxxxxxxx" // its signature has + and /
	)
	signed := expressSigned(secret, sid)
	plus := expressSigned(secret, plusID)
	mac := signed[strings.LastIndexByte(signed, '.')+1:]
	cookie := func(value string) []string { return []string{"connect.sid=" + value} }
	encoded := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	good := encoded(signed)
	keep := []string{secret}
	for _, c := range []struct {
		name    string
		secrets []string
		lines   []string
		want    string // the ID; "" for none
	}{
		{"lower-case hex escapes", keep, cookie(strings.NewReplacer("%3A", "%3a", "%2F", "%2f", "%2B", "%2b").Replace(encoded(plus))), plusID},
		{"plus sent as %20", keep, cookie(strings.ReplaceAll(encoded(plus), "%2B", "%20")), ""},
		{"base64url alphabet in the MAC", keep, cookie(strings.NewReplacer("+", "-", "/", "_").Replace(plus)), ""},
		{"padding kept", keep, cookie(good + "="), ""},
		{"no dot at all", keep, cookie("s%3A" + sid), ""},
		{"nothing but s:", keep, cookie("s%3A"), ""},
		{"nothing but s:.", keep, cookie("s%3A."), ""},
		{"wrong secret", []string{"another secret"}, cookie(good), ""},
		{"upper-case prefix", keep, cookie("S" + good[1:]), ""},
		{"plain unsigned sid", keep, cookie(sid), ""},
		{"j: prefix of cookie-parser", keep, cookie("j" + good[1:]), ""},
		{"rotation, dropped secret", []string{"newest", "new"}, cookie(good), ""},
		{"secret in NFD instead of NFC", []string{"e\u0301"}, cookie(encoded(expressSigned("\u00e9", sid))), ""},
		{"secret in NFC", []string{"\u00e9"}, cookie(encoded(expressSigned("\u00e9", sid))), sid},
		{"secret with spaces around is not trimmed", []string{" keyboard cat "}, cookie(encoded(expressSigned(" keyboard cat ", sid))), sid},
		{"secret with spaces around, trimmed", []string{" keyboard cat "}, cookie(good), ""},
		{"sid as raw UTF-8", keep, cookie(expressSigned(secret, "\u0441\u0438\u0434")), ""},
		{"sid with semicolon, space, comma, equals, quote", keep, cookie(encoded(expressSigned(secret, `a;b c,d=e"f`))), `a;b c,d=e"f`},
		{"sid with a NUL, which no database holds", keep, cookie(encoded(expressSigned(secret, "a\x00b"))), ""},
		{"malformed escape at the end", keep, cookie(good + "%"), ""},
		{"malformed escape, cut off", keep, cookie(good + "%2"), ""},
		{"malformed escape in a literal sid", keep, cookie(expressSigned(secret, "a%zz")), "a%zz"},
		{"overlong UTF-8 in escapes", keep, cookie("s%3Aa%C0%AF." + encoded(expressSigned(secret, "a\xc0\xaf")[len("s:a\xc0\xaf."):])), ""},
		{"duplicate: good then bad", keep, []string{"connect.sid=" + good + "; connect.sid=s%3Abad.bad"}, sid},
		{"duplicate: empty then good", keep, []string{"connect.sid=; connect.sid=" + good}, ""},
		{"two lines: other, then good", keep, []string{"a=b", "connect.sid=" + good}, sid},
		{"two lines: good, then bad", keep, []string{"connect.sid=" + good, "connect.sid=x"}, sid},
		{"pair without equals sign before", keep, []string{"flag; connect.sid=" + good}, sid},
		{"name without equals sign before", keep, []string{"connect.sid; connect.sid=" + good}, sid},
		{"name percent-encoded", keep, []string{"connect%2Esid=" + good}, ""},
		{"name only a prefix", keep, []string{"connect.sid2=" + good}, ""},
		{"comma-joined", keep, []string{"a=b, connect.sid=" + good}, ""},
		{"comma after the value", keep, []string{"connect.sid=" + good + ", a=b"}, ""},
		{"trailing data after a space", keep, cookie(good + " x"), ""},
		{"one quote only", keep, cookie(`"` + good), ""},
		{"two pairs of quotes", keep, cookie(`""` + good + `""`), ""},
		{"quoted with spaces inside", keep, cookie(`" ` + good + ` "`), ""},
		{"no Cookie header", keep, nil, ""},
		{"empty Cookie header", keep, []string{""}, ""},
		{"MAC of nothing", keep, cookie("s%3A." + encoded(mac)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			got, ok := askedFor(t, store, expressManager(t, store, c.secrets, session.Config{}), c.lines)
			if ok != (c.want != "") {
				t.Errorf("the store was asked: got %v, want %v", ok, c.want != "")
			}
			if got != c.want {
				t.Error("the store was asked for another ID")
			}
		})
	}
}

// Rows as connect-pg-simple stored them, read at the very instant at which
// Express had written them. The touch sends Express's own cookie back: same
// value, attributes of the row, in the same order; only Expires is rounded up
// instead of down, so that the cookie never ends before the row.
func TestExpressRowVectors(t *testing.T) {
	for _, v := range readExpressVectors(t).Rows {
		t.Run(v.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var row struct {
					Cookie struct {
						OriginalMaxAge *int64
						Expires        *time.Time
					}
				}
				if err := json.Unmarshal([]byte(v.Sess), &row); err != nil {
					t.Fatal(err)
				}
				written := time.UnixMilli(v.CreatedMsApprox)
				idle := 24 * time.Hour
				if row.Cookie.Expires != nil {
					idle = time.Duration(*row.Cookie.OriginalMaxAge) * time.Millisecond
					written = row.Cookie.Expires.Add(-idle)
				}
				pass(time.Until(written))

				store := newHookedStore()
				err := store.Store.Create(t.Context(), v.SID, session.Record{Data: []byte(v.Sess), TTL: idle / 2})
				if err != nil {
					t.Fatal(err)
				}
				m := expressManager(t, store, []string{"keyboard cat"}, session.Config{Cookie: session.CookieConfig{
					Domain: "configured.example", Path: "/configured", SameSite: http.SameSiteStrictMode,
				}})
				pair, attributes, _ := strings.Cut(v.SetCookie, "; ")
				b := &browser{m: m, cookie: pair}
				resp := b.visit(func(s *session.Session) {
					if s.IsNew() || s.ID() != v.SID {
						t.Error("got no session, want Express's")
					}
					for name, raw := range members(t, v.Sess) {
						got, ok := session.Key[any](name).Get(s)
						if name == "cookie" {
							if ok {
								t.Error("Get of the cookie object: got a value, want none")
							}
							continue
						}
						var want any
						_ = json.Unmarshal(raw, &want)
						if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
							t.Errorf("key %q: got another value than stored", name)
						}
					}
				})
				wantResponse(t, "touch", resp, 200, "set")
				wantCalls(t, "touch", store, "Load Touch")
				if b.cookie != pair {
					t.Error("got another name or value than Express sent")
				}
				if row.Cookie.Expires != nil {
					down := row.Cookie.Expires.UTC().Format(http.TimeFormat)
					up := time.Unix(v.EpochSentByNode, 0).UTC().Format(http.TimeFormat)
					if !strings.Contains(attributes, down) {
						t.Fatal("the vector's Set-Cookie does not have the row's expiry")
					}
					attributes = strings.Replace(attributes, down, up, 1)
				}
				if got := resp.attributes(); got != attributes {
					t.Errorf("attributes: got %q, want %q", got, attributes)
				}
				if got := store.live(t)[v.SID]; got != v.Sess {
					t.Errorf("row after a touch: got other bytes than Express wrote")
				}

				b.visit(func(s *session.Session) { session.Key[string]("q").Set(s, "1") })
				got := members(t, store.live(t)[v.SID])
				for name, raw := range members(t, v.Sess) {
					if name != "cookie" && string(got[name]) != string(raw) {
						t.Errorf("key %q after a change of another: got other bytes than Express wrote", name)
					}
				}
				if string(got["q"]) != `"1"` {
					t.Errorf("key q: got %s, want \"1\"", got["q"])
				}
			})
		})
	}
}

// members takes a JSON object apart with encoding/json.
func members(t testing.TB, object string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(object), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// --- Both formats

var bothFormats = []struct {
	name   string
	format session.CookieFormat
	cookie string
}{
	{"SecureCookie", session.FormatSecureCookie, "session"},
	{"Express", session.FormatExpress, "connect.sid"},
}

func TestCookieRotation(t *testing.T) {
	for _, f := range bothFormats {
		t.Run(f.name, func(t *testing.T) {
			store := newHookedStore()
			cfg := func(secret string, old ...string) session.Config {
				return session.Config{Secret: secret, OldSecrets: old, Cookie: session.CookieConfig{Format: f.format}}
			}
			b := login(t, newManager(t, store, cfg(testSecretOld)))

			rotated := newManager(t, store, cfg(testSecret, strings.Repeat("another", 6), testSecretOld))
			b.m = rotated
			before := b.cookie
			store.took()
			wantResponse(t, "unused", b.visit(func(*session.Session) {}), 200, "nothing")
			wantCalls(t, "unused", store, "")
			wantResponse(t, "first use", b.visit(func(s *session.Session) {
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("old secret: got user %q, want ada", user)
				}
			}), 200, "set")
			wantCalls(t, "first use: a new signature writes nothing, and looks once more before it is sent", store, "Load Load")
			wantResponse(t, "second use", b.visit(func(s *session.Session) { userKey.Get(s) }), 200, "nothing")

			dropped := newManager(t, store, cfg(testSecret))
			if got := b.with(dropped).user(); got != "ada" {
				t.Errorf("signed anew: got user %q, want ada", got)
			}
			store.took()
			stale := &browser{m: dropped, cookie: before}
			if got := stale.user(); got != "" {
				t.Errorf("dropped secret: got user %q, want nobody", got)
			}
			wantCalls(t, "dropped secret", store, "")
			if n := dropped.Stats().BadCookies; n != 1 {
				t.Errorf("Stats.BadCookies: got %d, want 1", n)
			}
		})
	}
}

// What caches may keep is not spoilt for the sake of a new signature.
func TestCookieRotationOnAPublicPage(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{Secret: testSecretOld}))
	b.m = newManager(t, store, session.Config{OldSecrets: []string{testSecretOld}})
	resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
		userKey.Get(session.From(r.Context()))
		w.Header().Set("Cache-Control", "public, max-age=60")
	})
	wantResponse(t, "public page", resp, 200, "nothing")
}

// A true signature over something that is no ID, as a bug elsewhere or a shared
// secret could make it: refused before any statement.
func TestSignedButNoID(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	for _, id := range []string{"", "short", strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("a", 31) + "!", strings.Repeat("a", 31) + "\x00", strings.Repeat("é", 16)} {
		value, err := m.SignCookie(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := askedFor(t, store, m, []string{"session=" + value}); ok {
			t.Errorf("%d bytes: the store was asked", len(id))
		}
	}
}

func TestOtherFormatIsNeverAccepted(t *testing.T) {
	for _, f := range bothFormats {
		store := newHookedStore()
		other := bothFormats[1]
		if f.format == session.FormatExpress {
			other = bothFormats[0]
		}
		// The same secret and the same cookie name: only the format differs.
		b := login(t, newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: other.format, Name: "sid"}}))
		b.m = newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format, Name: "sid"}})
		store.took()
		wantResponse(t, f.name, b.visit(func(s *session.Session) {
			if _, ok := userKey.Get(s); ok {
				t.Errorf("%s: got a session from a cookie of the other format", f.name)
			}
		}), 200, "nothing")
		wantCalls(t, f.name, store, "")
	}
}

func TestCookieOfAnotherName(t *testing.T) {
	store := newHookedStore()
	for _, f := range bothFormats {
		one := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format, Name: "one"}})
		two := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format, Name: "two"}})
		b := login(t, one)
		store.took()
		if b.with(two).user() != "" {
			t.Errorf("%s: got a session by a cookie of another name", f.name)
		}
		wantCalls(t, f.name+", another name", store, "")
		renamed := &browser{m: two, cookie: strings.Replace(b.cookie, "one=", "two=", 1)}
		if got, want := renamed.user() != "", f.format == session.FormatExpress; got != want {
			// securecookie signs the name as well; express-session does not.
			t.Errorf("%s, renamed: got accepted %v, want %v", f.name, got, want)
		}
		store.took()
	}
}

func TestTamperedCookie(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, f := range bothFormats {
		store := newHookedStore()
		m := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format}})
		b := login(t, m)
		name, value, _ := strings.Cut(b.cookie, "=")
		store.took()
		for i := range len(value) {
			changed := []byte(value)
			changed[i] ^= 1
			if f.format == session.FormatSecureCookie { // base64: a bit that certainly counts
				changed[i] = alphabet[(strings.IndexByte(alphabet, value[i])+32)%64]
			}
			for _, v := range []string{string(changed), value[:i], value[:i] + value[i+1:]} {
				if user := (&browser{m: m, cookie: name + "=" + v}).user(); user != "" {
					t.Errorf("%s, byte %d of %d: got the session by a tampered cookie", f.name, i, len(value))
				}
			}
		}
		wantCalls(t, f.name+", tampered", store, "")
		if b.user() != "ada" {
			t.Errorf("%s: got nobody by the true cookie, want ada", f.name)
		}
	}
}

func TestCookieCandidates(t *testing.T) {
	for _, c := range []struct {
		name   string
		format session.CookieFormat
		bad    int // cookies before the good one
		found  bool
		count  uint64
	}{
		{"the first", session.FormatSecureCookie, 0, true, 0},
		{"the eighth", session.FormatSecureCookie, 7, true, 7},
		{"the ninth", session.FormatSecureCookie, 8, false, 8},
		{"the 3,000th", session.FormatSecureCookie, 2999, false, 8},
		{"Express, the first", session.FormatExpress, 0, true, 0},
		{"Express, the second", session.FormatExpress, 1, false, 1},
	} {
		for _, lines := range []bool{false, true} { // in one header line, or one each
			store := newHookedStore()
			m := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: c.format, Name: "s"}})
			b := login(t, m)
			var header []string
			for i := range c.bad {
				header = append(header, fmt.Sprintf("s=bad%d", i))
			}
			header = append(header, b.cookie)
			if !lines {
				header = []string{strings.Join(header, "; ")}
			}
			store.took()
			if _, ok := askedFor(t, store, m, header); ok != c.found {
				t.Errorf("%s: got found %v, want %v", c.name, ok, c.found)
			}
			if n := m.Stats().BadCookies; n != c.count {
				t.Errorf("%s: Stats.BadCookies: got %d, want %d", c.name, n, c.count)
			}
		}
	}
}

func TestHeaderBombs(t *testing.T) {
	for _, f := range bothFormats {
		store := newHookedStore()
		m := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format}})
		n := f.cookie
		for _, c := range []struct {
			name  string
			lines []string
		}{
			{"3,000 cookies of the name", []string{strings.Repeat(n+"=x; ", 3000)}},
			{"3,000 lines", slicesRepeat(n+"=s%3Ax.y", 3000)},
			{"3,000 other cookies", []string{strings.Repeat("a=b; ", 3000)}},
			{"1 MB cookie", []string{n + "=" + strings.Repeat("A", 1<<20)}},
			{"1 MB of s:", []string{n + "=s:" + strings.Repeat(".", 1<<20)}},
			{"1 MB of escapes", []string{n + "=" + strings.Repeat("%41", 1<<18)}},
			{"1 MB of broken escapes", []string{n + "=" + strings.Repeat("%", 1<<20)}},
			{"1 MB of semicolons", []string{strings.Repeat(";", 1<<20)}},
			{"1 MB of equals signs", []string{strings.Repeat("=", 1<<20)}},
			{"1 MB name", []string{strings.Repeat("n", 1<<20) + "=x"}},
			{"NUL", []string{n + "=s:\x00.\x00"}},
			{"NUL alone", []string{"\x00"}},
			{"encoded NUL", []string{n + "=%00"}},
			{"invalid UTF-8", []string{n + "=\xff\xfe\xc0\xaf"}},
			{"encoded invalid UTF-8", []string{n + "=s%3A%ff%fe.%c0%af"}},
			{"one quote", []string{n + `="`}},
			{"two quotes", []string{n + `=""`}},
			{"three quotes", []string{n + `="""`}},
			{"quotes around nothing signed", []string{n + `="s:a.b"`}},
			{"empty value", []string{n + "="}},
			{"no value", []string{n}},
			{"only an equals sign", []string{"="}},
			{"line breaks", []string{n + "=a\r\nSet-Cookie: b=c"}},
			{"empty lines", []string{"", "", ""}},
		} {
			if _, ok := askedFor(t, store, m, c.lines); ok {
				t.Errorf("%s, %s: the store was asked", f.name, c.name)
			}
		}
	}
}

func slicesRepeat(s string, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = s
	}
	return lines
}

// Forged cookies fill no store.
func TestForgedVisitorsLeaveNothing(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	for i := range 1000 {
		b := &browser{m: m}
		if i%2 == 0 {
			b.cookie = fmt.Sprintf("session=forged%d", i)
		}
		wantResponse(t, "visitor", b.visit(func(s *session.Session) {
			userKey.Get(s)
			s.Renew()
			userKey.Delete(s)
			userKey.Take(s)
		}), 200, "nothing")
	}
	wantCalls(t, "1,000 visitors", store, "")
}

// --- Secure

func TestCookieSecure(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  session.SecureMode
		trust bool
		url   string
		proto string
		want  bool
	}{
		{"auto, HTTP", session.SecureAuto, false, "http://x/", "", false},
		{"auto, TLS", session.SecureAuto, false, "https://x/", "", true},
		{"auto, TLS, proxy says HTTP", session.SecureAuto, true, "https://x/", "http", true},
		{"auto, proxy not trusted", session.SecureAuto, false, "http://x/", "https", false},
		{"auto, proxy says HTTPS", session.SecureAuto, true, "http://x/", "https", true},
		{"auto, proxy says HTTPS in capitals", session.SecureAuto, true, "http://x/", "HTTPS", true},
		{"auto, proxy says HTTP", session.SecureAuto, true, "http://x/", "http", false},
		{"auto, proxy says nothing", session.SecureAuto, true, "http://x/", "", false},
		{"auto, a list, the first counts", session.SecureAuto, true, "http://x/", "https, http", true},
		{"auto, a list, the first counts: HTTP", session.SecureAuto, true, "http://x/", "http,https", false},
		{"auto, spaces", session.SecureAuto, true, "http://x/", " https ,http", true},
		{"auto, something longer", session.SecureAuto, true, "http://x/", "httpsx", false},
		{"auto, empty list", session.SecureAuto, true, "http://x/", ",https", false},
		{"always, HTTP", session.SecureAlways, false, "http://x/", "", true},
		{"never, TLS", session.SecureNever, false, "https://x/", "", false},
		{"never, proxy says HTTPS", session.SecureNever, true, "http://x/", "https", false},
	} {
		for _, f := range bothFormats {
			m := newManager(t, newHookedStore(), session.Config{TrustProxy: c.trust, Cookie: session.CookieConfig{Format: f.format, Secure: c.mode}})
			r := httptest.NewRequest("GET", c.url, nil)
			if c.proto != "" {
				r.Header.Set("X-Forwarded-Proto", c.proto)
			}
			resp := (&browser{m: m}).send(r, func(_ http.ResponseWriter, r *http.Request) {
				userKey.Set(session.From(r.Context()), "ada")
			})
			if got := strings.Contains(resp.attributes(), "; Secure"); got != c.want {
				t.Errorf("%s, %s: Secure: got %v, want %v", f.name, c.name, got, c.want)
			}
		}
	}
}

func TestUntrustedProxyIsWarnedAboutOnce(t *testing.T) {
	for _, trust := range []bool{false, true} {
		log := &logRecorder{}
		m := newManager(t, newHookedStore(), session.Config{TrustProxy: trust, Logger: log.logger()})
		for range 3 {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Forwarded-Proto", "https")
			(&browser{m: m}).send(r, func(_ http.ResponseWriter, r *http.Request) {
				userKey.Set(session.From(r.Context()), "ada")
			})
		}
		want := 1
		if trust {
			want = 0
		}
		if got := strings.Count(log.String(), "X-Forwarded-Proto"); got != want {
			t.Errorf("TrustProxy %v: got %d warnings, want %d", trust, got, want)
		}
	}
}

// --- The header, to the letter

func TestSetCookieAttributes(t *testing.T) {
	always := session.SecureAlways
	for _, c := range []struct {
		name   string
		cookie session.CookieConfig
		idle   time.Duration // of the Config
		own    time.Duration // SetIdleTimeout
		past   time.Duration // by which the clock is past a full second
		secure string        // what SecureCookie sends
		expr   string        // what Express sends
	}{
		{
			name:   "defaults",
			secure: "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; Max-Age=86400; HttpOnly; SameSite=Lax",
			expr:   "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; HttpOnly; SameSite=Lax",
		},
		{
			name:   "everything",
			cookie: session.CookieConfig{Domain: "example.com", Path: "/app", SameSite: http.SameSiteNoneMode, Secure: always, Partitioned: true},
			secure: "Domain=example.com; Path=/app; Expires=Sun, 02 Jan 2000 00:00:00 GMT; Max-Age=86400; HttpOnly; Secure; Partitioned; SameSite=None",
			expr:   "Domain=example.com; Path=/app; Expires=Sun, 02 Jan 2000 00:00:00 GMT; HttpOnly; Secure; Partitioned; SameSite=None",
		},
		{
			name:   "Strict",
			cookie: session.CookieConfig{SameSite: http.SameSiteStrictMode},
			secure: "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; Max-Age=86400; HttpOnly; SameSite=Strict",
			expr:   "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; HttpOnly; SameSite=Strict",
		},
		{
			name:   "no SameSite",
			cookie: session.CookieConfig{SameSite: http.SameSiteDefaultMode},
			secure: "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; Max-Age=86400; HttpOnly",
			expr:   "Path=/; Expires=Sun, 02 Jan 2000 00:00:00 GMT; HttpOnly",
		},
		{
			name:   "browser session",
			cookie: session.CookieConfig{BrowserSession: true},
			secure: "Path=/; HttpOnly; SameSite=Lax",
			expr:   "Path=/; HttpOnly; SameSite=Lax",
		},
		{
			name:   "browser session, remembered",
			cookie: session.CookieConfig{BrowserSession: true},
			own:    time.Hour,
			secure: "Path=/; Expires=Sat, 01 Jan 2000 01:00:00 GMT; Max-Age=3600; HttpOnly; SameSite=Lax",
			expr:   "Path=/; Expires=Sat, 01 Jan 2000 01:00:00 GMT; HttpOnly; SameSite=Lax",
		},
		{
			name:   "own idle timeout",
			own:    30 * 24 * time.Hour,
			secure: "Path=/; Expires=Mon, 31 Jan 2000 00:00:00 GMT; Max-Age=2592000; HttpOnly; SameSite=Lax",
			expr:   "Path=/; Expires=Mon, 31 Jan 2000 00:00:00 GMT; HttpOnly; SameSite=Lax",
		},
		{
			name:   "a millisecond past the second is rounded up",
			past:   time.Millisecond,
			secure: "Path=/; Expires=Sun, 02 Jan 2000 00:00:01 GMT; Max-Age=86400; HttpOnly; SameSite=Lax",
			expr:   "Path=/; Expires=Sun, 02 Jan 2000 00:00:01 GMT; HttpOnly; SameSite=Lax",
		},
		{
			name:   "a fraction of a second is rounded up",
			idle:   90*time.Minute + time.Millisecond,
			secure: "Path=/; Expires=Sat, 01 Jan 2000 01:30:01 GMT; Max-Age=5401; HttpOnly; SameSite=Lax",
			expr:   "Path=/; Expires=Sat, 01 Jan 2000 01:30:01 GMT; HttpOnly; SameSite=Lax",
		},
	} {
		for i, f := range bothFormats {
			t.Run(c.name+", "+f.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pass(c.past)
					cookie := c.cookie
					cookie.Format = f.format
					store := newHookedStore()
					b := &browser{m: newManager(t, store, session.Config{IdleTimeout: c.idle, Cookie: cookie})}
					resp := b.visit(func(s *session.Session) {
						userKey.Set(s, "ada")
						if c.own > 0 {
							s.SetIdleTimeout(c.own)
						}
					})
					want := []string{c.secure, c.expr}[i]
					if got := resp.attributes(); got != want {
						t.Errorf("attributes: got %q, want %q", got, want)
					}
					if !strings.HasPrefix(resp.setCookie(), f.cookie+"=") {
						t.Errorf("got another name than %q", f.cookie)
					}
					if resp.header.Get("Cache-Control") != "no-store" || resp.header.Get("Vary") != "Cookie" {
						t.Errorf("got Cache-Control %q, Vary %q, want no-store, Cookie", resp.header.Get("Cache-Control"), resp.header.Get("Vary"))
					}

					// The same cookie, expired: same domain, path and flags.
					for _, use := range []bool{false, true} {
						again := login(t, b.m)
						resp = again.visit(func(s *session.Session) {
							if use {
								userKey.Get(s)
							}
							s.Destroy()
						})
						want := expiredAttributes(want, f.format)
						if got := resp.attributes(); got != want || resp.sent() != "expired" {
							t.Errorf("destroyed: got %s, %q, want expired, %q", resp.sent(), got, want)
						}
					}
				})
			})
		}
	}
}

// expiredAttributes is what a Set-Cookie header becomes when it expires the
// cookie.
func expiredAttributes(attributes string, f session.CookieFormat) string {
	var kept []string
	for _, a := range strings.Split(attributes, "; ") {
		if strings.HasPrefix(a, "Expires=") || strings.HasPrefix(a, "Max-Age=") {
			continue
		}
		kept = append(kept, a)
		if strings.HasPrefix(a, "Path=") {
			kept = append(kept, "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0")
		}
	}
	return strings.Join(kept, "; ")
}

// An existing Express session's attributes are in its record.
func TestExpressAttributesOfTheRecord(t *testing.T) {
	const end = "Expires=Sat, 01 Jan 2000 00:01:00 GMT; "
	for _, c := range []struct {
		name   string
		cookie string // members of the record's cookie object
		want   string
		log    string
	}{
		{"everything", `"originalMaxAge":60000,"partitioned":true,"priority":"high","expires":null,"secure":true,"httpOnly":true,"domain":"example.com","path":"/p","sameSite":"strict"`, "Domain=example.com; Path=/p; " + end + "HttpOnly; Secure; Partitioned; Priority=High; SameSite=Strict", ""},
		{"priority low", `"originalMaxAge":60000,"priority":"low","path":"/"`, "Path=/; " + end + "HttpOnly; Priority=Low", ""},
		{"priority medium", `"originalMaxAge":60000,"priority":"Medium","path":"/"`, "Path=/; " + end + "HttpOnly; Priority=Medium", ""},
		{"not httpOnly: always HttpOnly all the same", `"originalMaxAge":60000,"httpOnly":false,"path":"/"`, "Path=/; " + end + "HttpOnly", ""},
		{"no path: Express's default", `"originalMaxAge":60000`, "Path=/; " + end + "HttpOnly", ""},
		{"null path", `"originalMaxAge":60000,"path":null,"domain":null,"priority":null,"sameSite":null,"secure":null`, end + "HttpOnly", ""},
		{"sameSite true", `"originalMaxAge":60000,"path":"/","sameSite":true`, "Path=/; " + end + "HttpOnly; SameSite=Strict", ""},
		{"sameSite false", `"originalMaxAge":60000,"path":"/","sameSite":false`, "Path=/; " + end + "HttpOnly", ""},
		{"sameSite none", `"originalMaxAge":60000,"path":"/","sameSite":"none"`, "Path=/; " + end + "HttpOnly; SameSite=None", ""},
		{"secure", `"originalMaxAge":60000,"path":"/","secure":true`, "Path=/; " + end + "HttpOnly; Secure", ""},
		{"null maxAge", `"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"`, "Path=/; HttpOnly", ""},
		{"bad sameSite: the configuration's", `"originalMaxAge":60000,"path":"/x","sameSite":"weird"`, "Path=/; " + end + "HttpOnly; SameSite=Lax", "sameSite"},
		{"bad priority", `"originalMaxAge":60000,"path":"/x","priority":"urgent"`, "Path=/; " + end + "HttpOnly; SameSite=Lax", "priority"},
		{"path not a string", `"originalMaxAge":60000,"path":5`, "Path=/; " + end + "HttpOnly; SameSite=Lax", "path"},
		{"path that would add an attribute", `"originalMaxAge":60000,"path":"/; Domain=evil.example"`, "Path=/; " + end + "HttpOnly; SameSite=Lax", "path"},
		{"domain with a line break", `"originalMaxAge":60000,"path":"/","domain":"a\r\nb"`, "Path=/; " + end + "HttpOnly; SameSite=Lax", "domain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, store := &logRecorder{}, newHookedStore()
				m := newManager(t, store, session.Config{Logger: log.logger(), Cookie: session.CookieConfig{Format: session.FormatExpress}})
				id := strings.Repeat("e", 32)
				if err := store.Store.Create(t.Context(), id, session.Record{Data: []byte(`{"cookie":{` + c.cookie + `},"user":"ada"}`), TTL: 30 * time.Second}); err != nil {
					t.Fatal(err)
				}
				value, _ := m.SignCookie(id)
				b := &browser{m: m, cookie: "connect.sid=" + value}
				resp := b.visit(func(s *session.Session) { userKey.Get(s) })
				if got := resp.attributes(); got != c.want {
					t.Errorf("touch: got %q, want %q", got, c.want)
				}
				if c.log != "" && !strings.Contains(log.String(), c.log) {
					t.Errorf("log: got nothing about %s", c.log)
				}
				if strings.Contains(log.String(), "evil") {
					t.Error("log: got a stored value")
				}
				// Renewed, the session keeps its attributes.
				if got := b.visit(func(s *session.Session) { s.Renew() }).attributes(); got != c.want {
					t.Errorf("renewal: got %q, want %q", got, c.want)
				}
				want := expiredAttributes(c.want, session.FormatExpress)
				if !strings.Contains(c.want, "Path=") || !strings.Contains(want, "Expires=") {
					return
				}
				if got := b.visit(func(s *session.Session) { userKey.Get(s); s.Destroy() }).attributes(); got != want {
					t.Errorf("destroyed: got %q, want %q", got, want)
				}
			})
		})
	}
}

// securecookie's own lifetime, 30 days by default, would end a longer session.
func TestCookieHasNoLifetimeOfItsOwn(t *testing.T) {
	for _, f := range bothFormats {
		synctest.Test(t, func(t *testing.T) {
			const day = 24 * time.Hour
			m := newManager(t, newHookedStore(), session.Config{IdleTimeout: 60 * day, Cookie: session.CookieConfig{Format: f.format}})
			b := login(t, m)
			pass(59 * day)
			if got := b.with(m).user(); got != "ada" {
				t.Errorf("%s, after 59 days: got user %q, want ada", f.name, got)
			}
			pass(59 * day) // the very first cookie, 118 days old
			if got := b.user(); got != "ada" {
				t.Errorf("%s, after 118 days: got user %q, want ada", f.name, got)
			}
			pass(60*day + 1)
			if got := b.user(); got != "" {
				t.Errorf("%s, after 60 idle days: got user %q, want nobody", f.name, got)
			}
		})
	}
}

// Express's genid may make an ID of any length; a cookie that no browser keeps
// is not sent.
func TestCookieTooLongForBrowsers(t *testing.T) {
	log, store := &logRecorder{}, newHookedStore()
	m := newManager(t, store, session.Config{TouchInterval: 1, Logger: log.logger(), Cookie: session.CookieConfig{Format: session.FormatExpress}})
	id := strings.Repeat("x", 5000)
	if err := store.Store.Create(t.Context(), id, session.Record{Data: []byte(`{"cookie":{"originalMaxAge":60000},"user":"ada"}`), TTL: time.Second}); err != nil {
		t.Fatal(err)
	}
	value, _ := m.SignCookie(id)
	b := &browser{m: m, cookie: "connect.sid=" + value}
	wantResponse(t, "touch", b.visit(func(s *session.Session) {
		if user, _ := userKey.Get(s); user != "ada" {
			t.Errorf("got user %q, want ada", user)
		}
	}), 200, "nothing")
	if !strings.Contains(log.String(), "too long") {
		t.Error("log: got nothing about the cookie")
	}
}
