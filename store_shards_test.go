package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
)

// Citus makes a table anew, under its name, to change how many shards it has. Programs
// that are running then renew into the shards that there are now.
func TestShardsOfATableMadeAnew(t *testing.T) {
	if citustest.Real() {
		t.Skip("CITUS: this takes the shards out of the catalogs, and is for those that are only looks")
	}
	const schema = "schema_system"
	pool := citustest.Pool(t, maxConns(8))
	log := &logRecorder{}
	made := func(moved int) { // the shards begin elsewhere by that, but for the first
		citustest.Exec(t, pool, "DELETE FROM pg_catalog.pg_dist_shard; DELETE FROM pg_catalog.pg_dist_partition; DROP SCHEMA IF EXISTS "+schema+" CASCADE; CREATE SCHEMA "+schema+
			"; CREATE TABLE "+schema+".session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamptz(6) NOT NULL); CREATE INDEX ON "+schema+".session (expire)")
		citustest.Distribute(t, pool, schema, "sid")
		citustest.Exec(t, pool, fmt.Sprintf(`UPDATE pg_catalog.pg_dist_shard SET shardmaxvalue = shardmaxvalue::int8 + %[1]d,
			shardminvalue = shardminvalue::int8 + CASE WHEN shardid = 100 THEN 0 ELSE %[1]d END`, moved))
	}
	made(0)
	store := newStore(t, pool, session.PostgresOptions{Logger: log.logger()})
	m := patientManager(t, store, func(cfg *session.Config) { cfg.Logger = log.logger() })
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	transact := func(s *session.Session) {
		if err := session.Transact(t.Context(), s, func(context.Context, pgx.Tx) error { s.Renew(); return nil }); err != nil {
			t.Error(err)
		}
	}
	saveTx := func(s *session.Session) {
		s.Renew()
		if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return session.SaveTx(t.Context(), s, tx) }); err != nil {
			t.Error(err)
		}
	}
	saveSQLTx := func(s *session.Session) {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Error(err)
			return
		}
		s.Renew()
		if err := errors.Join(session.SaveSQLTx(t.Context(), s, tx), tx.Commit()); err != nil {
			t.Error(err)
		}
	}
	oneShard := func(when string, renew func(*session.Session)) {
		t.Helper()
		b := login(t, m)
		for range 12 {
			b.visit(renew)
		}
		of := map[int64]int{}
		rows, err := pool.Query(t.Context(), "SELECT sid FROM "+schema+".session")
		if err != nil {
			t.Fatal(err)
		}
		var sids []string
		for rows.Next() {
			var sid string
			if err := rows.Scan(&sid); err != nil {
				t.Fatal(err)
			}
			sids = append(sids, sid)
		}
		for _, sid := range sids {
			of[citustest.ShardOf(t, pool, schema, sid)]++
		}
		if rows.Err() != nil || len(of) != 1 || len(sids) < 13 {
			t.Errorf("%s: got %d rows in shards %v, want all in one", when, len(sids), of)
		}
	}
	oneShard("at first", renew)
	for i, by := range []struct {
		name  string
		renew func(*session.Session)
	}{{"Renew", renew}, {"Transact", transact}, {"SaveTx", saveTx}, {"SaveSQLTx", saveSQLTx}} {
		made(1 << 28 >> i) // a program that renews in no other way
		store.ForgetShards()
		for range 4 { // the first shard is where it was
			citustest.Exec(t, pool, "TRUNCATE "+schema+".session")
			oneShard("made anew, "+by.name, by.renew)
		}
	}

	citustest.Exec(t, pool, "DELETE FROM pg_catalog.pg_dist_shard")
	store.ForgetShards()
	log.reset()
	login(t, m).visit(renew)
	if got := log.String(); !strings.Contains(got, "the shards could not be read") {
		t.Errorf("without shards: logged: got %q, want a warning", got)
	}
}
