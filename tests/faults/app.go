package faults

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
)

// Keys of the sessions. A mark is a key of its own for each write, named by
// markKey, so that a write that was lost shows for ever.
const (
	keyUser   = session.Key[string]("user")
	keySerial = session.Key[string]("serial") // the ledger's number of the session
	keyCount  = session.Key[int]("count")
	keyLast   = session.Key[int]("last") // the last mark that was set
	keyPad    = session.Key[string]("pad")
	keyOrders = session.Key[int]("orders") // as many as the table of orders has of the session

	markPrefix = "m"
)

func markKey(mark int) session.Key[int] {
	return session.Key[int](markPrefix + strconv.Itoa(mark))
}

// App returns the application that the browsers use. Every page but /public
// answers with the session as its handler leaves it, {} for a visitor who is
// not logged in.
func App(m *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /public", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "public")
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s, q := session.From(r.Context()), r.URL.Query()
		s.Renew()
		keyUser.Set(s, q.Get("user"))
		keySerial.Set(s, q.Get("serial"))
		if pad := q.Get("pad"); pad != "" {
			keyPad.Set(s, pad)
		}
		show(w, s)
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Destroy()
		show(w, s)
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch err := session.Transact(r.Context(), s, order(s)); {
		case errors.Is(err, session.ErrDestroyed): // answered by the error handler
			return
		case err != nil:
			s.Detach() // an answer without a cookie
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
			return
		}
		show(w, s)
	})
	for path, use := range map[string]func(*session.Session, url.Values){
		"GET /all":    func(*session.Session, url.Values) {},
		"POST /renew": func(s *session.Session, _ url.Values) { s.Renew() },
		"POST /add": func(s *session.Session, _ url.Values) {
			keyCount.Update(s, func(n int) int { return n + 1 })
		},
		"POST /write": func(s *session.Session, q url.Values) {
			mark := number(q, "mark")
			markKey(mark).Set(s, mark)
			keyLast.Set(s, mark)
			if gone := number(q, "drop"); gone != 0 {
				markKey(gone).Delete(s)
			}
		},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			if _, ok := keyUser.Get(s); ok {
				use(s, r.URL.Query())
			}
			show(w, s)
		})
	}
	return m.Handler(mux)
}

// SQLOrders makes the table of the orders, SQLOrdersAmiss counts the live sessions that
// do not agree with it.
const (
	SQLOrders      = "CREATE TABLE orders (serial text)"
	SQLOrdersAmiss = `SELECT count(*) FROM schema_system.session s WHERE sess->>'serial' IS NOT NULL
		AND COALESCE((sess->>'orders')::int, 0) <> (SELECT count(*) FROM orders o WHERE o.serial = s.sess->>'serial')`
)

// order counts in the session, and stores an order of it.
func order(s *session.Session) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		serial, ok := keySerial.Get(s)
		if !ok { // logged out
			return nil
		}
		count, _ := keyCount.Get(s) // nobody else can count meanwhile
		orders, _ := keyOrders.Get(s)
		keyCount.Set(s, count+1)
		keyOrders.Set(s, orders+1)
		_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ($1)", serial)
		return err
	}
}

func number(q url.Values, name string) int {
	n, _ := strconv.Atoi(q.Get(name))
	return n
}

// show writes everything that the session holds.
func show(w http.ResponseWriter, s *session.Session) {
	all := Row{}
	for _, name := range s.Keys() {
		all[name], _ = session.Key[json.RawMessage](name).Get(s)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all)
}
