// Package check drives an application's logins as a browser does, on PostgreSQL.
package check

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// Open gives sessions on a table of their own whose user is in the key userKey.
func Open(t *testing.T, userKey string) (*session.Manager, *pgxpool.Pool) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	pool := pgtest.Pool(t)
	store, err := session.NewPostgresStore(t.Context(), pool, session.PostgresOptions{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := session.New(store, session.Config{
		Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", UserKey: userKey, DisablePrune: true, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sessions.Close() })
	return sessions, pool
}

// Browser keeps its one cookie, and follows no redirect.
type Browser struct {
	T      *testing.T
	App    http.Handler
	Cookie string
}

// Answer is what the application has sent.
type Answer struct {
	Code     int
	Location string
	Body     string
}

// Get visits a page, Post sends a form; header has names and values by turns.
func (b *Browser) Get(page string, header ...string) Answer {
	return b.do(httptest.NewRequest(http.MethodGet, page, nil), header)
}

func (b *Browser) Post(page string, form url.Values, header ...string) Answer {
	r := httptest.NewRequest(http.MethodPost, page, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r, header)
}

func (b *Browser) do(r *http.Request, header []string) Answer {
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if b.Cookie != "" && r.Header.Get("Sec-Fetch-Site") != "cross-site" { // SameSite=Lax, and this posts
		r.AddCookie(&http.Cookie{Name: "session", Value: b.Cookie})
	}
	w := httptest.NewRecorder()
	b.App.ServeHTTP(w, r)
	res := w.Result()
	for _, c := range res.Cookies() {
		b.Cookie = c.Value
		if c.MaxAge < 0 {
			b.Cookie = ""
		}
	}
	return Answer{res.StatusCode, res.Header.Get("Location"), w.Body.String()}
}

// Want checks an answer's status, and where it leads to or what is in its page.
func (a Answer) Want(t *testing.T, code int, text string) {
	t.Helper()
	if a.Code != code {
		t.Errorf("got %d, want %d", a.Code, code)
	}
	if code/100 == 3 {
		if a.Location != text {
			t.Errorf("sent to: got %q, want %q", a.Location, text)
		}
	} else if !strings.Contains(a.Body, text) {
		t.Errorf("got %q, want a page with %q", a.Body, text)
	}
}

// Rename gives the table another name, so that no session can be read or saved.
func Rename(t *testing.T, pool *pgxpool.Pool, from, to string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), "ALTER TABLE schema_system."+from+" RENAME TO "+to); err != nil {
		t.Fatal(err)
	}
}

// Stored is the text of all sessions in the table.
func Stored(t *testing.T, pool *pgxpool.Pool) (text string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), "SELECT coalesce(string_agg(sess::text, ' '), '') FROM schema_system.session").Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}
