package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// unreadAfter is how long a row of the outbox may stay before somebody is told.
const unreadAfter = time.Hour

// outbox looks whether there is one and whether anybody reads it. Its shape and the
// right to write to it are looked at as the library does at start.
func (e *exam) outbox(ctx context.Context) error {
	if e.Outbox == "" {
		return nil
	}
	name := e.Schema + "." + e.Outbox
	var there bool
	err := e.scan(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text)`, []any{e.Schema, e.Outbox}, &there)
	if err != nil {
		e.noOutbox = true
		return err
	}
	if !there {
		e.noOutbox = true
		e.find("outbox", Error, fmt.Sprintf("there is no outbox %s in database %s", name, e.Program.ConnConfig.Database)).
			advise("start the program, or run: " + e.where().Command("schema --apply") + "; is it another --outbox?")
		return nil
	}
	// The oldest is the one of the lowest number, give or take those that were
	// committed at the same time.
	quoted := pgx.Identifier{e.Schema, e.Outbox}.Sanitize()
	var rows, age float64
	err = e.scan(ctx, `SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM `+quoted+` LIMIT 100000) x)::pg_catalog.float8,
		COALESCE((SELECT extract(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) at) FROM `+quoted+` ORDER BY id LIMIT 1), 0)::pg_catalog.float8`, nil, &rows, &age)
	if err != nil {
		return err
	}
	oldest := time.Duration(age * float64(time.Second)).Round(time.Second)
	if oldest > unreadAfter {
		e.find("outbox", Warning, fmt.Sprintf("the outbox %s has %s rows, the oldest of %v ago", name, atMost(rows), oldest)).
			advise("does the program run that reads it? It must delete what it has read (docs/operations.md of the library)")
		return nil
	}
	e.ok("outbox", fmt.Sprintf("the outbox %s is read: %s rows wait", name, atMost(rows)))
	return nil
}

// atMost writes a number that was not counted any further.
func atMost(rows float64) string {
	if rows >= 100000 {
		return "100000 and more"
	}
	return fmt.Sprint(int64(rows))
}
