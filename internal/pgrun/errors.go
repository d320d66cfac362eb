package pgrun

import (
	"errors"
	"fmt"
	"path"
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
	if err == nil { // as nearly always; what follows allocates
		return ""
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// Describe marks data that PostgreSQL refuses with [Errors.Invalid], says what
// to do where the pool is set up wrongly, and leaves other errors alone but for
// what may quote data.
func (r *Runner) Describe(err error) error {
	err = scrub(err)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	switch {
	case strings.HasPrefix(pe.Code, "22"), strings.HasPrefix(pe.Code, "54"):
		return fmt.Errorf("%w: PostgreSQL refuses the data: %s (SQLSTATE %s)", r.errs.Invalid, discreet(pe), pe.Code)
	case pe.Code == "42P05", pe.Code == "26000": // duplicate or missing prepared statement
		return fmt.Errorf("a pooler between here and PostgreSQL mixes up prepared statements: set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe: %w", err)
	}
	return err
}

// Scrub returns an error of PostgreSQL's without what may quote a row, or a value in
// it, also where others have wrapped it: for what no Runner has run. Other errors
// are returned as they are.
func Scrub(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	before := pe.Error()
	err = scrub(err)
	if after := pe.Error(); after != before { // who wraps an error has taken its text already
		return scrubbed{strings.ReplaceAll(err.Error(), before, after), err}
	}
	return err
}

// FromDriver returns an error of PostgreSQL's that comes by another driver than pgx as
// pgx's, with its code and nothing else: which of its words quote data is not known.
func FromDriver(err error) error {
	var pe *pgconn.PgError
	var coded interface{ SQLState() string }
	if errors.As(err, &pe) || !errors.As(err, &coded) || coded.SQLState() == "" {
		return err
	}
	return &pgconn.PgError{Severity: "ERROR", Code: coded.SQLState(), Message: textDriver}
}

// scrubbed is an error with another text.
type scrubbed struct {
	text string
	error
}

func (e scrubbed) Error() string { return e.text }
func (e scrubbed) Unwrap() error { return e.error }

// scrub takes out of PostgreSQL's error what may quote a row, or a value in it: its
// text does not show most of these fields, but whoever unwraps it could log them.
func scrub(err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return err
	}
	pe.Detail, pe.Hint, pe.Where, pe.InternalQuery = "", "", "", ""
	pe.Message = discreet(pe)
	if raised(pe) { // RAISE … USING gives these any text
		pe.SchemaName, pe.TableName, pe.ColumnName, pe.DataTypeName, pe.ConstraintName = "", "", "", "", ""
	}
	return err
}

const (
	textRaised  = "a function or trigger of the database has refused it; its words are not shown, for they may quote data"
	textDriver  = "the statement was refused; the words of another driver than pgx are not shown, for they may quote data"
	textUnicode = "unsupported Unicode escape sequence"
)

// discreet returns the message of an error unless that may quote a value: those of
// data exceptions (class 22) do, for which it has words of its own, and what a
// trigger says is anything. The server's own messages of other classes name
// tables, constraints and limits.
func discreet(pe *pgconn.PgError) string {
	switch {
	case raised(pe):
		return textRaised
	case !strings.HasPrefix(pe.Code, "22"):
		return pe.Message
	}
	switch pe.Code {
	case "22P05": // untranslatable_character
		if pe.Message == textUnicode {
			return textUnicode
		}
		return "a character that the encoding of the database or of the client lacks"
	case "22021": // character_not_in_repertoire
		return "bytes that are no text in the encoding of the database or of the client, or a NUL"
	case "22008": // datetime_field_overflow
		return "a time that is out of range"
	case "22P02", "22032": // invalid_text_representation, invalid_json_text
		return "text that is no value of its type"
	}
	return "a value that does not fit; which one is not shown"
}

// raised reports whether a function in a procedural language has made the error:
// by its class, or by the file of the language's source that it comes from.
func raised(pe *pgconn.PgError) bool {
	file := path.Base(pe.File)
	return strings.HasPrefix(pe.Code, "P0") || strings.HasPrefix(file, "pl") && !strings.HasPrefix(file, "plan")
}
