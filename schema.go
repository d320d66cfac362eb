package session

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/cookie"
)

//go:embed schema.sql
var schemaSQL string

// What is asked of the server at start. The catalogs answer even a role that
// may not use the schema.
const (
	sqlServer = `SELECT current_setting('server_version'), current_setting('TimeZone'), current_user::text,
		(SELECT count(DISTINCT extract(timezone FROM make_timestamptz(extract(year FROM now())::int, m, 15, 12, 0, 0))) > 1
			FROM generate_series(1, 12) m),
		pg_backend_pid(), EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'stmtcache%')`

	sqlTable = `SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
			has_schema_privilege(n.oid, 'USAGE'),
			has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),
			has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relname = $2::text`

	sqlColumns = `SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL),
			CASE WHEN a.atttypid = 'varchar'::regtype AND a.atttypmod > 0 THEN a.atttypmod - 4 ELSE 0 END,
			a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
		FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped`

	// A unique index on sid alone, any index that begins with expire, a primary
	// key, and how to replace a deferrable constraint on sid: ON CONFLICT fails
	// with one.
	sqlIndexes = `SELECT
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::bigint::oid AND a.attname = 'sid' AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL),
		EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = $1::bigint::oid AND a.attname = 'expire' AND i.indisvalid AND i.indpred IS NULL),
		EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = $1::bigint::oid AND indisprimary),
		COALESCE((SELECT format('DROP CONSTRAINT %I, ADD %s', c.conname, regexp_replace(pg_get_constraintdef(c.oid), ' DEFERRABLE.*', ''))
			FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
			WHERE c.conrelid = $1::bigint::oid AND a.attname = 'sid' AND c.contype IN ('p', 'u') AND c.condeferrable LIMIT 1), '')`
)

// shape is what the statements have to know of the table.
type shape struct {
	sessType, expireType string
	kind                 string // p: partitioned
}

// tableInfo is what the catalogs say of it.
type tableInfo struct {
	oid                          int64
	kind, persistence            string
	usage, sel, insert, upd, del bool
	types                        map[string]string
	sidLength                    int
	mandatory                    []string // other columns that must have a value
	uniqueSid, indexed, primary  bool
	version, timeZone, user      string
	summerTime                   bool
	pid                          int64 // of the server process
	prepared                     bool  // it has a statement by the name that pgx gave
	deferrable                   string
}

// setup finds the table, makes it if there is none, and checks it.
func (s *PostgresStore) setup(ctx context.Context) (shape, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	start := time.Now()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return shape{}, s.connectError(err)
	}
	defer conn.Release()
	var t tableInfo
	if err := conn.QueryRow(ctx, sqlServer).Scan(&t.version, &t.timeZone, &t.user, &t.summerTime, &t.pid, &t.prepared); err != nil {
		return shape{}, s.connectError(err)
	}
	answered := time.Since(start)
	err = s.inspect(ctx, conn.Conn(), &t)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := s.makeTable(ctx, conn.Conn().PgConn(), t.user); err != nil {
			return shape{}, err
		}
		s.opts.Logger.Info("session: table made", "table", s.opts.Schema+"."+s.opts.Table)
		err = s.inspect(ctx, conn.Conn(), &t)
	}
	if err != nil {
		return shape{}, fmt.Errorf("session: looking at the table %s: %w", s.table(), describe(err))
	}
	if err := s.check(&t); err != nil {
		return shape{}, err
	}
	host, port, database, _ := s.target()
	s.opts.Logger.Info("session: database answered", "host", host, "port", port, "database", database, "user", t.user,
		"table", s.opts.Schema+"."+s.opts.Table, "version", t.version, "timeZone", t.timeZone, "tookMs", answered.Milliseconds())
	s.warn(&t)
	s.warnPooler(conn.Conn(), &t)
	s.checkZone(ctx, conn.Conn(), t.types["expire"])
	return shape{sessType: t.types["sess"], expireType: t.types["expire"], kind: t.kind}, nil
}

// target says where the pool connects to.
func (s *PostgresStore) target() (host string, port int, database, user string) {
	c := s.pool.Config().ConnConfig
	return c.Host, int(c.Port), c.Database, c.User
}

// connectError names everything but the password.
func (s *PostgresStore) connectError(err error) error {
	host, port, database, user := s.target()
	hint := "is it running, and are host and port right?"
	switch {
	case s.pool.Config().ConnString() == "":
		hint = "is it running? No connection string was given: is DATABASE_URL set?"
	case strings.Contains(err.Error(), "server refused TLS"):
		hint = "the server does not speak TLS: add sslmode=disable if it is on this machine or in a private network"
	}
	switch sqlState(err) {
	case "3D000": // invalid_catalog_name
		hint = fmt.Sprintf("the database does not exist, make it with: createdb -h %s -p %d %s", host, port, shellWord(database))
	case "28P01", "28000": // invalid password or authorization
		hint = "user or password is wrong, or pg_hba.conf does not let this user in"
	case "53300": // too_many_connections
		hint = "the server has no connection left: lower the pool's MaxConns or raise max_connections"
	case "57P03": // cannot_connect_now
		hint = "the server is starting up or shutting down"
	case "42P05", "26000": // duplicate or missing prepared statement
		return fmt.Errorf("session: %w", describe(err))
	}
	return fmt.Errorf("session: PostgreSQL at %s, database %q, user %q does not answer: %s: %w",
		net.JoinHostPort(host, strconv.Itoa(port)), database, user, hint, err)
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// inspect asks the catalogs for the table; pgx.ErrNoRows means there is none.
func (s *PostgresStore) inspect(ctx context.Context, c *pgx.Conn, t *tableInfo) error {
	err := c.QueryRow(ctx, sqlTable, s.opts.Schema, s.opts.Table).
		Scan(&t.oid, &t.kind, &t.persistence, &t.usage, &t.sel, &t.insert, &t.upd, &t.del)
	if err != nil {
		return err
	}
	rows, err := c.Query(ctx, sqlColumns, t.oid)
	if err != nil {
		return err
	}
	t.types = map[string]string{}
	var name, typ string
	var length int
	var mandatory bool
	_, err = pgx.ForEachRow(rows, []any{&name, &typ, &length, &mandatory}, func() error {
		t.types[name] = typ
		switch name {
		case "sid":
			t.sidLength = length
		case "sess", "expire":
		default:
			if mandatory {
				t.mandatory = append(t.mandatory, name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.QueryRow(ctx, sqlIndexes, t.oid).Scan(&t.uniqueSid, &t.indexed, &t.primary, &t.deferrable)
}

// ddl returns schema.sql for this table.
func (s *PostgresStore) ddl() string {
	sql := schemaSQL
	if s.opts.Schema != "schema_system" || s.opts.Table != "session" {
		quote := func(name string) string { return "'" + strings.ReplaceAll(name, "'", "''") + "'" }
		id := func(name string) string { return pgx.Identifier{name}.Sanitize() }
		tag := "$session$"
		for strings.Contains(s.opts.Schema+s.opts.Table, tag) {
			tag = "$s" + tag[1:]
		}
		sql = strings.NewReplacer(
			"'schema_system.session'", quote(s.table()),
			"schema_system.session", s.table(),
			"'schema_system'", quote(s.opts.Schema),
			"'session'", quote(s.opts.Table),
			"schema_system", id(s.opts.Schema),
			"idx_session_expire", id("idx_"+s.opts.Table+"_expire"),
			"$do$", tag,
		).Replace(sql)
	}
	return sql
}

// makeTable runs schema.sql, one transaction.
func (s *PostgresStore) makeTable(ctx context.Context, c *pgconn.PgConn, user string) error {
	_, err := c.Exec(ctx, s.ddl()).ReadAll()
	if err == nil {
		return nil
	}
	_, _ = c.Exec(ctx, "ROLLBACK").ReadAll() // the first error counts
	if sqlState(err) != "42501" {            // insufficient_privilege
		return fmt.Errorf("session: making the table %s: %w", s.table(), err)
	}
	_, _, database, _ := s.target()
	return fmt.Errorf("session: the table %s does not exist and user %q may not make it. As the owner of database %q, run: sessionctl schema --apply (or the output of session.SchemaSQL), then: %s %w",
		s.table(), user, database, s.grants(user), err)
}

func (s *PostgresStore) grants(user string) string {
	role := pgx.Identifier{user}.Sanitize()
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s;",
		pgx.Identifier{s.opts.Schema}.Sanitize(), role, s.table(), role)
}

var timestampType = regexp.MustCompile(`^timestamp with(out)? time zone$`)

// check returns everything that is wrong with the table, with what mends it.
func (s *PostgresStore) check(t *tableInfo) error {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("session: "+format, args...))
	}
	if t.kind != "r" && t.kind != "p" {
		fault("%s is not a table; name another with PostgresOptions", s.table())
		return errors.Join(errs...)
	}
	if !t.usage || !t.sel || !t.insert || !t.upd || !t.del {
		fault("user %q lacks a privilege on %s. As its owner, run: %s", t.user, s.table(), s.grants(t.user))
	}
	column := func(name, want, typ, using string, ok bool) {
		switch is := t.types[name]; {
		case is == "":
			if name == "sid" {
				typ += " UNIQUE"
			}
			fault("%s has no column %s; it is not a session table. Name another with PostgresOptions, or run: ALTER TABLE %s ADD COLUMN %s %s NOT NULL;", s.table(), name, s.table(), name, typ)
		case !ok:
			fault("column %s of %s is %s, not %s. Run: ALTER TABLE %s ALTER COLUMN %s TYPE %s%s;", name, s.table(), is, want, s.table(), name, typ, using)
		}
	}
	sid, length := t.types["sid"], len(s.sid(strings.Repeat("x", cookie.IDLen)))
	column("sid", fmt.Sprintf("varchar or text of %d characters or more", length), "varchar", "", sid == "text" || sid == "character varying" && (t.sidLength == 0 || t.sidLength >= length))
	sess := t.types["sess"]
	column("sess", "json or jsonb", "json", " USING sess::text::json", sess == "json" || sess == "jsonb")
	column("expire", "timestamp or timestamptz", "timestamp(6)", " USING expire::timestamp(6)", timestampType.MatchString(t.types["expire"]))
	if len(t.mandatory) > 0 {
		var drop []string
		for _, name := range t.mandatory {
			drop = append(drop, "ALTER COLUMN "+pgx.Identifier{name}.Sanitize()+" DROP NOT NULL")
		}
		fault("%s has other columns that must have a value. Run: ALTER TABLE %s %s;", s.table(), s.table(), strings.Join(drop, ", "))
	}
	switch {
	case t.deferrable != "":
		fault("%s has a deferrable constraint on sid, which PostgreSQL does not accept for its ON CONFLICT. Run: ALTER TABLE %s %s;", s.table(), s.table(), t.deferrable)
	case sid != "" && !t.uniqueSid:
		constraint := "PRIMARY KEY"
		if t.primary {
			constraint = "UNIQUE"
		}
		fault("%s has no primary key on sid, so two sessions could share an ID. Run: ALTER TABLE %s ADD %s (sid);", s.table(), s.table(), constraint)
	}
	return errors.Join(errs...)
}

// warn logs what works but may hurt.
func (s *PostgresStore) warn(t *tableInfo) {
	log := s.opts.Logger
	table := slog.String("table", s.opts.Schema+"."+s.opts.Table)
	if t.summerTime && t.types["expire"] == "timestamp without time zone" {
		log.Warn("session: the connection's TimeZone observes daylight saving and expire has no time zone: for an hour a year sessions live an hour longer. Express must use the same TimeZone. Better, where every program can: ALTER ROLE … SET timezone = 'UTC', while nobody is logged in",
			table, slog.String("timeZone", t.timeZone))
	}
	if !t.indexed {
		log.Warn("session: no index on expire, so pruning reads the whole table", table,
			slog.String("run", "CREATE INDEX CONCURRENTLY "+pgx.Identifier{"idx_" + s.opts.Table + "_expire"}.Sanitize()+" ON "+s.table()+" (expire)"))
	}
	if t.persistence == "u" {
		log.Warn("session: the table is UNLOGGED: a crash of the database logs everybody out", table, slog.String("run", "ALTER TABLE "+s.table()+" SET LOGGED"))
	}
}

// warnPooler logs that a pooler answers which may mix up what pgx has prepared: the
// process ID that it gave at login is its own invention, and it does not keep
// statements under names of its own. Whether it is in session mode, where all is
// well, cannot be asked for.
func (s *PostgresStore) warnPooler(c *pgx.Conn, t *tableInfo) {
	if c.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && int64(c.PgConn().PID()) != t.pid && t.prepared {
		s.opts.Logger.Warn("session: a pooler is between here and PostgreSQL. Unless its mode is session, set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe")
	}
}
