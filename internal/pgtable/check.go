package pgtable

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

var timestampType = regexp.MustCompile(`^timestamp with(out)? time zone$`)

// check returns everything that is wrong with the table, with what mends it.
func (t *Table) check(info *tableInfo) error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: "+format, args...))
	}
	if info.kind != "r" && info.kind != "p" {
		fault("%s is not a table; name another with PostgresOptions", t.Quoted())
		return errors.Join(errs...)
	}
	if !info.usage || !info.sel || !info.insert || !info.upd || !info.del {
		fault("user %q lacks a privilege on %s. As its owner, run: %s", info.user, t.Quoted(), t.grants(info.user))
	}
	column := func(name, want, typ, using string, ok bool) {
		switch is := info.types[name]; {
		case is == "":
			if name == "sid" {
				typ += " UNIQUE"
			}
			fault("%s has no column %s; it is not a session table. Name another with PostgresOptions, or run: ALTER TABLE %s ADD COLUMN %s %s NOT NULL;", t.Quoted(), name, t.Quoted(), name, typ)
		case !ok:
			fault("column %s of %s is %s, not %s. Run: ALTER TABLE %s ALTER COLUMN %s TYPE %s%s;", name, t.Quoted(), is, want, t.Quoted(), name, typ, using)
		}
	}
	sid, length := info.types["sid"], t.SIDBytes
	column("sid", fmt.Sprintf("varchar or text of %d characters or more", length), "varchar", "", sid == "text" || sid == "character varying" && (info.sidLength == 0 || info.sidLength >= length))
	sess := info.types["sess"]
	column("sess", "json or jsonb", "json", " USING sess::text::json", sess == "json" || sess == "jsonb")
	column("expire", "timestamp or timestamptz", "timestamp(6)", " USING expire::timestamp(6)", timestampType.MatchString(info.types["expire"]))
	if len(info.mandatory) > 0 {
		var drop []string
		for _, name := range info.mandatory {
			drop = append(drop, "ALTER COLUMN "+pgx.Identifier{name}.Sanitize()+" DROP NOT NULL")
		}
		fault("%s has other columns that must have a value. Run: ALTER TABLE %s %s;", t.Quoted(), t.Quoted(), strings.Join(drop, ", "))
	}
	switch {
	case info.deferrable != "":
		fault("%s has a deferrable constraint on sid, which PostgreSQL does not accept for its ON CONFLICT. Run: ALTER TABLE %s %s;", t.Quoted(), t.Quoted(), info.deferrable)
	case sid != "" && !info.uniqueSid:
		constraint := "PRIMARY KEY"
		if info.primary {
			constraint = "UNIQUE"
		}
		fault("%s has no primary key on sid, so two sessions could share an ID. Run: ALTER TABLE %s ADD %s (sid);", t.Quoted(), t.Quoted(), constraint)
	}
	return errors.Join(errs...)
}

// warn logs what works but may hurt.
func (t *Table) warn(info *tableInfo) {
	log := t.Logger
	table := slog.String("table", t.Schema+"."+t.Name)
	if info.summerTime && info.types["expire"] == "timestamp without time zone" {
		log.Warn("session: the connection's TimeZone observes daylight saving and expire has no time zone: for an hour a year sessions live an hour longer. Express must use the same TimeZone. Better, where every program can: ALTER ROLE … SET timezone = 'UTC', while nobody is logged in",
			table, slog.String("timeZone", info.timeZone))
	}
	if !info.indexed {
		log.Warn("session: no index on expire, so pruning reads the whole table", table,
			slog.String("run", "CREATE INDEX CONCURRENTLY "+pgx.Identifier{"idx_" + t.Name + "_expire"}.Sanitize()+" ON "+t.Quoted()+" (expire)"))
	}
	if info.persistence == "u" {
		log.Warn("session: the table is UNLOGGED: a crash of the database logs everybody out", table, slog.String("run", "ALTER TABLE "+t.Quoted()+" SET LOGGED"))
	}
}

// warnPooler logs that a pooler answers which may mix up what pgx has prepared: the
// process ID that it gave at login is its own invention, and it does not keep
// statements under names of its own. Whether it is in session mode, where all is
// well, cannot be asked for.
func (t *Table) warnPooler(c *pgx.Conn, info *tableInfo) {
	if c.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && int64(c.PgConn().PID()) != info.pid && info.prepared {
		t.Logger.Warn("session: a pooler is between here and PostgreSQL. Unless its mode is session, set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe")
	}
}
