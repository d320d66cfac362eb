package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/cmd/sessionctl/internal/zone"
)

// Versions that the library's tests run on.
const oldestVersion, newestVersion = 13, 18

const (
	clockHint    = 5 * time.Second
	clockWarning = time.Minute

	connectionsHint    = 0.75
	connectionsWarning = 0.9
)

// longTransaction is how long a transaction may hold back vacuum.
var longTransaction = time.Hour

func (e *exam) version(ctx context.Context) error {
	var number int
	err := e.scan(ctx, "SELECT pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int", nil, &e.report.Server, &number)
	if err != nil {
		return err
	}
	e.judgeVersion(number / 10000)
	return nil
}

func (e *exam) judgeVersion(major int) {
	what := fmt.Sprintf("PostgreSQL %d", major)
	switch {
	case major < oldestVersion:
		e.find("version", Warning, what+" is older than what the library is tested on").
			advise(fmt.Sprintf("upgrade: tested are PostgreSQL %d to %d", oldestVersion, newestVersion))
	case major > newestVersion:
		e.find("version", Hint, what+" is newer than what this version of the library is tested on").
			advise(fmt.Sprintf("look for a newer version of the library: tested are PostgreSQL %d to %d", oldestVersion, newestVersion))
	default:
		e.ok("version", what)
	}
}

// primary checks that the server takes writes.
func (e *exam) primary(ctx context.Context) error {
	var standby bool
	var readOnly string
	if err := e.scan(ctx, "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')", nil, &standby, &readOnly); err != nil {
		return err
	}
	switch {
	case standby:
		e.find("primary", Error, "this server is a standby: it takes no writes, and what it answers may be old").
			advise("connect to the primary: list all hosts in DATABASE_URL and add target_session_attrs=read-write")
	case readOnly == "on":
		e.find("primary", Error, "transactions are read-only: no session can be made, changed or ended").
			advise("find where default_transaction_read_only is set (SELECT source FROM pg_settings), and run one of these", e.sqlSet("default_transaction_read_only", "off")...)
	default:
		e.ok("primary", "takes writes")
	}
	return nil
}

// sqlSet sets a parameter for the role, or for the database.
func (e *exam) sqlSet(name, value string) []string {
	c := e.Program.ConnConfig
	return []string{
		fmt.Sprintf("ALTER ROLE %s SET %s = '%s';", pgx.Identifier{c.User}.Sanitize(), name, value),
		fmt.Sprintf("ALTER DATABASE %s SET %s = '%s';", pgx.Identifier{c.Database}.Sanitize(), name, value),
	}
}

// pooler looks for one between here and PostgreSQL: the process ID that came with
// the login is then the pooler's invention.
func (e *exam) pooler(ctx context.Context) error {
	one, err := e.Pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer one.Release()
	pid, err := backend(ctx, one)
	if err != nil {
		return err
	}
	if int64(pid) == int64(one.Conn().PgConn().PID()) {
		e.ok("pooler", "none between here and PostgreSQL")
		return nil
	}
	mode := e.poolerMode(ctx, one, pid)
	names, err := e.passesNames(ctx)
	switch {
	case err != nil:
		e.find("pooler", Error, fmt.Sprintf("a pooler in %s mode, and a query as the program sends it fails: %v", mode, err)).advise(describeMode)
	case mode != modeSession && names:
		e.badNames = true
		e.find("pooler", Error, fmt.Sprintf("a pooler in %s mode mixes up the prepared statements of the program's query mode, %s", mode, e.Program.ConnConfig.DefaultQueryExecMode)).
			advise(describeMode)
	case mode == modeStatement:
		e.find("pooler", Hint, "a pooler in statement mode").
			advise("let " + e.where().Command("schema --apply") + " make the table without the pooler: it needs a transaction")
	default:
		e.ok("pooler", fmt.Sprintf("a pooler in %s mode, which suits the program's query mode, %s", mode, e.Program.ConnConfig.DefaultQueryExecMode))
	}
	return nil
}

const describeMode = "add default_query_exec_mode=cache_describe to DATABASE_URL, or let PgBouncer 1.21 or later keep prepared statements (max_prepared_statements = 200)"

const (
	modeSession     = "session"
	modeTransaction = "transaction"
	modeStatement   = "statement"
)

// poolerMode finds out whether two connections to the pooler share one to the
// server. While the first is idle, its server process may serve the second only
// if the pooler's mode is not session.
func (e *exam) poolerMode(ctx context.Context, one *pgxpool.Conn, pid int32) string {
	// With one connection to the server, in session mode, the second waits.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	two, err := e.Pool.Acquire(ctx)
	if err != nil {
		return modeSession
	}
	defer two.Release()
	for range 5 {
		tx, err := two.Begin(ctx)
		if err != nil {
			if ctx.Err() == nil {
				return modeStatement // it refuses transactions
			}
			return modeSession
		}
		second, err := backend(ctx, tx)
		first := pid
		if err == nil && second != pid {
			first, err = backend(ctx, one)
		}
		_ = tx.Rollback(ctx) // it has only read
		switch {
		case err != nil:
			return modeSession
		case second == pid || first != pid:
			return modeTransaction
		}
	}
	return modeSession
}

func backend(ctx context.Context, c interface {
	QueryRow(context.Context, string, ...any) pgx.Row
},
) (pid int32, err error) {
	return pid, c.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&pid)
}

// passesNames reports whether a statement that the program prepares keeps its
// name behind the pooler, where another client's may have it too.
func (e *exam) passesNames(ctx context.Context) (bool, error) {
	if e.Program.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return false, nil
	}
	conn, err := pgx.ConnectConfig(ctx, e.Program.ConnConfig.Copy())
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	names := false
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE pg_catalog.starts_with(name, 'stmtcache'))").Scan(&names)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (pe.Code == "42P05" || pe.Code == "26000") { // duplicate or missing prepared statement
		return true, nil
	}
	return names, err
}

func (e *exam) connections(ctx context.Context) error {
	var most, used, role, database int
	err := e.scan(ctx, `SELECT pg_catalog.current_setting('max_connections')::int OPERATOR(pg_catalog.-) pg_catalog.current_setting('superuser_reserved_connections')::int,
		(SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database)::int,
		(SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER),
		(SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())`, nil, &most, &used, &role, &database)
	if err != nil {
		return err
	}
	for _, limit := range []int{role, database} {
		if limit >= 0 {
			most = min(most, limit)
		}
	}
	level := OK
	switch share := float64(used) / float64(max(most, 1)); {
	case share >= connectionsWarning:
		level = Warning
	case share >= connectionsHint:
		level = Hint
	}
	f := e.find("connections", level, fmt.Sprintf("%d of %d connections are used; each instance of the program opens up to %d", used, most, e.Program.MaxConns))
	if level != OK {
		f.advise("lower pool_max_conns in DATABASE_URL (8 are plenty), run fewer instances, put PgBouncer in between, or raise max_connections (needs a restart)",
			fmt.Sprintf("ALTER SYSTEM SET max_connections = %d;", 2*most))
	}
	return nil
}

// clock compares this machine's with the database's: programs measure absolute
// timeouts by their own.
func (e *exam) clock(ctx context.Context) error {
	best, skew := time.Duration(math.MaxInt64), time.Duration(0)
	for range 5 {
		var epoch float64
		before := e.Now()
		if err := e.scan(ctx, "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::double precision", nil, &epoch); err != nil {
			return err
		}
		trip := e.Now().Sub(before)
		if trip < best {
			best, skew = trip, before.Add(trip/2).Sub(time.UnixMicro(int64(epoch*1e6)))
		}
	}
	skew = skew.Round(time.Millisecond)
	switch d := skew.Abs(); {
	case d <= clockHint+best:
		e.ok("clock", fmt.Sprintf("this machine's and the database's differ by %v", d))
	default:
		level, word := Hint, "ahead of"
		if d > clockWarning {
			level = Warning
		}
		if skew < 0 {
			word = "behind"
		}
		e.find("clock", level, fmt.Sprintf("this machine's clock is %v %s the database's: absolute timeouts and times of creation are off by that", d, word)).
			advise("let NTP set the clock of both machines (timedatectl set-ntp true)")
	}
	return nil
}

// timezone compares the program's TimeZone with the one that the database gives
// to programs that do not ask, such as Express, and with what the rows say.
func (e *exam) timezone(ctx context.Context) error {
	var typ uint32
	err := e.scan(ctx, "SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.regclass AND attname OPERATOR(pg_catalog.=) 'expire'", []any{e.table}, &typ)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errors.New("the table has no column expire")
	case err != nil:
		return err
	case typ == pgtype.TimestamptzOID:
		e.ok("timezone", "expire has a time zone: no program's TimeZone matters")
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, e.Program.ConnConfig.Copy())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	ours, err := zone.Read(ctx, conn)
	if err != nil {
		return err
	}
	plain, err := zone.Plain(ctx, e.Program.ConnConfig)
	if err != nil {
		return err
	}
	defer plain.Close(ctx)
	theirs, err := zone.Read(ctx, plain)
	if err != nil {
		return err
	}
	if !ours.Same(theirs) {
		e.find("timezone", Error, fmt.Sprintf("the program has TimeZone %s, others of this user, Express among them, have %s: each takes the expiries of the other for hours off and deletes sessions that are alive", ours.Name, theirs.Name)).
			advise("unset PGTZ, and timezone in PGOPTIONS, in DATABASE_URL (its options too) and in the service file")
		return nil
	}
	sooner, compared, err := zone.Contradicted(ctx, conn, e.table)
	switch {
	case err != nil:
		return err
	case zone.TooMany(sooner, compared):
		e.find("timezone", Error, fmt.Sprintf("by TimeZone %s, %d of %d sessions that were looked at end sooner than their cookies say: they were written by programs with another TimeZone, and live ones are taken for expired", ours.Name, sooner, compared)).
			advise("find the TimeZone that the other programs have (SHOW timezone on their connections; ALTER ROLE … SET timezone gives each user another), and let every program have the same")
	default:
		e.ok("timezone", ours.Name+" here and for every program of this user")
	}
	return nil
}

// heldBack looks for what keeps vacuum from removing anything.
func (e *exam) heldBack(ctx context.Context) error {
	var pid int32
	var seconds float64
	err := e.scan(ctx, `SELECT pid, extract(epoch FROM pg_catalog.now() OPERATOR(pg_catalog.-) xact_start)::double precision FROM pg_catalog.pg_stat_activity
		WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
			AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() AND backend_type OPERATOR(pg_catalog.=) 'client backend'
			AND (datname OPERATOR(pg_catalog.=) pg_catalog.current_database() OR backend_xid IS NOT NULL)
		ORDER BY xact_start LIMIT 1`, nil, &pid, &seconds)
	switch open := time.Duration(seconds * float64(time.Second)).Round(time.Second); {
	case errors.Is(err, pgx.ErrNoRows), err == nil && open < longTransaction:
		hidden, err := e.hidden(ctx)
		if err == nil && hidden == 0 {
			e.ok("held-back", "no transaction is open for long")
		} else if err == nil {
			e.unread("held-back", fmt.Sprintf("%d transactions of other users are open, and since when is not shown to user %s", hidden, e.Program.ConnConfig.User)).advise(asReader)
		}
		return err
	case err != nil:
		return err
	default:
		e.find("held-back", Warning, fmt.Sprintf("process %d has had a transaction open for %v: vacuum removes nothing that died since", pid, open)).
			advise("look what it is, end it if nobody needs it, and set idle_in_transaction_session_timeout",
				fmt.Sprintf("SELECT state, query FROM pg_catalog.pg_stat_activity WHERE pid = %d;", pid), fmt.Sprintf("SELECT pg_terminate_backend(%d);", pid))
	}
	return nil
}

// hidden counts the open transactions whose beginning is not shown to this user.
func (e *exam) hidden(ctx context.Context) (n int, err error) {
	return n, e.scan(ctx, `SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_locks l ON l.pid OPERATOR(pg_catalog.=) a.pid
		WHERE l.locktype OPERATOR(pg_catalog.=) 'virtualxid' AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock' AND l.granted
			AND a.usesysid IS NOT NULL AND a.backend_type IS NULL AND a.xact_start IS NULL
			AND a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`, nil, &n)
}

func (e *exam) replication(ctx context.Context) error {
	var replicas, synchronous, hidden int
	if err := e.scan(ctx, "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE sync_state OPERATOR(pg_catalog.=) ANY (ARRAY['sync', 'quorum'])), pg_catalog.count(*) FILTER (WHERE sync_state IS NULL) FROM pg_catalog.pg_stat_replication", nil, &replicas, &synchronous, &hidden); err != nil {
		return err
	}
	rows, err := e.Pool.Query(ctx, "SELECT slot_name::pg_catalog.text FROM pg_catalog.pg_replication_slots WHERE NOT active ORDER BY 1")
	if err != nil {
		return err
	}
	slots, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, slot := range slots {
		e.find("replication", Warning, fmt.Sprintf("nobody reads the replication slot %s: the server keeps its log for it until the disk is full, and may hold back vacuum", slot)).
			advise("start what reads it, or drop it", "SELECT pg_drop_replication_slot('"+strings.ReplaceAll(slot, "'", "''")+"');")
	}
	switch {
	case hidden > 0:
		e.unread("replication", fmt.Sprintf("there are %d replicas, and whether they are synchronous is not shown to user %s", replicas, e.Program.ConnConfig.User)).advise(asReader)
	case replicas > 0 && synchronous == 0:
		e.find("replication", Hint, fmt.Sprintf("%d replicas, none of them known to be synchronous: a failover may lose the last moments, and a logout in them", replicas)).
			advise("accept that, or let one be synchronous", "ALTER SYSTEM SET synchronous_standby_names = '*';")
	case len(slots) == 0:
		e.ok("replication", fmt.Sprintf("%d replicas, %d of them synchronous", replicas, synchronous))
	}
	return nil
}

func (e *exam) durability(ctx context.Context) error {
	var commit string
	if err := e.scan(ctx, "SELECT pg_catalog.current_setting('synchronous_commit')", nil, &commit); err != nil {
		return err
	}
	if commit == "off" {
		e.find("durability", Hint, "synchronous_commit is off: a crash of the server may undo the last moments, and a logout in them").
			advise("accept that, or run one of these", e.sqlSet("synchronous_commit", "on")...)
		return nil
	}
	e.ok("durability", "synchronous_commit is "+commit)
	return nil
}
