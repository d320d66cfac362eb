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

// What PostgreSQL says of a row in fields that its text does not show is taken
// out, whatever becomes of the error.
func TestRunScrubs(t *testing.T) {
	r := newRig(t, 1)
	for _, state := range []string{"P0001", "40001", "22P02"} {
		t.Run(state, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := pgrun.Run(ctx, r.runner, pgrun.Once, func(ctx context.Context, c *pgx.Conn) (struct{}, error) {
				_, err := c.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '`+state+`', DETAIL = 'the row: secret'; END $$`)
				cancel() // no second try
				return struct{}{}, err
			})
			if err == nil {
				t.Fatal("got no error, want one")
			}
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Detail+pe.Where+pe.InternalQuery != "" {
				t.Errorf("got an error with %q, %q, %q, want nothing there", pe.Detail, pe.Where, pe.InternalQuery)
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
	broken := func(ctx context.Context, c *pgx.Conn) error {
		_ = c.PgConn().Conn().Close() // whether it arrived nobody knows
		_, err := c.Exec(ctx, "SELECT 1")
		if pgconn.SafeToRetry(err) {
			err = errors.New("the connection died after all was sent")
		}
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
		{"a dead connection, repeatable", pgrun.Repeatable, broken, 2, nil, ""},
		{"a dead connection, once", pgrun.Once, broken, 1, errUncertain, ""},
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
