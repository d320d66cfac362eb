package pgtable

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgrun"
)

const (
	// setupTimeout bounds Setup where its context has no deadline.
	setupTimeout = 30 * time.Second

	// dialTimeout is how long a connection may take: longer ones outlive an outage
	// in which packets are swallowed.
	dialTimeout = 5 * time.Second

	// The pause between two tries, which doubles, and how often the log says that
	// this program waits.
	firstPause, lastPause = 50 * time.Millisecond, time.Second
	sayEvery              = 10 * time.Second
)

// patiently tries until it succeeds, until the reason is one that waiting does
// not mend, or until ctx ends: a program may start before its database.
func (t *Table) patiently(ctx context.Context, try func(context.Context) error) error {
	start := time.Now()
	var said time.Time
	var last error
	host, port, database, _ := t.target()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := try(ctx)
		if err == nil && !said.IsZero() {
			t.Logger.Info("session: the database is there, after waiting for it", "host", host, "port", port, "waitedMs", time.Since(start).Milliseconds())
		}
		if err != nil && ctx.Err() != nil && last != nil { // this try was cut off: the one before says more
			err = last
		}
		switch {
		case err == nil || !passes(err):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%w (waited for %v: %w)", err, time.Since(start).Round(time.Millisecond), context.Cause(ctx))
		}
		last = err
		if time.Since(said) >= sayEvery {
			said = time.Now()
			t.Logger.Warn("session: waiting for the database", slog.String("host", host), slog.Int("port", port), slog.String("database", database),
				slog.Int64("waitedMs", time.Since(start).Milliseconds()), slog.Any("error", err))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done(): // the next try ends at once
			timer.Stop()
		}
	}
}

// acquire takes a connection from the pool. The pool's own dials may take two
// minutes, in which they keep their places whatever ctx says; where they may
// take long another one goes first.
func (t *Table) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	pool := t.Runner.Pool()
	if d := pool.Config().ConnConfig.ConnectTimeout; (d <= 0 || d > dialTimeout) && pool.Stat().TotalConns() == 0 {
		conn, err := t.dial(ctx, func(*pgx.ConnConfig) {})
		if err != nil {
			return nil, t.connectError(err)
		}
		_ = conn.Close(ctx)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, t.connectError(err)
	}
	return conn, nil
}

// dial connects as the pool does, in dialTimeout for each host.
func (t *Table) dial(ctx context.Context, change func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	pool := t.Runner.Pool().Config()
	cfg := pool.ConnConfig.Copy()
	if pool.BeforeConnect != nil {
		if err := pool.BeforeConnect(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if cfg.ConnectTimeout <= 0 || cfg.ConnectTimeout > dialTimeout {
		cfg.ConnectTimeout = dialTimeout
	}
	change(cfg)
	return pgx.ConnectConfig(ctx, cfg)
}

// passes reports whether an error may be gone a moment later. A pool may have
// several hosts, and one may have been tried with TLS and without: an answer
// that no waiting changes ends it, wherever it comes from; what may be an answer
// to the other way of trying does only where nothing else is said.
func passes(err error) bool {
	worst, best := passing, final
	for _, leaf := range leaves(err) {
		p := judge(leaf)
		worst, best = max(worst, p), min(best, p)
	}
	return best == passing && worst != final
}

// prospect is what an error says about another try.
type prospect int

const (
	passing prospect = iota // another try may succeed
	unclear                 // it will not, unless another way of connecting does
	final                   // it will not
)

// leaves returns what an error has at its ends: errors that wrap none, or that
// say enough by themselves.
func leaves(err error) (all []error) {
	switch e := err.(type) { //nolint:errorlint // each in turn
	case *pgconn.PgError, *tls.CertificateVerificationError, *net.DNSError, *net.OpError:
		return []error{err}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			all = append(all, leaves(err)...)
		}
		return all
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return leaves(inner)
		}
	}
	return []error{err}
}

// judge looks at one of the leaves.
func judge(err error) prospect {
	var server *pgconn.PgError
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &server):
		return judgeServer(server)
	case errors.As(err, &dns): // a name that comes with its server is not there before
		return passing
	case errors.As(err, &op):
		if op.Op == "remote error" || op.Op == "local error" || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) { // TLS; a socket's rights
			return unclear
		}
		return passing
	case errors.Is(err, context.Canceled):
		return final
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, pgconn.ErrConnClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE):
		return passing
	case errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrReadWriteConnection),
		errors.Is(err, pgconn.ErrPrimaryConnection), errors.Is(err, pgconn.ErrStandbyConnection): // target_session_attrs: a standby is promoted
		return passing
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return final
	}
	return unclear
}

// judgeServer looks at an answer of the server, or of a pooler.
func judgeServer(err *pgconn.PgError) prospect {
	switch err.Code {
	case "57P01", "57P02", "57P03", "53300", // shutdown, crash, starting up, too many connections
		"25006",          // a standby, or a database that is kept from changing for a while
		"40001", "40P01", // serialization_failure, deadlock_detected
		"08000", "08001", "08003", "08006":
		return passing
	case "08P01": // PgBouncer's for everything
		for _, sign := range []string{"authentication failed", "does not exist", "no such", "unsupported"} {
			if strings.Contains(err.Message, sign) {
				return final
			}
		}
		if strings.Contains(err.Message, "server_login_retry") || strings.Contains(err.Message, "no more connections") || strings.Contains(err.Message, "connect failed") {
			return passing
		}
		return final
	case "28000": // perhaps only without TLS
		return unclear
	}
	return final
}

// target says where the pool connects to.
func (t *Table) target() (host string, port int, database, user string) {
	c := t.Runner.Pool().Config().ConnConfig
	return c.Host, int(c.Port), c.Database, c.User
}

// connectError names everything but the password.
func (t *Table) connectError(err error) error {
	host, port, database, user := t.target()
	hint := "is it running, and are host and port right?"
	switch pool := t.Runner.Pool(); {
	case pool.Config().ConnString() == "":
		hint = "is it running? No connection string was given: is DATABASE_URL set?"
	case strings.Contains(err.Error(), "server refused TLS"):
		hint = "the server does not speak TLS: add sslmode=disable if it is on this machine or in a private network"
	case pool.Stat().AcquiredConns() >= pool.Config().MaxConns:
		hint = fmt.Sprintf("all %d connections of the pool are in use", pool.Config().MaxConns)
	}
	switch pgrun.SQLState(err) {
	case "3D000": // invalid_catalog_name
		hint = fmt.Sprintf("the database does not exist, make it with: createdb -h %s -p %d %s", host, port, shellWord(database))
	case "28P01", "28000": // invalid password or authorization
		hint = "user or password is wrong, or pg_hba.conf does not let this user in"
	case "53300": // too_many_connections
		hint = "the server has no connection left: lower the pool's MaxConns or raise max_connections"
	case "57P03": // cannot_connect_now
		hint = "the server is starting up or shutting down"
	case "42P05", "26000": // duplicate or missing prepared statement
		return fmt.Errorf("session: %w", t.Runner.Describe(err))
	}
	return fmt.Errorf("session: PostgreSQL at %s, database %q, user %q does not answer: %s: %w",
		net.JoinHostPort(host, strconv.Itoa(port)), database, user, hint, err)
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
