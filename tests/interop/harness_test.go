package interop_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/interop"
)

const (
	secret   = "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A"
	schema   = "schema_system"
	table    = "schema_system.session"
	cookieID = "connect.sid"
	minute   = 60_000 // milliseconds: the idle timeout of both sides where a test does not say
)

// majors are those of connect-pg-simple.
var majors = []int{9, 10}

// tally counts what the tests have shown, for the closing table.
var tally struct {
	sync.Mutex
	counts map[string]int
	notes  map[string]string
}

func count(what string, n int) {
	tally.Lock()
	defer tally.Unlock()
	if tally.counts == nil {
		tally.counts = map[string]int{}
	}
	tally.counts[what] += n
}

func note(what, value string) {
	tally.Lock()
	defer tally.Unlock()
	if tally.notes == nil {
		tally.notes = map[string]string{}
	}
	tally.notes[what] = value
}

func TestMain(m *testing.M) {
	code := m.Run()
	program.stop()
	tally.Lock()
	fmt.Println("\nOne set of sessions with Express: what was run")
	for _, what := range slices.Sorted(maps.Keys(tally.counts)) {
		fmt.Printf("  %-78s %7d\n", what, tally.counts[what])
	}
	for _, what := range slices.Sorted(maps.Keys(tally.notes)) {
		fmt.Printf("  %-78s %s\n", what, tally.notes[what])
	}
	os.Exit(code)
}

// node is the running app.js.
type node struct {
	once    sync.Once
	err     error
	cmd     *exec.Cmd
	in      io.Closer
	address string
}

var program node

func (n *node) stop() {
	if n.cmd != nil {
		_ = n.in.Close()
		_ = n.cmd.Wait()
	}
}

// start installs the packages where they are missing and starts app.js, once.
// It fails the test where Node.js is missing: a test that is left out would look
// like one that passed.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.once.Do(func() { n.err = n.run() })
	if n.err != nil {
		t.Fatalf("the Express side does not run: %v", n.err)
	}
}

func (n *node) run() error {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm): %w", tool, err)
		}
	}
	if err := install(); err != nil {
		return err
	}
	cmd := exec.Command("node", "app.js")
	// node-postgres takes no notice of PGTZ; were that to change, tests would fail.
	cmd.Env = append(os.Environ(), "PGTZ=Pacific/Auckland", "NODE_ENV=test", "NO_DEPRECATION=*")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.in = cmd, in
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("app.js said nothing: %w", err)
	}
	var hello struct {
		Port     int
		Versions map[string]string
	}
	if err := json.Unmarshal(line, &hello); err != nil {
		return err
	}
	n.address = fmt.Sprintf("http://127.0.0.1:%d", hello.Port)
	for name, version := range hello.Versions {
		note("version of "+name, version)
	}
	for name, major := range map[string]string{"express": "4.", "connect-pg-simple-9": "9.0.1", "connect-pg-simple-10": "10.0.0"} {
		if !strings.HasPrefix(hello.Versions[name], major) {
			return fmt.Errorf("%s is version %q, want %s", name, hello.Versions[name], major)
		}
	}
	return nil
}

// install runs npm ci unless what is installed is at least as new as the lock file.
func install() error {
	lock, err := os.Stat("package-lock.json")
	if err != nil {
		return err
	}
	if installed, err := os.Stat(filepath.Join("node_modules", ".package-lock.json")); err == nil && !installed.ModTime().Before(lock.ModTime()) {
		return nil
	}
	out, err := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts").CombinedOutput()
	if err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
}

// call gives app.js a command.
func (n *node) call(t *testing.T, command string, arg, answer any) {
	t.Helper()
	body, err := json.Marshal(arg)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Post(n.address+"/"+command, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: got status %d (%v) %s", command, res.StatusCode, err, text)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatal(err)
		}
	}
}

// client keeps its connections.
var client = &http.Client{
	Timeout:   time.Minute,
	Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 64, DisableCompression: true},
}

// express are the options of an application of app.js.
type express struct {
	Major             int            `json:"major"`
	URL               string         `json:"url"`
	Schema            string         `json:"schema"`
	Table             string         `json:"table"`
	CreateTable       bool           `json:"createTable"`
	DisableTouch      bool           `json:"disableTouch"`
	TTL               int            `json:"ttl"`
	Secrets           []string       `json:"secrets"`
	Name              string         `json:"name"`
	Resave            bool           `json:"resave"`
	SaveUninitialized bool           `json:"saveUninitialized"`
	Rolling           bool           `json:"rolling"`
	Unset             string         `json:"unset"`
	Proxy             bool           `json:"proxy"`
	TrustProxy        bool           `json:"trustProxy"`
	Cookie            map[string]any `json:"cookie"`

	// In place of all these but Major and URL: JavaScript, and its environment.
	Snippet string            `json:"snippet"`
	Env     map[string]string `json:"env"`
}

// side is one of the two programs.
type side struct {
	name string
	url  string

	port  int            // of the Express side
	app   *interop.App   // of the Go side
	store session.Pruner // of the Go side
	log   *logs
}

// database is a fresh database with the table.
type database struct {
	url  string
	pool *pgxpool.Pool
}

// newDatabase makes one, with this TimeZone as its default, and lets the Go
// side make the table, which both programs then share.
func newDatabase(t *testing.T, timeZone string) *database {
	t.Helper()
	db := emptyDatabase(t, timeZone)
	if _, err := session.NewPostgresStore(t.Context(), db.pool, session.PostgresOptions{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	return db
}

func emptyDatabase(t *testing.T, timeZone string) *database {
	t.Helper()
	program.start(t)
	db := &database{url: pgtest.URL(t)}
	t.Cleanup(func() { program.call(t, "end", map[string]string{"url": db.url}, nil) })
	if timeZone != "" {
		first := db.connect(t)
		name := first.Config().ConnConfig.Database
		if _, err := first.Exec(t.Context(), fmt.Sprintf("ALTER DATABASE %s SET timezone = '%s'", name, timeZone)); err != nil {
			t.Fatal(err)
		}
		first.Close()
	}
	db.pool = db.connect(t)
	return db
}

// connect makes another pool, as another program would.
func (db *database) connect(t *testing.T) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(db.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 12
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// express starts an Express application on the database.
func (db *database) express(t *testing.T, o express) *side {
	t.Helper()
	o.Major = cmp.Or(o.Major, 10)
	o.URL, o.Schema = db.url, cmp.Or(o.Schema, schema)
	if o.Secrets == nil {
		o.Secrets = []string{secret}
	}
	if o.Cookie == nil {
		o.Cookie = map[string]any{"maxAge": minute, "sameSite": "lax"}
	}
	var answer struct{ Port int }
	program.call(t, "apps", o, &answer)
	t.Cleanup(func() { program.call(t, "close", map[string]int{"port": answer.Port}, nil) })
	return &side{name: fmt.Sprintf("Express with connect-pg-simple %d", o.Major), port: answer.Port, url: fmt.Sprintf("http://127.0.0.1:%d", answer.Port)}
}

// golang starts a Go application on the database, with its own pool as every
// program has.
func (db *database) golang(t *testing.T, change ...func(*session.Config)) *side {
	t.Helper()
	s := &side{name: "Go", log: &logs{}}
	store, err := session.NewPostgresStore(t.Context(), db.connect(t), session.PostgresOptions{Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	cfg := session.Config{
		Secret:       secret,
		IdleTimeout:  minute * time.Millisecond,
		DisablePrune: true,
		StoreTimeout: 15 * time.Second, // two busy cores
		Cookie:       session.CookieConfig{Format: session.FormatExpress},
		Logger:       slog.New(slog.NewTextHandler(s.log, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	manager, err := session.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Close() })
	s.app, s.store = &interop.App{Sessions: manager}, store
	server := httptest.NewServer(s.app.Handler())
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

var quiet = slog.New(slog.DiscardHandler)

// logs keeps what the Go side logs.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was logged and forgets it.
func (l *logs) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

func (s *side) isGo() bool { return s.app != nil }

// prune lets this side delete expired rows.
func (s *side) prune(t *testing.T) {
	t.Helper()
	if !s.isGo() {
		program.call(t, "prune", map[string]int{"port": s.port}, nil)
		return
	}
	if _, err := s.store.Prune(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
}

// entered waits until this side holds the request with this token.
func (s *side) entered(t *testing.T, token string) {
	t.Helper()
	if s.isGo() {
		s.app.Entered(token)
		return
	}
	program.call(t, "entered", map[string]string{"token": token}, nil)
}

// release lets that request go on.
func (s *side) release(t *testing.T, token string) {
	t.Helper()
	if s.isGo() {
		s.app.Release(token)
		return
	}
	program.call(t, "release", map[string]string{"token": token}, nil)
}

// reply is a response.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request with this value of the session cookie, "" for none.
func (s *side) send(cookie, path string, body any, headers ...string) (reply, error) {
	method, text := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return reply{}, err
		}
		method, text = http.MethodPost, bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.url+path, text)
	if err != nil {
		return reply{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookieID+"="+cookie)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		// Its text holds the address only.
		return reply{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{status: res.StatusCode, header: res.Header, body: b}, err
}

// browser keeps the session cookie as a browser does.
type browser struct {
	cookie  string // as sent, still encoded; "" for none
	expires time.Time
	last    string // the last Set-Cookie header, without the value
}

// take reads a reply's cookie.
func (b *browser) take(r reply) {
	b.last = ""
	for _, line := range r.header["Set-Cookie"] {
		pair, attributes, _ := strings.Cut(line, ";")
		name, value, _ := strings.Cut(pair, "=")
		if name != cookieID {
			continue
		}
		b.last = strings.TrimSpace(attributes)
		b.cookie, b.expires = value, time.Time{}
		if c, err := http.ParseSetCookie(line); err == nil {
			b.expires = c.Expires
		}
		if !b.expires.IsZero() && !b.expires.After(time.Now()) {
			b.cookie = ""
		}
	}
}

// do sends a request and keeps the cookie; anything but 200 is an error.
func (b *browser) do(s *side, path string, body any, headers ...string) (reply, error) {
	r, err := s.send(b.cookie, path, body, headers...)
	if err != nil {
		return r, fmt.Errorf("%s %s: %w", s.name, path, err)
	}
	b.take(r)
	if r.status != http.StatusOK {
		return r, fmt.Errorf("%s %s: got status %d %s, want 200", s.name, path, r.status, bytes.TrimSpace(r.body))
	}
	return r, nil
}

// must is do for a test that cannot go on without.
func (b *browser) must(t *testing.T, s *side, path string, body any, headers ...string) reply {
	t.Helper()
	r, err := b.do(s, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// state asks a side what it knows.
func (b *browser) state(s *side) (interop.State, error) {
	var state interop.State
	r, err := b.do(s, "/state", nil)
	if err != nil {
		return state, err
	}
	return state, json.Unmarshal(r.body, &state)
}

func (b *browser) mustState(t *testing.T, s *side) interop.State {
	t.Helper()
	state, err := b.state(s)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// wantData says that a side sees exactly these values, as JSON.
func (b *browser) wantData(t *testing.T, s *side, want string) {
	t.Helper()
	state := b.mustState(t, s)
	got, err := json.Marshal(state.Data)
	if err != nil {
		t.Fatal(err)
	}
	if state.ID == "" {
		t.Errorf("%s: got no session, want %s", s.name, want)
	} else if !sameJSON(got, []byte(want)) {
		t.Errorf("%s: got data %s, want %s", s.name, got, want)
	}
}

// wantNone says that a cookie names no session on any of these sides.
func wantNone(t *testing.T, cookie string, sides ...*side) {
	t.Helper()
	for _, s := range sides {
		b := browser{cookie: cookie}
		if state := b.mustState(t, s); state.ID != "" || len(state.Data) != 0 {
			t.Errorf("%s: got a session with %d keys for a dead cookie, want none", s.name, len(state.Data))
		}
	}
}

// sameJSON compares as JavaScript does, numbers as float64.
func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	bx, errx := json.Marshal(x)
	by, erry := json.Marshal(y)
	return errx == nil && erry == nil && bytes.Equal(bx, by)
}

// row is a stored record.
type row struct {
	sess   string
	expire float64 // seconds since 1970
	left   float64 // seconds
}

var errNoRow = errors.New("no row")

// row reads a record as it stands.
func (db *database) row(t *testing.T, id string) (row, error) {
	t.Helper()
	var r row
	rows, err := db.pool.Query(t.Context(), `SELECT sess::text, extract(epoch FROM expire::timestamptz)::float8,
		extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8 FROM `+table+` WHERE sid = $1`, id)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		return r, errNoRow
	}
	if err := rows.Scan(&r.sess, &r.expire, &r.left); err != nil {
		t.Fatal(err)
	}
	return r, nil
}

// session reads a record as row does, but no mark of a renewed ID.
func (db *database) session(t *testing.T, id string) (row, error) {
	t.Helper()
	r, err := db.row(t, id)
	if err == nil && strings.HasPrefix(r.sess, `"0e`) {
		err = errNoRow
	}
	return r, err
}

func (db *database) mustRow(t *testing.T, id string) row {
	t.Helper()
	r, err := db.row(t, id)
	if err != nil {
		t.Fatalf("the session's row: %v", err)
	}
	return r
}

func (db *database) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := db.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func (db *database) number(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := db.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// insert stores a row as it stands, live for a minute, and returns its ID.
func (db *database) insert(t *testing.T, sess string) string {
	t.Helper()
	id := newID()
	db.exec(t, "INSERT INTO "+table+" (sid, sess, expire) VALUES ($1, $2::text::json, now() + interval '1 minute')", id, sess)
	return id
}

func newID() string {
	var b [24]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// sign makes the cookie of an ID, as express-session does.
func sign(id, secret string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(id))
	return url.QueryEscape("s:" + id + "." + base64.RawStdEncoding.EncodeToString(h.Sum(nil)))
}

type object map[string]any
