package pgrun_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// begin begins a transaction, and changes what is known of it.
func (r *rig) begin(change func(*pgrun.Origin)) *pgrun.Transaction {
	r.t.Helper()
	tx, err := r.runner.Begin(r.t.Context(), func(ctx context.Context, tx pgx.Tx) (o pgrun.Origin, err error) {
		err = tx.QueryRow(ctx, "SELECT "+pgrun.SQLOrigin).Scan(&o.XID, &o.Server, &o.Checkpoint)
		change(&o)
		return o, err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(tx.End)
	return tx
}

// A COMMIT without an answer: what the server says of the transaction counts, as long
// as it is the same server and has had no crash since.
func TestCommitWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*pgrun.Origin)
		witness bool
		commits bool // the request arrives
		want    error
	}{
		{"committed", func(*pgrun.Origin) {}, false, true, nil},
		{"rolled back", func(*pgrun.Origin) {}, true, false, pgrun.ErrNotCommitted},
		{"another timeline, as after a failover", func(o *pgrun.Origin) { o.Server = "1/00000009" }, true, true, errUncertain},
		{"a checkpoint since, and its data is there", func(o *pgrun.Origin) { o.Checkpoint = "0/1" }, true, true, nil},
		{"a checkpoint since, and its data is not", func(o *pgrun.Origin) { o.Checkpoint = "0/1" }, false, true, errUncertain},
		{"a number that a crash has made unknown", func(o *pgrun.Origin) { o.XID = "99999999999" }, true, true, pgrun.ErrNotCommitted},
		{"nothing is known of it", func(o *pgrun.Origin) { *o = pgrun.Origin{} }, true, true, errUncertain},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 4)
			tx := r.begin(c.change)
			conn := tx.Tx().Conn().PgConn()
			if c.commits { // behind the back of Commit, which finds the connection dead
				if err := conn.Exec(t.Context(), "COMMIT").Close(); err != nil {
					t.Fatal(err)
				}
			}
			_ = conn.Conn().Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := tx.Commit(ctx, func(context.Context, *pgx.Conn) (bool, error) { return c.witness, nil })
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A crash between COMMIT and its answer is found out as well.
func TestCommitAndCrash(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	r := newRigOn(t, server.URL(), 4)
	if err := r.exec(t.Context(), pgrun.Once, "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		commits bool
		want    error
	}{{"before COMMIT", false, pgrun.ErrNotCommitted}, {"after it", true, nil}} {
		tx := r.begin(func(*pgrun.Origin) {})
		// What writes nothing else may be lost in a crash after its COMMIT.
		if _, err := tx.Tx().Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		if c.commits {
			if err := tx.Tx().Conn().PgConn().Exec(t.Context(), "COMMIT").Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := tx.Commit(ctx, func(context.Context, *pgx.Conn) (bool, error) { return true, nil })
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// A COMMIT that waits for a standby is not cut off: its caller hears at the deadline
// that nobody knows, and then it is seen.
func TestCommitWaitsForStandbys(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	r := newRigOn(t, server.URL(), 8)
	if err := r.exec(t.Context(), pgrun.Once, "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}
	tx := r.begin(func(*pgrun.Origin) {})
	if _, err := tx.Tx().Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	r.standbys("nobody")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	err := tx.Commit(ctx, func(context.Context, *pgx.Conn) (bool, error) { return true, nil })
	if !errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want uncertain, at the deadline", err)
	}
	r.standbys("")
	r.until("it is home", func() bool { return r.runner.Late() == 0 && r.runner.Pool().Stat().AcquiredConns() == 0 })
	var n int
	if err := r.admin.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("rows: got %d, %v, want one", n, err)
	}
}

// After a restart each pooled connection fails once, and Begin goes on with another.
func TestBeginAfterDeadConnections(t *testing.T) {
	r := newRig(t, 4)
	for range 3 {
		pids := r.pids()
		for _, pid := range pids {
			if _, err := r.admin.Exec(t.Context(), "SELECT pg_terminate_backend($1)", pid); err != nil {
				t.Fatal(err)
			}
		}
		r.begin(func(*pgrun.Origin) {}).End()
	}
}

// Who commits does not wait for those who have a place for a write and wait for a
// connection: with one connection that would be for ever.
func TestCommitOnTheOnlyConnection(t *testing.T) {
	r := newRig(t, 1)
	tx := r.begin(func(*pgrun.Origin) {})
	written := make(chan error, 1)
	go func() { written <- r.exec(context.Background(), pgrun.Once, "CREATE TABLE t (n int)") }()
	r.until("a write has its place", func() bool { return r.runner.Taken() == 1 })
	if err := tx.Commit(t.Context(), func(context.Context, *pgx.Conn) (bool, error) { return true, nil }); err != nil {
		t.Errorf("COMMIT: got %v, want no error", err)
	}
	if err := <-written; err != nil {
		t.Errorf("the write: got %v, want no error", err)
	}
}
