package session_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/hostile"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

// outboxRow is a row of an outbox.
type outboxRow struct {
	kind, handle, old, user, reason string
}

// drain reads an outbox and empties it, as docs/operations.md says.
func drain(t testing.TB, pool *pgxpool.Pool, box string) (all []outboxRow) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `WITH batch AS (SELECT id FROM `+box+` ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED),
		gone AS (DELETE FROM `+box+` o USING batch WHERE o.id = batch.id RETURNING o.*)
		SELECT kind, handle, COALESCE(old_handle, ''), COALESCE(user_value, ''), reason FROM gone WHERE at <= now() ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	var r outboxRow
	if _, err := pgx.ForEachRow(rows, []any{&r.kind, &r.handle, &r.old, &r.user, &r.reason}, func() error {
		all = append(all, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

const outbox = "schema_system.session_outbox"

func withOutbox(opts session.PostgresOptions) session.PostgresOptions {
	opts.Outbox, opts.OutboxUser = "session_outbox", "user"
	return opts
}

// The whole story, as events and as rows of the outbox, in every way that the store
// works.
func TestPostgresEventsAndOutbox(t *testing.T) {
	for _, tt := range []struct {
		name    string
		opts    session.PostgresOptions
		encrypt bool
		table   func(t *testing.T, pool *pgxpool.Pool)
	}{
		{name: "default"},
		{name: "unshared", opts: session.PostgresOptions{DisableBatching: true}},
		{name: "one at a time", opts: session.PostgresOptions{BatchSlots: 1, MaxBatch: 1}},
		{name: "hashed IDs", opts: session.PostgresOptions{HashIDs: true}},
		{name: "encrypted", encrypt: true},
		{name: "hashed and encrypted", opts: session.PostgresOptions{HashIDs: true}, encrypt: true},
		{name: "jsonb and timestamptz", table: func(t *testing.T, pool *pgxpool.Pool) {
			execSQL(t, pool, `CREATE SCHEMA schema_system; CREATE TABLE schema_system.session (sid text PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL)`)
		}},
		{name: "partitioned", table: func(t *testing.T, pool *pgxpool.Pool) {
			execSQL(t, pool, `CREATE SCHEMA schema_system; CREATE TABLE schema_system.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL) PARTITION BY HASH (sid);
				CREATE TABLE schema_system.p0 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 0);
				CREATE TABLE schema_system.p1 PARTITION OF schema_system.session FOR VALUES WITH (MODULUS 2, REMAINDER 1)`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			if tt.table != nil {
				tt.table(t, pool)
			}
			e, boxes := &ear{}, &ear{}
			cfg := storyConfig(e)
			cfg.Encrypt, cfg.StoreTimeout = tt.encrypt, patience
			m := newManager(t, newStore(t, pool, withOutbox(tt.opts)), cfg)
			sid := func(id string) string {
				if !tt.opts.HashIDs {
					return id
				}
				sum := sha256.Sum256([]byte(id))
				return base64.RawURLEncoding.EncodeToString(sum[:])
			}
			s := &stage{m: m, expire: func(id string) {
				execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 second' WHERE sid = $1 OR NOT ("+noMark+")", sid(id))
			}, insert: func(id, data string) {
				execSQL(t, pool, "INSERT INTO schema_system.session VALUES ($1, $2, now() + interval '1 hour')", sid(id), data)
			}}
			unread := regexp.MustCompile(`((destroyed|revoked|expired)(\(\w+\))? s\d+) \w+`)
			tell(t, s, func(t *testing.T) string {
				heard := e.took(t, m)
				rows := drain(t, pool, outbox)
				var lines []string
				for _, r := range rows {
					user := r.user
					if tt.encrypt && len(user) == 22 {
						user = "hash"
					}
					lines = append(lines, boxes.describeLocked(r.kind, r.reason, r.handle, r.old, user))
				}
				written := strings.Join(lines, "; ")
				if want := len(e.events); want != len(rows) {
					t.Errorf("outbox: got %d rows, want %d as of the events %q: %q", len(rows), want, heard, written)
				}
				for _, ev := range e.events {
					i := slices.IndexFunc(rows, func(r outboxRow) bool {
						return r.kind == ev.Kind && r.handle == ev.Handle && r.old == ev.OldHandle && r.reason == ev.Reason
					})
					if i < 0 {
						t.Errorf("outbox: got no row of %s in %q", ev.Kind, written)
						continue
					}
					if got := rows[i].user; got != ev.User && (!tt.encrypt || got == ev.User || got == "" && ev.User != "") {
						t.Errorf("outbox: %s: got user %q, want %q, or the hash of it", ev.Kind, got, ev.User)
					}
				}
				e.reset()
				boxes.names = nil
				if tt.encrypt && tt.opts.HashIDs { // what cannot be opened without the ID
					heard = unread.ReplaceAllStringFunc(heard, func(line string) string {
						return line[:strings.LastIndexByte(line, ' ')] + " ada"
					})
				}
				return heard
			}, hiddenFrom(tt.encrypt && tt.opts.HashIDs)...)
		})
	}
}

// hiddenFrom returns the chapters whose users are not known.
func hiddenFrom(hidden bool) (names []string) {
	if !hidden {
		return nil
	}
	for _, c := range story {
		if strings.Contains(c.want, "revoked") || strings.Contains(c.want, "expired") || strings.Contains(c.name, "an ID of before") {
			names = append(names, c.name)
		}
	}
	return names
}

// Values that make statements of their own fail elsewhere: the outbox fails none.
func TestPostgresOutboxOfOddValues(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool, withOutbox(session.PostgresOptions{})), func(cfg *session.Config) {
		cfg.UserKey, cfg.OnEvent = "user", func(session.Event) {}
	})
	for i, data := range []string{
		`{"cookie":{},"user":"a\u0000b"}`, `{"cookie":{},"user":"\ud800"}`, `{"cookie":{},"x":"\udc00\u0000","user":"ada"}`,
		`{"cookie":{},"user":1e400}`, `{"cookie":{},"user":null}`, `"{\"user\":\"ada\"}"`, `[]`, `12`, `{"user":["a"]}`, `{"user":{"a":1}}`,
	} {
		for _, end := range []string{"revoke", "prune", "delete"} {
			execSQL(t, pool, "INSERT INTO schema_system.session VALUES ($1, $2, now() + interval '1 hour')", fmt.Sprint("odd", i), data)
			var err error
			switch end {
			case "revoke":
				_, err = m.Revoke(t.Context(), session.Everyone())
			case "prune":
				execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 second'")
				_, err = m.Prune(t.Context())
			case "delete":
				err = newStore(t, pool, withOutbox(session.PostgresOptions{})).Delete(t.Context(), fmt.Sprint("odd", i))
			}
			if err != nil {
				t.Errorf("%s of %s: got %v, want no error", end, data, err)
			}
			rows := drain(t, pool, outbox)
			if len(rows) != 1 {
				t.Errorf("%s of %s: got %d rows of the outbox, want 1", end, data, len(rows))
			}
		}
	}
	b := &browser{m: m}
	if resp := b.visit(func(s *session.Session) { userKey.Set(s, "a\x00b\u2028") }); resp.status != 200 {
		t.Errorf("login of a user with NUL: got status %d, want 200", resp.status)
	}
	if rows := drain(t, pool, outbox); len(rows) != 1 || rows[0].user != "a\x1ab\x1a" {
		t.Errorf("got %q, want one user, with other characters in place of those", rows)
	}
}

// A database that holds any bytes.
func TestPostgresOutboxInSQLASCII(t *testing.T) {
	admin := pgtest.Pool(t)
	name := "ascii_" + strings.ToLower(rand.Text())
	execSQL(t, admin, "CREATE DATABASE "+name+" ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { execSQL(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	pool := openPool(t, admin.Config().ConnString(), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.Database, cfg.ConnConfig.RuntimeParams["client_encoding"] = name, "UTF8"
	})
	e := &ear{}
	store := newStore(t, pool, withOutbox(session.PostgresOptions{}))
	m := patientManager(t, store, e.use)
	insert := func() {
		execSQL(t, pool, `INSERT INTO schema_system.session VALUES
			('odd', convert_from(decode('7b2275736572223a22e922', 'hex') || '}', 'SQL_ASCII')::json, now() + interval '1 hour'),
			(convert_from('\xe9', 'SQL_ASCII'), '{"cookie":{},"user":"ada"}', now() + interval '1 hour')`)
	}
	insert()
	if n, err := m.Revoke(t.Context(), session.Everyone()); n != 2 || err != nil {
		t.Errorf("Revoke: got %d, %v, want 2", n, err)
	}
	insert()
	execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 second'")
	if n, err := m.Prune(t.Context()); n != 2 || err != nil {
		t.Errorf("Prune: got %d, %v, want 2", n, err)
	}
	insert()
	if err := store.Delete(t.Context(), "odd"); err != nil {
		t.Errorf("Delete: got %v, want no error", err)
	}
	e.took(t, m)
	if got := len(e.events); got != 4 {
		t.Errorf("got %d events, want 4", got)
	}
	if n := queryOne[int](t, pool, "SELECT count(*) FROM "+outbox); n != 5 {
		t.Errorf("got %d rows of the outbox, want 5", n)
	}
}

// Two logouts of one session that share a statement, and a third of another: each
// session has ended once.
func TestPostgresEventsOfSharedDeletes(t *testing.T) {
	pool := pgtest.Pool(t)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	armed := false
	trace := &tracer{start: func(sql string) {
		if armed && strings.Contains(sql, "DELETE FROM") {
			once.Do(func() { close(blocked); <-release })
		}
	}}
	shared := openPool(t, pool.Config().ConnString(), trace.use)
	e := &ear{}
	store := newStore(t, shared, withOutbox(session.PostgresOptions{BatchSlots: 1}))
	m := patientManager(t, store, e.use)
	var ended []*browser
	for _, user := range []string{"first", "ada", "bob"} {
		b := &browser{m: m}
		b.visit(func(s *session.Session) { userKey.Set(s, user) })
		ended = append(ended, b)
	}
	ended = append(ended, ended[1].with(m))
	drain(t, pool, outbox)
	e.took(t, m)
	armed = true
	var all sync.WaitGroup
	for i, b := range ended {
		all.Go(func() { b.visit(destroy) })
		if i == 0 {
			<-blocked
		}
	}
	for store.Waiting() < 3 {
		nap(t, pool)
	}
	close(release)
	all.Wait()
	got := strings.Split(e.took(t, m), "; ")
	slices.Sort(got)
	if len(got) != 3 {
		t.Errorf("got events %q, want three", got)
	}
	if rows := drain(t, pool, outbox); len(rows) != 3 {
		t.Errorf("got %d rows of the outbox, want 3", len(rows))
	}
}

// More than are told of at once: those are counted, and the outbox has all.
func TestPostgresRevokeOfMany(t *testing.T) {
	pool := pgtest.Pool(t)
	const n = 3000
	e := &ear{}
	m := patientManager(t, newStore(t, pool, withOutbox(session.PostgresOptions{})), e.use)
	execSQL(t, pool, `INSERT INTO schema_system.session SELECT 'many' || n, '{"cookie":{},"user":7}', now() + interval '1 hour' FROM generate_series(1, 3000) n`)
	if got, err := m.Revoke(t.Context(), session.Everyone()); got != n || err != nil {
		t.Fatalf("Revoke: got %d, %v, want %d", got, err, n)
	}
	e.took(t, m)
	if heard, dropped := len(e.events), m.Stats().EventsDropped; heard == 0 || heard+int(dropped) != n {
		t.Errorf("got %d events and %d dropped, want %d together", heard, dropped, n)
	}
	if rows := drain(t, pool, outbox); len(rows) != n || rows[0].user != "7" {
		t.Errorf("got %d rows of the outbox, want %d of user 7", len(rows), n)
	}
}

// Without them no statement is another, and with them none is more.
func TestPostgresEventsAndOutboxStatements(t *testing.T) {
	count := func(t *testing.T, opts session.PostgresOptions, hear func(session.Event)) (sql []string) {
		trace := &tracer{}
		pool := pgtest.Pool(t, trace.use)
		m := patientManager(t, newStore(t, pool, opts), func(cfg *session.Config) { cfg.UserKey, cfg.MaxPerUser, cfg.OnEvent = "user", 1, hear })
		trace.take()
		b := login(t, m)
		b.visit(increment)
		b.visit(renew)
		awaitNextMillisecond() // or the handles decide which of the two is over the limit
		login(t, m)
		if _, err := m.Revoke(t.Context(), userKey.Is("ada")); err != nil {
			t.Fatal(err)
		}
		login(t, m).visit(destroy)
		if _, err := m.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		return trace.take()
	}
	plain := count(t, session.PostgresOptions{}, nil)
	for _, sql := range plain {
		if strings.Contains(sql, "boxed") || strings.Contains(sql, "16384") || strings.Contains(sql, "%[") {
			t.Errorf("without either: got the statement %s", sql)
		}
	}
	for name, got := range map[string][]string{
		"OnEvent": count(t, session.PostgresOptions{}, func(session.Event) {}),
		"Outbox":  count(t, withOutbox(session.PostgresOptions{}), nil),
		"both":    count(t, withOutbox(session.PostgresOptions{}), func(session.Event) {}),
	} {
		if len(got) != len(plain) {
			t.Errorf("%s: got %d statements, want %d", name, len(got), len(plain))
		}
		same := 0
		for i := range min(len(got), len(plain)) {
			if got[i] == plain[i] {
				same++
			}
		}
		t.Logf("%s: %d statements, %d the same as without", name, len(got), same)
	}
}

// No search path reaches a statement of events or the outbox.
func TestPostgresOutboxCallsNoTwin(t *testing.T) {
	t.Parallel()
	db := hostile.New(t)
	for i, path := range hostile.Paths {
		for _, encrypt := range []bool{false, true} {
			t.Run(fmt.Sprint(path, encrypt), func(t *testing.T) {
				opts := withOutbox(session.PostgresOptions{Schema: fmt.Sprintf("boxed_%d%t", i, encrypt)})
				opts.OutboxUser = "userId"
				newStore(t, openPool(t, db.Clean()), opts) // who may make tables
				pool := db.Pool(t, path, func(cfg *pgxpool.Config) { cfg.MaxConns = 2 })
				m := patientManager(t, newStore(t, pool, opts), func(cfg *session.Config) {
					cfg.Encrypt, cfg.UserKey, cfg.MaxPerUser, cfg.OnEvent = encrypt, "userId", 2, func(session.Event) {}
				})
				useEverything(t, m)
				cookie, _ := loginAs(t, m, 3, "c")
				useSession(m, cookie, destroy)
				if _, err := m.Prune(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The rules of stores hold with an outbox as well.
func TestPostgresStoreWithOutbox(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := newStore(t, pool, withOutbox(session.PostgresOptions{}))
	sessiontest.TestStore(t, func(*testing.T) session.Store { return store })
}

// Connections are killed in the middle of statements, all the while. The outbox has
// what has happened, and each of it once: of the sessions that began, those that
// have not ended are those that are there.
func TestPostgresOutboxUnderKills(t *testing.T) {
	t.Parallel()
	admin := pgtest.Pool(t)
	store := newStore(t, openPool(t, admin.Config().ConnString(), maxConns(8), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["application_name"] = "boxed"
	}), withOutbox(session.PostgresOptions{}))
	e := &ear{}
	m := patientManager(t, store, e.use, storeTimeout(patience))
	const workers, rounds = 8, 40
	var ended atomic.Int64 // requests
	done := make(chan struct{})
	kills := make(chan int)
	go func() {
		n, next := 0, int64(0)
		for {
			select {
			case <-done:
				kills <- n
				return
			default:
			}
			// Some requests end between two kills, however long they take here.
			if now := ended.Load(); now >= next {
				killed := int(queryOne[int64](t, admin, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'boxed' AND state = 'active'`))
				if n += killed; killed > 0 {
					next = now + workers/2
				}
			}
			nap(t, admin)
		}
	}()
	together(workers, func(w int) {
		for i := range rounds {
			b := &browser{m: m}
			visit := func(b *browser, h func(*session.Session)) {
				b.visit(h)
				ended.Add(1)
			}
			user := fmt.Sprint("u", w)
			visit(b, func(s *session.Session) { userKey.Set(s, user) })
			visit(b, renew)
			switch i % 4 {
			case 0:
				visit(b, destroy)
			case 1:
				_, _ = m.Revoke(context.Background(), userKey.Is(user))
				ended.Add(1)
			case 2:
				visit(b.with(m), destroy)
				visit(b, destroy)
			}
		}
	})
	close(done)
	if n := <-kills; n == 0 {
		t.Error("killed no statement: the test proves nothing")
	} else {
		t.Logf("%d connections killed under a statement", n)
	}
	// What is under way without its caller ends first.
	awaitSQL(t, admin, "statements ended", "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'boxed' AND state = 'active')")
	var events []session.Event
	for _, r := range drain(t, admin, outbox) {
		events = append(events, session.Event{Kind: r.kind, Handle: r.handle, OldHandle: r.old})
	}
	alive := checkLives(t, events)
	there, err := m.Sessions(t.Context(), session.Everyone())
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(alive) {
		t.Errorf("alive by the outbox: got %d, want %d", len(alive), len(there))
	}
	for _, i := range there {
		if !alive[i.Handle] {
			t.Error("a session is there that has ended by the outbox, or never begun")
		}
	}
	// What was told has happened, once.
	e.took(t, m)
	inBox := map[string]int{}
	for _, ev := range events {
		inBox[ev.Kind+ev.Handle]++
	}
	for _, ev := range e.events {
		if inBox[ev.Kind+ev.Handle]--; inBox[ev.Kind+ev.Handle] < 0 {
			t.Errorf("told, and not in the outbox: %s", ev.Kind)
		}
	}
}

// What cannot be an outbox is an error at start that says what to do, and where it
// names SQL that works.
func TestOutboxShape(t *testing.T) {
	const columns = "kind text, handle text, old_handle text, user_value text, reason text"
	for _, tt := range []struct {
		name, sql, want string
		mends           bool
	}{
		{"a view", "CREATE VIEW schema_system.session_outbox AS SELECT 1 AS kind", "is not a table", false},
		{"another table", "CREATE TABLE schema_system.session_outbox (kind text, handle varchar(10), old_handle text, reason int)", "no column handle, user_value, reason of type text", false},
		{"one column more", "CREATE TABLE schema_system.session_outbox (" + columns + ", tenant int NOT NULL)", "column tenant", true},
		{"row-level security", "CREATE TABLE schema_system.session_outbox (" + columns + "); ALTER TABLE schema_system.session_outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT INSERT ON schema_system.session_outbox TO $role", "row-level security", true},
		{"no privilege", "CREATE TABLE schema_system.session_outbox (" + columns + ")", "may not insert", true},
		{"none, and no right to make one", "SELECT 1", "sessionctl schema --apply --outbox 'session_outbox'", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			admin := pgtest.Pool(t)
			role := "boxed_" + strings.ToLower(rand.Text())[:8]
			newStore(t, admin)
			execSQL(t, admin, strings.ReplaceAll(`CREATE ROLE $role LOGIN PASSWORD 'boxed'; GRANT USAGE ON SCHEMA schema_system TO $role;
				GRANT SELECT, INSERT, UPDATE, DELETE ON schema_system.session TO $role; `+tt.sql, "$role", role))
			t.Cleanup(func() { execSQL(t, admin, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
			pool := openPool(t, admin.Config().ConnString(), func(cfg *pgxpool.Config) {
				cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
					_, err := c.Exec(ctx, "SET ROLE "+role)
					return err
				}
			})
			start := func() error {
				_, err := session.NewPostgresStore(t.Context(), pool, withOutbox(session.PostgresOptions{}))
				return err
			}
			err := start()
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "--outbox session_outbox", "--outbox 'session_outbox'"), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for tries := 0; tt.mends && err != nil && tries < 3; tries++ {
				_, sql, ok := strings.Cut(err.Error(), "un: ")
				if !ok {
					t.Fatalf("got %v, want what to run", err)
				}
				execSQL(t, admin, sql)
				err = start()
			}
			if tt.mends && err != nil {
				t.Errorf("after what it says was run: got %v, want no error", err)
			}
		})
	}
}

// Names with everything in them, twenty at once, and by hand.
func TestOutboxIsMade(t *testing.T) {
	pool := pgtest.Pool(t)
	opts := session.PostgresOptions{Logger: slog.New(slog.DiscardHandler), Schema: `it's "mine" $do$`, Table: "se.ssion", Outbox: `out "of" it's box`, OutboxUser: "user"}
	together(20, func(int) {
		if _, err := session.NewPostgresStore(t.Context(), pool, opts); err != nil {
			t.Errorf("NewPostgresStore: got %v, want no error", err)
		}
	})
	m := patientManager(t, newStore(t, pool, opts))
	if resp := login(t, m).visit(destroy); resp.status != http.StatusOK {
		t.Errorf("logout: got status %d, want 200", resp.status)
	}
	if rows := drain(t, pool, `"it's ""mine"" $do$"."out ""of"" it's box"`); len(rows) != 2 || rows[1].kind != "destroyed" || rows[1].user != "ada" {
		t.Errorf("got %d rows, want created and destroyed, of ada", len(rows))
	}
	opts.Schema = "by_hand"
	for range 2 {
		execSQL(t, pool, session.SchemaSQL(opts))
	}
	log := &logRecorder{}
	opts.Logger = log.logger()
	newStore(t, pool, opts)
	if strings.Contains(log.String(), "made") {
		t.Error("after SchemaSQL: the store made something, want nothing left to make")
	}
	if strings.Contains(session.SchemaSQL(session.PostgresOptions{}), "outbox") {
		t.Error("SchemaSQL without Outbox: got one")
	}
}

func TestOutboxOptions(t *testing.T) {
	pool := pgtest.Pool(t)
	for _, tt := range []struct {
		opts session.PostgresOptions
		want string
	}{
		{session.PostgresOptions{OutboxUser: "user"}, "OutboxUser needs Outbox"},
		{session.PostgresOptions{Outbox: "session"}, "the table of the sessions"},
		{session.PostgresOptions{Outbox: strings.Repeat("x", 64)}, "no name for PostgreSQL"},
		{session.PostgresOptions{Outbox: "o", OutboxUser: "cookie"}, "is no key"},
	} {
		if _, err := session.NewPostgresStore(t.Context(), pool, tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

// An outbox that cannot be written lets nothing happen that it would not show.
func TestPostgresOutboxFails(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool, withOutbox(session.PostgresOptions{})))
	b := login(t, m)
	execSQL(t, pool, "ALTER TABLE "+outbox+" ADD CHECK (kind = 'none') NOT VALID")
	if resp := b.with(m).visit(destroy); resp.status != http.StatusServiceUnavailable {
		t.Errorf("logout: got status %d, want 503", resp.status)
	}
	if resp := b.with(m).visit(renew); resp.status != http.StatusServiceUnavailable {
		t.Errorf("renewal: got status %d, want 503", resp.status)
	}
	if got := b.user(); got != "ada" {
		t.Errorf("after both have failed: got user %q, want ada", got)
	}
	if resp := b.visit(increment); resp.status != http.StatusOK {
		t.Errorf("a save: got status %d, want 200", resp.status)
	}
}
