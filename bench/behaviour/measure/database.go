package measure

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgtest"
)

const (
	sqlReset = `SELECT pg_stat_statements_reset(0, (SELECT oid FROM pg_database WHERE datname = $1), 0)`

	// Statements of the harness itself run in other databases or are marked.
	sqlCount = `SELECT upper(split_part(ltrim(query), ' ', 1)), sum(calls)::int, sum(rows)::int,
			COALESCE(sum(rows) FILTER (WHERE query ~* '(data|sess)[ =]+[$E]'), 0)::int
		FROM pg_stat_statements
		WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1) AND query NOT LIKE '%harness%'
		GROUP BY 1`
)

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
	s.admin, err = pgx.Connect(ctx, s.own.URL())
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
	u, err := url.Parse(s.own.URL())
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
	calls map[string]int // by the statement's first word
	rows  int            // inserted, updated or deleted
	full  int            // of these, with their data
}

func (c counts) total() (n int) {
	for _, calls := range c.calls {
		n += calls
	}
	return n
}

// String is like "SELECT, DELETE, 2 INSERT".
func (c counts) String() string {
	text := ""
	for _, verb := range []string{"SELECT", "WITH", "DELETE", "INSERT", "UPDATE"} {
		n := c.calls[verb]
		if n == 0 {
			continue
		}
		if text != "" {
			text += ", "
		}
		if n > 1 {
			text += fmt.Sprint(n, " ")
		}
		text += verb
	}
	return text
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
	var verb string
	var calls, changed, full int
	_, err = pgx.ForEachRow(rows, []any{&verb, &calls, &changed, &full}, func() error {
		switch verb {
		case "SELECT":
		case "INSERT", "UPDATE", "DELETE", "WITH":
			c.rows += changed
			c.full += full
		default:
			return fmt.Errorf("a statement of a kind that is not expected: %s", verb)
		}
		c.calls[verb] = calls
		return nil
	})
	return c, err
}
