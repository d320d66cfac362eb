// Package tablestats measures a table of sessions: how many are live, when they
// expire, when they were made, and how much room they take. It reads no session
// ID, and of the data the time of creation only.
package tablestats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
)

// ErrNoTable says that there is no table of that name, or that the role may not
// use its schema.
var ErrNoTable = errors.New("no such table")

// Stats describes a table of sessions. Times are the database's; a zero time
// means never, or none.
type Stats struct {
	Live, Expired int64 // sessions, counted
	Marks         int64 // rows that only say where a renewed session has gone

	TableBytes int64 // the rows, without what is stored out of line
	IndexBytes int64 // all indexes of the table
	ToastBytes int64 // what is stored out of line, its index included

	// Uncounted says that track_counts is off on this connection, or that a shard
	// has not answered: then nobody knows what follows, and it is zero.
	Uncounted bool

	// What PostgreSQL's statistics say since they were last reset: estimates.
	DeadRows        int64
	Updates         int64
	HeapOnlyUpdates int64 // of these, the ones that left the indexes alone
	LastVacuum      time.Time
	LastAutovacuum  time.Time

	OldestExpiry, NewestExpiry time.Time // of all rows, marks too

	Expiries []Expiry // all of them, in their order
}

// Rows is how many rows there are.
func (s *Stats) Rows() int64 { return s.Live + s.Expired + s.Marks }

// Bytes is what the table takes in all.
func (s *Stats) Bytes() int64 { return s.TableBytes + s.IndexBytes + s.ToastBytes }

// HeapOnlyShare is the share of heap-only updates, 0 to 1; ok is false where
// there were no updates.
func (s *Stats) HeapOnlyShare() (share float64, ok bool) {
	if s.Updates == 0 {
		return 0, false
	}
	return float64(s.HeapOnlyUpdates) / float64(s.Updates), true
}

// Expiry counts the sessions that expire in at least From and in less than Until.
// The first has no From and Until 0: the expired. The last has no Until.
type Expiry struct {
	Label       string
	From, Until time.Duration
	Rows        int64
}

const day = 24 * time.Hour

// expiries are the buckets of Stats.Expiries.
var expiries = []Expiry{
	{Label: "expired"},
	{Label: "< 1 min", Until: time.Minute},
	{Label: "1–10 min", From: time.Minute, Until: 10 * time.Minute},
	{Label: "10–60 min", From: 10 * time.Minute, Until: time.Hour},
	{Label: "1–6 h", From: time.Hour, Until: 6 * time.Hour},
	{Label: "6–24 h", From: 6 * time.Hour, Until: day},
	{Label: "1–7 days", From: day, Until: 7 * day},
	{Label: "7–30 days", From: 7 * day, Until: 30 * day},
	{Label: "> 30 days", From: 30 * day},
}

const (
	// Every name is qualified: what a stranger may make in a schema of the search
	// path is never taken for it.
	//
	// A partitioned table has neither size nor statistics, its partitions have.
	sqlParts = `WITH parts AS (SELECT c.oid, c.reltoastrelid AS toast FROM pg_catalog.pg_class c
		WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass
			OR c.oid OPERATOR(pg_catalog.=) ANY (SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.text::pg_catalog.regclass)))`

	sqlSizes = sqlParts + ` SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::bigint, COALESCE(pg_catalog.sum(pg_catalog.pg_indexes_size(oid)), 0)::bigint,
			COALESCE(pg_catalog.sum(CASE WHEN toast OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN pg_catalog.pg_total_relation_size(toast) END), 0)::bigint
		FROM parts`

	sqlStatistics = sqlParts + ` SELECT COALESCE(pg_catalog.sum(n_dead_tup), 0)::bigint, COALESCE(pg_catalog.sum(n_tup_upd), 0)::bigint, COALESCE(pg_catalog.sum(n_tup_hot_upd), 0)::bigint,
			extract(epoch FROM pg_catalog.max(last_vacuum))::double precision, extract(epoch FROM pg_catalog.max(last_autovacuum))::double precision,
			pg_catalog.current_setting('track_counts') OPERATOR(pg_catalog.<>) 'on'
		FROM pg_catalog.pg_stat_all_tables JOIN parts ON relid OPERATOR(pg_catalog.=) oid`

	// Of a table that Citus has distributed the coordinator has but the name. A
	// shard's statistics come as text. Of what Citus does not say apart, what is
	// out of line is what is no rows and no index.
	sqlDistributed   = `SELECT pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL`
	sqlIsDistributed = `SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition p WHERE p.logicalrelid::pg_catalog.oid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass::pg_catalog.oid)`
	sqlShardSizes    = `SELECT pg_catalog.citus_table_size($1::pg_catalog.text::pg_catalog.regclass),
			pg_catalog.citus_total_relation_size($1::pg_catalog.text::pg_catalog.regclass) OPERATOR(pg_catalog.-) pg_catalog.citus_table_size($1::pg_catalog.text::pg_catalog.regclass),
			pg_catalog.citus_table_size($1::pg_catalog.text::pg_catalog.regclass) OPERATOR(pg_catalog.-) pg_catalog.citus_relation_size($1::pg_catalog.text::pg_catalog.regclass)`
	sqlShardStatistics = `SELECT COALESCE(pg_catalog.sum(pg_catalog.split_part(result, ' ', 1)::bigint), 0)::bigint,
			COALESCE(pg_catalog.sum(pg_catalog.split_part(result, ' ', 2)::bigint), 0)::bigint, COALESCE(pg_catalog.sum(pg_catalog.split_part(result, ' ', 3)::bigint), 0)::bigint,
			pg_catalog.max(CASE WHEN pg_catalog.split_part(result, ' ', 4) OPERATOR(pg_catalog.<>) '' THEN pg_catalog.split_part(result, ' ', 4)::double precision END), pg_catalog.max(CASE WHEN pg_catalog.split_part(result, ' ', 5) OPERATOR(pg_catalog.<>) '' THEN pg_catalog.split_part(result, ' ', 5)::double precision END),
			NOT COALESCE(pg_catalog.bool_and(success), false)
		FROM (SELECT success, CASE WHEN success THEN result END AS result FROM pg_catalog.run_command_on_shards($1::pg_catalog.text::pg_catalog.regclass, $command$SELECT pg_catalog.concat(n_dead_tup, ' ', n_tup_upd, ' ', n_tup_hot_upd, ' ',
			extract(epoch FROM last_vacuum)::double precision, ' ', extract(epoch FROM last_autovacuum)::double precision)
			FROM pg_catalog.pg_stat_all_tables WHERE relid OPERATOR(pg_catalog.=) '%s'::pg_catalog.regclass::pg_catalog.oid$command$)) AS shards`

	// A range each, of nothing but expire, so that its index can answer: a
	// third of the time of one pass that sorts the rows into buckets. Then the
	// marks among them, in one statement, so that they are among them.
	// The last times that there can be have no equal in other time zones.
	sqlExpiries = `SELECT (SELECT ` + sqlEpoch + ` FROM (SELECT pg_catalog.min(expire) AS m FROM %[1]s) s WHERE m IS NOT NULL),
		(SELECT ` + sqlEpoch + ` FROM (SELECT pg_catalog.max(expire) AS m FROM %[1]s) s WHERE m IS NOT NULL), ARRAY[%[2]s], ARRAY[%[3]s]`
	sqlEpoch = `extract(epoch FROM LEAST(GREATEST(m, '0001-01-02'), '9999-12-30')::timestamp with time zone)::double precision`
)

// markLife is how long marks live: what expires later is none.
const markLife = 15 * time.Minute

// Read measures a table. It counts the rows by their expiry alone, which its
// index answers without the rows where vacuum has been by lately; of those that
// have expired or will within a quarter of an hour it looks which are marks. ctx bounds it:
// a statement that is late is cancelled in the server, and its connection
// survives. The sizes and statistics are there even where there was no time to
// count.
//
// A million rows take 0.2 s of processor time after a vacuum, and 3 s if a
// quarter has been touched since; without an index on expire the table is read
// several times (PostgreSQL 15, a table of 900 MB, shared_buffers 128 MB).
func Read(ctx context.Context, pool *pgxpool.Pool, schema, table string) (Stats, error) {
	var s Stats
	name := pgx.Identifier{schema, table}.Sanitize()
	err := read(ctx, pool, name, func(tx pgx.Tx) error {
		if err := s.catalogs(ctx, tx, name); err != nil {
			return err
		}
		return s.expiries(ctx, tx, name)
	})
	return s, err
}

func (s *Stats) catalogs(ctx context.Context, tx pgx.Tx, name string) error {
	sizes, statistics := sqlSizes, sqlStatistics
	distributed, err := Distributed(ctx, tx, name)
	if err != nil {
		return err
	}
	if distributed {
		sizes, statistics = sqlShardSizes, sqlShardStatistics
	}
	if err := tx.QueryRow(ctx, sizes, name).Scan(&s.TableBytes, &s.IndexBytes, &s.ToastBytes); err != nil {
		return err
	}
	s.TableBytes -= s.ToastBytes // pg_table_size includes it
	var vacuum, autovacuum *float64
	err = tx.QueryRow(ctx, statistics, name).Scan(&s.DeadRows, &s.Updates, &s.HeapOnlyUpdates, &vacuum, &autovacuum, &s.Uncounted)
	s.LastVacuum, s.LastAutovacuum = fromEpoch(vacuum), fromEpoch(autovacuum)
	if s.Uncounted { // what there is is of some shards
		s.DeadRows, s.Updates, s.HeapOnlyUpdates, s.LastVacuum, s.LastAutovacuum = 0, 0, 0, time.Time{}, time.Time{}
	}
	return err
}

// asker is a connection, a pool or a transaction.
type asker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Distributed reports whether Citus has distributed the table of a name, as it is in SQL.
func Distributed(ctx context.Context, q asker, name string) (is bool, err error) {
	if err := q.QueryRow(ctx, sqlDistributed).Scan(&is); err != nil || !is {
		return false, err
	}
	return is, q.QueryRow(ctx, sqlIsDistributed, name).Scan(&is)
}

func (s *Stats) expiries(ctx context.Context, tx pgx.Tx, name string) error {
	after := func(d time.Duration) string {
		return fmt.Sprintf("(pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => %d))", int(d.Seconds()))
	}
	const expired = "SELECT pg_catalog.count(*) FROM %[1]s WHERE expire OPERATOR(pg_catalog.<) pg_catalog.now()"
	counts, marks := []string{"(" + expired + ")"}, []string{"(" + expired + " AND " + mark.SQL + ")"}
	for _, e := range expiries[1:] {
		count := "SELECT pg_catalog.count(*) FROM %[1]s WHERE expire OPERATOR(pg_catalog.>=) " + after(e.From)
		until := ""
		if e.Until > 0 {
			until = " AND expire OPERATOR(pg_catalog.<) " + after(e.Until)
		}
		counts = append(counts, "("+count+until+")")
		if e.From > markLife {
			continue
		}
		if e.Until > markLife {
			until = " AND expire OPERATOR(pg_catalog.<=) " + after(markLife)
		}
		marks = append(marks, "("+count+until+" AND "+mark.SQL+")")
	}
	sql := strings.NewReplacer("%[2]s", strings.Join(counts, ", "), "%[3]s", strings.Join(marks, ", ")).Replace(sqlExpiries)
	var oldest, newest *float64
	var rows, marked []int64
	if err := tx.QueryRow(ctx, strings.ReplaceAll(sql, "%[1]s", name)).Scan(&oldest, &newest, &rows, &marked); err != nil {
		return err
	}
	for i, n := range marked {
		rows[i] -= n
		s.Marks += n
	}
	s.OldestExpiry, s.NewestExpiry = fromEpoch(oldest), fromEpoch(newest)
	s.Expiries = slices.Clone(expiries)
	for i, n := range rows {
		s.Expiries[i].Rows = n
		s.Live += n
	}
	s.Expired = rows[0]
	s.Live -= rows[0]
	return nil
}

// fromEpoch takes seconds since 1970, which may be infinite: PostgreSQL has such
// timestamps.
func fromEpoch(seconds *float64) time.Time {
	if seconds == nil {
		return time.Time{}
	}
	const farthest = 253402300799 // the year 9999
	return time.UnixMicro(int64(min(max(*seconds, -farthest), farthest) * 1e6)).UTC()
}

// read runs f in a transaction whose statements end before ctx does.
func read(ctx context.Context, pool *pgxpool.Pool, name string, f func(pgx.Tx) error) error {
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if deadline, ok := ctx.Deadline(); ok {
			left := time.Until(deadline)
			left -= min(left/4, time.Second) // for the answer to come, on a busy machine too
			if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", max(left.Milliseconds(), 1))); err != nil {
				return err
			}
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1::pg_catalog.text) IS NOT NULL", name).Scan(&there); err != nil {
			return err
		}
		if !there {
			return ErrNoTable
		}
		return f(tx)
	})
	if err != nil {
		return fmt.Errorf("reading the table %s: %w", name, pgrun.Scrub(err))
	}
	return nil
}

// Ages says when the live sessions were created. What has ended or expired since
// is not among them, so it is no history of logins.
type Ages struct {
	Hours [24]int64 // [0] in the last hour, [1] in the one before that, …
	Days  [30]int64 // [0] in the last 24 hours, …

	Older   int64 // created before that
	Unknown int64 // without a time of creation: Express made them

	// Share of the table that was read, 0 to 1. Below 1 all counts are
	// estimates: what was found, divided by it.
	Share float64
}

// sampleBytes is how much of a table ReadAges reads.
var sampleBytes float64 = 64 << 20

// PostgreSQL reads no member of an object that has \u0000 or half a surrogate
// pair anywhere, so these become spaces first, as where sessions are searched:
// one such row must not hide all others.
const sqlAges = `WITH live AS (SELECT (CASE WHEN pg_catalog.strpos(sess::pg_catalog.text, E'\\u') OPERATOR(pg_catalog.=) 0 THEN sess::pg_catalog.json
			ELSE pg_catalog.regexp_replace(sess::pg_catalog.text, E'(?<!\\\\)((\\\\\\\\)*)\\\\u(0000|[dD][89a-fA-F]..)', E'\\1\\\\u0020', 'g')::pg_catalog.json END)
			OPERATOR(pg_catalog.->>) '__created' AS created
		FROM %[1]s %[2]s WHERE expire OPERATOR(pg_catalog.>=) pg_catalog.now() AND NOT ` + mark.SQL + `)
	SELECT CASE WHEN created OPERATOR(pg_catalog.~) '^[0-9]{1,15}$' THEN pg_catalog.floor(
			(extract(epoch FROM pg_catalog.now())::double precision OPERATOR(pg_catalog.-) (created::double precision OPERATOR(pg_catalog./) 1000)) OPERATOR(pg_catalog./) 3600)::int ELSE NULL END, pg_catalog.count(*)
	FROM live GROUP BY 1`

// ReadAges reads the creation time in the data of every live session; of a table
// of more than 64 MB a random sample of its pages, that size, which takes 0.7 s
// of processor time. ctx bounds it as it does Read.
func ReadAges(ctx context.Context, pool *pgxpool.Pool, schema, table string) (Ages, error) {
	var a Ages
	name := pgx.Identifier{schema, table}.Sanitize()
	err := read(ctx, pool, name, func(tx pgx.Tx) error {
		var bytes int64
		size := sqlParts + " SELECT COALESCE(pg_catalog.sum(pg_catalog.pg_table_size(oid)), 0)::bigint FROM parts"
		distributed, err := Distributed(ctx, tx, name)
		if distributed {
			size = "SELECT pg_catalog.citus_table_size($1::pg_catalog.text::pg_catalog.regclass)"
		}
		if err == nil {
			err = tx.QueryRow(ctx, size, name).Scan(&bytes)
		}
		if err != nil {
			return err
		}
		a.Share = min(1, sampleBytes/float64(max(bytes, 1)))
		sample := ""
		if a.Share < 1 {
			sample = fmt.Sprintf("TABLESAMPLE pg_catalog.system (%g)", 100*a.Share)
		}
		rows, err := tx.Query(ctx, strings.NewReplacer("%[1]s", name, "%[2]s", sample).Replace(sqlAges))
		if err != nil {
			return err
		}
		var hours *int
		var count int64
		_, err = pgx.ForEachRow(rows, []any{&hours, &count}, func() error {
			a.add(hours, int64(math.Round(float64(count)/a.Share)))
			return nil
		})
		return err
	})
	return a, err
}

// add counts sessions that are hours old; nil: that is not known. Those of a
// program whose clock is ahead were made in the future.
func (a *Ages) add(hours *int, count int64) {
	if hours == nil {
		a.Unknown += count
		return
	}
	age := max(*hours, 0)
	if age < len(a.Hours) {
		a.Hours[age] += count
	}
	if age < 24*len(a.Days) {
		a.Days[age/24] += count
	} else {
		a.Older += count
	}
}
