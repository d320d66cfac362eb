// Package doctor examines a table of sessions and the PostgreSQL around it, and
// says of everything that it finds what to do. It changes nothing and reads no
// session ID; of the data no more than whether it can be read.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/again"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/tablestats"
)

// Level says how bad a finding is.
type Level int

const (
	// OK is as it should be.
	OK Level = iota
	// Hint works, and could work better.
	Hint
	// Warning works now and will hurt, or could not be checked.
	Warning
	// Error does not work, or lets sessions be lost or stolen.
	Error
)

// String returns "ok", "hint", "warning" or "error".
func (l Level) String() string { return [...]string{"ok", "hint", "warning", "error"}[l] }

// MarshalText is for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is the result of one check.
type Finding struct {
	Check  string   `json:"check"` // a name that does not change
	Level  Level    `json:"level"`
	What   string   `json:"what"`
	Advice string   `json:"advice,omitempty"` // what to do
	SQL    []string `json:"sql,omitempty"`    // what to run
}

// Report is the result of all checks.
type Report struct {
	Table    string    `json:"table"`
	Server   string    `json:"server"`
	Level    Level     `json:"level"` // the worst
	Findings []Finding `json:"findings"`
}

// Options say what to examine.
type Options struct {
	// Program is how the program connects, with its TimeZone and its query mode.
	Program *pgxpool.Config

	// Pool is for the examination's own questions: without a TimeZone of its
	// own, in a query mode that no pooler breaks.
	Pool *pgxpool.Pool

	Schema, Table string
	HashIDs       bool
	IndexKeys     []string

	Outbox, OutboxUser string

	// Open returns a manager on the table, for looking whether encrypted data
	// opens.
	Open func(context.Context) (*session.Manager, error)

	Secret     string
	OldSecrets []string

	// Now is this machine's clock.
	Now func() time.Time
}

// exam is one examination.
type exam struct {
	Options
	table    string // quoted
	report   Report
	stats    tablestats.Stats
	sample   sample
	noOutbox bool  // there is none of that name
	badNames bool  // a pooler passes the names of prepared statements through
	silent   error // why no more is asked
}

// checkTimeout bounds a check. A hundred million rows are counted in one minute.
var checkTimeout = 2 * time.Minute

// answerTimeout is how long a server may take to say that it is there.
const answerTimeout = 10 * time.Second

// Run examines. It returns an error only if the server stops answering; what
// cannot be checked otherwise is a finding.
func Run(ctx context.Context, o Options) (Report, error) {
	e := &exam{Options: o, table: pgx.Identifier{o.Schema, o.Table}.Sanitize()}
	e.report.Table = o.Schema + "." + o.Table
	e.run(ctx, []check{
		{"version", e.version},
		{"primary", e.primary},
		{"pooler", e.pooler},
		{"connections", e.connections},
		{"clock", e.clock},
		{"secret", e.secret},
	})
	there := false
	e.run(ctx, []check{
		{"search-path", e.searchPath},
		{"table", func(ctx context.Context) (err error) { there, err = e.exists(ctx); return err }},
	})
	if there {
		e.run(ctx, []check{
			{"outbox", e.outbox},
			{"start", e.start},
			{"timezone", e.timezone},
			{"indexes", e.indexes},
			{"storage", e.storage},
		})
		e.measured(ctx)
	}
	e.run(ctx, []check{{"held-back", e.heldBack}, {"replication", e.replication}, {"durability", e.durability}})
	for _, f := range e.report.Findings {
		e.report.Level = max(e.report.Level, f.Level)
	}
	if err := errors.Join(context.Cause(ctx), e.silent); err != nil {
		return e.report, err
	}
	return e.report, o.Pool.Ping(ctx)
}

// measured carries out the checks that need the table measured, and says of each
// that it was not carried out where that failed.
func (e *exam) measured(ctx context.Context) {
	checks := []check{
		{"expired", e.expired},
		{"autovacuum", e.autovacuum},
		{"dead-rows", e.deadRows},
		{"bloat", e.bloat},
		{"fillfactor", e.fillfactor},
		{"heap-only", e.heapOnly},
		{"planner", e.planner},
		{"rows", e.rows},
		{"encryption", e.encryption},
	}
	before := len(e.report.Findings)
	e.run(ctx, []check{{"statistics", e.statistics}})
	if len(e.report.Findings) == before {
		e.run(ctx, checks)
		return
	}
	for _, c := range checks {
		e.unread(c.name, "the table could not be measured").advise("what the check statistics says, first")
	}
}

type check struct {
	name string
	run  func(context.Context) error
}

// run carries out checks. What one could not read is said, and counts as a
// warning, for nothing is known of it; where the server no longer answers at all,
// nothing else is asked.
func (e *exam) run(ctx context.Context, checks []check) {
	for _, c := range checks {
		if ctx.Err() != nil || e.silent != nil {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		err := c.run(bounded)
		late := bounded.Err() != nil && ctx.Err() == nil
		cancel()
		if late {
			err = fmt.Errorf("no answer within %v", checkTimeout)
			bounded, cancel := context.WithTimeout(ctx, answerTimeout)
			if silent := e.Pool.Ping(bounded); silent != nil {
				e.silent = fmt.Errorf("the check %s got no answer in time: %w", c.name, silent)
			}
			cancel()
		}
		if err != nil && ctx.Err() == nil {
			e.unread(c.name, pgrun.Scrub(err).Error()).advise(remedy(err, late))
		}
	}
}

// unread says that a check was not carried out.
func (e *exam) unread(check, why string) *Finding {
	return e.find(check, Warning, "not checked: "+strings.ReplaceAll(why, "\n", " "))
}

// remedy says what to do about a check that could not be carried out.
func remedy(err error, late bool) string {
	switch state := pgrun.SQLState(err); {
	case late:
		return "run this again when the server has less to do; what holds it up stands in pg_stat_activity"
	case strings.HasPrefix(state, "08"), strings.HasPrefix(state, "57P"), state == "XX000": // Citus says these of a worker
		return "run this again when the server answers, and all workers, if the table is distributed"
	}
	return asReader
}

const asReader = "run this again as a user who may read it: the program's, or the table's owner; settings and other users' sessions show themselves to members of pg_monitor"

// where names the table in commands.
func (e *exam) where() again.Where {
	return again.Where{Schema: e.Schema, Table: e.Table, HashIDs: e.HashIDs, Outbox: e.Outbox, OutboxUser: e.OutboxUser}
}

func (e *exam) find(check string, level Level, what string) *Finding {
	e.report.Findings = append(e.report.Findings, Finding{Check: check, Level: level, What: what})
	return &e.report.Findings[len(e.report.Findings)-1]
}

func (e *exam) ok(check, what string) { e.find(check, OK, what) }

// advise adds what to do.
func (f *Finding) advise(advice string, sql ...string) { f.Advice, f.SQL = advice, sql }

// scan reads the one row of a query.
func (e *exam) scan(ctx context.Context, sql string, args []any, into ...any) error {
	return e.Pool.QueryRow(ctx, sql, args...).Scan(into...)
}
