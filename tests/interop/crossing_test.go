package interop_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// crossing is a test of two sides in one direction: what a does, b must see.
type crossing struct {
	name    string
	express express
	golang  func(*session.Config)
	run     func(t *testing.T, db *database, a, b *side)
}

// TestCrossings runs every crossing in both directions against both majors of
// connect-pg-simple.
func TestCrossings(t *testing.T) {
	for _, major := range majors {
		db := newDatabase(t, "")
		for _, c := range crossings {
			o := c.express
			o.Major = major
			ex := db.express(t, o)
			var changes []func(*session.Config)
			if c.golang != nil {
				changes = append(changes, c.golang)
			}
			gg := db.golang(t, changes...)
			for _, d := range [][2]*side{{ex, gg}, {gg, ex}} {
				from, to := "Express", "Go"
				if d[0].isGo() {
					from, to = to, from
				}
				t.Run(fmt.Sprintf("%d/%s/%s to %s", major, c.name, from, to), func(t *testing.T) {
					c.run(t, db, d[0], d[1])
					count(fmt.Sprintf("1 crossings, both directions, connect-pg-simple %d", major), 1)
				})
			}
		}
	}
}

var crossings = []crossing{
	{name: "login here, read there", run: func(t *testing.T, _ *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		w.wantData(t, b, `{"user":"ada"}`)
		w.wantData(t, a, `{"user":"ada"}`)
	}},
	{name: "change there, read here", run: func(t *testing.T, _ *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		w.must(t, b, "/set", object{"key": "cart", "value": object{"a": []int{1, 2}}})
		w.must(t, a, "/set", object{"key": "10", "value": "integer-like"})
		w.must(t, b, "/set", object{"key": "user", "value": "bea"})
		w.must(t, b, "/delete", object{"key": "nothing"})
		want := `{"user":"bea","cart":{"a":[1,2]},"10":"integer-like"}`
		w.wantData(t, a, want)
		w.wantData(t, b, want)
		w.must(t, b, "/delete", object{"key": "cart"})
		w.wantData(t, a, `{"user":"bea","10":"integer-like"}`)
	}},
	{name: "counter and flash", run: func(t *testing.T, _ *database, a, b *side) {
		var w browser
		for range 3 {
			w.must(t, a, "/count", object{})
			w.must(t, b, "/count", object{})
		}
		w.wantData(t, a, `{"n":6}`)
		w.must(t, a, "/set", object{"key": "flash", "value": "saved"})
		if got := string(w.must(t, b, "/take", object{}).body); strings.TrimSpace(got) != `{"value":"saved"}` {
			t.Errorf("flash taken by %s: got %s, want saved", b.name, got)
		}
		w.wantData(t, a, `{"n":6}`)
	}},
	{name: "logout", run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		id, cookie := w.mustState(t, a).ID, w.cookie
		w.must(t, b, "/logout", object{})
		if _, err := db.row(t, id); err == nil {
			t.Error("row after logout: got one, want none")
		}
		// Express leaves the cookie in the browser; we take it away.
		if gone := w.cookie == ""; gone != b.isGo() {
			t.Errorf("cookie taken away by %s: got %v, want %v", b.name, gone, b.isGo())
		}
		wantNone(t, cookie, a, b)
	}},
	{name: "login again: the old ID is dead on both", run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/set", object{"key": "cart", "value": 1})
		old, oldID := w.cookie, w.mustState(t, a).ID
		w.must(t, b, "/login", object{"user": "ada"})
		wantNone(t, old, a, b)
		if _, err := db.session(t, oldID); err == nil {
			t.Error("session of the old ID: got one, want none")
		}
		w.wantData(t, a, `{"user":"ada"}`)
		w.wantData(t, b, `{"user":"ada"}`)
	}},
	{name: "renew: the old ID is dead on both, the data kept", run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/set", object{"key": "cart", "value": 1})
		old, oldID := w.cookie, w.mustState(t, a).ID
		w.must(t, b, "/renew", object{})
		wantNone(t, old, a, b)
		if _, err := db.session(t, oldID); err == nil {
			t.Error("session of the old ID: got one, want none")
		}
		w.wantData(t, a, `{"cart":1}`)
		w.wantData(t, b, `{"cart":1}`)
		w.must(t, a, "/renew", object{})
		w.wantData(t, b, `{"cart":1}`)
	}},
	{name: "maxAge changed", run: func(t *testing.T, db *database, a, b *side) {
		for _, ms := range []int{3_600_000, 40_000} { // longer, shorter
			var w browser
			w.must(t, b, "/login", object{"user": "ada"})
			life, asked := time.Duration(ms)*time.Millisecond, time.Now()
			w.must(t, a, "/maxage", object{"ms": ms})
			// Its seconds are whole, and it was set before the answer came.
			if early, late := asked.Add(life-2*time.Second), time.Now().Add(life+2*time.Second); w.expires.Before(early) || w.expires.After(late) {
				t.Errorf("cookie's life after %s: got one until %v, want %v from when it was asked for, %v", a.name, w.expires, life, asked)
			}
			id := w.mustState(t, b).ID
			wantLife(t, db, id, ms)
			// The other side goes on with this session's own timeout.
			w.must(t, b, "/set", object{"key": "x", "value": 1})
			wantLife(t, db, id, ms)
			db.exec(t, "UPDATE "+table+" SET expire = now() + $2::int * interval '1 millisecond' WHERE sid = $1", id, ms/2)
			w.must(t, b, "/state", nil)
			wantLife(t, db, id, ms)
			db.exec(t, "UPDATE "+table+" SET expire = now() + $2::int * interval '1 millisecond' WHERE sid = $1", id, ms/2)
			w.must(t, a, "/state", nil)
			wantLife(t, db, id, ms)
		}
	}},
	{name: "browser session", express: express{Cookie: object{"sameSite": "lax"}, TTL: 100}, golang: func(c *session.Config) {
		c.Cookie.BrowserSession = true
		c.IdleTimeout = 100 * time.Second // Express: the store's ttl
	}, run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		if w.last == "" || strings.Contains(w.last, "Expires") {
			t.Errorf("attributes from %s: got %q, want some, without Expires", a.name, w.last)
		}
		id := w.mustState(t, b).ID
		for _, s := range []*side{a, b} {
			w.must(t, s, "/set", object{"key": "by", "value": s.name})
			if strings.Contains(w.last, "Expires") {
				t.Errorf("attributes from %s: got %q, want none with Expires", s.name, w.last)
			}
			r := db.mustRow(t, id)
			if !strings.Contains(r.sess, `"originalMaxAge":null,"expires":null`) || math.Abs(r.left-100) > 35 {
				t.Errorf("row after %s: got %s, %.0f s left; want null and null, 100 s", s.name, redact(r.sess), r.left)
			}
		}
	}},
	{name: "rolling", express: express{Rolling: true}, run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		id := w.mustState(t, b).ID
		for _, s := range []*side{a, b, a, b} {
			db.exec(t, "UPDATE "+table+" SET expire = now() + interval '20 seconds' WHERE sid = $1", id)
			w.must(t, s, "/state", nil)
			wantLife(t, db, id, minute)
			if left := time.Until(w.expires); w.last == "" || left < 30*time.Second {
				t.Errorf("cookie from %s: got %q, want one that moves with the expiry", s.name, w.last)
			}
		}
	}},
	{name: "not rolling", run: func(t *testing.T, db *database, a, b *side) {
		var w browser
		w.must(t, a, "/login", object{"user": "ada"})
		id := w.mustState(t, b).ID
		for _, s := range []*side{a, b, a, b} {
			db.exec(t, "UPDATE "+table+" SET expire = now() + interval '20 seconds' WHERE sid = $1", id)
			w.must(t, s, "/state", nil)
			wantLife(t, db, id, minute)
			// Express lets the cookie end before the row; ours moves along.
			if sent := w.last != ""; sent != s.isGo() {
				t.Errorf("cookie from %s for a touch: got %v, want %v", s.name, sent, s.isGo())
			}
		}
	}},
	{name: "resave and saveUninitialized", express: express{Resave: true, SaveUninitialized: true}, run: func(t *testing.T, _ *database, a, b *side) {
		var w browser
		w.must(t, a, "/state", nil) // Express makes a session of nothing
		w.must(t, b, "/set", object{"key": "x", "value": 1})
		w.must(t, a, "/state", nil)
		w.must(t, b, "/state", nil)
		w.wantData(t, a, `{"x":1}`)
		w.wantData(t, b, `{"x":1}`)
	}},
	{name: "unset destroy and disableTouch", express: express{Unset: "destroy", DisableTouch: true}, run: func(t *testing.T, _ *database, a, b *side) {
		var w browser
		w.must(t, a, "/set", object{"key": "x", "value": 1})
		w.wantData(t, b, `{"x":1}`)
		path := "/null" // req.session = null
		if b.isGo() {
			path = "/logout"
		}
		cookie := w.cookie
		w.must(t, b, path, object{})
		wantNone(t, cookie, a, b)
	}},
	{
		name: "secret rotation", express: express{Secrets: []string{"the new secret, the same on both sides", secret}},
		golang: func(c *session.Config) {
			c.Secret, c.OldSecrets = "the new secret, the same on both sides", []string{secret}
		},
		run: func(t *testing.T, db *database, a, b *side) {
			const sess = `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/"},"user":"ada"}`
			id := db.insert(t, sess)
			w := browser{cookie: sign(id, secret)}
			w.wantData(t, a, `{"user":"ada"}`)
			w.must(t, a, "/set", object{"key": "x", "value": 1})
			if !a.isGo() && w.cookie != sign(id, "the new secret, the same on both sides") {
				t.Error("cookie after a change by Express: got another, want one signed with the new secret")
			}
			w.wantData(t, b, `{"user":"ada","x":1}`)
			if w.cookie != sign(id, "the new secret, the same on both sides") {
				t.Error("cookie after both sides: got another, want one signed with the new secret")
			}
			w.wantData(t, a, `{"user":"ada","x":1}`)
			wantNone(t, sign(id, "a secret that was dropped, long enough"), a, b)
		},
	},
	{
		name:    "secure behind a proxy",
		express: express{Proxy: true, Cookie: object{"maxAge": minute, "sameSite": "lax", "secure": true}},
		golang:  func(c *session.Config) { c.TrustProxy, c.Cookie.Secure = true, session.SecureAlways },
		run: func(t *testing.T, db *database, a, b *side) {
			https := []string{"X-Forwarded-Proto", "https"}
			var w browser
			w.must(t, a, "/login", object{"user": "ada"}, https...)
			if !strings.Contains(w.last, "; Secure") {
				t.Errorf("attributes from %s: got %q, want Secure", a.name, w.last)
			}
			w.must(t, b, "/set", object{"key": "x", "value": 1}, https...)
			if !strings.Contains(w.last, "; Secure") && w.last != "" {
				t.Errorf("attributes from %s: got %q, want Secure", b.name, w.last)
			}
			w.wantData(t, a, `{"user":"ada","x":1}`)
			if r := db.mustRow(t, w.mustState(t, b).ID); !strings.Contains(r.sess, `"secure":true`) {
				t.Errorf("row: got %s, want secure true", redact(r.sess))
			}
		},
	},
	{
		name:    "secure auto behind a proxy",
		express: express{TrustProxy: true, Cookie: object{"maxAge": minute, "secure": "auto"}},
		golang:  func(c *session.Config) { c.TrustProxy = true },
		run: func(t *testing.T, db *database, a, b *side) {
			for proto, want := range map[string]bool{"https": true, "http": false, "https, http": true} {
				var w browser
				w.must(t, a, "/login", object{"user": "ada"}, "X-Forwarded-Proto", proto)
				if got := strings.Contains(w.last, "; Secure"); got != want {
					t.Errorf("Secure from %s by %q: got %v, want %v", a.name, proto, got, want)
				}
				id := w.mustState(t, b).ID
				// The row's answer holds for every later cookie, on both sides.
				w.must(t, b, "/maxage", object{"ms": minute + 5000}, "X-Forwarded-Proto", proto)
				if got := strings.Contains(w.last, "; Secure"); got != want {
					t.Errorf("Secure from %s by %q: got %v, want %v", b.name, proto, got, want)
				}
				if r := db.mustRow(t, id); strings.Contains(r.sess, `"secure":true`) != want {
					t.Errorf("row by %q: got %s, want secure %v", proto, redact(r.sess), want)
				}
			}
		},
	},
}

// wantLife says that a row's timeout and expiry are these milliseconds.
func wantLife(t *testing.T, db *database, id string, ms int) {
	t.Helper()
	r := db.mustRow(t, id)
	if err := checkLife(r, ms); err != nil {
		t.Error(err)
	}
}

// checkLife allows for the touch interval, and for the time that passes between two
// looks of Express's at the clock, by which it lets originalMaxAge become less: a few
// milliseconds, unless it stands still just then.
func checkLife(r row, ms int) error {
	var sess struct {
		Cookie struct{ OriginalMaxAge *float64 }
	}
	if err := json.Unmarshal([]byte(r.sess), &sess); err != nil {
		return fmt.Errorf("row is not JSON: %w", err)
	}
	if got := sess.Cookie.OriginalMaxAge; got == nil || *got > float64(ms) || *got < float64(ms)-1000 {
		return fmt.Errorf("originalMaxAge: got %s, want %d", redact(r.sess), ms)
	}
	if want := float64(ms) / 1000; r.left > want+2 || r.left < want*0.9-30 {
		return fmt.Errorf("time left: got %.1f s, want %.0f", r.left, want)
	}
	return nil
}

var cookieObject = regexp.MustCompile(`"cookie":\{[^}]*\}`)

// redact shows a row's cookie object alone: no data in a test's output.
func redact(sess string) string { return cookieObject.FindString(sess) }

// TestCookieAttributes says that a session's cookie has the same attributes
// whichever side made the session and whichever sends the cookie.
func TestCookieAttributes(t *testing.T) {
	cases := []struct {
		name    string
		express object
		golang  session.CookieConfig
	}{
		{"lax", object{"maxAge": minute, "sameSite": "lax"}, session.CookieConfig{Secure: session.SecureNever}},
		{"no SameSite", object{"maxAge": minute}, session.CookieConfig{SameSite: http.SameSiteDefaultMode, Secure: session.SecureNever}},
		{"strict, domain, path", object{"maxAge": minute, "sameSite": true, "domain": "example.com", "path": "/"}, session.CookieConfig{SameSite: http.SameSiteStrictMode, Domain: "example.com", Secure: session.SecureNever}},
		{"none, secure, partitioned", object{"maxAge": minute, "sameSite": "none", "secure": true, "partitioned": true}, session.CookieConfig{SameSite: http.SameSiteNoneMode, Secure: session.SecureAlways, Partitioned: true}},
		{"browser session", object{"sameSite": "lax"}, session.CookieConfig{BrowserSession: true, Secure: session.SecureNever}},
		{"secure auto", object{"maxAge": minute, "secure": "auto"}, session.CookieConfig{SameSite: http.SameSiteDefaultMode}},
		{"secure", object{"maxAge": minute, "sameSite": "lax", "secure": true}, session.CookieConfig{Secure: session.SecureAlways}},
	}
	expires := regexp.MustCompile(`Expires=[^;]*`)
	plain := func(attributes string) string { return expires.ReplaceAllString(attributes, "Expires=…") }
	for _, major := range majors {
		db := newDatabase(t, "")
		for _, tt := range cases {
			t.Run(fmt.Sprint(major, "/", tt.name), func(t *testing.T) {
				ex := db.express(t, express{Major: major, Proxy: true, Cookie: tt.express})
				tt.golang.Format = session.FormatExpress
				gg := db.golang(t, func(c *session.Config) { c.Cookie, c.TrustProxy = tt.golang, true })
				https := []string{"X-Forwarded-Proto", "https"}
				want := ""
				for _, maker := range []*side{ex, gg} {
					for _, sender := range []*side{ex, gg} {
						var w browser
						w.must(t, maker, "/set", object{"key": "x", "value": 1}, https...)
						if want == "" {
							want = plain(w.last)
						}
						if got := plain(w.last); got != want {
							t.Errorf("made by %s: got %q, want %q", maker.name, got, want)
						}
						w.must(t, sender, "/renew", object{}, https...) // a cookie for certain
						if got := plain(w.last); got != want {
							t.Errorf("made by %s, sent by %s: got %q, want %q", maker.name, sender.name, got, want)
						}
						count("1 Set-Cookie headers compared, attribute by attribute", 2)
					}
				}
			})
		}
	}
}

// TestCookieAttributesOfTheRow says that an existing session's cookie is the
// row's on both sides, whatever the configuration.
func TestCookieAttributesOfTheRow(t *testing.T) {
	for _, major := range majors {
		wantRowAttributes(t, major)
	}
}

func wantRowAttributes(t *testing.T, major int) {
	t.Helper()
	db := newDatabase(t, "")
	ex := db.express(t, express{Major: major, Proxy: true, Rolling: true})
	gg := db.golang(t, func(c *session.Config) { c.TrustProxy = true })
	for _, c := range []string{
		`{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/other"}`,
		`{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":null}`,
		`{"originalMaxAge":60000,"partitioned":true,"priority":"high","expires":null,"secure":true,"httpOnly":true,"domain":"example.com","path":"/","sameSite":"strict"}`,
		`{"originalMaxAge":60000,"priority":"MEDIUM","httpOnly":true,"path":"/","sameSite":"None","secure":true}`,
		`{"originalMaxAge":60000,"httpOnly":true,"sameSite":true}`,
		`{"originalMaxAge":60000,"sameSite":false,"partitioned":false,"secure":false}`,
		`{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}`,
		`{"originalMaxAge":60000}`,
		`{}`,
	} {
		var got [2]string
		for i, s := range []*side{ex, gg} {
			id := db.insert(t, `{"cookie":`+c+`,"x":1}`)
			db.exec(t, "UPDATE "+table+" SET expire = now() + interval '20 seconds' WHERE sid = $1", id)
			w := browser{cookie: sign(id, secret)}
			w.must(t, s, "/state", nil, "X-Forwarded-Proto", "https") // a touch with a cookie
			got[i] = regexp.MustCompile(`Expires=[^;]*`).ReplaceAllString(w.last, "Expires=…")
			count("1 Set-Cookie headers compared, attribute by attribute", 1)
		}
		if got[0] != got[1] {
			t.Errorf("attributes for %s: Express sends %q, Go %q", c, got[0], got[1])
		}
	}
}

// TestOneIndex says that whoever makes the table, the other adds no index.
func TestOneIndex(t *testing.T) {
	const indexes = `SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
		WHERE i.indrelid = 'schema_system.session'::regclass AND a.attname = 'expire'`
	for _, major := range majors {
		db := emptyDatabase(t, "")
		db.exec(t, "CREATE SCHEMA schema_system")
		ex := db.express(t, express{Major: major, CreateTable: true})
		var w browser
		w.must(t, ex, "/login", object{"user": "ada"})
		gg := db.golang(t)
		w.wantData(t, gg, `{"user":"ada"}`)
		if got := db.number(t, indexes); got != 1 {
			t.Errorf("table made by connect-pg-simple %d: got %d indexes on expire, want 1", major, got)
		}
		if got := db.number(t, `SELECT count(*) FROM pg_class WHERE relname = 'IDX_session_expire'`); got != 1 {
			t.Errorf("table made by connect-pg-simple %d: got %d indexes of its name, want 1", major, got)
		}

		db = newDatabase(t, "")
		ex = db.express(t, express{Major: major, CreateTable: true})
		w = browser{}
		w.must(t, ex, "/login", object{"user": "ada"})
		w.wantData(t, db.golang(t), `{"user":"ada"}`)
		if got := db.number(t, indexes); got != 1 {
			t.Errorf("table made by Go, connect-pg-simple %d: got %d indexes on expire, want 1", major, got)
		}
		count("1 tables made by one side and used by the other", 2)
	}
}
