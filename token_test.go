package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// A whole life, each step with the operations of the store that it costs: those of a
// session with a cookie.
func TestTokenLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		c := &client{m: tokenManager(t, store)}
		wantToken(t, "visit without a token", c.visit(func(s *session.Session) { userKey.Get(s) }), 200, false)
		wantCalls(t, "visit without a token", store, "")

		login := c.visit(tokenLogin)
		wantToken(t, "login", login, 200, true)
		wantCalls(t, "login", store, "Create")
		if got := login.header["Vary"]; !slices.Equal(got, []string{"Cookie", "Authorization"}) {
			t.Errorf("login: got Vary %q, want Cookie and Authorization", got)
		}

		first := c.token
		read := c.visit(func(s *session.Session) {
			if user, _ := userKey.Get(s); user != "ada" || s.IsNew() || slices.Contains(s.Keys(), "__token") {
				t.Errorf("got user %q, new %t, keys %q, want ada, false, her keys alone", user, s.IsNew(), s.Keys())
			}
		})
		wantToken(t, "read", read, 200, false)
		wantCalls(t, "read", store, "Load")

		wantToken(t, "write", c.visit(func(s *session.Session) { keyA.Set(s, "tea") }), 200, false)
		wantCalls(t, "write", store, "Load Update")
		wantToken(t, "a page without the session", c.visit(func(*session.Session) {}), 200, false)
		wantCalls(t, "a page without the session", store, "")

		time.Sleep(2 * time.Minute)
		wantToken(t, "touch", c.visit(func(s *session.Session) { userKey.Get(s) }), 200, false)
		wantCalls(t, "touch", store, "Load Touch")
		wantToken(t, "idle timeout", c.visit(func(s *session.Session) { s.SetIdleTimeout(48 * time.Hour) }), 200, false)
		wantCalls(t, "idle timeout", store, "Load Update")

		wantToken(t, "renewal", c.visit(func(s *session.Session) { s.Renew() }), 200, true)
		wantCalls(t, "renewal", store, "Load Update")
		if c.token == first {
			t.Error("renewal: got the same token")
		}
		if got := (&client{m: c.m, token: first}).user(); got != "" {
			t.Errorf("the token of before: got user %q, want none", got)
		}
		if got := c.user(); got != "ada" {
			t.Errorf("the renewed token: got user %q, want ada", got)
		}
		store.took()

		wantToken(t, "logout", c.visit(func(s *session.Session) { s.Destroy() }), 200, false)
		wantCalls(t, "logout", store, "Delete")
		if got := c.user(); got != "" {
			t.Errorf("after the logout: got user %q, want none", got)
		}
		if n := len(store.live(t)); n != 0 {
			t.Errorf("got %d records, want 0", n)
		}
	})
}

// What a request begins: a token only where it was asked for or where the request
// brought one of ours, a cookie only where not, never both.
func TestTokenOrCookie(t *testing.T) {
	store := newHookedStore()
	m := tokenManager(t, store)
	dead := loggedIn(t, m)
	token := dead.token
	dead.visit(func(s *session.Session) { s.Destroy() })
	for _, tt := range []struct {
		name, auth    string
		use           bool
		token, cookie bool
	}{
		{"nothing", "", false, false, true},
		{"asked for", "", true, true, false},
		{"a dead token", "Bearer " + token, false, true, false},
		{"a dead token, asked for", "Bearer " + token, true, true, false},
		{"a forged token", "Bearer " + testPrefix + "forged", false, true, false},
		{"an application's token", "Bearer eyJ.e30.c2ln", false, false, true},
		{"an application's token, asked for", "Bearer eyJ.e30.c2ln", true, true, false},
		{"a password", "Basic YTpi", false, false, true},
	} {
		r := request("POST", "")
		if tt.auth != "" {
			r.Header.Set("Authorization", tt.auth)
		}
		resp := askBroken(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			userKey.Set(s, "ada")
			if tt.use { // the order does not matter
				s.UseToken()
			}
		})), r)
		if resp.status != 200 || (resp.header.Get("Session-Token") != "") != tt.token || (resp.newCookie() != "") != tt.cookie {
			t.Errorf("%s: got %d, a token: %t, a cookie: %t, want 200, %t, %t", tt.name, resp.status, resp.header.Get("Session-Token") != "", resp.newCookie() != "", tt.token, tt.cookie)
		}
	}
	resp := (&client{m: m}).visit(func(s *session.Session) { s.UseToken() })
	wantToken(t, "UseToken alone begins no session", resp, 200, false)

	c := loggedIn(t, m)
	old := c.token
	wantToken(t, "destroyed and begun again", c.visit(func(s *session.Session) { s.Destroy(); userKey.Set(s, "bob") }), 200, true)
	if c.user() != "bob" || (&client{m: m, token: old}).user() != "" {
		t.Error("destroyed and begun again: want bob by the new token alone")
	}
}

// A token beside a session cookie, two Authorization headers, a token asked for beside
// a cookie: 400, and nothing is read, written, sent or ended. What is not ours changes
// nothing.
func TestTokenBesideCookie(t *testing.T) {
	store := newHookedStore()
	asked := 0
	m := tokenManager(t, store, func(c *session.Config) {
		c.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { asked++ }
	})
	b, c, other := login(t, m), loggedIn(t, m), loggedIn(t, m)
	gone := login(t, m)
	goneCookie := gone.cookie
	gone.visit(func(s *session.Session) { s.Destroy() })
	token := "Bearer " + c.token
	for _, tt := range []struct {
		name, cookie string
		auth         []string
		use          bool
		status       int
	}{
		{"both", b.cookie, []string{token}, false, 400},
		{"a forged token", b.cookie, []string{"Bearer " + testPrefix}, false, 400},
		{"a cookie whose session has ended", goneCookie, []string{token}, false, 400},
		{"a cookie among others", "a=b; " + b.cookie, []string{token}, false, 400},
		{"a cookie that does not verify", "session=forged", []string{token}, false, 200},
		{"another cookie", "a=b", []string{token}, false, 200},
		{"two tokens", "", []string{token, "Bearer " + other.token}, false, 400},
		{"the same twice", "", []string{token, token}, false, 400},
		{"an application's token before", "", []string{"Bearer eyJ.e30.c2ln", token}, false, 400},
		{"an application's token after", "", []string{token, "Bearer eyJ.e30.c2ln"}, false, 400},
		{"an application's token and a cookie", b.cookie, []string{"Bearer eyJ.e30.c2ln"}, false, 200},
		{"two of the application's and a cookie", b.cookie, []string{"Bearer eyJ.e30.c2ln", "Basic YTpi"}, false, 200},
		{"a token asked for", b.cookie, nil, true, 400},
		{"a token asked for, the cookie's session has ended", goneCookie, nil, true, 400},
		{"a token asked for, the cookie does not verify", "session=forged", nil, true, 200},
	} {
		for what, do := range map[string]func(*session.Session){
			"Get":     func(s *session.Session) { userKey.Get(s) },
			"Set":     func(s *session.Session) { keyA.Set(s, "x") },
			"Destroy": func(s *session.Session) { s.Destroy() },
			"Save":    func(s *session.Session) { keyA.Set(s, "x"); _ = s.Save(context.Background()) },
		} {
			if tt.status == 200 && what != "Get" || tt.use && what == "Destroy" {
				continue // it would end or change what the next line needs; a logout by a cookie alone is one
			}
			store.took()
			r := request("POST", tt.cookie)
			r.Header["Authorization"] = tt.auth
			resp := askBroken(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if tt.use {
					s.UseToken()
				}
				do(s)
				_, _ = io.WriteString(w, "the page")
			})), r)
			if resp.status != tt.status || strings.Contains(resp.body, "the page") != (tt.status == 200) {
				t.Errorf("%s, %s: got %d %q, want %d", tt.name, what, resp.status, resp.body, tt.status)
			}
			if tt.status == 200 {
				continue
			}
			if resp.header["Set-Cookie"] != nil || resp.header["Session-Token"] != nil || resp.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s, %s: got headers beside the 400, or none against caches", tt.name, what)
			}
			if calls := store.took(); calls != "" && !tt.use {
				t.Errorf("%s, %s: got calls %q, want none", tt.name, what, calls)
			}
		}
	}
	resp := askBroken(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Destroy() // ends the cookie's session, and no token comes in its place
		s.UseToken()
	})), request("POST", goneCookie))
	if resp.status != 400 {
		t.Errorf("a token asked for after Destroy: got %d, want 400", resp.status)
	}
	if asked != 0 {
		t.Errorf("the error handler was asked %d times, want never", asked)
	}
	if b.user() != "ada" || c.user() != "ada" || other.user() != "ada" {
		t.Error("a session has ended, want all as before")
	}
	public := request("GET", b.cookie)
	public.Header.Set("Authorization", token)
	if resp := ask(m.Handler(http.NotFoundHandler()), public); resp.status != 404 {
		t.Errorf("a page that does not use the session: got %d, want 404", resp.status)
	}
}

// An ID that gets from one kind into the other, by whoever can sign, opens nothing, in
// either direction: also where the record is sealed, in Express's format, and after a
// renewal.
func TestTokenIsNoCookie(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  func(*session.Config)
		fmt  session.CookieFormat
	}{
		{"plain", func(*session.Config) {}, session.FormatSecureCookie},
		{"Encrypt", func(c *session.Config) { c.Encrypt = true }, session.FormatSecureCookie},
		{"Express", func(c *session.Config) { c.Cookie.Format = session.FormatExpress }, session.FormatExpress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store, log := newHookedStore(), &logRecorder{}
			m := tokenManager(t, store, tt.opt, func(c *session.Config) { c.Logger = log.logger() })
			c := loggedIn(t, m)
			b := &browser{m: m}
			b.visit(func(s *session.Session) { userKey.Set(s, "bob") })
			c.visit(func(s *session.Session) { s.Renew() })
			tokenID, cookieID := c.id(), b.id()
			if tokenID == "" || cookieID == "" {
				t.Fatal("got no IDs")
			}
			log.reset()
			without := tokenManager(t, store, tt.opt, func(c *session.Config) { c.TokenPrefix = "" })
			for name, m := range map[string]*session.Manager{"with tokens": m, "without tokens": without} {
				thief := &browser{m: m, cookie: cookieOf(t, testSecret, tt.fmt, tokenID)}
				if got := thief.user(); got != "" {
					t.Errorf("%s, a token's ID in a cookie: got user %q, want none", name, got)
				}
				thief.visit(func(s *session.Session) { userKey.Set(s, "eve") })
			}
			thief := &client{m: m, token: tokenOf(t, testSecret, testPrefix, cookieID)}
			if got := thief.user(); got != "" {
				t.Errorf("a cookie's ID in a token: got user %q, want none", got)
			}
			thief.visit(func(s *session.Session) { userKey.Set(s, "eve") })
			if c.user() != "ada" || b.user() != "bob" {
				t.Error("want both sessions as they were")
			}
			if got := log.from(slog.LevelError); len(got) != 4 || strings.Contains(strings.Join(got, ""), tokenID) || strings.Contains(strings.Join(got, ""), cookieID) {
				t.Errorf("got %d lines of errors, want 4 without an ID", len(got))
			}
			if same := tokenOf(t, testSecret, testPrefix, tokenID); (&client{m: m, token: same}).user() != "ada" {
				t.Error("another token for the same ID: want it to open, or this test shows nothing")
			}
		})
	}
}

// A token that was made with other keys, or moved, is as absent as a forged cookie:
// no statement, a count, and the client is not told apart.
func TestForgedTokens(t *testing.T) {
	store := newHookedStore()
	m := tokenManager(t, store)
	c := loggedIn(t, m)
	id := c.id()
	store.took()
	bad := []string{
		"", "x", c.token[len(testPrefix):][:30], c.token[len(testPrefix):] + "A", c.token[len(testPrefix):] + "\x00",
		id, strings.Repeat("A", 70), strings.Repeat("A", 1<<20), c.token[len(testPrefix):] + ", Bearer " + c.token,
		strings.TrimPrefix(tokenOf(t, testSecretOld, testPrefix, id), testPrefix),
		strings.TrimPrefix(tokenOf(t, testSecret, "admin_", id), "admin_"),
		strings.TrimPrefix(cookieOf(t, testSecret, session.FormatSecureCookie, id), "session="),
	}
	for i, token := range bad {
		thief := &client{m: m, token: testPrefix + token}
		if got := thief.user(); got != "" {
			t.Errorf("token %d: got user %q, want none", i, got)
		}
	}
	wantCalls(t, "forged tokens", store, "")
	if got := m.Stats().BadCookies; got != uint64(len(bad)) {
		t.Errorf("Stats.BadCookies: got %d, want %d", got, len(bad))
	}
	if got := useSession(m, "session="+c.token, func(s *session.Session) {
		if user, ok := userKey.Get(s); ok {
			t.Errorf("a token as the cookie's value: got user %q, want none", user)
		}
	}); got.status != 200 {
		t.Errorf("a token as the cookie's value: got %d, want 200", got.status)
	}
	store.took()
	for _, scheme := range []string{"bearer ", "BEARER  ", " Bearer "} {
		r := request("GET", "")
		r.Header.Set("Authorization", scheme+c.token)
		ask(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if user, _ := userKey.Get(session.From(r.Context())); user != "ada" {
				t.Errorf("%q: got user %q, want ada", scheme, user)
			}
		})), r)
	}
}

// Where another part of an Express application signs what a client sends, with the
// same secret, a client that has its token signed gets no session by a cookie, here or
// in Express, which looks for the row of the ID that was signed: the client does not
// know that of its own.
func TestTokenSignedByAnother(t *testing.T) {
	store := newHookedStore()
	m := tokenManager(t, store, func(c *session.Config) { c.Cookie.Format = session.FormatExpress })
	c := loggedIn(t, m)
	id := c.id()
	body := c.token[len(testPrefix):]
	signs := []string{c.token, body, "Bearer " + c.token, body[:32], body[len(body)-32:]}
	for at := range len(body) - 31 { // the ID, wherever it stands, would have 32 characters
		signs = append(signs, body[at:at+32])
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	for at := range len(raw) - 23 {
		signs = append(signs, base64.RawURLEncoding.EncodeToString(raw[at:at+24]))
	}
	for i, sign := range signs {
		if sign == id {
			t.Fatalf("text %d is the ID", i)
		}
		thief := &browser{m: m, cookie: cookieOf(t, testSecret, session.FormatExpress, sign)}
		if got := thief.user(); got != "" {
			t.Errorf("text %d: got user %q, want none", i, got)
		}
		if _, err := store.Store.Load(t.Context(), sign); !errors.Is(err, session.ErrNotFound) { // all that Express does
			t.Errorf("text %d: got %v, want no row", i, err)
		}
	}
}

// Without TokenPrefix nothing is looked at, and UseToken is an error that says what to
// set.
func TestTokensAreOffByDefault(t *testing.T) {
	store := newHookedStore()
	c := loggedIn(t, tokenManager(t, store))
	off := newManager(t, store, session.Config{DisablePrune: true})
	store.took()
	resp := c.with(off).visit(func(s *session.Session) {
		if user, ok := userKey.Get(s); ok {
			t.Errorf("got user %q, want none", user)
		}
	})
	wantCalls(t, "off", store, "")
	if got := resp.header["Vary"]; !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("off: got Vary %q, want Cookie alone", got)
	}
	resp = (&client{m: off}).visit(func(s *session.Session) {
		s.UseToken()
		if err := s.Err(); !errors.Is(err, session.ErrInvalid) || !strings.Contains(err.Error(), "Config.TokenPrefix") {
			t.Errorf("UseToken: got %v, want ErrInvalid that names Config.TokenPrefix", err)
		}
	})
	wantToken(t, "UseToken without the configuration", resp, 500, false)
}

// What comes too late, or does not go together, is an error and no session.
func TestTokenMisuse(t *testing.T) {
	bound := func(c *session.Config) {
		c.Cookie.Secure = session.SecureAlways
		c.DeviceBound.Refresh = boundRefresh
	}
	store := newHookedStore()
	m := tokenManager(t, store, bound)
	for _, tt := range []struct {
		name string
		do   func(*session.Session)
		want error
	}{
		{"after a Save", func(s *session.Session) { userKey.Set(s, "ada"); _ = s.Save(context.Background()); s.UseToken() }, session.ErrInvalid},
		{"after Bind", func(s *session.Session) { s.Bind(); s.UseToken() }, session.ErrInvalid},
		{"before Bind", func(s *session.Session) { s.UseToken(); s.Bind() }, session.ErrInvalid},
		{"twice", func(s *session.Session) { s.UseToken(); s.UseToken(); userKey.Set(s, "ada") }, nil},
		{"after a Save with it", func(s *session.Session) { tokenLogin(s); _ = s.Save(context.Background()); s.UseToken() }, nil},
	} {
		resp := (&browser{m: m}).visit(func(s *session.Session) {
			tt.do(s)
			if err := s.Err(); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
		})
		if want := map[bool]int{true: 500, false: 200}[tt.want != nil]; resp.status != want {
			t.Errorf("%s: got %d, want %d", tt.name, resp.status, want)
		}
	}
	c := loggedIn(t, m)
	wantToken(t, "Bind by a token", c.visit(func(s *session.Session) { s.Bind() }), 500, false)
	if c.user() != "ada" {
		t.Error("Bind by a token: want the session as before")
	}
	late := (&client{m: m}).serve(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "a byte")
		tokenLogin(session.From(r.Context()))
	})
	if !errors.Is(late.err, http.ErrAbortHandler) || late.header.Get("Session-Token") != "" {
		t.Errorf("after the first byte: got error %v, want the response cut off and no token", late.err)
	}
}

// A token made with an old secret works, and the next response brings one of the
// current secret; a renewal, a touch and a page for shared caches as with a cookie.
func TestTokenRotation(t *testing.T) {
	store := newHookedStore()
	old := tokenManager(t, store, func(c *session.Config) { c.Secret = testSecretOld })
	c := loggedIn(t, old)
	m := tokenManager(t, store, func(c *session.Config) { c.OldSecrets = []string{testSecretOld} })
	c.m = m
	first := c.token
	public := c.serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		userKey.Get(session.From(r.Context()))
	})
	if public.header.Get("Session-Token") != "" || public.header.Get("Cache-Control") != "public, max-age=60" {
		t.Error("a page for shared caches: got a token, or a page that they may not keep")
	}
	wantToken(t, "first use", c.visit(func(s *session.Session) { userKey.Get(s) }), 200, true)
	if c.token == first || c.user() != "ada" || (&client{m: old, token: c.token}).user() != "" {
		t.Error("first use: want a token of the current secret alone")
	}
	wantToken(t, "second use", c.visit(func(s *session.Session) { userKey.Get(s) }), 200, false)
	if err := m.SetSecrets(testSecret + "-later"); err != nil {
		t.Fatal(err)
	}
	if got := c.user(); got != "" {
		t.Errorf("a dropped secret: got user %q, want none", got)
	}
	if got := loggedIn(t, m).user(); got != "ada" {
		t.Errorf("after SetSecrets: got user %q, want ada", got)
	}
}

// The client gets the token of an ID that a Save has made whatever answers in the end,
// for its old one is dead and nobody else will send it: an error page, and whoever
// recovers from a panic.
func TestTokenIsSentWithAnErrorToo(t *testing.T) {
	store := newHookedStore()
	m := tokenManager(t, store)
	c := loggedIn(t, m)
	resp := c.visit(func(s *session.Session) {
		s.Renew()
		if err := s.Save(context.Background()); err != nil {
			t.Error(err)
		}
		store.fail("Update")
		keyA.Set(s, "x")
	})
	wantToken(t, "a later save fails", resp, 503, true)
	store.fail()
	if c.user() != "ada" {
		t.Error("a later save fails: want the token that came to open the session")
	}
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		_ = s.Save(context.Background())
		panic("the handler's")
	}))
	resp = ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover(); w.WriteHeader(500) }()
		h.ServeHTTP(w, r)
	}), tokenRequest(c.token))
	wantToken(t, "a panic", resp, 500, true)

	c = loggedIn(t, m)
	store.fail("Load")
	wantToken(t, "an outage", c.visit(func(s *session.Session) { userKey.Get(s) }), 503, false)
	store.fail("Create")
	wantToken(t, "an outage at the login", (&client{m: m}).visit(tokenLogin), 503, false)
	store.fail()
	if c.user() != "ada" {
		t.Error("an outage is no logout: want the token to open the session")
	}
}

// A touch moves the record as far as the idle timeout says where no cookie can follow,
// for none has to: on a page for shared caches and by a Save.
func TestTokenTouchGoesAllTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, h := range map[string]http.HandlerFunc{
			"public": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public")
				userKey.Get(session.From(r.Context()))
			},
			"Save": func(_ http.ResponseWriter, r *http.Request) { _ = session.From(r.Context()).Save(r.Context()) },
			"late": func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "a byte")
				userKey.Get(session.From(r.Context()))
			},
		} {
			store := newHookedStore()
			c := loggedIn(t, tokenManager(t, store))
			id := c.id()
			time.Sleep(time.Hour)
			c.serve(func(w http.ResponseWriter, r *http.Request) {
				if name == "Save" {
					userKey.Get(session.From(r.Context()))
				}
				h(w, r)
			})
			rec, err := store.Store.Load(t.Context(), id)
			if err != nil || rec.TTL != session.DefaultIdleTimeout {
				t.Errorf("%s: got %v left, %v, want %v", name, rec.TTL, err, session.DefaultIdleTimeout)
			}
		}
	})
}

// Tokens are found, listed, ended and counted like cookies, and a list tells them
// apart.
func TestTokenSessionsAreFound(t *testing.T) {
	synctest.Test(t, testTokenSessionsAreFound)
}

func testTokenSessionsAreFound(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		m := tokenManager(t, session.NewMemoryStore(), func(c *session.Config) {
			c.UserKey, c.MaxPerUser, c.Encrypt = string(userKey), 2, encrypt
		})
		b, c := login(t, m), loggedIn(t, m)
		infos, err := m.Sessions(t.Context(), userKey.Is("ada"))
		if err != nil || len(infos) != 2 {
			t.Fatalf("got %d sessions, %v, want 2", len(infos), err)
		}
		var handle string
		c.visit(func(s *session.Session) { handle = s.Handle() })
		for _, i := range infos {
			if i.Token != (i.Handle == handle) {
				t.Errorf("got Token %t, want it for the token's session alone", i.Token)
			}
			if _, ok := session.Key[bool]("__token").Of(i); ok {
				t.Error("got a member that is none of the application's")
			}
		}
		if n, err := m.Revoke(t.Context(), userKey.Is("ada").Handle(handle)); n != 1 || err != nil {
			t.Errorf("Revoke: got %d, %v, want 1", n, err)
		}
		if c.user() != "" || b.user() != "ada" {
			t.Error("Revoke: want the token's session ended and no other")
		}
		time.Sleep(time.Second)                    // in the bubble: of two logins of one millisecond nobody knows the newer
		one, two := loggedIn(t, m), loggedIn(t, m) // and the browser is one too many
		if b.user() != "" || one.user() != "ada" || two.user() != "ada" {
			t.Error("MaxPerUser: want the two newest, both by tokens")
		}
	}
}

// With Encrypt the row does not say which are tokens'.
func TestTokenIsSealed(t *testing.T) {
	store := newHookedStore()
	for _, encrypt := range []bool{false, true} {
		c := loggedIn(t, tokenManager(t, store, func(c *session.Config) { c.Encrypt = encrypt }))
		if got := strings.Contains(store.live(t)[c.id()], `"__token"`); got == encrypt {
			t.Errorf("encrypt %t: got __token readable %t", encrypt, got)
		}
	}
}

// An application cannot use the member's name, nor forge it.
func TestTokenMemberIsReserved(t *testing.T) {
	m := tokenManager(t, session.NewMemoryStore())
	c := loggedIn(t, m)
	wantToken(t, "Delete", c.visit(func(s *session.Session) { session.Key[bool]("__token").Delete(s) }), 500, false)
	if resp := (&browser{m: m}).visit(func(s *session.Session) { session.Key[bool]("__token").Set(s, true) }); resp.status != 500 || resp.newCookie() != "" {
		t.Errorf("Set: got %d, a cookie: %t, want 500 and none", resp.status, resp.newCookie() != "")
	}
	c.visit(func(s *session.Session) {
		if _, ok := session.Key[bool]("__token").Get(s); ok {
			t.Error("Get: got it, want it hidden")
		}
	})
}

// Nothing that is printed or logged has a token in it.
func TestTokensAreNotLogged(t *testing.T) {
	store, log := newHookedStore(), &logRecorder{}
	m := tokenManager(t, store, func(c *session.Config) { c.Logger = log.logger() })
	c := loggedIn(t, m)
	tokens := []string{c.token}
	c.visit(func(s *session.Session) { s.Renew() })
	tokens = append(tokens, c.token)
	store.fail("Load")
	c.visit(func(s *session.Session) { userKey.Get(s) })
	store.fail()
	r := tokenRequest(c.token)
	r.Header.Set("Cookie", login(t, m).cookie)
	ask(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		userKey.Get(s)
		log.logger().Info("printed", "session", s, "error", s.Err())
	})), r)
	text := log.String() + strings.Join(log.from(-100), "\n")
	for _, token := range tokens {
		if strings.Contains(text, token) || strings.Contains(text, token[len(testPrefix):]) {
			t.Error("got a token in the log")
		}
	}
	if !strings.Contains(text, "tokenPrefix="+testPrefix) {
		t.Error("the log at the start does not say the prefix")
	}
}

// Two managers, one around the other, tell their tokens apart by the prefix. With one
// prefix they would take each other's for forged ones.
func TestNestedManagersWithTokens(t *testing.T) {
	outer := tokenManager(t, session.NewMemoryStore())
	admin := tokenManager(t, session.NewMemoryStore(), func(c *session.Config) { c.TokenPrefix = "admin_"; c.Cookie.Name = "admin" })
	var users []string
	h := outer.Handler(admin.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for _, m := range []*session.Manager{outer, admin} {
			user, _ := userKey.Get(m.From(r.Context()))
			users = append(users, user)
		}
	})))
	for _, m := range []*session.Manager{outer, admin} {
		ask(h, tokenRequest(func() string { c := &client{m: m}; c.visit(tokenLogin); return c.token }()))
	}
	if want := []string{"ada", "", "", "ada"}; !slices.Equal(users, want) {
		t.Errorf("got users %q, want %q", users, want)
	}
	same := tokenManager(t, session.NewMemoryStore(), func(c *session.Config) { c.Cookie.Name = "admin" })
	defer func() {
		if v, _ := recover().(string); !strings.Contains(v, "TokenPrefix") {
			t.Errorf("got panic %q, want one that names TokenPrefix", v)
		}
	}()
	ask(outer.Handler(same.Handler(http.NotFoundHandler())), tokenRequest(""))
}

// Authorization is looked at only where a session is used, and costs a request that
// has none nothing.
func TestTokenAllocations(t *testing.T) {
	m := tokenManager(t, session.NewMemoryStore())
	off := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	allocs := func(m *session.Manager, r *http.Request) float64 {
		h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { userKey.Get(session.From(r.Context())) }))
		w := discard{header: http.Header{}}
		least := math.Inf(1) // with the race detector pools lose one in four
		for range 100 {
			least = min(least, testing.AllocsPerRun(1, func() { clear(w.header); h.ServeHTTP(w, r) }))
		}
		return least
	}
	cookie := request("GET", login(t, m).cookie)
	without := request("GET", login(t, off).cookie)
	if with, want := allocs(m, cookie), allocs(off, without)+1; with > want { // the second Vary
		t.Errorf("a cookie where there are tokens: got %v allocations, want %v at most", with, want)
	}
	if with, want := allocs(m, tokenRequest(loggedIn(t, m).token)), allocs(m, cookie)+3; with > want {
		t.Errorf("a token: got %v allocations, want %v at most, three more than a cookie", with, want)
	}
}

// Over a real server, with both protocols.
func TestTokenOverHTTP(t *testing.T) {
	for _, proto := range protocols {
		m := tokenManager(t, session.NewMemoryStore())
		server := startServer(t, proto, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			if r.Method == "POST" {
				tokenLogin(s)
			}
			user, _ := userKey.Get(s)
			_, _ = io.WriteString(w, user)
		})))
		login := server.do(t, "POST", "")
		wantToken(t, proto, login, 200, true)
		req, err := http.NewRequestWithContext(t.Context(), "GET", server.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+login.header.Get("Session-Token"))
		server.send(t, req, "").want(t, 200, "ada")
	}
}

// BenchmarkTokenRead is BenchmarkRequest's read by a token.
func BenchmarkTokenRead(b *testing.B) {
	m := tokenManager(b, session.NewMemoryStore())
	r := tokenRequest(loggedIn(b, m).token)
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		userKey.Get(session.From(r.Context()))
		_, _ = io.WriteString(w, "page")
	}))
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(discard{header: http.Header{}}, r)
	}
}
