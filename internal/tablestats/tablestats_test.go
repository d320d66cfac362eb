package tablestats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/citustest"
	"github.com/pgsession/session/internal/hostile"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/internal/tablestats"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// tables are the shapes of table that the library accepts.
var tables = []struct{ name, columns string }{
	{"json", `(sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)`},
	{"jsonb", `(sid text PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL)`},
	{"partitioned", `(sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
		CREATE TABLE "a ""schema""".p0 PARTITION OF "a ""schema"""."the.table" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE "a ""schema""".p1 PARTITION OF "a ""schema"""."the.table" FOR VALUES WITH (MODULUS 2, REMAINDER 1)`},
}

const (
	schema, table = `a "schema"`, "the.table"
	quoted        = `"a ""schema"""."the.table"`
)

func exec(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...); err != nil {
		t.Fatal(err)
	}
}

func makeTable(t testing.TB, columns string, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	pool := pgtest.Pool(t, opts...)
	exec(t, pool, `CREATE SCHEMA "a ""schema"""; CREATE TABLE `+quoted+" "+columns)
	return pool
}

// insert stores n rows that expire in left, created age ago.
func insert(t testing.TB, pool *pgxpool.Pool, n int, left, age string) {
	t.Helper()
	exec(t, pool, `INSERT INTO `+quoted+` SELECT md5(random()::text || n),
		json_build_object('cookie', json_build_object('originalMaxAge', 60000), '__created', floor(1000 * extract(epoch FROM now() - $2::interval))), now() + $1::interval
		FROM generate_series(1, $3) n`, left, age, n)
}

func within(d, want, margin time.Duration) bool { return d > want-margin && d < want+margin }

func TestRead(t *testing.T) {
	for _, c := range tables {
		t.Run(c.name, func(t *testing.T) {
			// A zone with an offset: a column without time zone holds its local time.
			pool := makeTable(t, c.columns, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["timezone"] = "Asia/Kolkata" })
			for n, left := range []string{"-1 s", "50 s", "9 min", "50 min", "5 h", "23 h", "6 days", "29 days", "31 days"} {
				insert(t, pool, n+1, left, "0")
			}
			insert(t, pool, 1, "-3 days", "4 days")
			exec(t, pool, "VACUUM ANALYZE "+quoted)
			exec(t, pool, "UPDATE "+quoted+" SET sess = '{}' WHERE expire < now(); SELECT pg_stat_clear_snapshot()")
			s, err := tablestats.Read(t.Context(), pool, schema, table)
			if err != nil {
				t.Fatal(err)
			}
			if s.Live != 44 || s.Expired != 2 {
				t.Errorf("got %d live and %d expired, want 44 and 2", s.Live, s.Expired)
			}
			var rows []int64
			for _, e := range s.Expiries {
				rows = append(rows, e.Rows)
			}
			if want := []int64{2, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(rows, want) {
				t.Errorf("expiries: got %v, want %v", rows, want)
			}
			if !within(time.Until(s.OldestExpiry), -72*time.Hour, time.Minute) || !within(time.Until(s.NewestExpiry), 31*24*time.Hour, time.Minute) {
				t.Errorf("oldest and newest expiry: got %v and %v from now, want -72h and 744h", time.Until(s.OldestExpiry), time.Until(s.NewestExpiry))
			}
			var bytes int64
			if err := pool.QueryRow(t.Context(), `SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = '"a ""schema"""'::regnamespace`).Scan(&bytes); err != nil {
				t.Fatal(err)
			}
			if s.TableBytes == 0 || s.IndexBytes == 0 || s.ToastBytes == 0 || s.Bytes() != bytes {
				t.Errorf("sizes: got %d, %d, %d and %d together, want all of them and %d", s.TableBytes, s.IndexBytes, s.ToastBytes, s.Bytes(), bytes)
			}
			// Before version 15 a statistic takes its time to arrive.
			for deadline := time.Now().Add(time.Minute); s.LastVacuum.IsZero() && time.Now().Before(deadline); {
				exec(t, pool, "SELECT pg_sleep(0.05)")
				if s, err = tablestats.Read(t.Context(), pool, schema, table); err != nil {
					t.Fatal(err)
				}
			}
			// It may have been waited for, a minute at most.
			if s.LastVacuum.IsZero() || time.Since(s.LastVacuum) > 5*time.Minute {
				t.Errorf("last vacuum: got %v, want just now", s.LastVacuum)
			}
		})
	}
}

// The statistics arrive when the backends that caused them report: at once when
// they end.
func TestReadStatistics(t *testing.T) {
	pool := makeTable(t, tables[0].columns)
	insert(t, pool, 10, "1 h", "0")
	exec(t, pool, "UPDATE "+quoted+" SET sess = '{}'")
	exec(t, pool, "CREATE INDEX ON "+quoted+" (expire)")
	exec(t, pool, "UPDATE "+quoted+" SET expire = expire + interval '1 s'")
	pool.Reset()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var s tablestats.Stats
	for s.Updates < 20 {
		var err error
		if s, err = tablestats.Read(ctx, pool, schema, table); err != nil {
			t.Fatalf("no statistics of all updates: got %d of 20: %v", s.Updates, err)
		}
	}
	if share, ok := s.HeapOnlyShare(); s.Updates != 20 || s.HeapOnlyUpdates != 10 || share != 0.5 || !ok {
		t.Errorf("updates: got %d, heap-only %d, share %v, want 20, 10 and 0.5", s.Updates, s.HeapOnlyUpdates, share)
	}
	if s.DeadRows == 0 {
		t.Error("dead rows: got none, want some after 20 updates")
	}
}

// Marks of renewed IDs are rows, but no sessions.
func TestReadMarks(t *testing.T) {
	for _, c := range tables {
		t.Run(c.name, func(t *testing.T) {
			pool := makeTable(t, c.columns)
			for n, left := range []string{"-1 s", "50 s", "9 min", "14 min"} {
				insert(t, pool, n+1, left, "0")
				exec(t, pool, "INSERT INTO "+quoted+` SELECT 'mark' || $1 || n, $2, now() + $1::interval FROM generate_series(1, 5) n`, left, mark.Of("elsewhere"))
			}
			insert(t, pool, 1, "50 min", "0")
			exec(t, pool, "INSERT INTO "+quoted+` VALUES ('text', '"text"', now() + interval '50 s')`)
			s, err := tablestats.Read(t.Context(), pool, schema, table)
			if err != nil {
				t.Fatal(err)
			}
			if s.Live != 11 || s.Expired != 1 || s.Marks != 20 || s.Rows() != 32 {
				t.Errorf("got %d live, %d expired, %d marks and %d rows, want 11, 1, 20 and 32", s.Live, s.Expired, s.Marks, s.Rows())
			}
			var rows []int64
			for _, e := range s.Expiries {
				rows = append(rows, e.Rows)
			}
			if want := []int64{1, 3, 3, 5, 0, 0, 0, 0, 0}; !slices.Equal(rows, want) {
				t.Errorf("expiries: got %v, want %v", rows, want)
			}
			ages, err := tablestats.ReadAges(t.Context(), pool, schema, table)
			if err != nil {
				t.Fatal(err)
			}
			if ages.Hours[0] != 10 || ages.Unknown != 1 {
				t.Errorf("ages: got %d of the last hour and %d unknown, want 10 and the one without a time", ages.Hours[0], ages.Unknown)
			}
		})
	}
}

func TestReadEmptyAndEndless(t *testing.T) {
	pool := makeTable(t, tables[0].columns)
	s, err := tablestats.Read(t.Context(), pool, schema, table)
	if _, ok := s.HeapOnlyShare(); err != nil || s.Live != 0 || ok || len(s.Expiries) != 9 || !s.OldestExpiry.IsZero() || !s.LastVacuum.IsZero() {
		t.Errorf("an empty table: got %+v, %v, want zeros and nine buckets", s, err)
	}
	exec(t, pool, "INSERT INTO "+quoted+" VALUES ('a', '{}', 'infinity'), ('b', '{}', '-infinity')")
	s, err = tablestats.Read(t.Context(), pool, schema, table)
	if err != nil || s.Live != 1 || s.Expired != 1 || s.NewestExpiry.Year() != 9999 {
		t.Errorf("infinite expiries: got %d live, %d expired, newest in %d, %v, want 1, 1, 9999", s.Live, s.Expired, s.NewestExpiry.Year(), err)
	}
}

func TestReadAges(t *testing.T) {
	for _, c := range tables {
		t.Run(c.name, func(t *testing.T) {
			pool := makeTable(t, c.columns)
			insert(t, pool, 1, "1 h", "59 min")
			insert(t, pool, 2, "1 h", "61 min")
			insert(t, pool, 3, "1 h", "23 h 30 min")
			insert(t, pool, 4, "1 h", "25 h")
			insert(t, pool, 5, "1 h", "29 days 1 h")
			insert(t, pool, 6, "1 h", "40 days")
			insert(t, pool, 7, "1 h", "-5 min") // a clock that is ahead
			insert(t, pool, 8, "-1 h", "2 h")   // expired
			odd := []string{`{}`, `"text"`, `"{\"__created\":1}"`, `[1]`, `null`, `{"__created":null}`, `{"__created":"x"}`, `{"__created":-1}`, `{"__created":99999999999999999999}`, `{"a":{"__created":1}}`}
			if c.name != "jsonb" { // which has none of these
				exec(t, pool, `INSERT INTO `+quoted+` SELECT 'nul' || n, replace('{"a":"\u0000\ud800","__created":NOW}', 'NOW', floor(1000 * extract(epoch FROM now() - interval '90 min'))::text)::json, now() + interval '1 h' FROM generate_series(1, 2) n`)
				odd = append(odd, `{"a":"\u0000"}`)
			} else {
				insert(t, pool, 2, "1 h", "90 min")
			}
			for i, data := range odd {
				exec(t, pool, "INSERT INTO "+quoted+" SELECT $1, $2, now() + interval '1 h'", fmt.Sprint("odd", i), data)
			}
			got, err := tablestats.ReadAges(t.Context(), pool, schema, table)
			want := tablestats.Ages{Older: 6, Unknown: int64(len(odd)), Share: 1}
			want.Hours[0], want.Hours[1], want.Hours[23] = 8, 4, 3
			want.Days[0], want.Days[1], want.Days[29] = 15, 4, 5
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestReadAgesOfALargeTable(t *testing.T) {
	pool := makeTable(t, strings.Replace(tables[0].columns, "sess json", "pad text DEFAULT repeat('x', 1500), sess json", 1))
	exec(t, pool, `INSERT INTO `+quoted+` (sid, sess, expire) SELECT n, json_build_object('__created', floor(1000 * extract(epoch FROM now()) - 7200000 * random())), now() + interval '1 h'
		FROM generate_series(1, 80000) n`)
	a, err := tablestats.ReadAges(t.Context(), pool, schema, table)
	if err != nil || a.Share > 0.6 || a.Share < 0.4 {
		t.Fatalf("got a share of %v, %v, want half of the table's 128 MB", a.Share, err)
	}
	if n := a.Days[0]; n < 72000 || n > 88000 {
		t.Errorf("got an estimate of %d sessions, want about 80000", n)
	}
}

func TestRefusals(t *testing.T) {
	pool := makeTable(t, tables[0].columns)
	for _, name := range [][2]string{{schema, "none"}, {"none", table}} {
		if _, err := tablestats.Read(t.Context(), pool, name[0], name[1]); !errors.Is(err, tablestats.ErrNoTable) {
			t.Errorf("Read of %q: got %v, want %v", name, err, tablestats.ErrNoTable)
		}
		if _, err := tablestats.ReadAges(t.Context(), pool, name[0], name[1]); !errors.Is(err, tablestats.ErrNoTable) {
			t.Errorf("ReadAges of %q: got %v, want %v", name, err, tablestats.ErrNoTable)
		}
	}
}

// A table that somebody has locked: an answer in time, and the connection
// survives it.
func TestReadInTime(t *testing.T) {
	pool := makeTable(t, tables[0].columns, func(cfg *pgxpool.Config) { cfg.MaxConns = 2 })
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+quoted); err != nil {
		t.Fatal(err)
	}
	inTime := false
	for tries := 0; tries < 5 && !inTime; tries++ { // what a busy machine hears too late is cut
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		_, err = tablestats.Read(ctx, pool, schema, table)
		inTime = ctx.Err() == nil
		cancel()
	}
	if err == nil || !inTime {
		t.Errorf("got %v, before its deadline: %t, want an error before it", err, inTime)
	}
	opened := pool.Stat().NewConnsCount()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tablestats.Read(t.Context(), pool, schema, table); err != nil || pool.Stat().NewConnsCount() != opened {
		t.Errorf("afterwards: got %v and %d connections opened, want no error and %d", err, pool.Stat().NewConnsCount(), opened)
	}
}

// Rows that nobody would write by intention do not keep the others from being
// counted: times that no time zone can show, escapes that no text can have, and
// what looks like one.
func TestOddRows(t *testing.T) {
	for _, tt := range tables {
		t.Run(tt.name, func(t *testing.T) {
			pool := makeTable(t, tt.columns)
			exec(t, pool, "ALTER DATABASE "+pool.Config().ConnConfig.Database+" SET timezone = 'America/New_York'")
			pool.Reset()
			insert(t, pool, 3, "1 hour", "2 hours")
			latest := "294276-12-31 23:59" // as UTC is out of range
			if tt.name == "jsonb" {
				latest = "294276-12-31 18:59 Z"
			}
			for i, expire := range []string{"4714-11-24 00:00 BC", latest, "-infinity", "infinity"} {
				exec(t, pool, "INSERT INTO "+quoted+" VALUES ($1, '{}', $2)", fmt.Sprint("odd", i), expire)
				if s, err := tablestats.Read(t.Context(), pool, schema, table); err != nil || s.Rows() != int64(4+i) {
					t.Errorf("Read with %s: got %d rows, %v, want %d", expire, s.Rows(), err, 4+i)
				}
			}
			values := []string{`x\\ud8`, `\\u0000`, `\\\\\\u00`}
			if tt.name != "jsonb" { // which does not take them
				values = append(values, `\u0000`, `\ud800`, `\\\\\ud800`)
			}
			for i, v := range values {
				exec(t, pool, "INSERT INTO "+quoted+" VALUES ($1, $2, now() + interval '1 hour')", fmt.Sprint("value", i), `{"a":"`+v+`"}`)
			}
			s, err := tablestats.Read(t.Context(), pool, schema, table)
			if err != nil || s.Live != int64(5+len(values)) || s.Expired != 2 || s.OldestExpiry.Year() > 1970 || s.NewestExpiry.Year() < 2900 {
				t.Errorf("Read: got %+v, %v, want %d live and 2 expired", s, err, 5+len(values))
			}
			a, err := tablestats.ReadAges(t.Context(), pool, schema, table)
			if err != nil || a.Hours[2] != 3 || a.Unknown != int64(2+len(values)) {
				t.Errorf("ReadAges: got %+v, %v, want 3 made two hours ago, and %d unknown", a, err, 2+len(values))
			}
		})
	}
}

// What others have made in a schema of the search path is never called, and
// never seen. The table is large enough for a sample of it.
func TestHostileSchema(t *testing.T) {
	db := hostile.New(t)
	clean := db.Pool(t, "pg_catalog")
	for i, tt := range append(tables[:len(tables):len(tables)], tables[1]) {
		distributed := i == len(tables)
		t.Run(fmt.Sprintf("%s, distributed %t", tt.name, distributed), func(t *testing.T) {
			exec(t, clean, `DROP SCHEMA IF EXISTS "a ""schema""" CASCADE; CREATE SCHEMA "a ""schema"""; CREATE TABLE `+quoted+" "+tt.columns)
			if distributed {
				citustest.Pretend(t, clean)
				exec(t, clean, `INSERT INTO pg_catalog.pg_dist_partition VALUES ('`+quoted+`', 'h', 'sid')`)
			}
			insert(t, clean, 3, "1 hour", "2 hours")
			insert(t, clean, 2, "-1 hour", "2 hours")
			for _, path := range hostile.Paths {
				pool := db.Pool(t, path)
				s, err := tablestats.Read(t.Context(), pool, schema, table)
				if err != nil || s.Live != 3 || s.Expired != 2 {
					t.Errorf("Read, search path %s: got %d live, %d expired, %v, want 3 and 2", path, s.Live, s.Expired, err)
				}
				a, err := tablestats.ReadAges(t.Context(), pool, schema, table)
				if err != nil || a.Days[0] != 3 {
					t.Errorf("ReadAges, search path %s: got %v, %v, want 3 made today", path, a.Days, err)
				}
				undo := tablestats.SetSampleBytes(1)
				if a, err := tablestats.ReadAges(t.Context(), pool, schema, table); err != nil || a.Share >= 1 {
					t.Errorf("ReadAges of a sample, search path %s: got a share of %v, %v, want less than 1", path, a.Share, err)
				}
				undo()
			}
		})
	}
}

// What a function of the database says while the table is read may quote a row.
func TestErrorsAreDiscreet(t *testing.T) {
	pool := makeTable(t, `(sid text, sess json, expire timestamptz)`)
	insert(t, pool, 3, "1 hour", "1 minute")
	exec(t, pool, `ALTER TABLE `+quoted+` RENAME TO behind;
		CREATE FUNCTION public.leak(sid text, sess json) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the row: % %', sid, sess USING DETAIL = sess; END $$;
		CREATE FUNCTION public.leak(sid text, expire timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the row: %', sid; END $$;
		CREATE VIEW `+quoted+` AS SELECT sid, public.leak(sid, sess) AS sess, public.leak(sid, expire) AS expire FROM "a ""schema""".behind`)
	_, stats := tablestats.Read(t.Context(), pool, schema, table)
	_, ages := tablestats.ReadAges(t.Context(), pool, schema, table)
	for _, err := range []error{stats, ages} {
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || strings.Contains(fmt.Sprintf("%v %+v", err, pe), "the row") || pe.Detail != "" {
			t.Errorf("got %v, want PostgreSQL's error without the row", err)
		}
	}
}
