package doctor_test

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/doctor"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/internal/secret"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const patience = time.Minute

const goodSecret = "w8K0f3sVQ4m1Zr7uYtE2xNcB6hJpLd9aGiTkOy5R+/X="

// patient is a database to examine, with a table unless it was made bare.
type patient struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	doctor.Options
}

// with adds a parameter to a URL, where a plus would be a plus.
func with(t *testing.T, dsn, name, value string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

// bare is a database without a table, in UTC, as it should be else.
func bare(t *testing.T, dsn string) *patient {
	t.Helper()
	dsn = with(t, dsn, "connect_timeout", "5")
	p := &patient{t: t, url: dsn}
	program, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	p.exec("ALTER DATABASE " + pgx.Identifier{program.ConnConfig.Database}.Sanitize() + " SET timezone = 'UTC'")
	p.exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC") // as it is from PostgreSQL 15 on
	p.pool = p.open(dsn)
	p.Options = doctor.Options{
		Program: program, Pool: p.pool, Schema: "schema_system", Table: "session", Secret: goodSecret, Now: time.Now,
		Open: func(ctx context.Context) (*session.Manager, error) {
			store, err := session.NewPostgresStore(ctx, p.pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				return nil, err
			}
			return session.New(store, session.Config{Secret: p.Secret, OldSecrets: p.OldSecrets, DisablePrune: true, Logger: slog.New(slog.DiscardHandler)})
		},
	}
	return p
}

// healthy is a database with a new table.
func healthy(t *testing.T) *patient {
	t.Helper()
	p := bare(t, pgtest.URL(t))
	p.makeTable()
	return p
}

func (p *patient) makeTable(keys ...string) {
	p.t.Helper()
	if _, err := session.NewPostgresStore(p.t.Context(), p.pool, session.PostgresOptions{IndexKeys: keys, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) open(dsn string) *pgxpool.Pool {
	p.t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		p.t.Fatal("the URL cannot be parsed")
	}
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(pool.Close)
	return pool
}

// exec runs statements on a connection of its own, so that what it has counted
// is reported at once.
func (p *patient) exec(sql string) {
	p.t.Helper()
	conn := p.connect()
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		p.t.Fatalf("%v in %s", err, sql)
	}
}

func (p *patient) connect() *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(context.Background(), p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	return conn
}

// await waits until a query says true; the server waits between the tries.
func (p *patient) await(what, sql string) {
	p.t.Helper()
	conn := p.connect()
	defer conn.Close(context.Background())
	for deadline := time.Now().Add(patience); ; {
		var yes bool
		if err := conn.QueryRow(context.Background(), "SELECT ("+sql+"), pg_sleep(0.02)::text").Scan(&yes, nil); err != nil {
			p.t.Fatalf("%v in %s", err, sql)
		}
		if yes {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// with adds a parameter to the program's URL.
func (p *patient) with(name, value string) {
	p.t.Helper()
	var err error
	if p.Program, err = pgxpool.ParseConfig(with(p.t, p.url, name, value)); err != nil {
		p.t.Fatal("the URL cannot be parsed")
	}
}

func (p *patient) examine() doctor.Report {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	report, err := doctor.Run(ctx, p.Options)
	if err != nil {
		p.t.Fatalf("Run: got %v, want no error", err)
	}
	return report
}

// want checks that a finding is there, with these words in it, and that it says
// what to do.
func want(t *testing.T, r doctor.Report, check string, level doctor.Level, words ...string) {
	t.Helper()
	var seen []string
	for _, f := range r.Findings {
		if f.Check != check {
			continue
		}
		text := f.What + "\n" + f.Advice + "\n" + strings.Join(f.SQL, "\n")
		seen = append(seen, f.Level.String()+": "+text)
		all := f.Level == level
		for _, w := range words {
			all = all && strings.Contains(text, w)
		}
		if all {
			if level != doctor.OK && f.Advice == "" {
				t.Errorf("%s: got no advice", check)
			}
			return
		}
	}
	t.Errorf("%s: got %q, want %s with %q", check, seen, level, words)
}

// run carries out what a finding says, and checks that it then is gone.
func (p *patient) mend(check string) {
	p.t.Helper()
	done := false
	for _, f := range p.examine().Findings {
		if f.Check == check && f.Level != doctor.OK {
			for _, sql := range f.SQL {
				p.exec(sql)
				done = true
			}
		}
	}
	if !done {
		p.t.Errorf("%s: got no SQL that mends it", check)
	}
	p.pool.Reset() // settings of roles and databases are for new connections
	for _, f := range p.examine().Findings {
		if f.Check == check && f.Level > doctor.Hint {
			p.t.Errorf("%s after the SQL was run: got %s, %s, want it mended", check, f.Level, f.What)
		}
	}
}

func TestAHealthyTable(t *testing.T) {
	p := healthy(t)
	p.exec(`INSERT INTO schema_system.session SELECT md5(n::text), '{"cookie":{}}', now() + interval '1 hour' FROM generate_series(1, 500) n`)
	r := p.examine()
	if r.Level != doctor.OK || r.Table != "schema_system.session" || r.Server == "" {
		t.Errorf("got level %s of %q on %q, want ok", r.Level, r.Table, r.Server)
	}
	checks := map[string]bool{}
	for _, f := range r.Findings {
		if f.Level != doctor.OK || f.Advice != "" || len(f.SQL) > 0 {
			t.Errorf("%s: got %s, %s, want ok", f.Check, f.Level, f.What)
		}
		checks[f.Check] = true
	}
	if len(checks) < 24 {
		t.Errorf("got %d checks, want 24 at least", len(checks))
	}
	before := p.fingerprint()
	p.examine()
	if p.fingerprint() != before {
		t.Error("an examination has changed the database")
	}
}

// fingerprint is the catalog's and the table's state.
func (p *patient) fingerprint() (s string) {
	p.t.Helper()
	conn := p.connect()
	defer conn.Close(context.Background())
	err := conn.QueryRow(context.Background(), `SELECT (SELECT string_agg(oid || relname || COALESCE(reloptions::text, ''), ' ' ORDER BY oid) FROM pg_class)
		|| (SELECT string_agg(xmin::text, ' ' ORDER BY sid) FROM schema_system.session)`).Scan(&s)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// A role that may read and write the table, and nothing else, can examine it.
func TestAnUnprivilegedRole(t *testing.T) {
	p := healthy(t)
	p.exec(`CREATE ROLE clerk LOGIN PASSWORD 'clerk'; GRANT USAGE ON SCHEMA schema_system TO clerk; GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO clerk`)
	t.Cleanup(func() { p.exec("DROP OWNED BY clerk; DROP ROLE clerk") })
	u, err := url.Parse(p.url)
	if err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	u.User = url.UserPassword("clerk", "clerk")
	if p.Program, err = pgxpool.ParseConfig(u.String()); err != nil {
		t.Fatal("the URL cannot be parsed")
	}
	p.Pool = p.open(u.String())
	for _, f := range p.examine().Findings {
		if f.Level != doctor.OK {
			t.Errorf("%s: got %s, %s, want ok", f.Check, f.Level, f.What)
		}
	}
}

func TestSecrets(t *testing.T) {
	for _, tt := range []struct {
		name, secret string
		want         doctor.Level
		words        string
	}{
		{"openssl rand -base64 48", "pJ0c1zY8m3uTq5Xw7vN2bR4sK6dF9hGaLeQiOxUtMnVyBcZrEwSjDkHlPfAgI+/7", doctor.OK, ""},
		{"openssl rand -hex 32", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", doctor.OK, ""},
		{"Express's tutorial", "keyboard cat", doctor.Error, "tutorials"},
		{"its long form", "Keyboard Cat, keyboard cat and the other cats", doctor.Error, "tutorials"},
		{"a placeholder", "please-CHANGE_ME-in-production-7d1f9a3c5e", doctor.Error, "tutorials"},
		{"a word", "Secret!", doctor.Error, "tutorials"},
		{"short", "x7Kp2mQ9vL4w", doctor.Error, "12 bytes"},
		{"one letter", strings.Repeat("a", 64), doctor.Error, "piece of 1 bytes"},
		{"a piece again and again", strings.Repeat("x7Kp2mQ9", 6), doctor.Error, "piece of 8 bytes"},
		{"a row of the keyboard", "abcdefghijklmnopqrstuvwxyz0123456789", doctor.Error, "a run of characters"},
		{"a sentence", "the quick brown fox jumps over the lazy dog", doctor.Warning, "bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			level, what := doctor.JudgeSecret(tt.secret)
			if level != tt.want || !strings.Contains(what, tt.words) {
				t.Errorf("got %s, %q, want %s with %q", level, what, tt.want, tt.words)
			}
			for i := range max(len(tt.secret)-7, 0) {
				if strings.Contains(what, tt.secret[i:i+8]) {
					t.Errorf("a piece of the secret is in what is said of it")
				}
			}
		})
	}
	p := healthy(t)
	for _, tt := range []struct {
		name   string
		secret string
		old    []string
		level  doctor.Level
		words  string
	}{
		{"none", "", nil, doctor.Hint, "SESSION_SECRET is not set"},
		{"a bad one", "keyboard cat", nil, doctor.Error, "openssl rand"},
		{"a bad old one", goodSecret, []string{strings.ToLower(goodSecret), "keyboard cat"}, doctor.Error, "number 2 of SESSION_SECRET_OLD"},
		{"twice", goodSecret, []string{goodSecret}, doctor.Hint, "as well"},
		{"good ones", goodSecret, []string{strings.ToLower(goodSecret)}, doctor.OK, "1 old ones: " + secret.Fingerprint(strings.ToLower(goodSecret))},
		{"its fingerprint", goodSecret, nil, doctor.OK, "fingerprint " + secret.Fingerprint(goodSecret) + ","},
		{"that of a bad one", "keyboard cat", nil, doctor.Error, "fingerprint " + secret.Fingerprint("keyboard cat") + ")"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.Secret, p.OldSecrets = tt.secret, tt.old
			want(t, p.examine(), "secret", tt.level, tt.words)
		})
	}
}

func TestVersions(t *testing.T) {
	for major, level := range map[int]doctor.Level{11: doctor.Warning, 12: doctor.Warning, 13: doctor.OK, 15: doctor.OK, 18: doctor.OK, 19: doctor.Hint} {
		if f := doctor.JudgeVersion(major); f.Level != level || (f.Advice == "") != (level == doctor.OK) {
			t.Errorf("PostgreSQL %d: got %s, %q, want %s", major, f.Level, f.Advice, level)
		}
	}
}

func TestTheServerHasGone(t *testing.T) {
	server := pgtest.Own(t, pgtest.Options{})
	p := bare(t, server.URL())
	p.examine()
	if err := server.Stop(t.Context(), "fast"); err != nil {
		t.Fatal(err)
	}
	if _, err := doctor.Run(t.Context(), p.Options); err == nil {
		t.Error("without a server: got no error")
	}
}
