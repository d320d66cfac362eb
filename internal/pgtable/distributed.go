package pgtable

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/shard"
)

// sqlDistribution is asked where Citus's catalogs are: a row if it knows the table.
// %[1]s is the name of its function, which is not there elsewhere.
var sqlDistribution = qualify(`SELECT p.partmethod::text, COALESCE(pg_catalog.column_to_column_name(p.logicalrelid, p.partkey::text), '')
	FROM pg_catalog.pg_dist_partition p WHERE p.logicalrelid = $1::int8::oid::regclass`)

// sqlShards lists where the shards of $1 begin, by the table's name, for Citus makes it
// anew to change how many they are; and says whether the server's hash is
// the one that is computed here. As text, which database/sql can read, too.
var sqlShards = qualify(`SELECT COALESCE((SELECT pg_catalog.string_agg(s.shardminvalue::text, ' ') FROM pg_catalog.pg_dist_shard s
		WHERE s.logicalrelid = pg_catalog.to_regclass($1::text) AND s.shardminvalue IS NOT NULL), ''),
	pg_catalog.hashtext('session') = $2::int4`)

// distribution says how Citus keeps a table. The zero value: it does not.
type distribution struct{ method, column string }

// askDistribution asks Citus's catalogs, which are there.
func (info *tableInfo) askDistribution(ctx context.Context, c *pgx.Conn) error {
	info.distribution = distribution{}
	if !info.citus {
		return nil
	}
	rows, err := c.Query(ctx, sqlDistribution, info.oid)
	if err != nil {
		return err
	}
	d := &info.distribution
	_, err = pgx.ForEachRow(rows, []any{&d.method, &d.column}, func() error { return nil })
	return err
}

// checkDistribution wants a table that is spread over workers to be so by the hash
// of sid, and its times to have a zone.
func (t *Table) checkDistribution(info *tableInfo, fault func(format string, args ...any)) {
	d := info.distribution
	table := literal(t.Quoted())
	switch {
	case d.method == "":
		return
	case d.method != "h":
		fault("%s is known to Citus and is not distributed by a column: a reference table, say. Run: SELECT undistribute_table(%s); and, to spread it over workers, SELECT create_distributed_table(%s, 'sid', colocate_with => 'none');",
			t.Quoted(), table, table)
	case d.column != "sid":
		fault("%s is distributed by %s, and every statement names a sid. Run: SELECT alter_distributed_table(%s, distribution_column => 'sid', colocate_with => 'none');", t.Quoted(), d.column, table)
	case t.Outbox != "":
		fault("%s is distributed by Citus, and an outbox cannot be written by the very statement that changes a row on a worker. Leave PostgresOptions.Outbox empty; Config.OnEvent tells of what this program does", t.Quoted())
	case info.columns["expire"].typ == "timestamp":
		fault("%s is distributed by Citus, and its column expire has no time zone: statements run on the workers, whose TimeZone would decide what is live. Run: ALTER TABLE %s ALTER COLUMN expire TYPE timestamptz(6); or make it anew: %s",
			t.Quoted(), t.Quoted(), t.distributedDDL())
	}
}

// distributedDDL makes a table that is spread over workers.
func (t *Table) distributedDDL() string {
	return fmt.Sprintf("CREATE TABLE %s (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamptz(6) NOT NULL) WITH (fillfactor = 70); CREATE INDEX ON %[1]s (expire); SELECT create_distributed_table(%[2]s, 'sid', colocate_with => 'none');",
		t.Quoted(), literal(t.Quoted()))
}

// Shards asks where the shards of a distributed table begin. ok is false where the
// server hashes otherwise than package shard does.
func (t *Table) Shards(ctx context.Context) (ranges shard.Ranges, ok bool, err error) {
	type answer struct {
		ranges shard.Ranges
		same   bool
	}
	a, err := pgrun.Run(ctx, t.Runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) (a answer, err error) {
		a.ranges, a.same, err = t.ShardsBy(ctx, func(ctx context.Context, sql string, args []any, into ...any) error {
			return c.QueryRow(ctx, sql, args...).Scan(into...)
		})
		return a, err
	})
	return a.ranges, a.same, err
}

// ShardsBy is Shards in a transaction, in which row asks for one row.
func (t *Table) ShardsBy(ctx context.Context, row func(ctx context.Context, sql string, args []any, into ...any) error) (ranges shard.Ranges, ok bool, err error) {
	var text string
	if err := row(ctx, sqlShards, []any{t.Quoted(), shard.Hash("session")}, &text, &ok); err != nil {
		return ranges, false, err
	}
	var from []int32
	for _, value := range strings.Fields(text) {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return ranges, false, fmt.Errorf("the shards of %s: %w", t.Quoted(), err)
		}
		from = append(from, int32(n))
	}
	return shard.NewRanges(from), ok, nil
}
