package shard_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/internal/shard"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// PostgreSQL says what its hash is, of texts of every length around the blocks of
// twelve bytes, and of IDs.
func TestHashIsPostgreSQLs(t *testing.T) {
	t.Parallel()
	var texts []string
	for n := range 50 {
		texts = append(texts, strings.Repeat("x", n), rand.Text()[:n%27], strings.Repeat("é\x7f", n))
	}
	var want []int32
	pool := pgtest.Pool(t)
	if err := pool.QueryRow(t.Context(), "SELECT array_agg(hashtext(v.text) ORDER BY v.n) FROM unnest($1::text[]) WITH ORDINALITY v(text, n)", texts).Scan(&want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(texts) {
		t.Fatalf("got %d hashes, want %d", len(want), len(texts))
	}
	for i, text := range texts {
		if got := shard.Hash(text); got != want[i] {
			t.Errorf("text %d, of %d bytes: got %d, want %d", i, len(text), got, want[i])
		}
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	texts := make([]string, 1000)
	for i := range texts {
		texts[i] = fmt.Sprintf("text %d", i)
	}
	for _, tt := range []struct {
		name string
		from []int32
	}{
		{"eight, as create_distributed_table makes them", []int32{-2147483648, -1610612736, -1073741824, -536870912, 0, 536870912, 1073741824, 1610612736}},
		{"in any order, one of them twice", []int32{5, -2147483648, 5, -7}},
		{"one", []int32{-2147483648}},
		{"unknown", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := shard.NewRanges(tt.from)
			for _, text := range texts {
				want := 0
				sorted := map[int32]bool{}
				for _, from := range tt.from {
					if from != -2147483648 && from <= shard.Hash(text) && !sorted[from] {
						sorted[from] = true
						want++
					}
				}
				if got := r.Of(text); got != want {
					t.Fatalf("%q, hash %d: got shard %d, want %d", text, shard.Hash(text), got, want)
				}
			}
		})
	}
}
