// Package app is what the benchmark's servers have in common: the same data, the
// same answers, the same way to start and to end. What differs between them is
// the session.
package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Facts is how many values a login stores beside user_id and counter; with them
// a session has about 1 KB.
const Facts = 12

// FactName returns the name of fact i: k00 to k11.
func FactName(i int) string { return fmt.Sprintf("k%02d", i) }

// Fact returns fact i of a user: the hex SHA-256 of "UID/i".
func Fact(uid string, i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", uid, i))
	return hex.EncodeToString(sum[:])
}

// JSON returns the members of a user's session as a login stores them, without the
// braces around them.
func JSON(uid string) []byte {
	b := fmt.Appendf(nil, `"user_id":%q,"counter":0`, uid)
	for i := range Facts {
		b = fmt.Appendf(b, `,%q:%q`, FactName(i), Fact(uid, i))
	}
	return b
}

// Text answers with a plain text body and its Content-Length.
func Text(w http.ResponseWriter, status int, body string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a browser that has gone is not an error
}

// Unauthorized answers a request that needs a session and has none.
func Unauthorized(w http.ResponseWriter) { Text(w, http.StatusUnauthorized, "unauthorized") }

// Fail answers a request whose session could not be loaded or saved.
func Fail(w http.ResponseWriter, err error) {
	log.Print(err)
	Text(w, http.StatusServiceUnavailable, "unavailable")
}

// Routes are a server's handlers; Mux gives each its path.
type Routes struct {
	Login, Read, Write, New http.HandlerFunc
}

// Mux returns the routes, with one for /public that does not use the session.
func (r Routes) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/public", func(w http.ResponseWriter, _ *http.Request) { Text(w, http.StatusOK, "public") })
	mux.HandleFunc("/login", r.Login)
	mux.HandleFunc("/read", r.Read)
	mux.HandleFunc("/write", r.Write)
	mux.HandleFunc("/new", r.New)
	return mux
}

// Pool returns a pool on DATABASE_URL of at most PGPOOL_MAX connections (default:
// pgx's own).
func Pool(ctx context.Context) (*pgxpool.Pool, error) {
	cfg, err := PoolConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// PoolConfig is the configuration of such a pool on another database.
func PoolConfig(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	n, err := PoolMax()
	if err != nil {
		return nil, err
	}
	if n > 0 {
		cfg.MaxConns = int32(n)
	}
	return cfg, nil
}

// PoolMax returns PGPOOL_MAX, 0 if it is not set.
func PoolMax() (int, error) {
	v := os.Getenv("PGPOOL_MAX")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("PGPOOL_MAX=%q: must be a whole number of connections", v)
	}
	return n, nil
}

// Used is what a server's work with one of several databases has come to so far: bytes
// to and from it, and the library's counts.
type Used struct {
	Sent, Received                           int64
	Loads, Creates, Saves, Touches, Destroys uint64
}

// Main makes a server's handler and serves it on PORT until SIGTERM or SIGINT;
// what begun requests need is closed after they have ended.
func Main(handler func(context.Context) (h http.Handler, end func(), err error)) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, handler); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, handler func(context.Context) (http.Handler, func(), error)) error {
	h, end, err := handler(ctx)
	if err != nil {
		return err
	}
	if end != nil {
		defer end()
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("", os.Getenv("PORT")))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
