package main_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgsession/session"
	sse "github.com/pgsession/session/examples/sse"
	"github.com/pgsession/session/internal/exampletest"
)

// site is the application as a handler, with sessions in memory.
func site(t *testing.T, wrap func(app http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{Secret: exampletest.Secret, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = sessions.Close() })
	srv := httptest.NewServer(sessions.Handler(wrap(sse.NewApp(sessions))))
	t.Cleanup(srv.Close)
	return srv
}

func post(t *testing.T, url, cookie, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cookie", cookie)
	res, err := http.DefaultTransport.RoundTrip(req)
	must(t, err)
	res.Body.Close()
	return res
}

// The stream flushes through whatever is between it and the connection, and a
// logout ends it, over HTTP.
func TestStreamHandler(t *testing.T) {
	srv := site(t, func(app http.Handler) http.Handler { return app })
	cookie, _, _ := strings.Cut(post(t, srv.URL+"/login", "", "user=ada").Header.Get("Set-Cookie"), ";")
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/stream", nil)
	must(t, err)
	req.Header.Set("Cookie", cookie)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() string {
		for lines.Scan() && lines.Text() == "" {
		}
		return lines.Text()
	}
	if got := next(); got != "retry: 1000" {
		t.Fatalf("got %q, want the stream's beginning", got)
	}
	post(t, srv.URL+"/say", cookie, "text=hello")
	next() // the ID
	if got := next(); !strings.Contains(got, `"text":"hello"`) {
		t.Errorf("got %q, want the message", got)
	}
	post(t, srv.URL+"/logout", cookie, "")
	if got := next(); got != "event: bye" {
		t.Errorf("got %q, want bye", got)
	}
	for lines.Scan() {
	}
	must(t, lines.Err())
}

// Why one logs in before: a session that begins after the first byte has no way
// to its browser, and is not kept. The browser sees a response that is cut off.
func TestASessionCannotBeginInAStream(t *testing.T) {
	const user = session.Key[string]("user")
	got := make(chan error, 1)
	srv := site(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			err := http.NewResponseController(w).Flush()
			user.Set(s, "ada")
			got <- errors.Join(err, s.Save(r.Context()))
		})
	})
	res, err := http.Get(srv.URL)
	must(t, err)
	if err := <-got; !errors.Is(err, session.ErrHeaderSent) {
		t.Errorf("got %v, want ErrHeaderSent", err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want a response that is cut off", body, err)
	}
	if res.Header.Get("Set-Cookie") != "" {
		t.Error("got a cookie")
	}
}
