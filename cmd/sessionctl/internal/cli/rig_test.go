package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(tests{m}) }

// tests removes the program that they have built.
type tests struct{ *testing.M }

func (m tests) Run() int {
	code := m.M.Run()
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	return code
}

const (
	patience = 2 * time.Minute

	secret    = "w8K0f3sVQ4m1Zr7uYtE2xNcB6hJpLd9aGiTkOy5R+/X="
	oldSecret = "Qm9vSGFyZFRvR3Vlc3MxMjM0NTY3ODkwYWJjZGVmZ2g="
	password  = "a-password-that-nobody-may-see"
	value     = "a-value-that-nobody-may-see"
)

const (
	userID = session.Key[int64]("userId")
	note   = session.Key[string]("note")
	count  = session.Key[int]("count")
)

// rig is a database and the command before it.
type rig struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	in   io.Reader
}

// newRig gives the command DATABASE_URL and the secrets.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, pgtest.URL(t))
}

// newRigOn is a rig on a database that is there.
func newRigOn(t *testing.T, dsn string) *rig {
	t.Helper()
	r := &rig{t: t, url: dsn, in: strings.NewReader("")}
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.RawQuery += "&connect_timeout=5" // what doctor wants
	r.url = u.String()
	pool, err := pgxpool.New(context.Background(), r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r.pool = pool
	r.exec("ALTER DATABASE " + pool.Config().ConnConfig.Database + " SET timezone = 'UTC'")
	r.exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC") // as it is from PostgreSQL 15 on
	pool.Reset()
	t.Setenv("DATABASE_URL", r.url)
	t.Setenv("PGTZ", "")
	t.Setenv("SESSION_SECRET", secret)
	t.Setenv("SESSION_SECRET_OLD", oldSecret)
	return r
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	if len(args) == 0 {
		args = append(args, pgx.QueryExecModeSimpleProtocol)
	}
	if _, err := r.pool.Exec(context.Background(), sql, args...); err != nil {
		r.t.Fatalf("%v in %s", err, sql)
	}
}

func get[T any](r *rig, sql string, args ...any) (v T) {
	r.t.Helper()
	if err := r.pool.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		r.t.Fatalf("%v in %s", err, sql)
	}
	return v
}

func (r *rig) rows() int { return get[int](r, "SELECT count(*) FROM schema_system.session") }

// result is what a command did.
type result struct {
	t        *testing.T
	code     int
	out, err string
}

// buffer may be written to and read by several goroutines, and calls f with
// each write.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	hook func(string)
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.hook != nil {
		b.hook(string(p))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run runs the command in this process.
func (r *rig) run(args ...string) result {
	r.t.Helper()
	return r.runWith(context.Background(), nil, args...)
}

// runWith calls hook with each piece of the command's standard error.
func (r *rig) runWith(ctx context.Context, hook func(string), args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ids := r.ids()
	var out, err buffer
	err.hook = hook
	code := cli.Run(ctx, args, cli.IO{In: r.in, Out: &out, Err: &err})
	res := result{r.t, code, out.String(), err.String()}
	r.discreet(res.out+res.err, append(ids, r.ids()...))
	return res
}

// ids are what the table holds of session IDs.
func (r *rig) ids() (ids []string) {
	rows, err := r.pool.Query(context.Background(), "SELECT sid FROM schema_system.session LIMIT 5000")
	if err != nil {
		return nil
	}
	ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil // no table yet
	}
	return ids
}

// discreet checks that an output holds nothing that nobody may see.
func (r *rig) discreet(text string, ids []string) {
	r.t.Helper()
	for _, id := range ids {
		if strings.Contains(text, id) {
			r.t.Error("the output holds a session ID")
		}
	}
	for name, s := range map[string]string{
		"the secret": secret, "the old secret": oldSecret, "a password": password, "a value": value,
		"the database's password": r.pool.Config().ConnConfig.Password,
	} {
		if s != "" && strings.Contains(text, s) {
			r.t.Errorf("the output holds %s", name)
		}
	}
}

// want checks the exit code, and words in the output.
func (res result) want(code int, words ...string) result {
	res.t.Helper()
	if res.code != code {
		res.t.Errorf("exit code: got %d, want %d, with output\n%s\n%s", res.code, code, res.out, res.err)
	}
	for _, w := range words {
		if !strings.Contains(res.out+res.err, w) {
			res.t.Errorf("got\n%s\n%s\nwant %q in it", res.out, res.err, w)
		}
	}
	return res
}

// parse reads the output as JSON that has no other fields than v.
func parse[T any](res result) (v T) {
	res.t.Helper()
	dec := json.NewDecoder(strings.NewReader(res.out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || dec.More() {
		res.t.Fatalf("got %v for %q, want one JSON value", err, res.out)
	}
	return v
}

// manager is a program on the table.
func (r *rig) manager(cfg session.Config, opts session.PostgresOptions) *session.Manager {
	r.t.Helper()
	opts.Logger, cfg.Logger = slog.New(slog.DiscardHandler), slog.New(slog.DiscardHandler)
	cfg.DisablePrune, cfg.StoreTimeout = true, patience
	store, err := session.NewPostgresStore(context.Background(), r.pool, opts)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := session.New(store, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// browser keeps the session cookie.
type browser struct {
	m      *session.Manager
	cookie *http.Cookie
}

// visit makes one request and returns its status.
func (b *browser) visit(f func(*session.Session)) int {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	if b.cookie != nil {
		req.AddCookie(b.cookie)
	}
	w := httptest.NewRecorder()
	b.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, req)
	for _, c := range w.Result().Cookies() {
		b.cookie = c
		if c.MaxAge < 0 {
			b.cookie = nil
		}
	}
	return w.Code
}

// login makes a session of a user.
func (r *rig) login(m *session.Manager, user int64) *browser {
	r.t.Helper()
	b := &browser{m: m}
	status := b.visit(func(s *session.Session) {
		userID.Set(s, user)
		note.Set(s, value)
	})
	if status != http.StatusOK || b.cookie == nil {
		r.t.Fatalf("login: got status %d", status)
	}
	return b
}

// user is whose session a browser has, 0 if it has none.
func (b *browser) user() (user int64) {
	b.visit(func(s *session.Session) { user, _ = userID.Get(s) })
	return user
}

func (b *browser) handle() (h string) {
	b.visit(func(s *session.Session) { h = s.Handle() })
	return h
}
