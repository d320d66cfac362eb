package citus

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/citustest"
)

// statements counts those that a pool sends.
type statements struct{ atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// What a request costs the coordinator and the workers, in statements that the program
// sends and in processor time, beside the same on a table of the coordinator's own. Processor
// time is of this machine, where all servers must run: fewer figures come elsewhere.
// From the directory tests/citus:
//
//	SESSION_TEST_CITUS_URL='postgres://…' go test -run '^$' -bench . -benchtime 5000x
func BenchmarkRequest(b *testing.B) {
	if !citustest.Real() {
		b.Skipf("NOT RUN: %s names no coordinator", citustest.Env)
	}
	for _, where := range []string{"plain", "distributed"} {
		for _, kind := range []string{"read", "write", "renew"} {
			b.Run(where+"/"+kind, func(b *testing.B) { benchmark(b, where == "distributed", kind) })
		}
	}
}

func benchmark(b *testing.B, distributed bool, kind string) {
	sent := new(statements)
	pool := citustest.Pool(b, maxConns(16), func(cfg *pgxpool.Config) { cfg.ConnConfig.Tracer = sent })
	if distributed {
		citustest.Table(b, pool, schema, columns)
	} else {
		citustest.Exec(b, pool, "DROP SCHEMA IF EXISTS session_test CASCADE; CREATE SCHEMA session_test; CREATE TABLE session_test.session ("+columns+"); CREATE INDEX ON session_test.session (expire)")
		b.Cleanup(func() { citustest.Exec(b, pool, "DROP SCHEMA session_test CASCADE") })
	}
	// Large enough for statements to be prepared.
	citustest.Exec(b, pool, "INSERT INTO session_test.session SELECT 'fill-' || n, json_build_object('cookie', repeat('x', 200)), now() + interval '1 day' FROM generate_series(1, 20000) n")
	m, err := session.New(newStore(b, pool, session.PostgresOptions{Schema: schema}), session.Config{
		Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", DisablePrune: true, StoreTimeout: patience, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	page := map[string]func(*session.Session){
		"read":  func(s *session.Session) { user.Get(s) },
		"write": func(s *session.Session) { user.Set(s, strconv.FormatInt(time.Now().UnixNano(), 36)) },
		"renew": func(s *session.Session) { s.Renew() },
	}[kind]
	var failed atomic.Int64
	visits := func(n int) {
		done := make(chan struct{})
		const browsers = 16
		for range browsers {
			go func() {
				defer func() { done <- struct{}{} }()
				c, _ := answer(m, nil, func(s *session.Session) { user.Set(s, "mia") })
				for range n / browsers {
					var status int
					if c, status = answer(m, c, page); status != http.StatusOK {
						failed.Add(1)
					}
				}
			}()
		}
		for range browsers {
			<-done
		}
	}
	visits(320) // connections, plans
	coordinator, workers := postmasters(b, pool)
	before, statementsBefore := [2]time.Duration{used(coordinator), used(workers)}, sent.Load()
	b.ResetTimer()
	visits(b.N)
	b.StopTimer()
	n := float64(max(b.N/16*16, 1))
	b.ReportMetric(float64(sent.Load()-statementsBefore)/n, "statements/op")
	b.ReportMetric(float64((used(coordinator)-before[0]).Microseconds())/n, "coordinator-µs/op")
	b.ReportMetric(float64((used(workers)-before[1]).Microseconds())/n, "workers-µs/op")
	b.ReportMetric(float64(len(workers)), "workers")
	if n := failed.Load(); n > 0 {
		b.Errorf("failed: %d of %d", n, b.N)
	}
}

// postmasters are the process IDs of the coordinator's and of the workers'.
func postmasters(b *testing.B, pool *pgxpool.Pool) (coordinator, workers []int) {
	b.Helper()
	const own = `split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int`
	err := pool.QueryRow(b.Context(), "SELECT ARRAY["+own+"], ARRAY(SELECT result::int FROM run_command_on_workers($1))", "SELECT "+own).Scan(&coordinator, &workers)
	if err != nil {
		b.Logf("no processor times: %v", err)
	}
	return coordinator, workers
}

// used is the processor time of servers, those of their processes that have ended included.
func used(servers []int) (all time.Duration) {
	of := map[string]bool{}
	for _, pid := range servers {
		of[strconv.Itoa(pid)] = true
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, rest, _ := strings.Cut(string(text), " (")
		fields := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
		if len(fields) < 15 || !of[pid] && !of[fields[1]] {
			continue
		}
		ticks := fields[11:13] // its own
		if of[pid] {
			ticks = fields[11:15] // and its children's
		}
		for _, f := range ticks {
			n, _ := strconv.Atoi(f)
			all += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return all
}
