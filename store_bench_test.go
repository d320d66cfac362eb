package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// BenchmarkPostgresStore compares shared statements with single ones, for 32
// callers on 2,000 records of 1 KB.
func BenchmarkPostgresStore(b *testing.B) {
	url := pgtest.URL(b)
	for _, v := range []struct {
		name string
		opts session.PostgresOptions
	}{
		{"single", session.PostgresOptions{DisableBatching: true}},
		{"slots=1", session.PostgresOptions{BatchSlots: 1}},
		{"slots=2", session.PostgresOptions{BatchSlots: 2}},
		{"slots=4", session.PostgresOptions{BatchSlots: 4}},
		{"slots=8", session.PostgresOptions{BatchSlots: 8}},
	} {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			b.Fatal(err)
		}
		cfg.MaxConns = 32
		pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		defer pool.Close()
		store := newStore(b, pool, v.opts)
		records := benchRecords(b, store)
		b.Run("load/"+v.name, func(b *testing.B) {
			parallel(b, 32, func(i int) error {
				_, err := store.Load(context.Background(), fmt.Sprintf("bench-%d", i%len(records)))
				return err
			})
		})
		b.Run("save/"+v.name, func(b *testing.B) {
			parallel(b, 32, func(i int) error {
				r := &records[i%len(records)]
				r.Lock()
				defer r.Unlock()
				r.n++
				next := benchData(r.n)
				err := store.Update(context.Background(), fmt.Sprintf("bench-%d", i%len(records)), session.Change{Old: r.data, New: next})
				r.data = next
				return err
			})
		})
		b.Run("touch/"+v.name, func(b *testing.B) {
			parallel(b, 32, func(i int) error {
				return store.Touch(context.Background(), fmt.Sprintf("bench-%d", i%len(records)), time.Hour)
			})
		})
	}
}

type benchRecord struct {
	sync.Mutex
	data []byte
	n    int
}

func benchData(n int) []byte {
	return fmt.Appendf(nil, `{"cookie":{"originalMaxAge":86400000,"expires":null,"httpOnly":true,"path":"/"},"n":%d,"pad":"%s"}`, n, strings.Repeat("x", 900))
}

func benchRecords(b *testing.B, store session.Store) []benchRecord {
	records := make([]benchRecord, 2000)
	for i := range records {
		records[i].data = benchData(0)
		id := fmt.Sprintf("bench-%d", i)
		if err := store.Delete(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		if err := store.Create(b.Context(), id, session.Record{Data: records[i].data, TTL: time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
	return records
}

// parallel runs b.N calls on n goroutines.
func parallel(b *testing.B, n int, f func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := f(i * 7919); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
