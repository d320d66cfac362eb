package session_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// setStandby sets synchronous_standby_names, none of which is there, and returns
// when commits wait for them, or none does any more.
func setStandby(t *testing.T, admin, probe *pgxpool.Pool, names string) {
	t.Helper()
	execSQL(t, admin, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
	execSQL(t, admin, "SELECT pg_reload_conf()")
	awaitSQL(t, admin, "the setting", "SELECT current_setting('synchronous_standby_names') = $1", names)
	const waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	if names == "" {
		awaitSQL(t, admin, "nobody waits", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')")
		return
	}
	t.Cleanup(func() { // or after a failure the pools would wait for what waits
		for _, sql := range []string{"ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"} {
			if _, err := admin.Exec(context.Background(), sql); err != nil {
				t.Error(err)
			}
		}
	})
	// Another process makes commits wait by it, in its own time: one of the test's
	// own is the first to.
	for through := make(chan error, 1); ; {
		go func() {
			_, err := probe.Exec(context.Background(), "SELECT pg_logical_emit_message(true, 'probe', '')")
			through <- err
		}()
		for {
			if queryOne[bool](t, admin, waits) {
				return
			}
			nap(t, admin)
			if len(through) > 0 {
				<-through
				break
			}
		}
	}
}

// Another program's logout becomes visible when somebody cuts its wait for the
// standby: a failover would undo it. So who finds nothing to end is not told that
// it has ended before the standby has it.
func TestNothingFoundIsConfirmed(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	admin, probe := openPool(t, server.URL()), openPool(t, server.URL())
	named := func(name string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["application_name"] = name }
	}
	const waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = $1"
	first := newStore(t, openPool(t, server.URL(), named("first")))
	second := openPool(t, server.URL(), named("second"))
	eachSharing(t, func(t *testing.T, opts session.PostgresOptions) {
		store := newStore(t, second, opts)
		for name, end := range map[string]func(context.Context, string) error{
			"Delete": store.Delete,
			"DeleteFound": func(ctx context.Context, id string) error {
				_, err := store.DeleteFound(ctx, session.Query{Handle: store.Handle(id)})
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				id := createRecord(t, store, `{"a":1}`)
				setStandby(t, admin, probe, "nobody")
				ended := make(chan error, 1)
				go func() { ended <- first.Delete(context.Background(), id) }()
				awaitSQL(t, admin, "the first waits for the standby", waits, "first")
				execSQL(t, admin, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'first'")
				awaitSQL(t, admin, "its work can be seen", "SELECT NOT EXISTS (SELECT FROM schema_system.session WHERE sid = $1)", id)
				done := make(chan error, 1)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				go func() { done <- end(ctx, id) }()
				for !queryOne[bool](t, admin, waits, "second") {
					if len(done) > 0 {
						t.Errorf("the second: got %v before the standby has confirmed anything, want it to wait", <-done)
						done <- nil
						break
					}
					nap(t, admin)
				}
				setStandby(t, admin, probe, "")
				if err := <-done; err != nil {
					t.Errorf("the second, once nobody is waited for: got %v, want no error", err)
				}
				<-ended
			})
		}
	})
}
