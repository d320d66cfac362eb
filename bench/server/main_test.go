package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/rig"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(builtOnce{m}) }

// binaries is where the server's program is.
var binaries string

// builtOnce runs the tests on one build of the server.
type builtOnce struct{ m *testing.M }

func (b builtOnce) Run() int {
	ctx := context.Background()
	module, err := rig.ModuleDir(ctx)
	if err == nil {
		var remove func()
		if binaries, remove, err = rig.Build(ctx, module, "./server"); err == nil {
			defer remove()
			return b.m.Run()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// launch starts the server on a database of its own.
func launch(t *testing.T, variant, secret string) (*rig.Server, *pgx.Conn) {
	t.Helper()
	url := pgtest.URL(t)
	l := rig.Launch{Binaries: binaries, Pool: 4, Secret: secret}
	s, err := l.Start(t.Context(), rig.FindVariant(variant), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	return s, db
}

func one[T any](t *testing.T, db *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

var secret = "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A"

const sqlRows = "SELECT count(*)::int FROM schema_system.session"

// The table is there as soon as the server answers, each route answers as the
// contract has it, and SIGTERM ends the server with status 0.
func TestContract(t *testing.T) {
	s, db := launch(t, rig.Session, secret)
	if got := one[int](t, db, sqlRows); got != 0 {
		t.Errorf("rows before the first login: got %d, want 0", got)
	}
	if err := s.CheckContract(); err != nil {
		t.Error(err)
	}
	if got := one[int](t, db, sqlRows); got != 1 {
		t.Errorf("rows after one login and several visitors without a session: got %d, want 1", got)
	}
	if got := one[string](t, db, "SELECT sess->>'user_id' FROM schema_system.session"); got != "contract" {
		t.Errorf("user_id: got %q, want %q", got, "contract")
	}
	if got := one[int](t, db, "SELECT (sess->>'counter')::int FROM schema_system.session"); got != 2 {
		t.Errorf("counter after two writes: got %d, want 2", got)
	}
	for i := range app.Facts {
		got := one[string](t, db, "SELECT sess->>$1 FROM schema_system.session", app.FactName(i))
		if want := app.Fact("contract", i); got != want {
			t.Errorf("%s: got %q, want %q", app.FactName(i), got, want)
		}
	}
	if err := s.End(); err != nil {
		t.Errorf("after SIGTERM: got %v, want exit status 0", err)
	}
}

// A cookie that nobody signed is no session, and a second login of a user another.
func TestStrangers(t *testing.T) {
	s, db := launch(t, rig.Session, secret)
	for _, path := range []string{"/read", "/write"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "session=bm90IHNpZ25lZA")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with a forged cookie: got %d, want 401", path, resp.StatusCode)
		}
	}
	users, err := rig.LoginUsers(s, "user", 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Login(http.DefaultClient, users.IDs[0]); err != nil {
		t.Fatal(err)
	}
	if got := one[int](t, db, sqlRows); got != 21 {
		t.Errorf("rows after 21 logins: got %d, want 21", got)
	}
}

// Overlapping writes of one session all count, and each is told its own number.
func TestOverlappingWrites(t *testing.T) {
	s, db := launch(t, rig.Session, secret)
	cookie, err := s.Login(http.DefaultClient, "busy")
	if err != nil {
		t.Fatal(err)
	}
	script := &sameSession{t: t, request: rig.Request(rig.Write, cookie), left: 200, seen: make(map[string]bool)}
	if _, err := (rig.Load{Addrs: []string{s.Addr}, Conns: 8, Script: script}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := one[int](t, db, "SELECT (sess->>'counter')::int FROM schema_system.session"); got != 200 {
		t.Errorf("counter after 200 overlapping writes: got %d, want 200", got)
	}
}

// sameSession sends one request on all connections.
type sameSession struct {
	t       *testing.T
	request []byte
	left    int
	seen    map[string]bool
}

func (s *sameSession) Next(int) (int, []byte) {
	if s.left == 0 {
		return 0, nil
	}
	s.left--
	return 0, s.request
}

func (s *sameSession) Done(_, _ int, a rig.Answer) error {
	if n := string(a.Body); a.Status != http.StatusOK || s.seen[n] {
		s.t.Errorf("got %d %q (seen before: %t), want 200 and a number that nobody else got", a.Status, n, s.seen[n])
	} else {
		s.seen[n] = true
	}
	return nil
}

func TestEncrypt(t *testing.T) {
	s, db := launch(t, "session-encrypt", secret)
	if err := s.CheckContract(); err != nil {
		t.Error(err)
	}
	text := one[string](t, db, "SELECT sess::text FROM schema_system.session")
	if strings.Contains(text, app.Fact("contract", 0)) || strings.Contains(text, `"contract"`) {
		t.Error("got a row with the data in the clear, want it sealed")
	}
}

// Without SESSION_SECRET the three variables of the contract still suffice.
func TestNoSecret(t *testing.T) {
	s, _ := launch(t, rig.Session, "")
	if err := s.CheckContract(); err != nil {
		t.Error(err)
	}
}
