package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/faults"
)

// What is in the rows, and what is done to them, arrives as it is; indexes are
// those of the new server's own schema, and an outbox goes on with its numbers.
func TestUpgradeRows(t *testing.T) {
	m := newMove(t)
	options := session.PostgresOptions{Outbox: "session_outbox", IndexKeys: []string{"userId"}, Logger: slog.New(slog.DiscardHandler)}
	m.schema(m.old, options)
	old := m.store(m.old, options)
	big := fmt.Sprintf(`{"cookie":{},"pad":"%s"}`, pad())
	add := func(id, data string) {
		t.Helper()
		if err := old.Create(t.Context(), id, session.Record{Data: []byte(data), TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	const odd = "{ \"cookie\" : {},\t\"b\":1.00,  \"a\":\"\\u00e9é\" , \"b\":2e0 }"
	add("copied", odd)
	add("copied and touched", big)
	add("copied and ended", odd)
	m.run(2)
	m.schema(m.new, options)
	m.outbox = true
	for _, step := range []int{4, 5, 6} {
		m.run(step)
	}
	add("Later", odd)
	add("later", odd)
	add("later and renewed", odd)
	if err := old.Touch(t.Context(), "copied and touched", 3*time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := old.Delete(t.Context(), "copied and ended"); err != nil {
		t.Fatal(err)
	}
	if err := old.Update(t.Context(), "later and renewed", session.Change{Old: []byte(odd), New: []byte(odd), NewID: "new ID"}); err != nil {
		t.Fatal(err)
	}
	m.run(8)
	if older, newer := ask[string](m.old, sqlRows), ask[string](m.new, sqlRows); older != newer {
		t.Errorf("the number of rows and what they hold: got %s on the new server, want %s", newer, older)
	}
	if n := ask[int](m.new, sqlMarks); n != 1 {
		t.Errorf("marks on the new server: got %d, want 1", n)
	}
	const indexes = "SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'schema_system'"
	if older, newer := ask[string](m.old, indexes), ask[string](m.new, indexes); older != newer {
		t.Errorf("indexes of the new server: got %s, want %s", newer, older)
	}
	m.old.do("TRUNCATE schema_system.session")
	m.run(8)
	if n := ask[int](m.new, "SELECT count(*) FROM schema_system.session"); n != 0 {
		t.Errorf("rows on the new server after TRUNCATE on the old one: got %d, want none", n)
	}
	if n := ask[int](m.new, "SELECT count(*) FROM schema_system.session_outbox"); n < 8 {
		t.Errorf("rows of the outbox on the new server: got %d, want those of 6 new sessions, 1 renewal and 1 end", n)
	}

	m.outbox = false // its part of step 9 is forgotten
	m.run(9)
	newer := m.store(m.new, options)
	record := session.Record{Data: []byte(odd), TTL: time.Hour}
	if err := newer.Create(t.Context(), "after", record); err == nil {
		t.Error("a login with the numbers of the outbox forgotten: got no error, want one")
	}
	for _, b := range m.blocks {
		if b.step == 9 && b.outbox {
			m.runBlock(b)
		}
	}
	if err := newer.Create(t.Context(), "after", record); err != nil {
		t.Errorf("a login on the new server: got %v, want none", err)
	}
}

// store is one of a program's, directly on a server.
func (m *move) store(s *server, o session.PostgresOptions) *session.PostgresStore {
	m.t.Helper()
	pool, err := pgxpool.New(m.t.Context(), s.appURL)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(pool.Close)
	store, err := session.NewPostgresStore(m.t.Context(), pool, o)
	if err != nil {
		m.t.Fatal(err)
	}
	return store
}

// A COMMIT whose answer is lost while the address is turned: the new server knows
// a transaction of that number too, but it is another's.
func TestUpgradeCommitWithoutAnswer(t *testing.T) {
	m := newMove(t)
	m.schema(m.new, session.PostgresOptions{})
	for _, s := range []*server{m.old, m.new} {
		execute(t, connect(t, s.appURL), faults.SQLOrders)
	}
	p, err := faults.StartProgram(t.Context(), m.programURL(), faults.ProgramOptions{
		Config: func(cfg *session.Config) { cfg.StoreTimeout = ample },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	// The new server must have given the same numbers, to transactions of its own.
	const number = "SELECT pg_current_xact_id()::text::int8"
	beyond := func(s *server, least int64) {
		for c := connect(t, s.adminURL); get[int64](t, c, number) < least; {
		}
	}
	beyond(m.old, ask[int64](m.new, number)+10)
	beyond(m.new, ask[int64](m.old, number)+1000)
	var got error
	user := session.Key[string]("user")
	h := p.Manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		cut := m.address.cutCommit(m.new.host)
		got = session.Transact(r.Context(), s, func(ctx context.Context, tx pgx.Tx) error {
			user.Set(s, "ada")
			_, err := tx.Exec(ctx, "INSERT INTO orders VALUES ('1')")
			return err
		})
		select {
		case <-cut:
		default:
			t.Error("no COMMIT was cut off")
		}
		s.Detach()
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil))
	if !errors.Is(got, session.ErrUncertain) {
		t.Errorf("Transact: got %v, want ErrUncertain", got)
	}
	if n := ask[int](m.old, "SELECT count(*) FROM orders"); n != 1 {
		t.Errorf("orders on the old server: got %d, want 1: it was carried out", n)
	}
}
