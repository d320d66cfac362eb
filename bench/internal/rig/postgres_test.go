package rig_test

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
)

// Row updates are counted from the log as soon as they are made, committed or not,
// and those that change no index are told apart.
func TestUpdates(t *testing.T) {
	pg, err := rig.StartPostgres(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Close)
	db, err := pg.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	exec := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	wal := func() int64 {
		t.Helper()
		n, err := pg.WAL(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	exec("CREATE TABLE counted (a int PRIMARY KEY, b int, c int) WITH (fillfactor = 10); CREATE INDEX ON counted (b); INSERT INTO counted SELECT n, n, n FROM generate_series(1, 7) n")
	before := wal()
	exec("BEGIN; UPDATE counted SET c = 0; UPDATE counted SET b = 0 WHERE a < 4") // nothing of it has been flushed
	after := wal()
	if got, err := pg.Updates(t.Context(), before, after); err != nil || got != (rig.Updates{All: 10, HeapOnly: 7}) {
		t.Errorf("got %+v, %v, want 10, 7 of them heap-only", got, err)
	}
	if got, err := pg.Updates(t.Context(), after, after); err != nil || got.All != 0 {
		t.Errorf("nothing happened: got %+v, %v, want none", got, err)
	}
	if d, err := pg.CommitTime(t.Context()); err != nil || d <= 0 {
		t.Errorf("commit time: got %v, %v, want some", d, err)
	}
}
