package main_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/coder/websocket"
	"github.com/pgsession/session"
	app "github.com/pgsession/session/examples/more/websocket"
	"github.com/pgsession/session/internal/exampletest"
)

// site is a handler with sessions in memory.
func site(t *testing.T, h http.Handler) *exampletest.Program {
	t.Helper()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{Secret: exampletest.Secret, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = sessions.Close() })
	srv := httptest.NewServer(sessions.Handler(h))
	t.Cleanup(srv.Close)
	return &exampletest.Program{URL: srv.URL}
}

func TestSocketHandler(t *testing.T) {
	p := site(t, app.NewApp())
	ada := newBrowser(t)
	ada.login(p, "ada")
	s := ada.open(p)
	s.tap()
	s.waitFor(1)
	ada.wantMe(p, "ada", 1)
	ada.Post(p.URL+"/logout", url.Values{}).Want(t, 200)
	s.wantClosed(websocket.StatusPolicyViolation, "logged out")
}

// Why one logs in before: a session or a new ID that comes after the handshake has
// no way to its browser, and is not kept. A library that takes the connection over
// before it writes the handshake itself cannot even send what is due then.
func TestASessionCannotBeginInASocket(t *testing.T) {
	const user = session.Key[string]("user")
	set := func(s *session.Session) { user.Set(s, "ada") }
	accept := func(w http.ResponseWriter, r *http.Request) error {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			err = c.CloseNow()
		}
		return err
	}
	hijack := func(w http.ResponseWriter, _ *http.Request) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	for _, tt := range []struct {
		name          string
		before, after func(s *session.Session)
		take          func(w http.ResponseWriter, r *http.Request) error
	}{
		{"after the handshake", func(*session.Session) {}, set, accept},
		{"by a hijack", set, func(*session.Session) {}, hijack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan error, 1)
			p := site(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				tt.before(s)
				err := tt.take(w, r)
				tt.after(s)
				got <- errors.Join(err, s.Save(r.Context()))
			}))
			visitor := newBrowser(t)
			conn, _, err := visitor.dial(t.Context(), p, p.URL)
			if err == nil {
				defer conn.CloseNow()
			}
			if err := <-got; !errors.Is(err, session.ErrHeaderSent) {
				t.Errorf("got %v, want ErrHeaderSent", err)
			}
			if visitor.Cookie() != "" {
				t.Error("got a cookie")
			}
		})
	}
}
