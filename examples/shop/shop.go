package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	cart      = session.Key[[]string]("cart")
	last      = session.Key[int64]("lastOrder")
	questions = session.Key[int]("questions")
)

const (
	maxItemRunes = 60
	maxItems     = 100
	maxFormBytes = 64 << 10
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

var errEmpty = errors.New("the cart is empty")

// app is a shop. Its orders are where its sessions are.
type app struct {
	sessions *session.Manager
	pool     *pgxpool.Pool
}

// setUp makes the shop's own table.
func (a *app) setUp(ctx context.Context) error {
	_, err := a.pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS shop_order (
		id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		items TEXT[] NOT NULL,
		made  TIMESTAMPTZ NOT NULL DEFAULT now())`)
	return err
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("POST /add", a.add)
	mux.HandleFunc("POST /order", a.order)
	mux.HandleFunc("POST /ask", a.ask)
	return http.MaxBytesHandler(a.sessions.Handler(mux), maxFormBytes) // outside, so that it can close the connection
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	v := struct {
		Items []string
		Last  int64
		Max   int
	}{Max: maxItemRunes}
	v.Items, _ = cart.Get(s)
	v.Last, _ = last.Get(s)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := page.Execute(w, v); err != nil {
		slog.Warn("page cut off", "error", err)
	}
}

// add puts something into the cart. Update, for two tabs may add at once.
func (a *app) add(w http.ResponseWriter, r *http.Request) {
	item := strings.TrimSpace(r.PostFormValue("item"))
	if item == "" || !utf8.ValidString(item) || strings.ContainsRune(item, 0) || utf8.RuneCountInString(item) > maxItemRunes {
		http.Error(w, "no such thing", http.StatusBadRequest)
		return
	}
	cart.Update(session.From(r.Context()), func(items []string) []string {
		if len(items) == maxItems {
			return items
		}
		return append(items, item)
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// order makes an order of the cart. Whatever happens, it is made once: of two
// clicks the second finds the cart empty, and whoever got no answer may click again.
func (a *app) order(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	err := session.Transact(r.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
		items, _ := cart.Get(s) // as it is now that nobody else can change it
		if len(items) == 0 {
			return errEmpty
		}
		var id int64
		if err := tx.QueryRow(ctx, "INSERT INTO shop_order (items) VALUES ($1) RETURNING id", items).Scan(&id); err != nil {
			return err
		}
		cart.Delete(s)
		last.Set(s, id)
		return nil
	})
	switch {
	case err == nil, errors.Is(err, errEmpty): // ordered now, or by the click before
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		slog.Warn("no order was made that the shop knows of", "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Please click again: it will not be ordered twice.", http.StatusServiceUnavailable)
	}
}

// ask gives a question a number of the customer's own, which is final: somebody may
// write it down. Update would not do, for its function runs again where another
// tab has asked meanwhile, and both would have been told the same.
func (a *app) ask(w http.ResponseWriter, r *http.Request) {
	n, err := questions.UpdateNow(r.Context(), session.From(r.Context()), func(n int) int { return n + 1 })
	if err != nil {
		return // the response says so
	}
	fmt.Fprintf(w, "Your question has the number %d. We will call you.\n", n)
}

// withdraw takes an item that is sold no more out of all carts. It is no request:
// those under way are merged with it, and nobody's session lives longer for it.
func (a *app) withdraw(ctx context.Context, item string) error {
	n, err := a.sessions.Edit(ctx, session.Everyone(), func(s *session.Session) error {
		if items, _ := cart.Get(s); !slices.Contains(items, item) {
			return nil // nothing is written
		}
		cart.Update(s, func(items []string) []string {
			return slices.DeleteFunc(items, func(i string) bool { return i == item })
		})
		return nil
	})
	slog.Info("withdrawn", "carts", n)
	return err
}
