package admintest_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessionadmin"
)

const (
	userID = session.Key[string]("userId")
	secret = "a secret of more than thirty-two bytes, for tests"
)

// site is an application with the pages mounted behind its authorization.
type site struct {
	t     *testing.T
	url   string
	bare  string // the pages alone, to which nobody has to log in
	pool  *pgxpool.Pool
	admin *sessionadmin.Handler
	log   *capture
}

// capture keeps what was logged.
type capture struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// newSite starts one, whose sessions can be searched by keys too.
func newSite(t *testing.T, keys ...string) *site {
	t.Helper()
	return newSiteOn(t, pgtest.Pool(t), session.PostgresOptions{}, append([]string{"userId"}, keys...)...)
}

// newSiteOn starts one on a database and a table of its own.
func newSiteOn(t *testing.T, pool *pgxpool.Pool, opts session.PostgresOptions, keys ...string) *site {
	t.Helper()
	s := &site{t: t, pool: pool, log: new(capture)}
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	opts.IndexKeys, opts.Logger = []string{"userId"}, slog.New(slog.DiscardHandler)
	store, err := session.NewPostgresStore(t.Context(), s.pool, opts)
	must(t, err)
	sessions, err := session.New(store, session.Config{Secret: secret, DisablePrune: true, Logger: logger, TokenPrefix: "test_"})
	must(t, err)
	t.Cleanup(func() { must(t, sessions.Close()) })
	s.admin, err = sessionadmin.New(sessionadmin.Options{Manager: sessions, Pool: s.pool, Schema: opts.Schema, Table: opts.Table, Keys: keys, Logger: logger})
	must(t, err)
	t.Cleanup(func() { must(t, s.admin.Close()) })

	mux := http.NewServeMux()
	mux.HandleFunc("/login/{user}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Query().Has("token") {
			s.UseToken()
		}
		s.Renew()
		userID.Set(s, r.PathValue("user"))
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		user, _ := userID.Get(session.From(r.Context()))
		fmt.Fprint(w, user)
	})
	mux.Handle("/admin/sessions/", onlyAdmins(http.StripPrefix("/admin/sessions", s.admin)))
	server := httptest.NewServer(sessions.Handler(mux))
	t.Cleanup(server.Close)
	s.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	bare := httptest.NewServer(s.admin)
	t.Cleanup(bare.Close)
	s.bare = strings.Replace(bare.URL, "127.0.0.1", "localhost", 1)
	return s
}

func onlyAdmins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _ := userID.Get(session.From(r.Context())); user != "admin" {
			http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// login logs somebody in elsewhere, and gives who that browser is from then on.
func (s *site) login(user string) (me func() string) {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	must(s.t, err)
	client := &http.Client{Jar: jar}
	get := func(path string) string {
		res, err := client.Get(s.url + path)
		must(s.t, err)
		defer res.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(res.Body)
		must(s.t, err)
		return b.String()
	}
	get("/login/" + user)
	return func() string { return get("/me") }
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(context.Background(), sql, args...)
	must(s.t, err)
}

// fill stores sessions of a month: more of late, most with an idle timeout of a
// day, some that were to be remembered for 30.
func (s *site) fill(n int) {
	s.t.Helper()
	s.exec("SELECT setseed(0.42)")
	s.exec(`INSERT INTO schema_system.session
		SELECT md5('row' || n), json_build_object(
				'cookie', json_build_object('originalMaxAge', CASE WHEN remembered THEN 2592000000 ELSE 86400000 END, 'expires', NULL, 'httpOnly', true, 'path', '/'),
				'__created', floor(1000 * extract(epoch FROM now() - age)),
				'userId', (1000 + n % 900)::text, 'cart', json_build_array('confidential-' || n, repeat('x', 40 + n % 400))),
			now() + CASE WHEN remembered THEN interval '30 days' - LEAST(age, interval '29 days') * r1 * r2 ELSE interval '1 day' - interval '25 h' * r1 END
		FROM (SELECT n, random() AS r1, random() AS r2, remembered,
				CASE WHEN remembered THEN interval '33 days' * power(random(), 1.3) ELSE interval '9 days' * power(random(), 4) END AS age
			FROM (SELECT n, n % 10 < 4 AS remembered FROM generate_series(1, $1) n) m) v`, n)
}

// use changes sessions and moves expiries as users do, and waits until PostgreSQL's
// statistics have it.
func (s *site) use() {
	s.t.Helper()
	for i := range 60 {
		s.exec("UPDATE schema_system.session SET sess = sess WHERE hashtext(sid) % 60 = $1", i-30)
		if i%10 == 0 {
			s.exec("UPDATE schema_system.session SET expire = expire + interval '1 second' WHERE hashtext(sid) % 40 = $1", i/10)
		}
	}
	s.exec("VACUUM ANALYZE schema_system.session")
	s.exec("UPDATE schema_system.session SET expire = expire + interval '1 second' WHERE hashtext(sid) % 50 = 7")
	s.pool.Reset() // a connection reports what it did when it ends, at the latest
	ctx, cancel := context.WithTimeout(s.t.Context(), deadline)
	defer cancel()
	for dead := 0; dead == 0; {
		must(s.t, s.pool.QueryRow(ctx, "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'schema_system.session'::regclass").Scan(&dead))
	}
}
