package doctor_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
	"github.com/pgsession/session/internal/pgtest"
)

// What is of the server as a whole needs one that nobody else uses.
func TestTheServer(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"max_connections": "20"}})
	p := bare(t, server.URL())
	p.makeTable()
	r := p.examine()
	want(t, r, "connections", doctor.OK, "of 17 connections are used")
	want(t, r, "replication", doctor.OK)
	want(t, r, "primary", doctor.OK)

	t.Run("autovacuum is off", func(t *testing.T) {
		p.exec("ALTER SYSTEM SET autovacuum = off")
		p.exec("SELECT pg_reload_conf()")
		p.await("the setting counts", "SELECT current_setting('autovacuum') = 'off'")
		want(t, p.examine(), "autovacuum", doctor.Warning, "autovacuum is off", "ALTER SYSTEM SET autovacuum = on")
	})

	t.Run("connections are used up", func(t *testing.T) {
		var conns []*pgx.Conn
		for range 12 {
			conns = append(conns, p.connect())
		}
		want(t, p.examine(), "connections", doctor.Hint, "of 17", "pool_max_conns")
		for range 3 {
			conns = append(conns, p.connect())
		}
		want(t, p.examine(), "connections", doctor.Warning, "of 17", "ALTER SYSTEM SET max_connections = 34")
		for _, c := range conns {
			if err := c.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		p.await("they are gone", "SELECT sum(numbackends) < 8 FROM pg_stat_database")
	})

	t.Run("a slot that nobody reads", func(t *testing.T) {
		p.exec("SELECT pg_create_physical_replication_slot('forgotten', true)")
		want(t, p.examine(), "replication", doctor.Warning, "replication slot forgotten", "pg_drop_replication_slot")
		p.mend("replication")
		want(t, p.examine(), "replication", doctor.OK)
	})

	t.Run("a standby", func(t *testing.T) {
		standby, err := server.Standby(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer standby.Close()
		p.await("the standby follows", "SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
		want(t, p.examine(), "replication", doctor.Hint, "1 replicas", "synchronous_standby_names")
		s := &patient{t: t, url: standby.URL(), Options: p.Options}
		s.with("application_name", "x")
		s.Pool = s.open(standby.URL())
		r := s.examine()
		want(t, r, "primary", doctor.Error, "standby", "target_session_attrs=read-write")
		want(t, r, "table", doctor.OK)
	})
}
