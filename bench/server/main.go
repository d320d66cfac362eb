// Command server is this library's server in the benchmark. It takes PORT,
// DATABASE_URL and PGPOOL_MAX from the environment, and beside them what
// session.ConfigFromEnv reads; without SESSION_SECRET it makes one up. Every
// request is a GET, every answer text/plain with a Content-Length:
//
//	/login?u=UID  stores user_id, counter 0 and k00…k11; "ok"
//	/public       does not use the session; "public"
//	/read         the user's ID; 401 without a session
//	/write        counter + 1, saved before the answer is complete; the counter
//	/new          looks for a user, finds none, writes nothing; "anon"
//	/touch        reads, and moves the expiry whether that is due or not; "ok"
//	/end          makes a session of its own and ends it, past the middleware; "ok"
//	/logout       ends the session; "ok"
//
// It makes its table before it listens and ends on SIGTERM.
//
// To measure with, BENCH_SLOTS and BENCH_MAX_BATCH set the numbers of
// session.PostgresOptions, and BENCH_SHARING=off its DisableBatching;
// BENCH_TOUCH_INTERVAL is that of session.Config, and BENCH_PRUNE=off its
// DisablePrune. BENCH_DATABASES is in several.go.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/app"
)

const (
	userID  = session.Key[string]("user_id")
	counter = session.Key[int]("counter")
)

func main() { app.Main(handler) }

func handler(ctx context.Context) (http.Handler, func(), error) {
	if os.Getenv("SESSION_SECRET") == "" {
		slog.Warn("SESSION_SECRET is not set: sessions end with this program")
		os.Setenv("SESSION_SECRET", rand.Text()+rand.Text())
	}
	opts, err := options()
	if err != nil {
		return nil, nil, err
	}
	if urls := strings.Fields(os.Getenv("BENCH_DATABASES")); len(urls) > 0 {
		return several(ctx, urls, opts)
	}
	pool, err := app.Pool(ctx)
	if err != nil {
		return nil, nil, err
	}
	sessions, store, err := open(ctx, pool, opts)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	end := func() {
		_ = sessions.Close()
		pool.Close()
	}
	return sessions.Handler(routes(store)), end, nil
}

func routes(store session.Store) *http.ServeMux {
	mux := app.Routes{Login: login, Read: read, Write: write, New: anon}.Mux()
	mux.HandleFunc("/touch", touching(store))
	mux.HandleFunc("/end", ending(store))
	mux.HandleFunc("/logout", logout)
	return mux
}

// open is session.Open with options.
func open(ctx context.Context, pool *pgxpool.Pool, opts session.PostgresOptions) (*session.Manager, session.Store, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, nil, err
	}
	if v := os.Getenv("BENCH_TOUCH_INTERVAL"); v != "" {
		if cfg.TouchInterval, err = time.ParseDuration(v); err != nil {
			return nil, nil, fmt.Errorf("BENCH_TOUCH_INTERVAL: %w", err)
		}
	}
	cfg.DisablePrune = os.Getenv("BENCH_PRUNE") == "off"
	store, err := session.NewPostgresStore(ctx, pool, opts)
	if err != nil {
		return nil, nil, err
	}
	m, err := session.New(store, cfg)
	return m, store, err
}

func options() (opts session.PostgresOptions, err error) {
	for name, field := range map[string]*int{"BENCH_SLOTS": &opts.BatchSlots, "BENCH_MAX_BATCH": &opts.MaxBatch} {
		if v := os.Getenv(name); v != "" {
			if *field, err = strconv.Atoi(v); err != nil {
				return opts, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	opts.DisableBatching = os.Getenv("BENCH_SHARING") == "off"
	return opts, nil
}

func login(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Renew()
	uid := r.FormValue("u")
	userID.Set(s, uid)
	counter.Set(s, 0)
	for i := range app.Facts {
		session.Key[string](app.FactName(i)).Set(s, app.Fact(uid, i))
	}
	app.Text(w, http.StatusOK, "ok")
}

func read(w http.ResponseWriter, r *http.Request) {
	uid, ok := userID.Get(session.From(r.Context()))
	if !ok {
		app.Unauthorized(w)
		return
	}
	app.Text(w, http.StatusOK, uid)
}

func write(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if _, ok := userID.Get(s); !ok {
		app.Unauthorized(w)
		return
	}
	counter.Update(s, func(n int) int { return n + 1 })
	// Another request may have counted meanwhile: only the save knows the number.
	if s.Save(context.WithoutCancel(r.Context())) != nil {
		return // the error handler answers
	}
	n, _ := counter.Get(s)
	app.Text(w, http.StatusOK, strconv.Itoa(n))
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	app.Text(w, http.StatusOK, "ok")
}

func anon(w http.ResponseWriter, r *http.Request) {
	if uid, ok := userID.Get(session.From(r.Context())); ok {
		app.Text(w, http.StatusOK, uid)
		return
	}
	app.Text(w, http.StatusOK, "anon")
}

// touching and ending call the store themselves: a touch is due once a touch interval
// at most, and a session ends once.
func touching(store session.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if _, ok := userID.Get(s); !ok {
			app.Unauthorized(w)
			return
		}
		if err := store.Touch(context.WithoutCancel(r.Context()), s.ID(), session.DefaultIdleTimeout); err != nil {
			app.Fail(w, err)
			return
		}
		app.Text(w, http.StatusOK, "ok")
	}
}

func ending(store session.Store) http.HandlerFunc {
	data := append(append([]byte(`{"cookie":{"originalMaxAge":86400000},`), app.JSON("end")...), '}')
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, id := context.WithoutCancel(r.Context()), rand.Text()+"------"
		err := store.Create(ctx, id, session.Record{Data: data, TTL: session.DefaultIdleTimeout})
		if err == nil {
			err = store.Delete(ctx, id)
		}
		if err != nil {
			app.Fail(w, err)
			return
		}
		app.Text(w, http.StatusOK, "ok")
	}
}
