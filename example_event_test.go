package session_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/pgsession/session"
)

// An audit log, as far as one program hears of sessions. Where none may be missing,
// PostgresOptions.Outbox writes them into a table, in the statement that does it.
func ExampleEvent() {
	const userID = session.Key[int64]("userId")
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret:  "an example's secret of 32 bytes or more",
		UserKey: string(userID),
		Logger:  slog.New(slog.DiscardHandler),
		OnEvent: func(e session.Event) { // in a program: slog.Info("audit", "session", e)
			fmt.Println("session", e.Kind, "of user", e.User)
		},
	})
	if err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Destroy() })
	site := sessions.Handler(mux)

	login := httptest.NewRecorder()
	site.ServeHTTP(login, httptest.NewRequest("POST", "/login", nil))
	logout := httptest.NewRequest("POST", "/logout", nil)
	logout.AddCookie(login.Result().Cookies()[0])
	site.ServeHTTP(httptest.NewRecorder(), logout)

	_ = sessions.Close() // waits until all is told
	// Output:
	// session created of user 42
	// session destroyed of user 42
}
