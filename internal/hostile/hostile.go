// Package hostile gives tests a database in which somebody has made, in the
// schema public, a twin of every operator, function, aggregate, type and relation
// of pg_catalog: with the same arguments, and with those that PostgreSQL would
// take for them (varchar, name and character for text, the number types, json for
// jsonb and so on), since a twin whose arguments are exactly the given ones is
// chosen even where pg_catalog comes first. A statement that holds a twin anywhere
// is refused with an error that names it as soon as it would run, also where it
// would find no row and where the twin would never be reached. [Twin] reads the
// name from the error. (With so many twins some calls become ambiguous. That is told
// as a twin too: what is qualified never is.)
//
// Which statements find a twin depends on the search path. With [Default]
// pg_catalog comes first, as it does unless it is named, and twins of the same
// arguments are hidden; with [Last] public comes before it, and everything counts
// that is not qualified.
//
// What a test needs beside what it tests, it does on [Database.Clean], whose search
// path is pg_catalog alone. Mind that names which PostgreSQL writes, such as those
// of format_type and ::regclass, are qualified where the search path hides them.
//
// Not twinned are: casts, which belong to their types; operator classes, which
// ORDER BY, DISTINCT, GROUP BY, GREATEST and unique indexes take from the type;
// collations; and calls of several arguments of unlike types whose exact match would
// be a mixture that nobody has thought of.
package hostile

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// Search paths.
const (
	Default = `"$user", public`
	Last    = "public, pg_catalog"
)

// Paths are the search paths to test with.
var Paths = []string{Default, Last}

//go:embed twins.sql
var twins string

// Database is a database full of twins, dropped when its test ends.
type Database struct {
	t   testing.TB
	url string
}

// New makes one, which takes about three seconds: let subtests share it. The role of
// the tests' server must be a superuser, as it is on a server that pgtest starts.
func New(t testing.TB) *Database {
	t.Helper()
	db := &Database{t: t, url: pgtest.URL(t)}
	conn, err := pgx.Connect(t.Context(), db.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; "+twins+"; COMMIT").ReadAll(); err != nil {
		t.Fatalf("make the twins: %v", err)
	}
	return db
}

// URL is a connection string with this search path.
func (db *Database) URL(path string) string {
	u, err := url.Parse(db.url)
	if err != nil {
		db.t.Fatal("the database's URL cannot be parsed") // the error would quote it
	}
	q := u.Query()
	q.Set("search_path", path)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // in such URLs a plus is a plus
	return u.String()
}

// Clean is a connection string with which no twin is found.
func (db *Database) Clean() string { return db.URL("pg_catalog") }

// Pool is a pool with this search path, closed when the test ends; opts change its
// configuration. The test t fails when a twin was called on it, also where the
// program that called it has hidden the error.
func (db *Database) Pool(t testing.TB, path string, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(db.URL(path))
	if err != nil {
		t.Fatal("the database's URL cannot be parsed")
	}
	for _, opt := range opts {
		opt(cfg)
	}
	then := cfg.ConnConfig.OnPgError
	cfg.ConnConfig.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		if name := Twin(err); name != "" {
			t.Errorf("search path %s: called: %s", path, name)
		}
		return then(conn, err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

var refused = regexp.MustCompile(`internal function "(hostile twin of .*)" is not in internal lookup table|((?:function|operator) .* is not unique)`)

// Twin returns what err says of the twin that was called, such as "hostile twin of
// now()", or that the call was not unique, and "" where none was.
func Twin(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ""
	}
	return Named(pg.Message)
}

// Named is [Twin] for what a program has printed or logged.
func Named(text string) string {
	if m := refused.FindStringSubmatch(text); m != nil {
		return cmp.Or(m[1], m[2])
	}
	return ""
}
