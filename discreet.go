package session

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// scrub takes out of PostgreSQL's error what may quote a row: its text does not
// show these fields, but whoever unwraps it could log them.
func scrub(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		pe.Detail, pe.Where, pe.InternalQuery = "", "", ""
	}
	return err
}
