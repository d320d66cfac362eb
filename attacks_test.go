package session_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// Attacks that have worked on other session libraries. docs/faults.md names the
// test of each; what other files of this package test already is not repeated.

// CVE-2022-25896, CVE-2023-29019: the attacker plants a session of their own in
// the victim's browser before the victim logs in. At the login a request of the
// attacker is under way; both have loaded the session.
func TestFixation(t *testing.T) {
	for _, f := range bothFormats {
		store := newHookedStore()
		m := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format}})
		attacker := &browser{m: m}
		attacker.visit(func(s *session.Session) { keyA.Set(s, "planted") })
		planted := attacker.id()
		victim, late := attacker.with(m), attacker.with(m)
		resp := late.visit(func(s *session.Session) {
			keyA.Get(s)
			wantResponse(t, f.name+", login", victim.visit(func(s *session.Session) {
				s.Renew()
				userKey.Set(s, "ada")
			}), 200, "set")
			keyA.Set(s, "mine")
		})
		wantResponse(t, f.name+", the attacker's request under way", resp, 409, "nothing")
		attacker.visit(func(s *session.Session) {
			if _, ok := userKey.Get(s); ok || !s.IsNew() {
				t.Errorf("%s: the planted cookie: got a session, want none", f.name)
			}
			userKey.Set(s, "eve")
		})
		if attacker.id() == planted || victim.id() == planted {
			t.Errorf("%s: got the planted ID used again", f.name)
		}
		victim.visit(func(s *session.Session) {
			user, _ := userKey.Get(s)
			a, _ := keyA.Get(s)
			if user != "ada" || a != "planted" {
				t.Errorf("%s: the victim: got %q, %q, want ada, and the data of before", f.name, user, a)
			}
		})
		if _, there := store.live(t)[planted]; there {
			t.Errorf("%s: got a record under the planted ID, want none", f.name)
		}
	}
}

// CVE-2024-38513: the client names the ID: one of nobody, or one of a session
// that lives, as read from a leaked table.
func TestClientChosenID(t *testing.T) {
	for _, f := range bothFormats {
		store := newHookedStore()
		m := newManager(t, store, session.Config{Cookie: session.CookieConfig{Format: f.format}})
		ada := login(t, m)
		nobody := strings.Repeat("x", 32)
		for _, id := range []string{nobody, ada.id()} {
			for i, value := range []string{
				id, "s:" + id, "s:" + id + ".", id + ".", url.QueryEscape("s:" + id + "."),
				url.QueryEscape(expressSigned("", id)), url.QueryEscape(expressSigned("keyboard cat", id)),
				base64.URLEncoding.EncodeToString([]byte(id)), base64.URLEncoding.EncodeToString([]byte("0|" + id + "|")),
				fmt.Sprintf(`"%s"`, id), `{"id":"` + id + `"}`,
			} {
				b := &browser{m: m, cookie: f.cookie + "=" + value}
				store.took()
				resp := b.visit(func(s *session.Session) {
					if _, ok := userKey.Get(s); ok || !s.IsNew() || s.ID() != "" {
						t.Errorf("%s, value %d: got a session by an ID alone", f.name, i)
					}
					s.Renew()
					keyA.Set(s, "mine")
				})
				wantResponse(t, f.name, resp, 200, "set")
				wantCalls(t, f.name+", unsigned", store, "Create")
				if b.id() == id {
					t.Errorf("%s, value %d: got the client's ID adopted", f.name, i)
				}
			}
		}
		value, _ := m.SignCookie(nobody) // a true signature of a session long gone
		b := &browser{m: m, cookie: f.cookie + "=" + value}
		b.visit(func(s *session.Session) { keyA.Set(s, "mine") })
		if _, there := store.live(t)[nobody]; there || b.id() == nobody {
			t.Errorf("%s, signed: got the client's ID adopted", f.name)
		}
		if ada.user() != "ada" {
			t.Errorf("%s: got nobody, want ada's session as it was", f.name)
		}
	}
}

// CVE-2026-39324: data that does not open, for its secret is unknown, is taken
// neither for plain data nor for an empty session, whoever reads it.
func TestDecryptionNeverFallsBack(t *testing.T) {
	for _, encrypt := range []bool{true, false} {
		store := newHookedStore()
		id := login(t, newManager(t, store, session.Config{Secret: testSecretOld, Encrypt: true})).id()
		before := store.live(t)[id]
		m := newManager(t, store, session.Config{Encrypt: encrypt})
		value, err := m.SignCookie(id) // the cookie is good
		if err != nil {
			t.Fatal(err)
		}
		b := &browser{m: m, cookie: "session=" + value}
		for name, use := range map[string]func(*session.Session){
			"read": readUser, "keys": func(s *session.Session) { s.Keys() },
			"set": func(s *session.Session) { userKey.Set(s, "eve") }, "renew": (*session.Session).Renew,
			"idle timeout": func(s *session.Session) { s.SetIdleTimeout(time.Hour) },
		} {
			resp := b.visit(func(s *session.Session) {
				use(s)
				if _, ok := session.Key[string]("__sealed").Get(s); ok || len(s.Keys()) > 0 {
					t.Errorf("%s: got something out of a record that does not open", name)
				}
			})
			wantResponse(t, name, resp, 503, "nothing")
		}
		if now := store.live(t); len(now) != 1 || now[id] != before {
			t.Error("got the record changed or another one made, want it as it was")
		}
		wantResponse(t, "logout", b.visit((*session.Session).Destroy), 200, "expired") // needs no data
		if len(store.live(t)) != 0 {
			t.Error("after the logout: got a record, want none")
		}
	}
}

// Data pasted from row to row, in the table itself.
func TestPostgresSwappedRows(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool), func(cfg *session.Config) { cfg.Encrypt = true })
	ada, adaID := loginCounter(t, m)
	eve, eveID := loginCounter(t, m)
	useSession(m, ada, func(s *session.Session) { userKey.Set(s, "ada") })
	useSession(m, eve, func(s *session.Session) { userKey.Set(s, "eve") })
	execSQL(t, pool, `UPDATE schema_system.session s SET sess = o.sess FROM schema_system.session o
		WHERE s.sid IN ($1, $2) AND o.sid IN ($1, $2) AND s.sid <> o.sid`, adaID, eveID)
	table := func() string {
		return queryOne[string](t, pool, "SELECT string_agg(sid || sess::text, ' ' ORDER BY sid) FROM schema_system.session")
	}
	swapped := table()
	for name, cookie := range map[string]string{"ada": ada, "eve": eve} {
		for what, use := range map[string]func(*session.Session){
			"read": readUser, "set": func(s *session.Session) { userKey.Set(s, "root") }, "renew": (*session.Session).Renew,
		} {
			resp := useSession(m, cookie, func(s *session.Session) {
				if user, ok := userKey.Get(s); ok {
					t.Errorf("%s's cookie: got user %q, want none", name, user)
				}
				use(s)
			})
			if resp.status != http.StatusServiceUnavailable || len(resp.cookies()) > 0 {
				t.Errorf("%s by %s: got status %d, %d cookies, want 503 and none", what, name, resp.status, len(resp.cookies()))
			}
		}
	}
	if table() != swapped {
		t.Error("got the rows changed, want them as they were")
	}
}

// CVE-2019-16782, GHSA-92vm-wfm5-mxvv. That no statement runs for a bad
// signature is counted elsewhere; that its comparison takes the same time
// whatever is wrong cannot be measured below the noise, so the source is read:
// the signature in the cookie goes into a comparison in constant time and
// nowhere else.
func TestSignaturesAreComparedInConstantTime(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/gorilla/securecookie").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, function, signature, compare string }{
		{filepath.Join("internal", "cookie", "codec.go"), "verify", "mac", "hmac.Equal"},
		{filepath.Join("internal", "cookie", "secure.go"), "verify", "mac", "hmac.Equal"},
		{filepath.Join(strings.TrimSpace(string(out)), "securecookie.go"), "verifyMac", "mac", "subtle.ConstantTimeCompare"},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, c.file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		compared := 0
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return n.Name.Name == c.function
			case *ast.FieldList:
				return false // its declaration, in verifyMac
			case *ast.AssignStmt:
				return n.Tok != token.DEFINE // its declaration, in verify
			case *ast.CallExpr:
				switch types.ExprString(n.Fun) {
				case c.compare:
					compared++
					return false
				case "len": // is no secret
					return false
				}
			case *ast.Ident:
				if n.Name == c.signature {
					t.Errorf("%s: got %s used outside of %s", fset.Position(n.Pos()), c.signature, c.compare)
				}
			}
			return true
		})
		if compared != 1 {
			t.Errorf("%s of %s: got %d calls of %s, want 1", c.function, filepath.Base(c.file), compared, c.compare)
		}
	}
}

// CVE-2015-5143, CVE-2015-5963: 1,000 visitors without a session, or with a
// cookie that names none, who do everything but store a value.
func TestPostgresVisitorsFillNothing(t *testing.T) {
	traced := &tracer{}
	pool := pgtest.Pool(t, traced.use)
	store := newStore(t, pool)
	for _, f := range bothFormats {
		m := patientManager(t, store, func(cfg *session.Config) { cfg.Cookie.Format = f.format })
		foreign := patientManager(t, session.NewMemoryStore(), func(cfg *session.Config) {
			cfg.Secret, cfg.Cookie.Format = testSecret, f.format
		})
		id := strings.Repeat("x", 32)
		forged, _ := foreign.SignCookie(id)
		gone, _ := m.SignCookie(id)
		traced.take()
		for i := range 1000 {
			var cookie string
			if value := []string{"", "garbage", id, forged, gone}[i%5]; value != "" {
				cookie = f.cookie + "=" + value
			}
			resp := useSession(m, cookie, func(s *session.Session) {
				userKey.Get(s)
				userKey.Take(s)
				userKey.Set(s, "eve")
				userKey.Delete(s)
				s.SetIdleTimeout(time.Hour)
				s.Renew()
				if i%2 == 0 {
					s.Destroy() // CVE-2015-5963: a logout of nobody made a row
				}
				_ = s.Save(t.Context())
			})
			if resp.status != http.StatusOK || len(resp.cookies()) > 0 {
				t.Fatalf("%s, visitor %d: got status %d, %d cookies, want 200 and none", f.name, i%5, resp.status, len(resp.cookies()))
			}
		}
		if got := len(traced.take()); got != 200 {
			t.Errorf("%s: statements: got %d, want 200, the lookups of the signed ID", f.name, got)
		}
		if got := countRecords(t, pool); got != 0 {
			t.Errorf("%s: rows: got %d, want 0", f.name, got)
		}
	}
}

// carelessCache is a shared cache that keeps whatever is not forbidden and asks
// neither for freshness nor for Vary, as CVE-2023-30861, CVE-2025-48947 and
// CVE-2025-64762 needed it.
type carelessCache struct {
	next   http.Handler
	stored *response
}

var quotedArgument = regexp.MustCompile(`="[^"]*"`)

func (c *carelessCache) get(cookie string) *response {
	if c.stored != nil {
		return c.stored
	}
	reply := post(c.next, cookie)
	keep := true
	for _, line := range reply.header["Cache-Control"] {
		for _, directive := range strings.Split(quotedArgument.ReplaceAllString(line, "=x"), ",") {
			switch strings.ToLower(strings.TrimSpace(directive)) {
			case "private", "no-store":
				keep = false
			}
		}
	}
	for name := range reply.header { // what overrides Cache-Control in some cache
		if strings.HasSuffix(name, "-Cache-Control") || name == "Surrogate-Control" || name == "X-Accel-Expires" {
			keep = true
		}
	}
	if keep {
		c.stored = reply
	}
	return reply
}

// However a handler marks its page and for whatever reason a cookie is sent, the
// next browser gets none of it out of a cache.
func TestNoCacheHandsOutACookie(t *testing.T) {
	for _, why := range []struct {
		name  string
		known bool
		use   func(*session.Session)
	}{
		{"created", false, func(s *session.Session) { nameKey.Set(s, "ada") }},
		{"renewed", true, (*session.Session).Renew},
		{"touched", true, func(s *session.Session) { nameKey.Get(s) }},
		{"changed", true, func(s *session.Session) { cityKey.Set(s, "London") }},
		{"remembered", true, func(s *session.Session) { s.SetIdleTimeout(48 * time.Hour) }},
		{"logged out", true, (*session.Session).Destroy},
	} {
		for _, page := range []http.Header{
			{},
			{"Cache-Control": {"public, max-age=60"}},
			{"Cache-Control": {"max-age=60"}},
			{"Cache-Control": {"s-maxage=60"}},
			{"Cache-Control": {"no-cache"}},
			{"Cache-Control": {`private="X", max-age=60`}},
			{"Cache-Control": {"private"}},
			{"Cdn-Cache-Control": {"max-age=60"}, "Surrogate-Control": {"max-age=60"}, "X-Accel-Expires": {"60"}},
			{"Expires": {"Fri, 01 Jan 2100 00:00:00 GMT"}, "Etag": {`"x"`}},
		} {
			synctest.Test(t, func(t *testing.T) {
				site := newSite(t)
				cookie := site.login(t)
				pass(time.Hour) // a touch is due
				cache := &carelessCache{next: site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Cookie") != "" || !why.known {
						why.use(session.From(r.Context()))
					}
					for name, values := range page {
						w.Header()[name] = slices.Clone(values)
					}
					_, _ = io.WriteString(w, "page")
				}))}
				if !why.known {
					cookie = ""
				}
				first := cache.get(cookie)
				if first.status != 200 || len(first.header["Set-Cookie"]) == 0 && !strings.Contains(fmt.Sprint(page), "public") && !strings.Contains(fmt.Sprint(page), "s-maxage") {
					t.Errorf("%s, %v: got no cookie, want one", why.name, page)
				}
				if cache.stored != nil && len(cache.stored.header["Set-Cookie"]) > 0 {
					t.Errorf("%s, %v: the next browser got the cookie out of the cache", why.name, page)
				}
			})
		}
	}
}

// CVE-2024-35220: the row is there still, but its time is over.
func TestPostgresExpiredIsDead(t *testing.T) {
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	for _, f := range bothFormats {
		m := patientManager(t, store, func(cfg *session.Config) { cfg.Cookie.Format = f.format })
		id := strings.Repeat(f.name[:1], 32)
		value, _ := m.SignCookie(id)
		execSQL(t, pool, `INSERT INTO schema_system.session VALUES ($1, '{"cookie":{"originalMaxAge":86400000,"expires":"2100-01-01T00:00:00.000Z","path":"/"},"user":"ada"}', now() - interval '1 millisecond')`, id)
		row := func() string {
			return queryOne[string](t, pool, "SELECT sess::text || expire FROM schema_system.session WHERE sid = $1", id)
		}
		before := row()
		for name, use := range map[string]func(*session.Session){
			"read": readUser, "renew": (*session.Session).Renew, "set": func(s *session.Session) { keyA.Set(s, "mine") },
			"idle timeout": func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, "reload": func(s *session.Session) { _ = s.Reload(t.Context()) },
		} {
			resp := useSession(m, f.cookie+"="+value, func(s *session.Session) {
				use(s)
				if _, ok := userKey.Get(s); ok || !s.IsNew() {
					t.Errorf("%s, %s: got the expired session, want none", f.name, name)
				}
			})
			if resp.status != http.StatusOK || (len(resp.cookies()) > 0) != (name == "set") {
				t.Errorf("%s, %s: got status %d, %d cookies, want 200 and a cookie with set only", f.name, name, resp.status, len(resp.cookies()))
			}
			if row() != before {
				t.Errorf("%s, %s: got the expired row changed", f.name, name)
			}
		}
	}
}

// CVE-2023-20862, CVE-2024-31999: every cookie that the session ever had is
// replayed after the logout, to another program.
func TestPostgresLogoutIsFinal(t *testing.T) {
	for _, f := range bothFormats {
		format := func(cfg *session.Config) { cfg.Cookie.Format = f.format }
		pool := pgtest.Pool(t)
		m := patientManager(t, newStore(t, pool), format)
		rotated := patientManager(t, newStore(t, pool), format, func(cfg *session.Config) {
			cfg.OldSecrets, cfg.Secret = []string{cfg.Secret}, testSecret
		})
		var jar []string
		visit := func(m *session.Manager, use func(*session.Session)) {
			var cookie string
			if len(jar) > 0 {
				cookie = jar[len(jar)-1]
			}
			jar = append(jar, useSession(m, cookie, use).cookies()...)
		}
		visit(m, func(s *session.Session) { userKey.Set(s, "ada") })
		visit(m, (*session.Session).Renew)
		visit(m, func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
		visit(rotated, readUser) // signed anew
		visit(rotated, (*session.Session).Destroy)
		if len(jar) != 5 || !strings.HasSuffix(jar[4], "=") {
			t.Fatalf("%s: cookies: got %d, want five, the last expired", f.name, len(jar))
		}
		other := patientManager(t, newStore(t, pool), format, func(cfg *session.Config) {
			cfg.OldSecrets, cfg.Secret = []string{cfg.Secret}, testSecret
		})
		for i, cookie := range jar {
			useSession(other, cookie, func(s *session.Session) {
				if _, ok := userKey.Get(s); ok || !s.IsNew() {
					t.Errorf("%s: cookie %d after the logout: got a session, want none", f.name, i)
				}
			})
		}
		if got := countRecords(t, pool); got != 0 {
			t.Errorf("%s: rows: got %d, want 0", f.name, got)
		}
	}
}

// CVE-2024-52801, CVE-2026-2439: IDs come from crypto/rand and nowhere else, as
// they are: 192 bits, none of which stands still.
func TestIDsComeFromCryptoRand(t *testing.T) {
	const name = 26 // bytes that New takes for its own name
	var known [name + 48]byte
	for i := range known {
		known[i] = byte(i * 5)
	}
	source, real := bytes.NewReader(known[:]), rand.Reader
	rand.Reader = source
	m := newManager(t, newHookedStore(), session.Config{})
	rand.Reader = real
	b := login(t, m)
	first := b.id()
	b.visit((*session.Session).Renew)
	for i, id := range []string{first, b.id()} {
		if id != base64.RawURLEncoding.EncodeToString(known[name+24*i:][:24]) {
			t.Errorf("ID %d: got another one than the next 24 bytes of crypto/rand make", i)
		}
	}

	m = newManager(t, newHookedStore(), session.Config{})
	var ones [192]int
	const ids = 200
	for range ids {
		raw, err := base64.RawURLEncoding.DecodeString(login(t, m).id())
		if err != nil || len(raw) != 24 {
			t.Fatal("got an ID that is not 24 bytes of base64url")
		}
		for i := range ones {
			ones[i] += int(raw[i/8] >> (i % 8) & 1)
		}
	}
	for i, n := range ones {
		if n < ids/5 || n > ids*4/5 { // eight standard deviations
			t.Errorf("bit %d: got it set in %d of %d IDs, want about half", i, n, ids)
		}
	}
}

// Rows that no healthy program writes, in the table, loaded in one statement
// beside each other and then changed.
func TestPostgresOddRows(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	const cookie = `"cookie":{"originalMaxAge":60000,"path":"/"}`
	big := func(mb int) string { return `,"big":"` + strings.Repeat("0123456789", mb*100_000) + `"` }
	for _, tt := range []struct {
		name, sess string
		keep       string // what must stay byte for byte; "" if the row is no session
		status     int    // of a change
	}{
		{"null", `null`, "", 200},
		{"number", `5`, "", 200},
		{"array", `[{}]`, "", 200},
		{"string", `"abc"`, "", 200},
		{"no cookie", `{"user" : "ada", "a":1}`, `"a":1`, 200},
		{"wrong cookie", `{"cookie":"x","user":"ada", "a" : 1}`, `"a" : 1`, 200},
		{"2 MB", `{` + cookie + `,"user":"ada"` + big(2) + `}`, big(2), 500},
		{"10 MB", `{` + cookie + `,"user":"ada"` + big(10) + `}`, big(10), 500},
		{"__proto__", `{` + cookie + `,"__proto__" : {"admin":true},"user":"ada"}`, `"__proto__" : {"admin":true}`, 200},
		{"duplicate keys", `{` + cookie + `,"user":"eve","a":1,"a":2,"user":"ada"}`, `"a":1,"a":2`, 200},
		{"NUL", `{` + cookie + `,"n":"a\u0000b","user":"ada"}`, `"n":"a\u0000b"`, 200},
		{"lone surrogates", `{` + cookie + `,"l":"\ud800x\udc00","user":"ada"}`, `"l":"\ud800x\udc00"`, 200},
		{"huge numbers", `{` + cookie + `,"h":1e999999,"i":123456789012345678901234567890,"user":"ada"}`, `"h":1e999999,"i":123456789012345678901234567890`, 200},
		{"deep", `{` + cookie + `,"d":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `,"user":"ada"}`, strings.Repeat("[", 500) + strings.Repeat("]", 500), 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newStore(t, pool, session.PostgresOptions{BatchSlots: 1}) // one that knows nothing of how long the others have taken
			log := &logRecorder{}
			m := patientManager(t, store, func(cfg *session.Config) { cfg.Logger = log.logger() })
			id := strings.Repeat("o", 32)
			execSQL(t, pool, "DELETE FROM schema_system.session")
			execSQL(t, pool, "INSERT INTO schema_system.session VALUES ($1, $2::text::json, now() + interval '1 hour')", id, tt.sess)
			value, _ := m.SignCookie(id)
			c := "session=" + value
			want := "ada"
			if tt.keep == "" {
				want = ""
			}
			readers := 6 // more than there are slots
			if racing && len(tt.sess) > 8<<20 {
				readers = 1 // more take so long that the database seems to be down
			}
			together(readers, func(int) {
				resp := useSession(m, c, func(s *session.Session) {
					if user, _ := userKey.Get(s); user != want {
						t.Errorf("read: got user %q, want %q", user, want)
					}
				})
				if resp.status != http.StatusOK {
					t.Errorf("read: got status %d, want 200", resp.status)
				}
			})
			if resp := useSession(m, c, setQ); resp.status != tt.status {
				t.Errorf("change: got status %d, want %d", resp.status, tt.status)
			}
			after := queryOne[string](t, pool, "SELECT sess::text FROM schema_system.session WHERE sid = $1", id)
			changed := strings.Contains(after, `"q":"1"`)
			if !strings.Contains(after, tt.keep) || changed != (tt.keep != "" && tt.status == 200) || !changed && after != tt.sess {
				t.Errorf("row: got q set %t, or other keys with other bytes", changed)
			}
			if got := strings.Contains(log.String(), "a record cannot be read"); got != (tt.keep == "") || strings.Contains(log.String(), id) {
				t.Errorf("log: got a line about it %t, or the ID in it", got)
			}
		})
	}
}
