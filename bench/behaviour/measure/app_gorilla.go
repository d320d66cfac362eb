package measure

import (
	"context"
	"fmt"
	"net/http"

	"github.com/antonlindstrom/pgstore"
	"github.com/gorilla/sessions"
)

const gorillaCookie = "session"

func gorillaLibrary() *library {
	l := &library{
		name: "gorilla/sessions + pgstore",
		versions: []string{
			moduleVersion("github.com/gorilla/sessions"), moduleVersion("github.com/antonlindstrom/pgstore"),
		},
		cookie:  gorillaCookie,
		age:     "UPDATE http_sessions SET expires_on = expires_on - interval '2 minutes'",
		data:    "SELECT string_agg(encode(data, 'escape'), '|') FROM http_sessions",
		checked: "/checked",
		byHand:  "by hand: ",
	}
	l.start = func(_ context.Context, db *database, o appOptions) (*app, error) {
		a := &app{lib: l, db: db}
		var pairs [][]byte
		for _, secret := range o.keys() {
			var block []byte
			if o.encrypt {
				block = []byte(secret)[:32]
			}
			pairs = append(pairs, []byte(secret), block)
		}
		store, err := pgstore.NewPGStore(db.url, pairs...)
		if err != nil {
			return nil, err
		}
		a.end = append(a.end, store.Close)
		if err := a.serve(gorillaRoutes(store, o)); err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
	return l
}

// gorillaRoutes writes handlers as the documentation does: the README ignores the
// error of Get ("Get() always returns a session, even if empty") and checks that of
// Save. The package documentation checks both, as /checked does.
func gorillaRoutes(store *pgstore.PGStore, o appOptions) http.Handler {
	get := func(r *http.Request) *sessions.Session {
		s, _ := store.Get(r, gorillaCookie)
		return s
	}
	value := func(s *sessions.Session, key string) string {
		v, _ := s.Values[key].(string)
		return v
	}
	show := func(w http.ResponseWriter, s *sessions.Session) {
		page(w, func(key string) string { return value(s, key) })
	}
	// saved reports whether the handler may go on.
	saved := func(w http.ResponseWriter, r *http.Request, s *sessions.Session) bool {
		if err := s.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return false
		}
		return true
	}
	read := func(w http.ResponseWriter, r *http.Request, s *sessions.Session) {
		user := value(s, "user")
		o.gates.wait(r)
		if user == "" {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		if o.sliding && !saved(w, r, s) { // nothing else extends a session
			return
		}
		show(w, s)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/public", plain)
	mux.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) { show(w, get(r)) })
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) { read(w, r, get(r)) })
	mux.HandleFunc("/checked", func(w http.ResponseWriter, r *http.Request) {
		s, err := store.Get(r, gorillaCookie)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		read(w, r, s)
	})
	mux.HandleFunc("/visit", func(w http.ResponseWriter, r *http.Request) {
		s := get(r)
		markPublic(w, r)
		s.Values["a"] = marker
		if saved(w, r, s) {
			show(w, s)
		}
	})
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		s := get(r)
		o.gates.wait(r)
		s.Values[r.FormValue("key")] = marker
		if saved(w, r, s) {
			show(w, s)
		}
	})
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := get(r)
		// There is no call that changes the ID. By hand: end the session, and save
		// its values as a new one.
		if !s.IsNew {
			s.Options.MaxAge = -1
			if !saved(w, r, s) {
				return
			}
			w.Header().Del("Set-Cookie") // of the session that has ended
			s.ID, s.IsNew, s.Options.MaxAge = "", true, store.Options.MaxAge
		}
		s.Values["user"] = "ada"
		if saved(w, r, s) {
			show(w, s)
		}
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		s := get(r)
		s.Options.MaxAge = -1
		if saved(w, r, s) {
			plain(w, r)
		}
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		s := get(r)
		fmt.Fprint(w, "page ")
		_ = http.NewResponseController(w).Flush()
		o.gates.wait(r)
		s.Values["late"] = marker
		_ = s.Save(r, w) // too late for an error page
	})
	return mux
}
