package pgtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/pgtest"
)

func TestStandbyFollowsAndIsPromoted(t *testing.T) {
	primary := pgtest.Own(t, pgtest.Options{Settings: map[string]string{"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}})
	standby, err := primary.Standby(t.Context(), map[string]string{"synchronous_standby_names": ""})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	connect := func(url string) *pgx.Conn {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	one, two := connect(primary.URL()), connect(standby.URL())
	// The commit waits until the standby has done it too.
	if _, err := one.Exec(ctx, "CREATE TABLE t AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := two.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("on the standby: got %d rows, %v, want 1", n, err)
	}
	_, err = two.Exec(ctx, "INSERT INTO t VALUES (2)")
	if pe := new(pgconn.PgError); !errors.As(err, &pe) || pe.Code != "25006" {
		t.Errorf("a write on the standby: got %v, want 25006", err)
	}
	if err := primary.Stop(ctx, "immediate"); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Exec(ctx, "INSERT INTO t VALUES (2)"); err != nil {
		t.Errorf("a write after the promotion: got %v, want no error", err)
	}
}
