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
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/mark"
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
	pool    *pgxpool.Pool   // without the TimeZone of PGTZ, in a mode that suits every pooler
}

// connect connects. Its errors hold no password.
func (a *app) connect(ctx context.Context) (*database, error) {
	url := cmp.Or(a.url, os.Getenv("DATABASE_URL"))
	if url == "" && os.Getenv("PGHOST")+os.Getenv("PGSERVICE")+os.Getenv("PGUSER")+os.Getenv("PGDATABASE") == "" {
		return nil, &codeError{ExitUnconnected, errors.New("which database? Set DATABASE_URL=postgres://user:password@host:5432/database, or PGHOST, PGUSER, PGPASSWORD and PGDATABASE")}
	}
	program, err := pgxpool.ParseConfig(url)
	if err != nil { // it may quote what it could not read
		return nil, &codeError{ExitUnconnected, errors.New("the database URL cannot be read; it should look like postgres://user:password@host:5432/database, with %-codes for special characters in the password")}
	}
	cfg := program.Copy()
	c := cfg.ConnConfig
	if !strings.Contains(strings.ToLower(url), "timezone") {
		// From PGTZ, which this shell may have and the programs may not: in a
		// column without time zone every expiry would be hours off, and live
		// sessions pruned. What the URL says the programs have too.
		delete(c.RuntimeParams, "timezone")
	}
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
	return &database{a, program, pool}, nil
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

// quoted is the table's name in SQL.
func (a *app) quoted() string { return pgx.Identifier{a.schema, a.table}.Sanitize() }

// exists reports whether there is a table of that name.
func (d *database) exists(ctx context.Context) (there bool, err error) {
	return there, d.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1::text AND c.relname = $2::text)`, d.a.schema, d.a.table).Scan(&there)
}

// mustExist keeps the library from making the table: a mistyped name would.
func (d *database) mustExist(ctx context.Context) error {
	there, err := d.exists(ctx)
	if err == nil && !there {
		err = fmt.Errorf("there is no table %s in database %q: name another with --schema and --table, or make it: sessionctl schema --apply", d.a.name(), d.program.ConnConfig.Database)
	}
	return err
}

// count counts the rows that meet a condition.
func (d *database) count(ctx context.Context, where string) (n int64, err error) {
	return n, d.pool.QueryRow(ctx, "SELECT count(*) FROM "+d.a.quoted()+" WHERE "+where).Scan(&n)
}

// Conditions of rows: a mark of a renewed ID is no session, and is pruned like one.
const (
	live    = "expire >= now() AND NOT " + mark.SQL
	expired = "expire < now()"
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
	if err := d.mustExist(ctx); err != nil {
		return nil, nil, err
	}
	quiet := slog.New(slog.DiscardHandler) // doctor says all of it
	store, err := session.NewPostgresStore(ctx, d.pool, session.PostgresOptions{Schema: d.a.schema, Table: d.a.table, HashIDs: d.a.hashIDs, Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	cfg, _ := session.ConfigFromEnv() // what it finds missing need not be there, and New finds what is wrong
	if cfg.Secret == "" {
		cfg.Secret = rand.Text() + rand.Text() // opens nothing
	}
	cfg.Encrypt, cfg.DisablePrune, cfg.Logger, cfg.StoreTimeout = false, true, quiet, storeTimeout
	if !d.a.hashIDs {
		cfg.Cookie.Format = session.FormatExpress // here it only means that the secret may have any length
	}
	m, err := session.New(store, cfg)
	return store, m, err
}

// needsSecret is an error where sessions are to be found by a value and some
// cannot be: they would stay alive, or seem not to be there.
func (d *database) needsSecret(ctx context.Context) error {
	if os.Getenv("SESSION_SECRET") != "" {
		return nil
	}
	var sealed bool
	err := d.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+d.a.quoted()+` WHERE strpos(sess::text, '"__sealed"') > 0)`).Scan(&sealed)
	if err == nil && sealed {
		err = errors.New("there are encrypted sessions, which are found by a keyed hash: set SESSION_SECRET and SESSION_SECRET_OLD as the programs have them")
	}
	return err
}
