package otelsession_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// site is an application whose requests and statements are traced.
type site struct {
	pool    *pgxpool.Pool
	spans   *tracetest.InMemoryExporter
	handler http.Handler
	m       *session.Manager

	mu      sync.Mutex
	secrets []string // session IDs and cookie values
}

func newSite(t *testing.T, touch time.Duration, opts session.PostgresOptions, tracing ...otelpgx.Option) *site {
	t.Helper()
	s := &site{spans: tracetest.NewInMemoryExporter()}
	provider := trace.NewTracerProvider(trace.WithSyncer(s.spans))
	t.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.pool = pgtest.Pool(t, func(cfg *pgxpool.Config) {
		cfg.MaxConns = 8
		cfg.ConnConfig.Tracer = otelpgx.NewTracer(append(tracing, otelpgx.WithTracerProvider(provider))...)
	})
	opts.Logger = slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(t.Context(), s.pool, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.m = newManager(t, store, touch)
	mux := http.NewServeMux()
	for path, f := range map[string]func(*session.Session){
		"/login": set, "/read": get, "/change": set, "/renew": renew, "/logout": destroy, "/unused": func(*session.Session) {},
	} {
		mux.HandleFunc(path, func(_ http.ResponseWriter, r *http.Request) {
			f(session.From(r.Context()))
		})
	}
	s.handler = otelhttp.NewHandler(s.m.Handler(mux), "server",
		otelhttp.WithTracerProvider(provider),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.URL.RequestURI() }))
	return s
}

// request asks for a path and returns the cookie for the next request.
func (s *site) request(t *testing.T, path, cookie string, want int) string {
	t.Helper()
	r := httptest.NewRequest("POST", path, nil)
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: "session", Value: cookie})
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code != want {
		t.Errorf("%s: got %d, want %d", path, w.Code, want)
	}
	for _, c := range w.Result().Cookies() {
		if c.MaxAge > 0 {
			cookie = c.Value
			s.keepSecrets(cookie)
		}
	}
	return cookie
}

// keepSecrets remembers what no span may show.
func (s *site) keepSecrets(cookie string) {
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: cookie})
	s.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		x := session.From(r.Context())
		s.mu.Lock()
		defer s.mu.Unlock()
		s.secrets = append(s.secrets, x.ID(), cookie)
		x.Detach()
	})).ServeHTTP(httptest.NewRecorder(), r)
}

// family is the span of a request and those of its statements.
type family struct {
	request    tracetest.SpanStub
	statements []string // their first words
	rows       []int64
}

// families are the requests so far, by path.
func (s *site) families(t *testing.T) map[string]*family {
	t.Helper()
	all := s.spans.GetSpans()
	found := map[string]*family{}
	byID := map[oteltrace.SpanID]*family{}
	for _, span := range all {
		if span.SpanKind == oteltrace.SpanKindServer {
			f := &family{request: span}
			found[span.Name], byID[span.SpanContext.SpanID()] = f, f
		}
	}
	// What pgx asks for the sake of a statement is a child of that: to prepare it,
	// or to describe it where it is not to be kept.
	statement := map[oteltrace.SpanID]bool{}
	for _, span := range all {
		statement[span.SpanContext.SpanID()] = has(span, semconv.DBQueryTextKey)
	}
	for _, span := range all {
		if has(span, otelpgx.PrepareStmtNameKey) || !has(span, semconv.DBQueryTextKey) || statement[span.Parent.SpanID()] {
			continue
		}
		f := byID[span.Parent.SpanID()]
		if f == nil || f.request.SpanContext.TraceID() != span.SpanContext.TraceID() || span.SpanKind != oteltrace.SpanKindClient {
			t.Errorf("span %s: got a parent that is no request of its trace", span.Name)
			continue
		}
		f.statements = append(f.statements, span.Name)
		f.rows = append(f.rows, attr(span, otelpgx.RowsAffectedKey).AsInt64())
	}
	return found
}

func attr(span tracetest.SpanStub, key attribute.Key) attribute.Value {
	for _, a := range span.Attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

func has(span tracetest.SpanStub, key attribute.Key) bool {
	return slices.ContainsFunc(span.Attributes, func(a attribute.KeyValue) bool { return a.Key == key })
}

func TestStatementsRunInTheTraceOfTheirRequest(t *testing.T) {
	s := newSite(t, eachUse, session.PostgresOptions{})
	cookie := s.request(t, "/login", "", 200)
	s.request(t, "/unused", cookie, 200)
	s.request(t, "/read", cookie, 200) // and moves the expiry
	s.request(t, "/change", cookie, 200)
	cookie = s.request(t, "/renew", cookie, 200)
	s.request(t, "/logout", cookie, 200)
	got := s.families(t)
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"/login", []string{"WITH"}},
		{"/unused", nil},
		{"/read", []string{"SELECT", "UPDATE"}},
		{"/change", []string{"SELECT", "UPDATE"}},
		{"/renew", []string{"SELECT", "WITH"}},
		{"/logout", []string{"WITH"}},
	} {
		f := got[tt.path]
		if f == nil {
			t.Errorf("%s: got no span", tt.path)
		} else if !slices.Equal(f.statements, tt.want) {
			t.Errorf("%s: got the statements %v as children of its span, want %v", tt.path, f.statements, tt.want)
		}
	}
}

// A statement that two requests share is in the trace of the one that asked
// first. With DisableBatching each has its own.
func TestASharedStatementIsInOneTrace(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts session.PostgresOptions
		want map[string]int64 // rows of each request's only statement
	}{
		{"shared", session.PostgresOptions{BatchSlots: 1}, map[string]int64{"/read?1": 1, "/read?2": 2, "/read?3": 0}},
		{"not shared", session.PostgresOptions{DisableBatching: true}, map[string]int64{"/read?1": 1, "/read?2": 1, "/read?3": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, time.Hour, tt.opts)
			cookies := []string{s.request(t, "/login", "", 200), s.request(t, "/login", "", 200), s.request(t, "/login", "", 200)}
			s.spans.Reset()
			unlock := s.lockTable(t)
			var requests sync.WaitGroup
			for i, cookie := range cookies {
				requests.Go(func() {
					s.request(t, fmt.Sprintf("/read?%d", i+1), cookie, 200)
				})
				s.waitUntilAsked(t, i+1, tt.opts.DisableBatching)
			}
			unlock()
			requests.Wait()
			got := s.families(t)
			for path, want := range tt.want {
				f := got[path]
				switch {
				case f == nil:
					t.Errorf("%s: got no span", path)
				case want == 0 && len(f.statements) > 0:
					t.Errorf("%s: got %v, want no statement", path, f.statements)
				case want > 0 && !slices.Equal(f.rows, []int64{want}):
					t.Errorf("%s: got statements of %v rows, want one of %d", path, f.rows, want)
				}
			}
		})
	}
}

// lockTable holds every statement on the table up until it is unlocked.
func (s *site) lockTable(t *testing.T) (unlock func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE schema_system.session IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
			t.Error(err)
		}
	}
}

// waitUntilAsked returns once n requests wait: the first, or all where they do
// not share, for the table's lock; the others for the first.
func (s *site) waitUntilAsked(t *testing.T, n int, apart bool) {
	t.Helper()
	locked, queued := 1, n-1
	if apart {
		locked, queued = n, 0
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the store gives up after two
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		var waiting int
		err := s.pool.QueryRow(ctx, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			WHERE NOT l.granted AND d.datname = current_database()`).Scan(&waiting)
		if err != nil {
			t.Fatalf("waiting for request %d: %v", n, err)
		}
		if waiting == locked && inQueue() == queued {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got %d statements that wait for the lock and %d requests in the queue, want %d and %d", waiting, inQueue(), locked, queued)
		}
	}
}

// inQueue counts the goroutines that wait for the statement of another request.
func inQueue() (n int) {
	var stacks bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2) // a bytes.Buffer takes everything
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		state, rest, _ := strings.Cut(stack, "\n")
		if strings.Contains(state, "[select") && strings.HasPrefix(rest, "github.com/pgsession/session/internal/batch.(*Group[") {
			n++
		}
	}
	return n
}

// quoted are the secrets that spans show, anywhere.
func (s *site) quoted() (n int) {
	for _, span := range s.spans.GetSpans() {
		text := fmt.Sprintf("%+v", span)
		for _, a := range span.Attributes {
			text += " " + a.Value.String()
		}
		for _, e := range span.Events {
			for _, a := range e.Attributes {
				text += " " + a.Value.String()
			}
		}
		if slices.ContainsFunc(s.secrets, func(secret string) bool { return strings.Contains(text, secret) }) {
			n++
		}
	}
	return n
}

// No span holds a session ID or a cookie, neither of statements that succeed nor
// of those that fail.
func TestSpansShowNoSessionID(t *testing.T) {
	withoutSessions := func(sql string) bool { return !strings.Contains(sql, `"schema_system"."session"`) }
	for _, tt := range []struct {
		name    string
		tracing []otelpgx.Option
		leaks   bool
	}{
		{"as documented", nil, false},
		{"parameters of other statements", []otelpgx.Option{otelpgx.WithIncludeQueryParameters(withoutSessions)}, false},
		{"parameters, to see that the test would notice", []otelpgx.Option{otelpgx.WithIncludeQueryParameters()}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, eachUse, session.PostgresOptions{}, tt.tracing...)
			cookie := s.request(t, "/login", "", 200)
			s.request(t, "/read", cookie, 200)
			s.request(t, "/change", cookie, 200)
			cookie = s.request(t, "/renew", cookie, 200)
			if _, err := s.pool.Exec(t.Context(), `ALTER TABLE schema_system.session ADD CHECK (sess->>'userId' IS NULL) NOT VALID`); err != nil {
				t.Fatal(err)
			}
			s.request(t, "/change", cookie, 503)
			s.request(t, "/renew", cookie, 503)
			s.request(t, "/login", "", 503)
			s.request(t, "/logout", cookie, 200)
			if failed := s.failed(); failed < 3 {
				t.Fatalf("spans with an error: got %d, want those of 3 requests", failed)
			}
			if len(s.secrets) < 4 {
				t.Fatalf("secrets: got %d, want two IDs and their cookies", len(s.secrets))
			}
			if got := s.quoted(); got > 0 != tt.leaks {
				t.Errorf("spans that show a session ID or a cookie: got %d, want any: %t", got, tt.leaks)
			}
		})
	}
}

func (s *site) failed() (n int) {
	for _, span := range s.spans.GetSpans() {
		if span.SpanKind == oteltrace.SpanKindClient && span.Status.Code == codes.Error {
			n++
		}
	}
	return n
}
