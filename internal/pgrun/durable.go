package pgrun

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A transaction waits for the standbys, and so for all that was committed before
// it, if it has a record of its own in the log. Two statements: that the function
// may be called is checked even where it is not.
const (
	sqlStandbys = `SELECT pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''`
	sqlWait     = `SELECT pg_catalog.pg_logical_emit_message(true, 'session'::pg_catalog.text, ''::pg_catalog.text)`
)

// suspicion is how long a write takes that may have waited for a standby until
// somebody cut that wait, by pg_cancel_backend. It succeeds then, with a warning at
// most. (PostgreSQL's own timeouts are over before the commit waits.)
const suspicion = 250 * time.Millisecond

// write runs a write. After a try that may have been done (confirm), and after one
// that may have been cut, it waits for the standbys once more.
func write(ctx context.Context, conn *pgx.Conn, confirm bool, f func() error) error {
	rearm := disarm(conn)
	defer rearm()
	begin := time.Now()
	err := f()
	if err == nil && (confirm || time.Since(begin) >= suspicion) {
		err = waitForStandbys(ctx, conn)
	}
	return err
}

// waitForStandbys returns when those that a commit waits for have everything.
func waitForStandbys(ctx context.Context, conn *pgx.Conn) error {
	var some bool
	// Not prepared: they are rare, and poolers may lose what is.
	err := conn.QueryRow(ctx, sqlStandbys, pgx.QueryExecModeExec).Scan(&some)
	if err == nil && some {
		_, err = conn.Exec(ctx, sqlWait, pgx.QueryExecModeExec)
	}
	if err != nil {
		return unconfirmed{err}
	}
	return nil
}

// unconfirmed is the error of a write that was done, and perhaps only here.
type unconfirmed struct{ error }

func (e unconfirmed) Unwrap() error { return e.error }

// disarm spoils the key of a connection's cancel requests until rearm. pgx sends
// one whenever it gives a connection up, and nothing can keep it from that; the
// server ignores one with a wrong key.
func disarm(conn *pgx.Conn) (rearm func()) {
	key := conn.PgConn().SecretKey() // the connection's own
	flip := func() {
		for i := range key {
			key[i] ^= 0xff
		}
	}
	flip()
	return func() {
		if !conn.IsClosed() { // else pgx may be at it
			flip()
		}
	}
}
