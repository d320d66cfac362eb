package batch_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgsession/session/internal/batch"
)

// BenchmarkDo is what a Group itself costs: alone, and where calls gather.
func BenchmarkDo(b *testing.B) {
	answer := func(_ context.Context, q int) (int, error) { return q, nil }
	answers := func(_ context.Context, qs []int) []batch.Answer[int] { return make([]batch.Answer[int], len(qs)) }
	g := batch.New(batch.Slots{Usual: 1, Most: 4, Patience: 2 * time.Millisecond}, 128, answer, answers)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = g.Do(ctx, 1)
		}
	})
	b.Run("gathered", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = g.Do(ctx, 1)
			}
		})
	})
}
