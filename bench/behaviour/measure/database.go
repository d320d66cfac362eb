package measure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgtest"
)

const (
	sqlReset = `SELECT pg_stat_statements_reset(0, (SELECT oid FROM pg_database WHERE datname = $1), 0)`

	// Statements of the harness itself run in other databases or are marked.
	sqlCount = `SELECT query, calls::int, rows::int, query ~* '(data|sess)[ =]+[$E]'
		FROM pg_stat_statements
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1) AND query NOT LIKE '%harness%'`
)

// changing finds what a statement that begins with WITH does in its parts. FOR
// UPDATE and DO UPDATE stand elsewhere.
var changing = regexp.MustCompile(`(?i)[()]\s*(INSERT|UPDATE|DELETE)\b`)

// server is a PostgreSQL of this run's own, which counts statements and can be
// stopped.
type server struct {
	own   *pgtest.Server
	admin *pgx.Conn
	made  []*database
}

func startServer(ctx context.Context) (*server, error) {
	own, err := pgtest.Find(ctx, pgtest.Options{OwnOnly: true, Settings: map[string]string{
		"shared_preload_libraries":         "pg_stat_statements",
		"pg_stat_statements.track_utility": "off", // BEGIN, SET
		"autovacuum":                       "off",
	}})
	if err != nil {
		return nil, err
	}
	s := &server{own: own}
	if err := s.connect(ctx); err != nil {
		s.close()
		return nil, err
	}
	if _, err := s.admin.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"); err != nil {
		s.close()
		return nil, fmt.Errorf("counting statements needs pg_stat_statements, from PostgreSQL's contrib: %w", err)
	}
	return s, nil
}

func (s *server) connect(ctx context.Context) (err error) {
	s.admin, err = pgx.Connect(ctx, s.own.ProgramURL())
	return err
}

func (s *server) close() error {
	if s.admin != nil {
		_ = s.admin.Close(context.Background())
	}
	return s.own.Close()
}

// stop stops the server and closes what the harness holds open.
func (s *server) stop(ctx context.Context) error {
	_ = s.admin.Close(ctx)
	for _, d := range s.made {
		if d.conn != nil {
			_ = d.conn.Close(ctx)
		}
	}
	return s.own.Stop(ctx, "fast")
}

func (s *server) start(ctx context.Context) error {
	return errors.Join(s.own.Start(ctx), s.connect(ctx))
}

// database is one application's.
type database struct {
	server *server
	name   string
	url    string
	conn   *pgx.Conn // the harness's
}

// harness returns the harness's connection.
func (d *database) harness(ctx context.Context) (conn *pgx.Conn, err error) {
	if d.conn == nil || d.conn.IsClosed() {
		d.conn, err = pgx.Connect(ctx, d.url)
	}
	return d.conn, err
}

func (s *server) database(ctx context.Context) (*database, error) {
	name := fmt.Sprintf("behaviour%d", len(s.made))
	if _, err := s.admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	u, err := url.Parse(s.own.ProgramURL())
	if err != nil {
		return nil, errors.New("the server's URL cannot be parsed") // the error would quote it, password and all
	}
	u.Path = "/" + name
	d := &database{server: s, name: name, url: u.String()}
	s.made = append(s.made, d)
	return d, nil
}

// exec runs statements of the harness, one after another.
func (d *database) exec(ctx context.Context, sql string) error {
	conn, err := d.harness(ctx)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// query returns the one value that a query of the harness finds.
func query[T any](ctx context.Context, d *database, sql string) (value T, err error) {
	conn, err := d.harness(ctx)
	if err != nil {
		return value, err
	}
	err = conn.QueryRow(ctx, "/* harness */ "+sql).Scan(&value)
	return value, err
}

// counts are what an application has asked of its database.
type counts struct {
	calls map[string]int // by what the statement does
	rows  int            // inserted, updated or deleted; of a statement that does several things, by the last
	full  int            // of these, with their data
}

// verb says what a statement does: its first word, for one that begins with WITH
// what is in its parts, like "UPDATE and INSERT in one".
func verb(query string) string {
	first := strings.ToUpper(strings.Fields(query + " ?")[0])
	if first != "WITH" {
		return first
	}
	var does []string
	for _, m := range changing.FindAllStringSubmatch(query, -1) {
		if v := strings.ToUpper(m[1]); !slices.Contains(does, v) {
			does = append(does, v)
		}
	}
	switch len(does) {
	case 0:
		return "SELECT"
	case 1:
		return does[0]
	}
	return strings.Join(does, " and ") + " in one"
}

func (c counts) total() (n int) {
	for _, calls := range c.calls {
		n += calls
	}
	return n
}

// String is like "SELECT, DELETE, 2 INSERT": reads first, then by the alphabet.
func (c counts) String() string {
	text := ""
	for _, v := range slices.SortedFunc(maps.Keys(c.calls), readsFirst) {
		if text != "" {
			text += ", "
		}
		if n := c.calls[v]; n > 1 {
			text += fmt.Sprint(n, " ")
		}
		text += v
	}
	return text
}

func readsFirst(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "SELECT":
		return -1
	case b == "SELECT":
		return 1
	}
	return strings.Compare(a, b)
}

// count counts the statements that f causes.
func (d *database) count(ctx context.Context, f func() error) (counts, error) {
	c := counts{calls: map[string]int{}}
	if _, err := d.server.admin.Exec(ctx, sqlReset, d.name); err != nil {
		return c, err
	}
	if err := f(); err != nil {
		return c, err
	}
	rows, err := d.server.admin.Query(ctx, sqlCount, d.name)
	if err != nil {
		return c, err
	}
	var text string
	var calls, changed int
	var full bool
	_, err = pgx.ForEachRow(rows, []any{&text, &calls, &changed, &full}, func() error {
		v := verb(text)
		c.calls[v] += calls
		switch kind, _, _ := strings.Cut(v, " "); kind {
		case "SELECT":
		case "INSERT", "UPDATE", "DELETE":
			c.rows += changed
			if full {
				c.full += changed
			}
		default:
			return fmt.Errorf("a statement of a kind that is not expected: %s", v)
		}
		return nil
	})
	return c, err
}
