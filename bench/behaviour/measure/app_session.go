package measure

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

func sessionLibrary() *library {
	l := &library{
		name:   "session",
		cookie: "session",
		age:    "UPDATE schema_system.session SET expire = expire - interval '2 minutes'",
		data:   "SELECT string_agg(sess::text, '|') FROM schema_system.session",
	}
	l.start = func(ctx context.Context, db *database, o appOptions) (*app, error) {
		a := &app{lib: l, db: db}
		pool, err := pgxpool.New(ctx, db.url)
		if err != nil {
			return nil, err
		}
		a.end = append(a.end, pool.Close)
		quiet := slog.New(slog.DiscardHandler)
		store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: quiet})
		if err != nil {
			a.close()
			return nil, err
		}
		cfg := session.Config{
			Secret: o.keys()[0], OldSecrets: o.keys()[1:], Encrypt: o.encrypt,
			StoreTimeout: o.storeTimeout, DisablePrune: true, Logger: quiet,
		}
		if o.express {
			cfg.Cookie.Format, a.cookie = session.FormatExpress, "connect.sid"
		}
		m, err := session.New(store, cfg)
		if err != nil {
			a.close()
			return nil, err
		}
		if err := a.serve(m.Handler(sessionRoutes(o.gates))); err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
	return l
}

const userKey = session.Key[string]("user")

func sessionRoutes(g *gates) http.Handler {
	show := func(w http.ResponseWriter, s *session.Session) {
		page(w, func(key string) string {
			v, _ := session.Key[string](key).Get(s)
			return v
		})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/public", plain)
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) {
		show(w, session.From(r.Context()))
	})
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		_, ok := userKey.Get(s)
		g.wait(r)
		if !ok {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		show(w, s)
	})
	mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		markPublic(w, r)
		session.Key[string]("a").Set(s, marker)
		show(w, s)
	})
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		userKey.Get(s)
		g.wait(r)
		session.Key[string](r.FormValue("key")).Set(s, marker)
		show(w, s)
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userKey.Set(s, "ada")
		show(w, s)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
		plain(w, r)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		userKey.Get(s)
		fmt.Fprint(w, "page ")
		_ = http.NewResponseController(w).Flush()
		g.wait(r)
		session.Key[string]("late").Set(s, marker)
	})
	return mux
}
