package pgrun_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// What is sized arrives as it was, however statements are sent.
func TestSizedArraysArrive(t *testing.T) {
	pool := pgtest.Pool(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		for _, want := range [][]string{{}, {""}, {"a", `"quoted", \ and {braced}`, "NULL", "é"}, slices.Repeat([]string{strings.Repeat("x", 1000)}, 40)} {
			var got []string
			var other string
			args := pgrun.Sized(conn.Conn(), []any{mode, want, "other"})
			if err := conn.QueryRow(t.Context(), `SELECT $1::text[], $2::text`, args...).Scan(&got, &other); err != nil {
				t.Fatalf("%v: %v", mode, err)
			}
			if !slices.Equal(got, want) || other != "other" {
				t.Errorf("%v: got %.60q and %q, want %.60q and \"other\"", mode, got, other, want)
			}
		}
	}
}

// A buffer grows once for all texts, not with each of them.
func TestSizedArraysGrowTheirBufferOnce(t *testing.T) {
	pool := pgtest.Pool(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	texts := slices.Repeat([]string{strings.Repeat("x", 1000)}, 40)
	m := conn.Conn().TypeMap()
	encode := func(arg any) []byte {
		b, err := m.Encode(pgtype.TextArrayOID, pgtype.BinaryFormatCode, arg, make([]byte, 0, 256))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := encode(texts)
	sized := pgrun.Sized(conn.Conn(), []any{texts})[0]
	if got := encode(sized); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want the %d that pgx makes of the same texts", len(got), len(want))
	}
	plain := testing.AllocsPerRun(10, func() { encode(texts) })
	if once := testing.AllocsPerRun(10, func() { encode(sized) }); once > plain-5 {
		t.Errorf("got %v allocations, want the buffer's growth less than the %v of pgx alone", once, plain)
	}
}
