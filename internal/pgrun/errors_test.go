package pgrun_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/pgrun"
)

func TestDescribe(t *testing.T) {
	r := pgrun.New(lazyPool(t), patience, pgrun.Errors{Uncertain: errUncertain, Invalid: errInvalid})
	other := errors.New("other")
	for _, tt := range []struct {
		name    string
		err     error
		invalid bool
		want    string // in the text
		never   string
	}{
		{name: "none"},
		{name: "not PostgreSQL's", err: other, want: "other"},
		{name: "a value that is quoted", err: &pgconn.PgError{Code: "22P02", Message: `invalid input: "secret"`}, invalid: true, want: "(SQLSTATE 22P02)", never: "secret"},
		{name: "a character that is quoted", err: &pgconn.PgError{Code: "22P05", Message: `character with byte sequence 0xe2 0x82 0xac in encoding "UTF8" has no equivalent`}, invalid: true, want: "lacks (SQLSTATE 22P05)", never: "0xe2"},
		{name: "bytes that are quoted", err: &pgconn.PgError{Code: "22021", Message: `invalid byte sequence for encoding "UTF8": 0xe9 0x73`}, invalid: true, want: "are no text", never: "0xe9"},
		{name: "an escape", err: &pgconn.PgError{Code: "22P05", Message: "unsupported Unicode escape sequence"}, invalid: true, want: "unsupported Unicode escape sequence (SQLSTATE 22P05)"},
		{name: "too deep", err: &pgconn.PgError{Code: "54001", Message: "stack depth limit exceeded"}, invalid: true, want: "stack depth limit exceeded (SQLSTATE 54001)"},
		{name: "a pooler", err: &pgconn.PgError{Code: "26000", Message: "no such statement"}, want: "QueryExecModeCacheDescribe"},
		{name: "a wrapped one", err: fmt.Errorf("around: %w", &pgconn.PgError{Code: "42501", Message: "denied"}), want: "around: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := r.Describe(tt.err)
			if errors.Is(got, errInvalid) != tt.invalid || (got == nil) != (tt.err == nil) {
				t.Fatalf("got %v, want invalid: %t", got, tt.invalid)
			}
			if got == nil {
				return
			}
			if !strings.Contains(got.Error(), tt.want) || tt.never != "" && strings.Contains(got.Error(), tt.never) {
				t.Errorf("got %v, want one with %q and without %q", got, tt.want, tt.never)
			}
		})
	}
}

// An error that was wrapped before has the text of what it wraps already.
func TestScrub(t *testing.T) {
	raised := &pgconn.PgError{Severity: "ERROR", Code: "P0001", Message: "the row: secret", Detail: "secret"}
	got := pgrun.Scrub(fmt.Errorf("reading the table: %w", fmt.Errorf("once more: %w", raised)))
	if text := got.Error(); strings.Contains(text, "secret") || !strings.HasPrefix(text, "reading the table: once more: ERROR: ") || !strings.Contains(text, "(SQLSTATE P0001)") {
		t.Errorf("got %q, want the text around it and none of the row", text)
	}
	if !errors.Is(got, raised) || raised.Detail != "" {
		t.Errorf("got %+v, want it to unwrap to PostgreSQL's, without its detail", raised)
	}
	if other := errors.New("other"); pgrun.Scrub(other) != other || pgrun.Scrub(nil) != nil {
		t.Error("other errors: want them as they are")
	}
}

// What PostgreSQL says of a row is taken out of every field, whoever raises what,
// and whatever becomes of the error.
func TestRunScrubs(t *testing.T) {
	r := newRig(t, 1)
	raise := func(state string) string {
		return `DO $$ BEGIN RAISE EXCEPTION 'the row: secret' USING ERRCODE = '` + state + `', DETAIL = 'secret', HINT = 'secret',
			COLUMN = 'secret', CONSTRAINT = 'secret', DATATYPE = 'secret', TABLE = 'secret', SCHEMA = 'secret'; END $$`
	}
	for _, tt := range []struct{ name, state, sql string }{
		{"a function", "P0001", raise("P0001")},
		{"no data found", "P0002", raise("P0002")},
		{"an assertion", "P0004", `DO $$ BEGIN ASSERT false, 'secret'; END $$`},
		{"a function, in another's name", "40001", raise("40001")},
		{"a lock", "55P03", raise("55P03")},
		{"a constraint", "23514", raise("23514")},
		{"a right", "42501", raise("42501")},
		{"a cancellation", "57014", raise("57014")},
		{"a class of its own", "X1234", raise("X1234")},
		{"a value", "22P02", raise("22P02")},
		{"no number", "22P02", `SELECT 'secret'::int`},
		{"no number inside a function", "22P02", `DO $$ DECLARE i int; BEGIN i := 'secret'; END $$`},
		{"no JSON", "22P02", `SELECT '{"secret": secret}'::json`},
		{"no time", "22007", `SELECT 'secret'::timestamp`},
		{"no such time", "22007", `SELECT '2026-13-13 secret'::date`},
		{"a row that fails a check", "23514", `CREATE TEMP TABLE c (a text CHECK (a = 'x')); INSERT INTO c VALUES ('secret')`},
		{"a row that is there", "23505", `CREATE TEMP TABLE u (a text UNIQUE); INSERT INTO u VALUES ('secret'), ('secret')`},
		{"a row without a value", "23502", `CREATE TEMP TABLE n (a text, b text NOT NULL); INSERT INTO n VALUES ('secret', NULL)`},
		{"a query in a function", "42P01", `DO $$ BEGIN EXECUTE 'SELECT ''secret'' FROM nowhere'; END $$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Shared, for there is no second try then.
			_, err := pgrun.Run(t.Context(), r.runner, pgrun.Once.Shared(), func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				_, err := c.PgConn().Exec(ctx, tt.sql).ReadAll()
				return struct{}{}, err
			})
			if err == nil || !strings.Contains(err.Error(), tt.state) {
				t.Fatalf("got %v, want SQLSTATE %s", err, tt.state)
			}
			var pe *pgconn.PgError
			errors.As(err, &pe)
			if text := fmt.Sprintf("%v %+v", err, pe); strings.Contains(text, "secret") {
				t.Errorf("got %s, want no word of it", text)
			}
		})
	}
}

// What becomes of an error: another try, a doubt, or the end.
func TestRunTriesAgainWhereThatIsSafe(t *testing.T) {
	r := newRig(t, 1)
	died := func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		return err
	}
	raised := func(state string) func(context.Context, *pgx.Conn) error {
		return func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '`+state+`'; END $$`)
			return err
		}
	}
	for _, tt := range []struct {
		name   string
		repeat pgrun.Repetition
		fail   func(context.Context, *pgx.Conn) error // the first time
		tries  int
		want   error
		state  string
	}{
		{"a serialization failure", pgrun.Once, raised("40001"), 2, nil, ""},
		{"a deadlock of a shared statement", pgrun.Once.Shared(), raised("40P01"), 1, nil, "40P01"},
		{"a cached plan", pgrun.Once, raised("0A000"), 2, nil, ""},
		{"a refusal", pgrun.Repeatable, raised("42501"), 1, nil, "42501"},
		{"a terminated connection, once", pgrun.Once, died, 1, errUncertain, "57P01"},
		{"a terminated connection, repeatable", pgrun.Repeatable, died, 2, nil, ""},
		{"a dead connection, repeatable", pgrun.Repeatable, breakOff, 2, nil, ""},
		{"a dead connection, once", pgrun.Once, breakOff, 1, errUncertain, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries := 0
			got, err := pgrun.Run(t.Context(), r.runner, tt.repeat, func(ctx context.Context, c *pgx.Conn) (string, error) {
				if tries++; tries == 1 {
					return "", tt.fail(ctx, c)
				}
				return "answer", nil
			})
			if tries != tt.tries {
				t.Errorf("tries: got %d, want %d", tries, tt.tries)
			}
			if failed := tt.want != nil || tt.state != ""; failed != (err != nil) || tt.want != nil && !errors.Is(err, tt.want) || pgrun.SQLState(err) != tt.state || !failed && got != "answer" {
				t.Errorf("got %q, %v, want error %v, SQLSTATE %q", got, err, tt.want, tt.state)
			}
		})
	}
}
