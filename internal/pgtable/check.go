package pgtable

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// another is what is left where no statement is sure to mend a table.
const another = "Name another table with PostgresOptions"

// What expire may be, by PostgreSQL's names and by those of SQL.
var timestampTypes = map[string]string{"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}

var timestamps = regexp.MustCompile(`^timestamp(\(\d\))? with(out)? time zone$`)

// wrong reports whether a column is missing or of a type that will not do.
func (t *Table) wrong(info *tableInfo, name string) bool {
	c := info.columns[name]
	switch {
	case c.generated != "":
		return true
	case name == "sid":
		return c.typ != "text" && c.typ != "varchar" || c.length() > 0 && c.length() < t.SIDBytes
	case name == "sess":
		return c.typ != "json" && c.typ != "jsonb"
	default:
		return timestampTypes[c.typ] == ""
	}
}

// suspicious reports whether advice will depend on the rows that are there.
func (t *Table) suspicious(info *tableInfo) bool {
	return (info.kind == "r" || info.kind == "p") && (!info.uniqueSid || len(info.ofKind("identity")) > 0 ||
		t.wrong(info, "sid") || t.wrong(info, "sess") || t.wrong(info, "expire"))
}

// check returns everything that is wrong with the table, with what mends it:
// SQL that is sure to work as it stands, or that another table is needed.
func (t *Table) check(info *tableInfo) error {
	var errs, lost []error
	fault := func(format string, args ...any) {
		err := fmt.Errorf("session: "+format, args...)
		errs = append(errs, err)
		if strings.HasSuffix(err.Error(), another) {
			lost = append(lost, err)
		}
	}
	switch {
	case info.kind != "r" && info.kind != "p":
		fault("%s is not a table; name another with PostgresOptions", t.Quoted())
		return errors.Join(errs...)
	case info.partition:
		fault("%s is a partition of %s. Name that with PostgresOptions", t.Quoted(), info.parent)
		return errors.Join(errs...)
	case !info.partBySID:
		fault("%s is partitioned by %s, and so cannot have a unique sid. %s", t.Quoted(), info.partKey, another)
		return errors.Join(errs...)
	}
	if t.checkDistribution(info, fault); len(errs) > 0 {
		return errors.Join(errs...)
	}
	t.checkPrivileges(info, fault)
	t.checkColumn(info, fault, "sid", fmt.Sprintf("varchar or text of %d characters or more", t.SIDBytes), "varchar")
	t.checkColumn(info, fault, "sess", "json or jsonb", "json")
	t.checkColumn(info, fault, "expire", "timestamp or timestamptz", "timestamp(6)")
	t.checkOthers(info, fault)
	t.checkUnique(info, fault)
	t.checkGuards(info, fault)
	if len(lost) > 0 { // to mend the rest would be in vain
		errs = lost
	}
	return errors.Join(errs...)
}

// checkPrivileges wants those of the table, or of each of its columns.
func (t *Table) checkPrivileges(info *tableInfo, fault func(format string, args ...any)) {
	ok := info.usage && info.del
	for _, c := range info.columns {
		ok = ok && c.reads && c.writes
	}
	if !ok {
		fault("user %q lacks a privilege on %s. As its owner, run: %s", info.user, t.Quoted(), t.grants(info.user))
	}
	for _, c := range info.others {
		if c.lacksSequences != "" && c.generated == "" {
			fault("user %q may not use a sequence that the column %s of %s takes its values from. As its owner, run: GRANT USAGE ON SEQUENCE %s TO %s;",
				info.user, c.name, t.Quoted(), c.lacksSequences, pgx.Identifier{info.user}.Sanitize())
		}
	}
}

// checkColumn says what is wrong with one of the three.
func (t *Table) checkColumn(info *tableInfo, fault func(format string, args ...any), name, want, typ string) {
	c, table := info.columns[name], t.Quoted()
	switch {
	case c.name == "" && info.rows:
		fault("%s has no column %s, and rows; it is not a session table. %s", table, name, another)
	case c.name == "":
		if name == "sid" {
			typ += " UNIQUE"
		}
		fault("%s has no column %s; it is not a session table. Name another with PostgresOptions, or run: ALTER TABLE %s ADD COLUMN %s %s NOT NULL;", table, name, table, name, typ)
	case c.generated == "s" && !t.wrong(&tableInfo{columns: map[string]column{name: ungenerated(c)}}, name):
		fault("column %s of %s is generated. Run: ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION;", name, table, table, name)
	case c.generated != "":
		fault("column %s of %s is generated. %s", name, table, another)
	case t.wrong(info, name) && !info.convertible(c):
		fault("column %s of %s is %s, not %s. %s", name, table, c.shown, want, another)
	case t.wrong(info, name):
		using, drop := " USING "+name+"::text::"+typ, ""
		switch {
		case name == "sid":
			using = ""
		case name == "expire" && c.typ == "date":
			using = " USING expire::timestamp(6)"
		}
		if c.hasDefault {
			drop = "ALTER COLUMN " + name + " DROP DEFAULT, "
		}
		fault("column %s of %s is %s, not %s. Run: ALTER TABLE %s %sALTER COLUMN %s TYPE %s%s;", name, table, c.shown, want, table, drop, name, typ, using)
	case name == "sid" && !c.deterministic && c.stuck:
		fault("sid of %s has a nondeterministic collation, by which two session IDs can be equal. %s", table, another)
	case name == "sid" && !c.deterministic:
		fault(`sid of %s has a nondeterministic collation, by which two session IDs can be equal. Run: ALTER TABLE %s ALTER COLUMN sid TYPE varchar COLLATE pg_catalog."default";`, table, table)
	}
}

func ungenerated(c column) column {
	c.generated = ""
	return c
}

// convertible reports whether a column's type can be changed, for sure: a text
// among the rows may be no JSON and no time.
func (info *tableInfo) convertible(c column) bool {
	switch {
	case c.stuck:
		return false
	case c.name == "sid":
		return true
	case c.name == "sess":
		return !info.rows || c.base == "json" || c.base == "jsonb"
	default:
		return c.typ == "date" || timestamps.MatchString(c.base) || !info.rows && c.text
	}
}

// checkOthers finds other columns that an insert would have to fill.
func (t *Table) checkOthers(info *tableInfo, fault func(format string, args ...any)) {
	var mend []string
	for _, c := range info.others {
		quoted := pgx.Identifier{c.name}.Sanitize()
		switch {
		case !c.mandatory:
			continue
		case c.notNull && c.held || c.baseNotNull && c.stuck:
			fault("%s has another column that must have a value, %s. %s", t.Quoted(), c.name, another)
			continue
		}
		if c.notNull {
			mend = append(mend, "ALTER COLUMN "+quoted+" DROP NOT NULL")
		}
		if c.baseNotNull {
			mend = append(mend, "ALTER COLUMN "+quoted+" TYPE "+c.base)
		}
	}
	if len(mend) > 0 {
		fault("%s has other columns that must have a value. Run: ALTER TABLE %s %s;", t.Quoted(), t.Quoted(), strings.Join(mend, ", "))
	}
}

// checkUnique wants two sessions to be unable to share an ID.
func (t *Table) checkUnique(info *tableInfo, fault func(format string, args ...any)) {
	switch {
	case info.deferrable != "":
		fault("%s has a deferrable constraint on sid, which PostgreSQL does not accept for its ON CONFLICT. Run: ALTER TABLE %s %s;", t.Quoted(), t.Quoted(), info.deferrable)
	case info.columns["sid"].name == "" || info.uniqueSid:
	case info.duplicates || t.wrong(info, "sid") && !info.convertible(info.columns["sid"]):
		fault("%s has no primary key on sid, and rows that do not allow one: two sessions share an ID, or one has none. %s", t.Quoted(), another)
	default:
		constraint := "PRIMARY KEY"
		if info.primary {
			constraint = "UNIQUE"
		}
		fault("%s has no primary key on sid, so two sessions could share an ID. Run: ALTER TABLE %s ADD %s (sid);", t.Quoted(), t.Quoted(), constraint)
	}
}
