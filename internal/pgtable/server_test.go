package pgtable_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session/internal/pgtest"
)

// poolOn returns one on the server's own database.
func poolOn(t *testing.T, url string, opt func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	if opt != nil {
		opt(cfg)
	}
	p, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// A role whose transactions are read-only cannot make the table: the start waits,
// in case that passes, and then says what to run.
func TestReadOnlyRole(t *testing.T) {
	admin := pgtest.Pool(t)
	exec(t, admin, goodTable)
	p, _ := asRole(t, admin, "GRANT CREATE ON SCHEMA public TO $role; ALTER ROLE $role SET default_transaction_read_only = on")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	table, _ := newTable(t, p, "public", "missing")
	table.Logger = slog.New(slog.NewTextHandler(&countingLog{line: "session: waiting for the database", n: 1, reached: cancel}, nil))
	err := table.Setup(ctx)
	if err == nil || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it to have waited", err)
	}
	_, sql, ok := strings.Cut(err.Error(), "Run: ")
	sql, _, _ = strings.Cut(sql, ";")
	if !ok {
		t.Fatalf("got %v, want what to run", err)
	}
	exec(t, admin, sql)
	p.Reset()
	table, log := newTable(t, p, "public", "missing")
	if err := table.Setup(t.Context()); err != nil || len(warnings(log)) > 0 {
		t.Errorf("after %s: got %v and %q, want nothing", sql, err, warnings(log))
	}
	checkWrites(t, p, table.Quoted())
}

// A standby has no table until its primary has: the start waits for it, and says
// then that nothing can be written here.
func TestStartOnAStandby(t *testing.T) {
	primary := pgtest.Own(t, pgtest.Options{})
	standby, err := primary.Standby(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Close() })
	table, _ := newTable(t, poolOn(t, standby.URL(), nil), "schema_system", "session")
	log := &standbyLog{line: "session: waiting for the database", reached: func() {
		made, _ := newTable(t, poolOn(t, primary.URL(), nil), "schema_system", "session")
		if err := made.Setup(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	table.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := table.Setup(ctx); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "is a standby, where nothing can be made") || !strings.Contains(got, "the server is a standby: sessions can be read") {
		t.Errorf("log: got\n%s\nwant why it waited, and a warning", got)
	}
}

// standbyLog calls reached when a line has been logged, and keeps all of them.
type standbyLog struct {
	strings.Builder
	line    string
	reached func()
}

func (l *standbyLog) Write(b []byte) (int, error) {
	if strings.Contains(string(b), l.line) && l.reached != nil {
		l.reached()
		l.reached = nil
	}
	return l.Builder.Write(b)
}

// A database of another encoding: the start works, and says what others would read.
func TestStartInOtherEncodings(t *testing.T) {
	admin := pgtest.Pool(t)
	for _, tt := range []struct {
		encoding, client string
		warned           bool
	}{
		{"LATIN1", "", true},
		{"LATIN1", "UTF8", false},
		{"SQL_ASCII", "", false},
	} {
		t.Run(tt.encoding+" "+tt.client, func(t *testing.T) {
			name := strings.ToLower(admin.Config().ConnConfig.Database + "_" + tt.encoding + tt.client)
			exec(t, admin, "CREATE DATABASE "+name+" ENCODING '"+tt.encoding+"' LOCALE 'C' TEMPLATE template0")
			t.Cleanup(func() {
				if _, err := admin.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
					t.Error(err)
				}
			})
			p := poolOn(t, admin.Config().ConnString(), func(cfg *pgxpool.Config) {
				cfg.ConnConfig.Database = name
				if tt.client != "" {
					cfg.ConnConfig.RuntimeParams["client_encoding"] = tt.client
				}
			})
			for range 2 {
				table, log := newTable(t, p, "schema_system", "session")
				if err := table.Setup(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := table.MakeIndexes(t.Context(), []string{"user's \\ id"}); err != nil {
					t.Fatal(err)
				}
				if got := warnings(log); (len(got) > 0) != tt.warned || tt.warned && !strings.Contains(got[0], "clientEncoding="+tt.encoding) {
					t.Errorf("got the warnings %q, want one about the encoding: %t", got, tt.warned)
				}
				checkWrites(t, p, table.Quoted())
			}
			if got := strings.Fields(indexes(t, p, "schema_system.session")); len(got) < 2 {
				t.Errorf("indexes: got %v, want one on the key", got)
			}
		})
	}
}
