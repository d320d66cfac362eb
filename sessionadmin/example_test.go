package sessionadmin_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessionadmin"
)

const isAdmin = session.Key[bool]("isAdmin")

// onlyAdmins is the application's own authorization. The pages have none.
func onlyAdmins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ok, _ := isAdmin.Get(session.From(r.Context())); !ok {
			http.Error(w, "for administrators only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// The pages at /admin/sessions/, for administrators only. In a program of its
// own the store is session.NewPostgresStore(ctx, pool, …), on the same pool.
func Example() {
	pool, err := pgxpool.New(context.Background(), "postgres://app@localhost/app?connect_timeout=2")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret: "an example only: keep a random one in SESSION_SECRET", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	pages, err := sessionadmin.New(sessionadmin.Options{Manager: sessions, Pool: pool, Keys: []string{"userId"}})
	if err != nil {
		log.Fatal(err)
	}
	defer pages.Close()
	mux := http.NewServeMux()
	mux.Handle("/admin/sessions/", onlyAdmins(http.StripPrefix("/admin/sessions", pages)))

	server := httptest.NewServer(sessions.Handler(mux)) // in a program: http.ListenAndServe
	defer server.Close()
	res, err := http.Get(server.URL + "/admin/sessions/")
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println("a visitor gets:", res.Status)
	// Output: a visitor gets: 403 Forbidden
}
