package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/again"
	"github.com/pgsession/session/cmd/sessionctl/internal/zone"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/secret"
)

const (
	connectTimeout = 10 * time.Second

	// storeTimeout bounds what the library does at once: here nobody waits for a
	// page, and finding without an index reads the whole table.
	storeTimeout = 5 * time.Minute
)

// database is the connection of one command.
type database struct {
	a       *app
	program *pgxpool.Config // as a program with this environment would connect
	pool    *pgxpool.Pool   // without a TimeZone of the environment, in a mode that suits every pooler
	options bool            // the URL has a TimeZone in its options, as every program's and Express's
}

// connect connects. Its errors hold no password.
func (a *app) connect(ctx context.Context) (*database, error) {
	url := cmp.Or(a.url, os.Getenv("DATABASE_URL"))
	if url == "" && os.Getenv("PGHOST")+os.Getenv("PGSERVICE")+os.Getenv("PGUSER")+os.Getenv("PGDATABASE") == "" {
		return nil, &codeError{ExitUnconnected, errors.New("which database? Set DATABASE_URL=postgres://user:password@host:5432/database?connect_timeout=2, or PGHOST, PGUSER, PGPASSWORD and PGDATABASE")}
	}
	program, err := pgxpool.ParseConfig(url)
	if err != nil { // it may quote what it could not read
		return nil, &codeError{ExitUnconnected, errors.New("the database URL cannot be read; it should look like postgres://user:password@host:5432/database?connect_timeout=2, with %-codes for special characters in the password")}
	}
	cfg := program.Copy()
	c := cfg.ConnConfig
	// This shell may have a TimeZone that the programs have not: in a column
	// without time zone every expiry would be hours off, and live sessions pruned.
	options := zone.NotOfEnvironment(url, c)
	if c.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "sessionctl"
	}
	cfg.MinConns, cfg.MaxConns = 0, 4
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err == nil {
		err = pool.Ping(ctx)
	}
	if err != nil {
		if pool != nil {
			pool.Close()
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &codeError{ExitUnconnected, connectError(c, err)}
	}
	return &database{a, program, pool, options}, nil
}

func connectError(c *pgx.ConnConfig, err error) error {
	hint := "is it running, and are host and port right?"
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "3D000": // invalid_catalog_name
			hint = "make the database with createdb, or name another"
		case "28P01", "28000": // invalid password or authorization
			hint = "user or password is wrong, or pg_hba.conf does not let this user in"
		case "53300": // too_many_connections
			hint = "all connections of the server are used: raise max_connections, or lower pool_max_conns of the programs"
		}
	}
	return fmt.Errorf("PostgreSQL at %s, database %q, user %q does not answer: %s\n%w",
		net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.Database, c.User, hint, err)
}

func (d *database) close() { d.pool.Close() }

// name is the table's, for people.
func (a *app) name() string { return a.schema + "." + a.table }

// where names the table in commands.
func (a *app) where() again.Where {
	return again.Where{Schema: a.schema, Table: a.table, HashIDs: a.hashIDs, Outbox: a.outbox, OutboxUser: a.outboxUser}
}

// quoted is the table's name in SQL.
func (a *app) quoted() string { return pgx.Identifier{a.schema, a.table}.Sanitize() }

// exists reports whether there is a table of that name.
func (d *database) exists(ctx context.Context, table string) (there bool, err error) {
	return there, d.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.text)`, d.a.schema, table).Scan(&there)
}

// mustExist keeps the library from making the table: a mistyped name would.
func (d *database) mustExist(ctx context.Context) error {
	there, err := d.exists(ctx, d.a.table)
	if err == nil && there && d.a.outbox != "" {
		if there, err = d.exists(ctx, d.a.outbox); err == nil && !there {
			return fmt.Errorf("there is no outbox %s.%s in database %q: name another with --outbox, or make it: %s", d.a.schema, d.a.outbox, d.program.ConnConfig.Database, d.a.where().Command("schema --apply"))
		}
	}
	if err == nil && !there {
		err = fmt.Errorf("there is no table %s in database %q: name another with --schema and --table, or make it: %s", d.a.name(), d.program.ConnConfig.Database, d.a.where().Command("schema --apply"))
	}
	return err
}

// mustBeOurs is what every command wants that reads or changes rows.
func (d *database) mustBeOurs(ctx context.Context) error {
	if err := d.mustExist(ctx); err != nil {
		return err
	}
	return d.mustAgree(ctx)
}

// mustAgree refuses to go on where the connection's TimeZone makes expiries in a
// column without time zone something else than what the programs wrote: live
// sessions would be taken for expired ones, or the other way round.
func (d *database) mustAgree(ctx context.Context) error {
	var plain bool
	err := d.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid
		AND attname OPERATOR(pg_catalog.=) 'expire' AND atttypid OPERATOR(pg_catalog.=) 1114::pg_catalog.oid)`, d.a.quoted()).Scan(&plain) // 1114: timestamp
	if err != nil || !plain {
		return err
	}
	ours, err := zone.Read(ctx, d.pool)
	if err != nil {
		return err
	}
	if ours.Asked() {
		if err := d.agrees(ctx, ours); err != nil {
			return err
		}
	}
	sooner, compared, err := zone.Contradicted(ctx, d.pool, d.a.quoted())
	if err == nil && zone.TooMany(sooner, compared) {
		err = fmt.Errorf("the expiries in %s were written with another TimeZone than this connection's, %s: by it, %d of %d sessions that were looked at end sooner than their cookies say, and live ones would be taken for expired. Connect as the programs do, with their user and without a TimeZone that they do not set",
			d.a.name(), ours.Name, sooner, compared)
	}
	return err
}

// agrees compares a TimeZone that came with the connection with the database's own.
func (d *database) agrees(ctx context.Context, ours zone.Zone) error {
	conn, err := zone.Plain(ctx, d.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	theirs, err := zone.Read(ctx, conn)
	switch {
	case err != nil || ours.Same(theirs):
		return err
	case d.options:
		d.a.note("the TimeZone %s of the URL's options is followed; every program must have it, the database's own is %s", ours.Name, theirs.Name)
		return nil
	}
	return fmt.Errorf("this connection has TimeZone %s, others of this user have %s: in a column without time zone each takes the expiries of the other for hours off, and live sessions for expired ones. Unset it", ours.Name, theirs.Name)
}

// count counts the rows that meet a condition.
func (d *database) count(ctx context.Context, where string) (n int64, err error) {
	return n, d.pool.QueryRow(ctx, "SELECT pg_catalog.count(*) FROM "+d.a.quoted()+" WHERE "+where).Scan(&n)
}

// Conditions of rows: a mark of a renewed ID is no session, and is pruned like one.
const (
	live    = "expire OPERATOR(pg_catalog.>=) pg_catalog.now() AND NOT " + mark.SQL
	expired = "expire OPERATOR(pg_catalog.<) pg_catalog.now()"
)

// open connects and returns the store and a manager on the table.
func (a *app) open(ctx context.Context) (*database, *session.PostgresStore, *session.Manager, error) {
	d, err := a.connect(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	store, m, err := d.manager(ctx)
	if err != nil {
		d.close()
		return nil, nil, nil, err
	}
	return d, store, m, nil
}

func (d *database) manager(ctx context.Context) (*session.PostgresStore, *session.Manager, error) {
	if err := d.mustBeOurs(ctx); err != nil {
		return nil, nil, err
	}
	quiet := slog.New(slog.DiscardHandler) // doctor says all of it
	store, err := session.NewPostgresStore(ctx, d.pool, session.PostgresOptions{
		Schema: d.a.schema, Table: d.a.table, HashIDs: d.a.hashIDs, Outbox: d.a.outbox, OutboxUser: d.a.outboxUser, Logger: quiet,
	})
	if err != nil {
		return nil, nil, err
	}
	cfg, err := session.ConfigFromEnv() // what it finds missing need not be there, and New finds what is wrong
	switch {
	case err != nil && os.Getenv("SESSION_SECRET_FILE")+os.Getenv("SESSION_SECRET_OLD_FILE") != "":
		return nil, nil, err // a file that cannot be read is not a secret that is not there
	case cfg.Secret == "":
		cfg.Secret = rand.Text() + rand.Text() // opens nothing
	}
	cfg.Encrypt, cfg.DisablePrune, cfg.Logger, cfg.StoreTimeout = false, true, quiet, storeTimeout
	if !d.a.hashIDs {
		cfg.Cookie.Format = session.FormatExpress // here it only means that the secret may have any length
	}
	if v, _ := secret.Judge(cfg.Secret); v == secret.Public { // New refuses it, and its sessions must be found and ended all the same
		cfg.Secret, cfg.OldSecrets = rand.Text()+rand.Text(), append([]string{cfg.Secret}, cfg.OldSecrets...)
	}
	m, err := session.New(store, cfg)
	return store, m, err
}
