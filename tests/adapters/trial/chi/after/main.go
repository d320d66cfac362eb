// A guestbook that everybody reads, and that those sign who have logged in.
package main

import (
	"context"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

const user = session.Key[string]("user")

type guestbook struct{ db *pgxpool.Pool }

func main() {
	ctx := context.Background()
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(ctx, `CREATE TABLE IF NOT EXISTS entries (author text, entry text)`)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.Open(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	g := guestbook{db}
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Use(http.NewCrossOriginProtection().Handler, sessions.Handler)
	r.Get("/", g.read)
	r.Post("/login", g.login)
	r.Post("/logout", g.logout)
	r.With(g.loggedIn).Post("/sign", g.sign)
	log.Print(http.ListenAndServe(os.Getenv("ADDR"), r))
}

// user is the name of who has logged in, or empty.
func (g guestbook) user(r *http.Request) string {
	name, _ := user.Get(session.From(r.Context()))
	return name
}

func (g guestbook) loggedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.user(r) == "" {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g guestbook) login(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("password") != os.Getenv("PASSWORD") {
		http.Error(w, "wrong password", http.StatusForbidden)
		return
	}
	s := session.From(r.Context())
	s.Renew()
	user.Set(s, r.FormValue("name"))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (g guestbook) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (g guestbook) read(w http.ResponseWriter, r *http.Request) {
	rows, _ := g.db.Query(r.Context(), `SELECT author || ': ' || entry FROM entries`)
	entries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		http.Error(w, "the guestbook is closed", http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "<p>Hello %s</p>", html.EscapeString(g.user(r)))
	for _, entry := range entries {
		fmt.Fprintf(w, "<li>%s", html.EscapeString(entry))
	}
}

func (g guestbook) sign(w http.ResponseWriter, r *http.Request) {
	_, err := g.db.Exec(r.Context(), `INSERT INTO entries VALUES ($1, $2)`, g.user(r), r.FormValue("entry"))
	if err != nil {
		http.Error(w, "the guestbook is closed", http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
