package faults

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// Secret is what all programs sign their cookies with.
var Secret = "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A"

// Program is one instance of [App]: an HTTP server on 127.0.0.1 with a pool of
// its own.
type Program struct {
	URL     string
	Manager *session.Manager
	Pool    *pgxpool.Pool

	server *http.Server
	served chan struct{}
}

// ProgramOptions change a program; nil functions change nothing.
type ProgramOptions struct {
	Pool   func(*pgxpool.Config)
	Config func(*session.Config)
	Wrap   func(session.Store) session.Store
}

// StartProgram starts a program on the database at dbURL and makes its table.
func StartProgram(ctx context.Context, dbURL string, o ProgramOptions) (*Program, error) {
	pc, err := pgxpool.ParseConfig(dbURL)
	if err != nil {
		return nil, fmt.Errorf("faults: the connection string cannot be parsed")
	}
	if o.Pool != nil {
		o.Pool(pc)
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	p := &Program{Pool: pool, served: make(chan struct{})}
	if err := p.serve(ctx, o); err != nil {
		pool.Close()
		return nil, err
	}
	return p, nil
}

func (p *Program) serve(ctx context.Context, o ProgramOptions) error {
	quiet := slog.New(slog.DiscardHandler)
	pg, err := session.NewPostgresStore(ctx, p.Pool, session.PostgresOptions{Logger: quiet})
	if err != nil {
		return err
	}
	cfg := session.Config{Secret: Secret, DisablePrune: true, Logger: quiet}
	if o.Config != nil {
		o.Config(&cfg)
	}
	var store session.Store = pg
	if o.Wrap != nil {
		store = o.Wrap(pg)
	}
	if p.Manager, err = session.New(store, cfg); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.URL = "http://" + ln.Addr().String()
	p.server = &http.Server{Handler: App(p.Manager), ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(ln)
	}()
	return nil
}

// Close stops the program.
func (p *Program) Close() {
	_ = p.server.Close()
	<-p.served
	_ = p.Manager.Close()
	p.Pool.Close()
}
