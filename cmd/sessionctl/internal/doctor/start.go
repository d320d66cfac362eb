package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// startCheck is something that the library looks at when it starts: how what it
// says begins, what is so where it says nothing ("" is not worth a word), and what
// to do where it names no SQL.
type startCheck struct{ check, message, ok, advice string }

// startChecks are the warnings. An empty check is looked at elsewhere.
var startChecks = []startCheck{
	{"expire-index", "no index on expire", "expire has an index", ""},
	{"logged", "the table is UNLOGGED", "the table survives a crash of the server", ""},
	{"logged", "a partition is UNLOGGED", "", ""},
	{"daylight-saving", "the connection's TimeZone observes daylight saving", "no clock is turned back where expire is kept", "while nobody is logged in, run"},
	{"connect-timeout", "the pool's ConnConfig.ConnectTimeout", "an attempt to connect ends in time", "add connect_timeout=2 to DATABASE_URL"},
	{"pool", "the pool has few connections", "a pool of enough connections", "set pool_max_conns in DATABASE_URL to 8 or more"},
	{"row-security", "row-level security may hide", "no policy hides rows", "let policies without conditions be for the program's user, and take restrictive ones away from it (DROP POLICY)"},
	{"triggers", "a trigger", "no trigger or rule stands before the rows", "read the trigger's function: it must return NEW, or OLD where it is BEFORE DELETE; else DROP TRIGGER"},
	{"constraints", "another table refers", "no constraint of others stands in the way", "give the reference ON DELETE CASCADE ON UPDATE CASCADE, or drop it"},
	{"constraints", "a check constraint", "", "let the constraint accept every JSON value, or drop it"},
	{"inheritance", "a table inherits", "", ""},
	{"publication", "a subscription writes", "", "let one side alone write: take the table out of the publication or the subscription"},
	{"columns", "expire keeps no milliseconds", "", ""},
	{"columns", "rows without sid", "", ""},
	{"outbox", "the outbox is UNLOGGED", "", ""},
	{"encoding", "the connections' client_encoding", "", "set client_encoding=UTF8 in DATABASE_URL"},

	{"", "a pooler is between", "", ""},
	{"", "wrong TimeZone", "", ""},
	{"", "this program sets the TimeZone", "", ""},
	{"", "the server is a standby", "", ""},
	{"", "transactions of this user are read-only", "", ""},
	{"", "an index is not valid", "", ""},
	{"", "waiting for the database", "", ""},
}

// faultChecks say to which check an error of the start belongs; others are the
// table's own.
var faultChecks = []struct{ words, check string }{
	{"the outbox", "outbox"},
	{"row-level security", "row-security"},
	{"row_security", "row-security"},
	{"publication", "publication"},
	{"has a rule", "triggers"},
	{"a trigger", "triggers"},
}

// toRun is where the library's errors come to the SQL that mends the fault.
var toRun = regexp.MustCompile(`[.,] (As its owner, run|Name another table with PostgresOptions, or run|Name another with PostgresOptions, or run|Run): `)

// start does what the program does when it starts, on the program's own kind of
// connections, and takes over what the library says.
func (e *exam) start(ctx context.Context) error {
	cfg := e.Program.Copy()
	cfg.MinConns = 0
	if e.badNames { // found already, and would hide the rest
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	said := &listener{}
	opts := session.PostgresOptions{Schema: e.Schema, Table: e.Table, HashIDs: e.HashIDs, Logger: slog.New(said)}
	if !e.noOutbox { // which would make it
		opts.Outbox, opts.OutboxUser = e.Outbox, e.OutboxUser
	}
	_, err = session.NewPostgresStore(ctx, pool, opts)
	if err != nil {
		for _, fault := range split(err) {
			e.fault(strings.TrimPrefix(fault.Error(), "session: "))
		}
	} else {
		e.ok("table", fmt.Sprintf("%s has the right columns, and user %s may read and write it", e.report.Table, e.Program.ConnConfig.User))
	}
	e.warnings(said.warnings, err == nil)
	return nil
}

// fault takes over an error of the start.
func (e *exam) fault(text string) {
	check := "table"
	for _, c := range faultChecks {
		if strings.Contains(text, c.words) {
			check = c.check
			break
		}
	}
	f := e.find(check, Error, text)
	if m := toRun.FindStringSubmatchIndex(text); m != nil {
		f.What = text[:m[0]]
		f.advise("as the table's owner, run", text[m[1]:])
	} else {
		f.advise("start the program once this is mended: its error is the same")
	}
}

// warnings takes over the warnings of the start. Where it has failed, what it did
// not say it has not looked at.
func (e *exam) warnings(said []warning, started bool) {
	found := map[string]bool{}
	for _, w := range said {
		text := strings.TrimPrefix(w.message, "session: ")
		i := slices.IndexFunc(startChecks, func(c startCheck) bool { return strings.HasPrefix(text, c.message) })
		c := startCheck{check: "start", advice: "see docs/troubleshooting.md of the library"}
		if i >= 0 {
			c = startChecks[i]
		}
		if c.check == "" {
			continue
		}
		found[c.check] = true
		f := e.find(c.check, Warning, text+w.attrs)
		switch {
		case w.run != "":
			f.advise("as the table's owner, run", strings.TrimSuffix(w.run, ";")+";")
		case c.check == "daylight-saving":
			f.advise(c.advice, e.sqlSet("timezone", "UTC")[0])
		default:
			f.advise(c.advice)
		}
	}
	for _, c := range startChecks {
		has := func(f Finding) bool { return f.Check == c.check && f.Level > OK }
		switch {
		case c.ok == "" || found[c.check] || slices.ContainsFunc(e.report.Findings, has):
		case started:
			e.ok(c.check, c.ok)
		default:
			e.unread(c.check, "the library does not start on this table").advise("what the check start says, first")
		}
	}
}

// split takes apart what errors.Join has joined.
func split(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) && strings.Contains(err.Error(), "\n") {
		return many.Unwrap()
	}
	return []error{err}
}

// listener keeps the warnings that the library logs.
type listener struct{ warnings []warning }

// warning is its text, what else it says, such as the trigger's name, and the SQL
// that mends it.
type warning struct{ message, attrs, run string }

func (*listener) Enabled(context.Context, slog.Level) bool { return true }
func (l *listener) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *listener) WithGroup(string) slog.Handler          { return l }

func (l *listener) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return nil
	}
	w := warning{message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "table":
		case "run":
			w.run = a.Value.String()
		default:
			w.attrs += fmt.Sprintf("; %s: %s", a.Key, a.Value)
		}
		return true
	})
	l.warnings = append(l.warnings, w)
	return nil
}
