// Package citustest makes tables that Citus has distributed, for tests: on a
// coordinator that SESSION_TEST_CITUS_URL names, and elsewhere in looks only. There a
// plain PostgreSQL gets the catalogs that Citus would have, and so the store
// sends the statements that it sends to Citus; they say nothing of workers then.
package citustest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// Env names the variable with the URL of a coordinator, whose database the
// tests fill with schemas of their own and leave as it was.
const Env = "SESSION_TEST_CITUS_URL"

// Shards is how many a table has.
const Shards = 8

// Real reports whether there is a Citus.
func Real() bool { return os.Getenv(Env) != "" }

// catalogs are those of Citus that are asked for a table.
const catalogs = `SET allow_system_table_mods = on;
	CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char", partkey text);
	CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid int8, shardminvalue text, shardmaxvalue text);
	GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_shard TO PUBLIC;
	CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $2';
	CREATE FUNCTION pg_catalog.citus_relation_size(regclass) RETURNS int8 LANGUAGE sql AS 'SELECT pg_catalog.pg_relation_size($1)';
	CREATE FUNCTION pg_catalog.citus_table_size(regclass) RETURNS int8 LANGUAGE sql AS 'SELECT pg_catalog.pg_table_size($1)';
	CREATE FUNCTION pg_catalog.citus_total_relation_size(regclass) RETURNS int8 LANGUAGE sql AS 'SELECT pg_catalog.pg_total_relation_size($1)';
	CREATE FUNCTION pg_catalog.run_command_on_shards(name regclass, command text, OUT shardid int8, OUT success bool, OUT result text) RETURNS SETOF record LANGUAGE plpgsql AS
		$$ BEGIN shardid := 100; success := true; EXECUTE pg_catalog.replace(command, '%s', name::pg_catalog.text) INTO result; RETURN NEXT; END $$;
	RESET allow_system_table_mods;`

// Pretend makes a database look like a coordinator's.
func Pretend(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	Exec(t, pool, catalogs)
}

// Pool returns a pool on the database of the coordinator, or on a fresh one
// that looks like it.
func Pool(t testing.TB, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	url := os.Getenv(Env)
	if url == "" {
		pool := pgtest.Pool(t, opts...)
		Pretend(t, pool)
		return pool
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatalf("%s cannot be parsed", Env)
	}
	for _, opt := range opts {
		opt(cfg)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Table makes a table of sessions in a schema of its own, which is dropped at the end,
// and distributes it. columns are its three.
func Table(t testing.TB, pool *pgxpool.Pool, schema, columns string) {
	t.Helper()
	name := pgx.Identifier{schema}.Sanitize()
	Exec(t, pool, fmt.Sprintf("DROP SCHEMA IF EXISTS %s CASCADE; CREATE SCHEMA %[1]s; CREATE TABLE %[1]s.session (%s); CREATE INDEX ON %[1]s.session (expire)", name, columns))
	t.Cleanup(func() { Exec(t, pool, "DROP SCHEMA "+name+" CASCADE") })
	Distribute(t, pool, schema, "sid")
}

// Distribute distributes the table of a schema by a column.
func Distribute(t testing.TB, pool *pgxpool.Pool, schema, column string) {
	t.Helper()
	table := "'" + strings.ReplaceAll(pgx.Identifier{schema, "session"}.Sanitize(), "'", "''") + "'"
	if Real() {
		Exec(t, pool, fmt.Sprintf("SELECT create_distributed_table(%s, '%s', colocate_with => 'none', shard_count => %d)", table, column, Shards))
		return
	}
	Exec(t, pool, fmt.Sprintf("INSERT INTO pg_catalog.pg_dist_partition VALUES (%s, 'h', '%s')", table, column))
	spread(t, pool, table, Shards)
}

// Reshard makes the table of a schema anew with so many shards.
func Reshard(t testing.TB, pool *pgxpool.Pool, schema string, shards int) {
	t.Helper()
	table := "'" + strings.ReplaceAll(pgx.Identifier{schema, "session"}.Sanitize(), "'", "''") + "'"
	if Real() {
		Exec(t, pool, fmt.Sprintf("SELECT alter_distributed_table(%s, shard_count => %d)", table, shards))
		return
	}
	Exec(t, pool, "DELETE FROM pg_catalog.pg_dist_shard WHERE logicalrelid = "+table+"::regclass")
	spread(t, pool, table, shards)
}

// spread gives a table shards in looks.
func spread(t testing.TB, pool *pgxpool.Pool, table string, shards int) {
	t.Helper()
	Exec(t, pool, fmt.Sprintf(`INSERT INTO pg_catalog.pg_dist_shard SELECT %s, 100 + n, -2147483648 + n * (4294967296 / %[2]d), -2147483648 + (n + 1) * (4294967296 / %[2]d) - 1 FROM generate_series(0::int8, %[2]d - 1) n`,
		table, shards))
}

// ShardOf returns the shard that a stored ID belongs to, as the server says.
func ShardOf(t testing.TB, pool *pgxpool.Pool, schema, sid string) (shard int64) {
	t.Helper()
	sql := "SELECT get_shard_id_for_distribution_column($1::text::regclass, $2::varchar)"
	if !Real() {
		sql = "SELECT shardid FROM pg_catalog.pg_dist_shard WHERE logicalrelid = $1::text::regclass AND hashtext($2) BETWEEN shardminvalue::int8 AND shardmaxvalue::int8"
	}
	if err := pool.QueryRow(t.Context(), sql, pgx.Identifier{schema, "session"}.Sanitize(), sid).Scan(&shard); err != nil {
		t.Fatal(err)
	}
	return shard
}

// Exec runs statements.
func Exec(t testing.TB, pool *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%v in %s", err, sql)
	}
}
