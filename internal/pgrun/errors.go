package pgrun

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// verdict is what an error means for another try.
type verdict int

const (
	final      verdict = iota // an answer, or nothing that repeating would mend
	rolledBack                // nothing was written; worth another try
	broken                    // the connection died; what was sent may have been done
)

func judge(err error, dead bool) verdict {
	var unconnected *pgconn.ConnectError
	switch SQLState(err) {
	case "40001", "40P01", "25006": // serialization_failure, deadlock_detected, read_only_sql_transaction
		return rolledBack
	case "53300", "57P01", "57P02", "57P03": // too many connections, shutdown, crash, starting up
		return broken
	case "":
		if errors.As(err, &unconnected) {
			return broken
		}
	}
	if dead && err != nil {
		return broken
	}
	return final
}

// SQLState returns the code of PostgreSQL's error, "" if err is none.
func SQLState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// Describe marks data that PostgreSQL refuses with [Errors.Invalid], says what
// to do where the pool is set up wrongly, and leaves other errors alone.
func (r *Runner) Describe(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case strings.HasPrefix(pe.Code, "22"), strings.HasPrefix(pe.Code, "54"):
		why := ""
		if pe.Code == "22P05" || pe.Code == "22021" || pe.Code[0] == '5' { // other messages may quote the data
			why = pe.Message + " "
		}
		return fmt.Errorf("%w: PostgreSQL refuses the data: %s(SQLSTATE %s)", r.errs.Invalid, why, pe.Code)
	case pe.Code == "42P05", pe.Code == "26000": // duplicate or missing prepared statement
		return fmt.Errorf("a pooler between here and PostgreSQL mixes up prepared statements: set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe: %w", err)
	}
	return err
}

// scrub takes out of PostgreSQL's error what may quote a row: its text does not
// show these fields, but whoever unwraps it could log them.
func scrub(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		pe.Detail, pe.Where, pe.InternalQuery = "", "", ""
	}
	return err
}
