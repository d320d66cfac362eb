package pgrun_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// standbys sets the names of the standbys that a commit waits for, of which none
// is there, and returns when commits wait, or do not any more.
func (r *rig) standbys(names string) {
	r.t.Helper()
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()"} {
		if _, err := r.admin.Exec(r.t.Context(), sql); err != nil {
			r.t.Fatal(err)
		}
	}
	// It is the checkpointer that tells the others.
	r.until("commits wait for "+names, func() bool {
		probe := make(chan error, 1)
		go func() {
			_, err := r.admin.Exec(r.t.Context(), "SELECT pg_logical_emit_message(true, 'probe', '')")
			probe <- err
		}()
		for {
			var waits int
			err := r.admin.QueryRow(r.t.Context(), `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
				WHERE wait_event = 'SyncRep' AND query LIKE '%''probe''%' AND pid <> pg_backend_pid()`).Scan(&waits)
			if err != nil {
				r.t.Fatal(err)
			}
			select {
			case err := <-probe:
				return err == nil && waits == 0 == (names == "")
			default:
			}
			if waits > 0 {
				<-probe // cancelled, which lets it succeed
				return names != ""
			}
		}
	})
}

// exec runs a write of one statement.
func (r *rig) exec(ctx context.Context, repeat pgrun.Repetition, sql string) error {
	_, err := pgrun.Run(ctx, r.runner, repeat, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
		_, err := c.Exec(ctx, sql)
		return struct{}{}, err
	})
	return err
}

func TestWritesWaitForStandbys(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	r := newRigOn(t, server.URL(), 8)
	if err := r.exec(t.Context(), pgrun.Once, "CREATE TABLE t (n int)"); err != nil {
		t.Fatal(err)
	}

	// The standby is not there: what is written stays unseen, and is seen when its
	// commit is through.
	t.Run("a late write", func(t *testing.T) {
		before := r.pids()
		r.standbys("nobody")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // in which it is surely sent
		defer cancel()
		if err := r.exec(ctx, pgrun.Once, "INSERT INTO t VALUES (1)"); !errors.Is(err, errUncertain) {
			t.Errorf("got %v, want uncertain", err)
		}
		count := func() (n int) {
			t.Helper()
			if err := r.admin.QueryRow(t.Context(), "SELECT count(*) FROM t WHERE n = 1").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		r.until("it is late", func() bool { return r.runner.Late() == 1 })
		if got := count(); got != 0 {
			t.Errorf("rows while it waits: got %d, want none", got)
		}
		r.standbys("")
		r.home(before)
		r.noCancels()
		if got := count(); got != 1 {
			t.Errorf("rows afterwards: got %d, want one", got)
		}
	})

	// PostgreSQL's own timeouts do not cut the wait for the standby.
	t.Run("statement_timeout", func(t *testing.T) {
		timeouts := "&statement_timeout=2000" // more than a busy server needs to get to its commit
		var version int
		if err := r.admin.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			t.Fatal(err)
		}
		if version >= 170000 {
			timeouts += "&transaction_timeout=2000"
		}
		hurried := newRigOn(t, server.URL()+timeouts, 4)
		r.standbys("nobody")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := hurried.exec(ctx, pgrun.Once, "INSERT INTO t VALUES (4)"); !errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want uncertain, at the deadline", err)
		}
		var waits int
		if err := r.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'").Scan(&waits); err != nil || waits != 1 {
			t.Errorf("server processes that wait: got %d, %v, want one", waits, err)
		}
		r.standbys("")
		hurried.until("it is home", func() bool { return hurried.runner.Late() == 0 })
		if err := hurried.exec(t.Context(), pgrun.Once, "INSERT INTO t SELECT 5 FROM pg_sleep(5)"); err == nil || errors.Is(err, errUncertain) && version < 170000 {
			t.Errorf("one that did not get to its commit: got %v, want an error", err)
		}
	})

	// Somebody cuts the wait for the standby, and the statement succeeds. That is
	// seen by the time it took.
	t.Run("a wait that was cut", func(t *testing.T) {
		before := r.pids()
		r.standbys("nobody")
		for _, repeat := range []pgrun.Repetition{pgrun.Once, pgrun.Repeatable} {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- r.exec(ctx, repeat, "INSERT INTO t SELECT 2 FROM pg_sleep(0.3)") }()
			cut := 0
			r.until("it waits for the standby, and does not any more", func() bool {
				return r.admin.QueryRow(t.Context(), `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
					WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'`).Scan(&cut) == nil && cut > 0
			})
			if err := <-done; !errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want uncertain, at the deadline", err)
			}
		}
		r.standbys("")
		r.home(before)
		r.noCancels()
		if err := r.exec(t.Context(), pgrun.Once, "INSERT INTO t SELECT 3 FROM pg_sleep(0.3)"); err != nil {
			t.Errorf("a slow one: got %v, want no error", err)
		}
	})

	// A first try without an answer, and a second that finds the work done: it
	// counts when the standbys have it.
	t.Run("tried again", func(t *testing.T) {
		before := func(ctx context.Context) error {
			tries := 0
			_, err := pgrun.Run(ctx, r.runner, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				if tries++; tries == 1 {
					return struct{}{}, breakOff(ctx, c)
				}
				var n int
				return struct{}{}, c.QueryRow(ctx, "SELECT 1").Scan(&n) // "it is gone"
			})
			return err
		}
		if err := before(t.Context()); err != nil {
			t.Errorf("without a standby to wait for: got %v, want no error", err)
		}
		r.standbys("nobody")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := before(ctx); !errors.Is(err, errUncertain) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with one: got %v, want uncertain, at the deadline", err)
		}
		r.standbys("")
		r.until("it is home", func() bool { return r.runner.Late() == 0 })
	})

	// What cannot be confirmed is uncertain, whatever the error says, and what was
	// to be done once is.
	t.Run("no confirmation", func(t *testing.T) {
		const weaken = `CREATE ROLE weak; GRANT INSERT ON t TO weak;
			DO $$ DECLARE f regprocedure; BEGIN
				FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP
					EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
				END LOOP;
			END $$`
		if _, err := r.admin.Exec(t.Context(), weaken); err != nil {
			t.Fatal(err)
		}
		tries := 0
		slow := func() error {
			_, err := pgrun.Run(t.Context(), r.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				tries++
				_, err := c.Exec(ctx, "SET ROLE weak; SET synchronous_commit = local; SELECT pg_sleep(0.3)")
				return struct{}{}, err
			})
			return err
		}
		if err := slow(); err != nil {
			t.Errorf("without standbys: got %v, want no error", err)
		}
		tries = 0
		r.standbys("somebody")
		err := slow()
		if !errors.Is(err, errUncertain) || pgrun.SQLState(err) != "42501" || tries != 1 {
			t.Errorf("got %v after %d tries, want uncertain, with 42501, after one", err, tries)
		}
		r.standbys("")
	})
}

// breakOff is a statement of which nobody knows whether it has arrived.
func breakOff(ctx context.Context, c *pgx.Conn) error {
	_ = c.PgConn().Conn().Close()
	_, err := c.Exec(ctx, "SELECT 1")
	if pgconn.SafeToRetry(err) {
		err = errors.New("the connection died after all was sent")
	}
	return err
}

// Whatever becomes of a write's second try, if that is no answer the first may
// have been done.
func TestDoubtStays(t *testing.T) {
	r := newRig(t, 2)
	ours := errors.New("what f makes of an answer")
	for _, tt := range []struct {
		name   string
		repeat pgrun.Repetition
		second func(context.Context, *pgx.Conn) error
		want   bool
	}{
		{"refused", pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '55P03'; END $$`)
			return err
		}, true},
		{"broken until the deadline", pgrun.Repeatable, breakOff, true},
		{"an answer", pgrun.Repeatable, func(context.Context, *pgx.Conn) error { return ours }, false},
		{"a read", pgrun.Read, breakOff, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // the first is to get a connection in it
			defer cancel()
			tries := 0
			_, err := pgrun.Run(ctx, r.runner, tt.repeat, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				if tries++; tries == 1 {
					return struct{}{}, breakOff(ctx, c)
				}
				return struct{}{}, tt.second(ctx, c)
			})
			if err == nil || errors.Is(err, errUncertain) != tt.want {
				t.Errorf("got %v, want an error, uncertain: %t", err, tt.want)
			}
		})
	}
}
