package main_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

// commandLine is somebody with the client, who keeps a token.
type commandLine struct {
	t      *testing.T
	server *exampletest.Program
	file   string
}

func newCommandLine(t *testing.T, server *exampletest.Program) *commandLine {
	return &commandLine{t, server, filepath.Join(t.TempDir(), "token")}
}

func (c *commandLine) command(args ...string) *exampletest.Program {
	c.t.Helper()
	return exampletest.Command(c.t, append([]string{"TOKEN_SERVER=" + c.server.URL, "TOKEN_FILE=" + c.file}, args...)...)
}

// wants runs a command and compares what it prints.
func (c *commandLine) wants(want string, args ...string) {
	c.t.Helper()
	p := c.command(args...)
	out, err := p.Output()
	if err != nil || string(out) != want {
		c.t.Errorf("%v: got %q, %v, want %q\n%s", args, out, err, want, p.Log())
	}
	c.server.WantNotInLog(append(c.tokens(), exampletest.Secret)...)
	p.WantNotInLog(append(c.tokens(), exampletest.Secret)...)
}

func (c *commandLine) token() string {
	c.t.Helper()
	b, err := os.ReadFile(c.file)
	exampletest.Must(c.t, err)
	return string(b)
}

// tokens is the one that is kept, if there is one.
func (c *commandLine) tokens() []string {
	if b, err := os.ReadFile(c.file); err == nil {
		return []string{string(b)}
	}
	return nil
}

// The whole life of a token, from a shell.
func TestLoginWhoamiLogout(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	server := exampletest.Start(t, "DATABASE_URL="+dsn)
	ada := newCommandLine(t, server)
	ada.command("whoami").WantFailure("you are not logged in")
	ada.wants("logged in as ada\n", "login", "ada")
	ada.wants("ada\n", "whoami")
	first := ada.token()
	if !strings.HasPrefix(first, "demo_") {
		t.Error("got a token without its prefix")
	}
	if info, err := os.Stat(ada.file); runtime.GOOS != "windows" && (err != nil || info.Mode().Perm() != 0o600) {
		t.Errorf("the token's file: got %v, want mode 0600", err)
	}

	thief := newCommandLine(t, server)
	exampletest.Must(t, os.WriteFile(thief.file, []byte(first), 0o600))
	thief.wants("ada\n", "whoami")
	ada.wants("changed the password of ada, and the token with it\n", "password")
	ada.wants("ada\n", "whoami")
	thief.command("whoami").WantFailure("you are not logged in")

	kept := ada.token()
	ada.wants("logged out\n", "logout")
	ada.command("whoami").WantFailure("you are not logged in")
	exampletest.Must(t, os.WriteFile(thief.file, []byte(kept), 0o600))
	thief.command("whoami").WantFailure("you are not logged in")
	if n := exampletest.Rows(t, dsn); n != 0 {
		t.Errorf("got %d rows after the logout, want none", n)
	}
}

// A new secret is a new token at the next call, and nobody is logged out.
func TestANewSecretIsANewToken(t *testing.T) {
	t.Parallel()
	dsn := pgtest.URL(t)
	const oldSecret = "an older secret of the tests, long enough"
	old := filepath.Join(t.TempDir(), "old")
	exampletest.Must(t, os.WriteFile(old, []byte(strings.ReplaceAll(oldSecret, " ", "-")), 0o600)) // of several each is a word
	ada := newCommandLine(t, exampletest.Start(t, "DATABASE_URL="+dsn, "SESSION_SECRET="+strings.ReplaceAll(oldSecret, " ", "-")))
	ada.wants("logged in as ada\n", "login", "ada")
	first := ada.token()
	ada.server.Interrupt(os.Interrupt)
	ada.server = exampletest.Start(t, "DATABASE_URL="+dsn, "SESSION_SECRET_OLD_FILE="+old)
	ada.wants("ada\n", "whoami")
	if ada.token() == first {
		t.Error("got the token of the old secret still")
	}
	ada.wants("ada\n", "whoami")
}

// What the client refuses, and what it says of the server's refusals.
func TestFaults(t *testing.T) {
	t.Parallel()
	server := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	ada := newCommandLine(t, server)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"dance"}, "use: login"},
		{[]string{"login"}, "use: login"},
		{[]string{"login", " "}, "who are you?"},
		{[]string{"whoami", "TOKEN_SERVER=http://example.com"}, "no https"},
		{[]string{"whoami", "TOKEN_SERVER=example"}, "is no URL"},
	} {
		ada.command(tt.args...).WantFailure(tt.want)
	}
	ada.wants("logged in as ada\n", "login", "ada")
	kept := ada.token()
	// Whoever is redirected to comes by no token, and gives none.
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with a token: %t", r.Header.Get("Authorization") != "")
		w.Header().Set("Session-Token", "planted")
		_, _ = io.WriteString(w, `{"user":"eve"}`)
	}))
	t.Cleanup(plain.Close)
	redirects := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Session-Token", "planted, too")
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(redirects.Close)
	for _, command := range []string{"whoami", "password", "logout"} {
		ada.command(command, "TOKEN_SERVER="+redirects.URL).WantFailure("redirect")
	}
	if got := ada.tokens(); len(got) != 1 || got[0] != kept {
		t.Error("after redirects: got another token, or none, want that of before")
	}
	ada.wants("ada\n", "whoami")
}

// Pages of one other origin may be clients, without credentials; those of others not.
func TestCORS(t *testing.T) {
	t.Parallel()
	server := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t), "ALLOW_ORIGIN=https://shop.example")
	for _, tt := range []struct {
		method, origin, path string
		code                 int
		allowed              bool
	}{
		{"OPTIONS", "https://shop.example", "/me", 204, true},
		{"GET", "https://shop.example", "/me", 401, true},
		{"OPTIONS", "https://evil.example", "/me", 204, false},
		{"GET", "https://evil.example", "/me", 401, false},
		{"GET", "", "/me", 401, false},
	} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL+tt.path, nil)
		exampletest.Must(t, err)
		r.Header.Set("Access-Control-Request-Method", "GET")
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		httpRes, err := http.DefaultClient.Do(r)
		exampletest.Must(t, err)
		res := exampletest.Read(t, httpRes)
		allowed := res.Header.Get("Access-Control-Allow-Origin") == tt.origin && tt.origin != "" && res.Header.Get("Access-Control-Expose-Headers") == "Session-Token"
		if res.Code != tt.code || allowed != tt.allowed || res.Header.Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(strings.Join(res.Header["Vary"], ","), "Origin") {
			t.Errorf("%s from %q: got %d, allowed %t, want %d, %t, and never credentials", tt.method, tt.origin, res.Code, allowed, tt.code, tt.allowed)
		}
	}
}
