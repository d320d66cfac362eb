package sessionadmin_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessionadmin"
	"github.com/pgsession/session/sessiontest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const userID = session.Key[any]("userId")

// rig is the pages over a real table, without an authorization.
type rig struct {
	t        *testing.T
	pool     *pgxpool.Pool
	sessions *session.Manager
	pages    *sessionadmin.Handler
	log      *logged
	ids      []string // of every session that was made
}

// logged keeps what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T, cfg session.Config, opts sessionadmin.Options) *rig {
	t.Helper()
	return newRigOn(t, pgtest.Pool(t), cfg, opts)
}

func newRigOn(t *testing.T, pool *pgxpool.Pool, cfg session.Config, opts sessionadmin.Options) *rig {
	t.Helper()
	return newRigOver(t, pool, func(s *session.PostgresStore) session.Store { return s }, cfg, opts)
}

// newRigOver is a rig whose manager has another store, over the real one.
func newRigOver(t *testing.T, pool *pgxpool.Pool, over func(*session.PostgresStore) session.Store, cfg session.Config, opts sessionadmin.Options) *rig {
	t.Helper()
	r := &rig{t: t, pool: pool, log: new(logged)}
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	cfg.Secret, cfg.Logger, cfg.DisablePrune = "a secret of more than thirty-two bytes, for tests", logger, true
	r.sessions, err = session.New(over(store), cfg)
	r.must(err)
	t.Cleanup(func() { r.must(r.sessions.Close()) })
	opts.Manager, opts.Pool, opts.Logger = r.sessions, pool, logger
	if opts.Keys == nil {
		opts.Keys = []string{"userId"}
	}
	r.pages, err = sessionadmin.New(opts)
	r.must(err)
	t.Cleanup(func() { r.must(r.pages.Close()) })
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	_, err := r.pool.Exec(context.Background(), sql, args...)
	r.must(err)
}

// login makes a session of a user, and says whether it is still there.
func (r *rig) login(user any) (handle string, live func() bool) {
	r.t.Helper()
	request := httptest.NewRequest("GET", "/", nil)
	sessiontest.Login(r.t, r.sessions, request, func(s *session.Session) {
		userID.Set(s, user)
		session.Key[string]("note").Set(s, "confidential")
	})
	live = func() (live bool) {
		r.sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			_, live = userID.Get(s)
			handle = s.Handle()
		})).ServeHTTP(httptest.NewRecorder(), request.Clone(r.t.Context()))
		return live
	}
	r.sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		r.ids = append(r.ids, session.From(req.Context()).ID())
	})).ServeHTTP(httptest.NewRecorder(), request.Clone(r.t.Context()))
	if !live() || handle == "" {
		r.t.Fatal("the login did not make a session")
	}
	return handle, live
}

// answer is what the pages said.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (r *rig) get(address string) answer {
	r.t.Helper()
	return r.do(httptest.NewRequest("GET", address, nil))
}

// post sends a form as a browser does, from one of our own pages.
func (r *rig) post(form url.Values, header ...string) answer {
	r.t.Helper()
	request := httptest.NewRequest("POST", "/revoke", strings.NewReader(form.Encode()))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			request.Header.Del(header[i])
		}
	}
	return r.do(request)
}

// do also checks what every answer must have and must not.
func (r *rig) do(request *http.Request) answer {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.pages.ServeHTTP(w, request)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	r.must(err)
	a := answer{res.StatusCode, res.Header, string(body)}
	if got := a.header.Get("Content-Security-Policy"); got != sessionadmin.Policy {
		r.t.Errorf("%s: got the policy %q", request.URL.Path, got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" && !strings.HasSuffix(request.URL.Path, ".css") {
		r.t.Errorf("%s: got Cache-Control %q, want no-store", request.URL.Path, got)
	}
	r.shows(request.URL.Path, a.body)
	r.shows(request.URL.Path+": Location", a.header.Get("Location"))
	r.shows("the log", r.log.String())
	return a
}

// shows looks for what nobody may see.
func (r *rig) shows(where, text string) {
	r.t.Helper()
	for i, id := range r.ids {
		if strings.Contains(text, id) {
			r.t.Errorf("%s shows the ID of session %d", where, i)
		}
	}
	if strings.Contains(text, "confidential") {
		r.t.Errorf("%s shows stored data", where)
	}
}

// want checks the status and looks for texts in the page.
func (a answer) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if a.code != code {
		t.Errorf("got %d, want %d", a.code, code)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("the page has no %q", text)
		}
	}
}
