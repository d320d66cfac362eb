package measure

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/bench/internal/scsapp"
)

func scsLibrary() *library {
	l := &library{
		name:      "scs + pgxstore",
		versions:  []string{moduleVersion("github.com/alexedwards/scs/v2"), moduleVersion("github.com/alexedwards/scs/pgxstore")},
		cookie:    "session",
		age:       "UPDATE sessions SET expiry = expiry - interval '2 minutes'",
		data:      "SELECT string_agg(encode(data, 'escape'), '|') FROM sessions",
		noSecret:  true,
		noSealing: "no, unless by a `Codec` of your own",
	}
	l.start = func(ctx context.Context, db *database, o appOptions) (*app, error) {
		log.SetOutput(io.Discard) // where its default ErrorFunc logs
		a := &app{lib: l, db: db}
		if err := db.exec(ctx, scsapp.PgxSchema); err != nil {
			return nil, err
		}
		pool, err := pgxpool.New(ctx, db.url)
		if err != nil {
			return nil, err
		}
		a.end = append(a.end, pool.Close)
		m := scs.New()
		m.Store = pgxstore.NewWithCleanupInterval(pool, 0)
		if o.sliding {
			m.IdleTimeout = 20 * time.Minute
		}
		if err := a.serve(m.LoadAndSave(scsRoutes(m, o.gates))); err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
	return l
}

func scsRoutes(m *scs.SessionManager, g *gates) http.Handler {
	show := func(w http.ResponseWriter, r *http.Request) {
		page(w, func(key string) string { return m.GetString(r.Context(), key) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/public", plain)
	mux.HandleFunc("/state", show)
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		user := m.GetString(r.Context(), "user")
		g.wait(r)
		if user == "" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		show(w, r)
	})
	mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
		markPublic(w, r)
		m.Put(r.Context(), "a", marker)
		show(w, r)
	})
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		g.wait(r)
		m.Put(r.Context(), r.FormValue("key"), marker)
		show(w, r)
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		if err := m.RenewToken(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		m.Put(r.Context(), "user", "ada")
		show(w, r)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		if err := m.Destroy(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		plain(w, r)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "page ")
		_ = http.NewResponseController(w).Flush()
		g.wait(r)
		m.Put(r.Context(), "late", marker)
	})
	return mux
}
