package databases

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"ariga.io/atlas/sql/migrate"
	atlas "ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

const (
	down      = "DROP TABLE schema_system.session;\n"
	downIndex = `DROP INDEX CONCURRENTLY schema_system."%s";` + "\n"
)

// migrator is a tool with two migrations, the table and an index of a key.
type migrator struct {
	up, down func(context.Context) error // both migrations
}

// tools are the ways to migrate: table and index are SQL as SchemaSQL gives it,
// dropIndex takes the index back.
var tools = []struct {
	name string
	open func(t *testing.T, pool *pgxpool.Pool, table, index, dropIndex string) migrator
}{
	{"golang-migrate", func(t *testing.T, pool *pgxpool.Pool, table, index, dropIndex string) migrator {
		m, err := openMigrate(pool, files(map[string]string{
			"1_sessions.up.sql": table, "1_sessions.down.sql": down,
			"2_session_user.up.sql": index, "2_session_user.down.sql": dropIndex,
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if source, database := m.Close(); source != nil || database != nil {
				t.Errorf("Close: got %v, %v, want no error", source, database)
			}
		})
		return migrator{func(context.Context) error { return m.Up() }, func(context.Context) error { return m.Down() }}
	}},
	{"goose", gooseMigrator("")},
	{"goose, in its transaction", gooseMigrator("-- +goose NO TRANSACTION\n")},
	{"tern", ternMigrator("")},
	{"tern, in its transaction", ternMigrator("---- tern: disable-tx ----\n")},
	{"atlas", atlasMigrator(false)},
	{"atlas, in its transaction", atlasMigrator(true)},
}

// migration returns the migration of the table as the document shows it for a
// tool, which its text has a word of.
func migration(t *testing.T, word, table string) string {
	t.Helper()
	for _, block := range strings.Split(read(t, document), "\n```sql\n")[1:] {
		if block, _, _ = strings.Cut(block, "```\n"); !strings.Contains(block, word) {
			continue
		}
		before, after, ok := strings.Cut(block, "-- (here the output of sessionctl schema)\n")
		if !ok {
			t.Fatalf("the block of %s: got no place for the SQL", word)
		}
		return before + table + after
	}
	t.Fatalf("got no block of %s", word)
	return ""
}

// gooseMigrator runs the document's migration, or that without a line.
func gooseMigrator(without string) func(*testing.T, *pgxpool.Pool, string, string, string) migrator {
	return func(t *testing.T, pool *pgxpool.Pool, table, index, dropIndex string) migrator {
		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { _ = db.Close() })
		p, err := openGoose(db, files(map[string]string{
			"1_sessions.sql":     strings.Replace(migration(t, "+goose", table), without, "", 1),
			"2_session_user.sql": "-- +goose NO TRANSACTION\n-- +goose Up\n" + index + "-- +goose Down\n" + dropIndex,
		}))
		if err != nil {
			t.Fatal(err)
		}
		return migrator{
			func(ctx context.Context) error { _, err := p.Up(ctx); return err },
			func(ctx context.Context) error { _, err := p.DownTo(ctx, 0); return err },
		}
	}
}

// ternMigrator runs the document's migration, or that without a line.
func ternMigrator(without string) func(*testing.T, *pgxpool.Pool, string, string, string) migrator {
	return func(t *testing.T, pool *pgxpool.Pool, table, index, dropIndex string) migrator {
		const alone = "---- tern: disable-tx ----\n"
		files := files(map[string]string{
			"1_sessions.sql":     strings.Replace(migration(t, "tern:", table), without, "", 1),
			"2_session_user.sql": alone + index + "---- create above / drop below ----\n" + alone + dropIndex,
		})
		return migrator{
			func(ctx context.Context) error { return ternTo(ctx, pool, files, 2) },
			func(ctx context.Context) error { return ternTo(ctx, pool, files, 0) },
		}
	}
}

// atlasMigrator is atlas as far as its Go module goes: it runs versioned files
// upward, in a transaction that its caller begins or in none; down is of the
// program, which is not in it.
func atlasMigrator(inTx bool) func(*testing.T, *pgxpool.Pool, string, string, string) migrator {
	return func(t *testing.T, pool *pgxpool.Pool, table, index, dropIndex string) migrator {
		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { _ = db.Close() })
		first := func(ctx context.Context) error {
			return atlasUp(ctx, db, "1_sessions.sql", migration(t, "atlas:", table))
		}
		if inTx {
			first = func(ctx context.Context) error {
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				return errors.Join(atlasUp(ctx, tx, "1_sessions.sql", table), tx.Commit())
			}
		}
		return migrator{
			func(ctx context.Context) error {
				return errors.Join(first(ctx), atlasUp(ctx, db, "2_session_user.sql", index))
			},
			func(ctx context.Context) error {
				return errors.Join(atlasUp(ctx, db, "3_session_user.sql", dropIndex), atlasUp(ctx, db, "4_sessions.sql", down))
			},
		}
	}
}

func atlasUp(ctx context.Context, db schema.ExecQuerier, name, text string) error {
	driver, err := atlas.Open(db)
	if err != nil {
		return err
	}
	dir := &migrate.MemDir{}
	if err := dir.WriteFile(name, []byte(text)); err != nil {
		return err
	}
	sum, err := dir.Checksum()
	if err != nil {
		return err
	}
	if err := migrate.WriteSumFile(dir, sum); err != nil {
		return err
	}
	e, err := migrate.NewExecutor(driver, dir, new(revisions), migrate.WithAllowDirty(true))
	if err != nil {
		return err
	}
	return e.ExecuteN(ctx, 0)
}

// revisions are what atlas has run. Its program keeps them in a table.
type revisions struct{ all []*migrate.Revision }

func (*revisions) Ident() *migrate.TableIdent { return &migrate.TableIdent{Name: "revisions"} }

func (r *revisions) ReadRevisions(context.Context) ([]*migrate.Revision, error) { return r.all, nil }

func (r *revisions) ReadRevision(_ context.Context, version string) (*migrate.Revision, error) {
	for _, revision := range r.all {
		if revision.Version == version {
			return revision, nil
		}
	}
	return nil, migrate.ErrRevisionNotExist
}

func (r *revisions) WriteRevision(ctx context.Context, revision *migrate.Revision) error {
	_ = r.DeleteRevision(ctx, revision.Version)
	r.all = append(r.all, revision)
	return nil
}

func (r *revisions) DeleteRevision(_ context.Context, version string) error {
	r.all = slices.DeleteFunc(r.all, func(r *migrate.Revision) bool { return r.Version == version })
	return nil
}

func files(texts map[string]string) fstest.MapFS {
	all := fstest.MapFS{}
	for name, text := range texts {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

// What each tool makes of SchemaSQL is the table that the store wants: it makes
// nothing more, warns of nothing, and sessions last. Down takes it away, a running
// program has errors then and not visitors who are not logged in, and up brings it
// back to the same program.
func TestMigrations(t *testing.T) {
	t.Parallel()
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			opts := session.PostgresOptions{IndexKeys: []string{"userId"}}
			table, index, ok := strings.Cut(session.SchemaSQL(opts), "\nCREATE INDEX CONCURRENTLY")
			if !ok {
				t.Fatal("SchemaSQL: got no index of its own")
			}
			pool := pgtest.Pool(t, func(cfg *pgxpool.Config) { cfg.MaxConns = conns })
			_, name, _ := strings.Cut(index, `"`)
			name, _, _ = strings.Cut(name, `"`)
			m := tool.open(t, pool, table, "CREATE INDEX CONCURRENTLY"+index, fmt.Sprintf(downIndex, name))
			if err := m.up(t.Context()); err != nil {
				t.Fatalf("up: got %v, want no error", err)
			}
			log := new(bytes.Buffer)
			opts.Logger = slog.New(slog.NewTextHandler(log, nil))
			store, err := session.NewPostgresStore(t.Context(), pool, opts)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "session: database answered") {
				t.Errorf("the store's start on the tool's table: got %s, want nothing made and no warning", log)
			}
			sessions, err := session.New(store, session.Config{
				Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", StoreTimeout: patience, DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = sessions.Close() })
			shop := &shop{pool: pool, sessions: sessions}
			tea := shop.fill("tea")
			page := func(cookies []*http.Cookie) string {
				answer := shop.visit(cookies, func(w http.ResponseWriter, r *http.Request) {
					items, _ := cart.Get(session.From(r.Context()))
					_, _ = fmt.Fprint(w, items)
				})
				return fmt.Sprint(answer.StatusCode, " ", body(answer))
			}
			if got := page(tea); got != "200 [tea]" {
				t.Errorf("on the tool's table: got %q, want the cart", got)
			}
			if err := m.down(t.Context()); err != nil {
				t.Fatalf("down: got %v, want no error", err)
			}
			var there bool
			if err := pool.QueryRow(t.Context(), "SELECT to_regclass('schema_system.session') IS NOT NULL").Scan(&there); err != nil || there {
				t.Errorf("after down: got a table %t, %v, want none", there, err)
			}
			if got := page(tea); !strings.HasPrefix(got, "503 ") {
				t.Errorf("after down: got %q, want a 503", got)
			}
			if err := m.up(t.Context()); err != nil {
				t.Fatalf("up again: got %v, want no error", err)
			}
			if got := page(tea); got != "200 []" {
				t.Errorf("after up: got %q, want a visitor without a session", got)
			}
			if got := page(shop.fill("milk")); got != "200 [milk]" {
				t.Errorf("after up: got %q, want a new session", got)
			}
		})
	}
}

func body(answer *http.Response) string {
	b, _ := io.ReadAll(answer.Body)
	return string(b)
}

// A tool that compares the schema "public" with what it should be does not see
// the sessions, and so does not drop them.
func TestAtlasLeavesTheSessionsAlone(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	driver, err := atlas.Open(shop.db)
	if err != nil {
		t.Fatal(err)
	}
	realm, err := driver.InspectRealm(t.Context(), &schema.InspectRealmOption{Schemas: []string{"public"}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range realm.Schemas {
		for _, table := range s.Tables {
			names = append(names, s.Name+"."+table.Name)
		}
	}
	slices.Sort(names)
	if want := []string{"public.goods", "public.orders"}; !slices.Equal(names, want) {
		t.Errorf("tables: got %q, want %q", names, want)
	}
}

// The one pool of the document.
func TestOpen(t *testing.T) {
	t.Setenv("SESSION_SECRET", "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa")
	pool := pgtest.Pool(t)
	sessions, db, err := Open(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	defer sessions.Close()
	defer db.Close()
	w := httptest.NewRecorder()
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cart.Set(session.From(r.Context()), []string{"tea"})
	})).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM schema_system.session").Scan(&n); err != nil || n != 1 || w.Code != http.StatusOK {
		t.Errorf("sessions that the *sql.DB sees: got %d, %v after %d, want one", n, err, w.Code)
	}
}
