package session_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/bearer"
	"github.com/pgsession/session/internal/cookie"
)

const testPrefix = "shop_"

func withTokens(c *session.Config) {
	c.TokenPrefix = testPrefix
	c.DisablePrune = true
}

// tokenManager returns a manager that knows tokens.
func tokenManager(t testing.TB, store session.Store, opts ...func(*session.Config)) *session.Manager {
	t.Helper()
	var cfg session.Config
	withTokens(&cfg)
	for _, o := range opts {
		o(&cfg)
	}
	return newManager(t, store, cfg)
}

// client keeps the token that a manager's handler sends, and brings it back.
type client struct {
	m     *session.Manager
	token string // "" for none
}

func (c *client) visit(h func(*session.Session)) *response {
	return c.serve(func(_ http.ResponseWriter, r *http.Request) { h(session.From(r.Context())) })
}

func (c *client) serve(h http.HandlerFunc) *response {
	resp := askBroken(c.m.Handler(h), tokenRequest(c.token))
	if token := resp.header.Get("Session-Token"); token != "" {
		c.token = token
	}
	return resp
}

// with returns another client that has got hold of the same token.
func (c *client) with(m *session.Manager) *client { return &client{m: m, token: c.token} }

func (c *client) user() (user string) {
	c.visit(func(s *session.Session) { user, _ = userKey.Get(s) })
	return user
}

func (c *client) id() (id string) {
	c.visit(func(s *session.Session) { id = s.ID() })
	return id
}

// tokenRequest is one that brings a token, "" for none, and no cookie.
func tokenRequest(token string) *http.Request {
	r := request("GET", "")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// tokenLogin is what a handler for clients without cookies does.
func tokenLogin(s *session.Session) {
	s.UseToken()
	s.Renew()
	userKey.Set(s, "ada")
}

// loggedIn returns a client with a token whose user is ada.
func loggedIn(t testing.TB, m *session.Manager) *client {
	t.Helper()
	c := &client{m: m}
	if resp := c.visit(tokenLogin); resp.status != 200 || c.token == "" {
		t.Fatalf("login: got status %d, a token: %t, want 200 and one", resp.status, c.token != "")
	}
	return c
}

// tokenOf makes a token for an ID with a secret, as only who has that can.
func tokenOf(t testing.TB, secret, prefix, id string) string {
	t.Helper()
	codec, err := bearer.NewCodec([]string{secret}, prefix)
	if err != nil {
		t.Fatal(err)
	}
	token, err := codec.Make(id)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// cookieOf makes a cookie for an ID with a secret, likewise.
func cookieOf(t testing.TB, secret string, format session.CookieFormat, id string) string {
	t.Helper()
	codec, err := cookie.NewCodec([]string{secret}, format == session.FormatExpress)
	if err != nil {
		t.Fatal(err)
	}
	name := "session"
	if format == session.FormatExpress {
		name = "connect.sid"
	}
	value, err := codec.Sign(name, id)
	if err != nil {
		t.Fatal(err)
	}
	return name + "=" + value
}

// wantToken checks the status, whether a token came, and that no cookie did.
func wantToken(t testing.TB, what string, r *response, status int, token bool) {
	t.Helper()
	if r.status != status || (r.header.Get("Session-Token") != "") != token || r.header["Set-Cookie"] != nil {
		t.Errorf("%s: got status %d, a token: %t, %d cookies, want %d, %t, 0", what, r.status, r.header.Get("Session-Token") != "", len(r.header["Set-Cookie"]), status, token)
	}
	for _, value := range r.header["Session-Token"] {
		if !strings.HasPrefix(value, testPrefix) {
			t.Errorf("%s: got a token without the prefix", what)
		}
	}
	if got := r.header.Get("Cache-Control"); token && got != "no-store" {
		t.Errorf("%s: got Cache-Control %q beside a token, want no-store", what, got)
	}
}
