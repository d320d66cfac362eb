package faults_test

import (
	"testing"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// Columns change their types while prepared statements and rows are in use.
func TestFaultDDL(t *testing.T) {
	dbURL := pgtest.URL(t)
	r := newRig(t, dbURL, rigOptions{timeout: ample})
	a := admin(t, dbURL)
	for _, ddl := range []string{
		"ALTER COLUMN sid TYPE text",
		"ALTER COLUMN expire TYPE timestamptz",
		"ALTER COLUMN sess TYPE jsonb",
		"ADD COLUMN more text",
		"ALTER COLUMN sess TYPE json",
		"ALTER COLUMN expire TYPE timestamp(6)",
		"DROP COLUMN more",
		"ALTER COLUMN sid TYPE varchar",
	} {
		execute(t, a, "ALTER TABLE schema_system.session "+ddl)
		r.wait(40)
	}
	res := r.finish("ALTER TYPE of each column")
	res.unharmed(t)
}

// Statements of two programs save overlapping sets of sessions, and a trigger
// makes each take a lock for every one of them, in the order in which they come:
// so some deadlock, and are done again alone.
func TestFaultDeadlock(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"deadlock_timeout": "5ms"}})
	r := newRig(t, server.URL(), rigOptions{timeout: ample, load: faults.Load{
		Users: 4, Sessions: 4, Workers: 32, Pace: 1,
		Mix: map[faults.Kind]int{faults.Write: 5, faults.Add: 5, faults.Read: 2},
	}})
	a := admin(t, server.URL())
	for _, sql := range []string{
		"CREATE TABLE audit (who text PRIMARY KEY, saves int NOT NULL)",
		`CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO audit VALUES (NEW.sess->>'user', 1) ON CONFLICT (who) DO UPDATE SET saves = audit.saves + 1;
			PERFORM pg_sleep(0.003); -- the lock is held until the statement ends
			RETURN NEW; END $$`,
		"CREATE TRIGGER audit BEFORE UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION audit()",
	} {
		execute(t, a, sql)
	}
	const enough = 3
	var deadlocks int64
	for range 50 {
		r.wait(recovery / 2)
		// A backend reports it within a second of the end of its statement.
		deadlocks = get[int64](t, a, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
		if deadlocks >= enough {
			break
		}
	}
	res := r.finish("deadlocks")
	res.unharmed(t)
	res.kept(t)
	if deadlocks < enough {
		t.Errorf("deadlocks: got %d, want at least %d", deadlocks, enough)
	}
}
