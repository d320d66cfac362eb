package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// awaitEnd waits for a stream to end, and returns why.
func awaitEnd(t testing.TB, s *stream) error {
	t.Helper()
	select {
	case <-s.Done():
		return context.Cause(s)
	case <-time.After(patience):
		t.Error("the stream has not ended")
		return nil
	}
}

// A stream at one program ends by whatever another one does, however the store is
// set up. The table is left as it is by watching.
func TestPostgresWatch(t *testing.T) {
	t.Parallel()
	expire := func(t *testing.T, store *session.PostgresStore, b *browser) {
		b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Millisecond) })
	}
	for _, tt := range []struct {
		name      string
		opts      session.PostgresOptions
		partition bool
	}{
		{"usual", session.PostgresOptions{}, false},
		{"HashIDs", session.PostgresOptions{HashIDs: true}, false},
		{"DisableBatching", session.PostgresOptions{DisableBatching: true}, false},
		{"partitioned", session.PostgresOptions{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			store := newStore(t, pool, tt.opts)
			if tt.partition {
				partition(t, pool)
			}
			here, there := patientManager(t, store), patientManager(t, newStore(t, pool, tt.opts))
			session.WatchEvery(here, 5*time.Millisecond)
			alive := login(t, here)
			lives := alive.stream()
			for _, c := range []struct {
				name string
				end  func(t *testing.T, store *session.PostgresStore, b *browser)
				want error
			}{
				{"a logout", func(_ *testing.T, _ *session.PostgresStore, b *browser) { b.visit(destroy) }, session.ErrDestroyed},
				{"a renewal", func(_ *testing.T, _ *session.PostgresStore, b *browser) { b.visit(renew) }, session.ErrRenewed},
				{"Revoke", func(t *testing.T, _ *session.PostgresStore, b *browser) {
					var handle string
					b.visit(func(s *session.Session) { handle = s.Handle() })
					if n, err := there.Revoke(t.Context(), session.Everyone().Handle(handle)); n != 1 || err != nil {
						t.Errorf("Revoke: got %d, %v", n, err)
					}
				}, session.ErrDestroyed},
				{"expiry", expire, session.ErrExpired},
			} {
				b := login(t, here)
				one, two := b.stream(), b.with(here).stream()
				c.end(t, store, b.with(there))
				for _, s := range []*stream{one, two} {
					if got := awaitEnd(t, s); !errors.Is(got, c.want) || errors.Is(got, session.ErrExpired) != (c.want == session.ErrExpired) ||
						errors.Is(got, session.ErrRenewed) != (c.want == session.ErrRenewed) {
						t.Errorf("%s: got cause %v, want %v", c.name, got, c.want)
					}
					s.leave()
				}
			}
			if lives.Err() != nil {
				t.Errorf("a session that lives: got %v", context.Cause(lives))
			}
			lives.leave()
		})
	}
}

// Peek changes no row: not even the place where it lies.
func TestPostgresPeekWritesNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := newStore(t, pool)
	id := createRecord(t, store, `{"a":1}`)
	expired := createRecord(t, store, `{"a":1}`)
	execSQL(t, pool, "UPDATE schema_system.session SET expire = now() - interval '1 hour' WHERE sid = $1", expired)
	const rows = "SELECT string_agg(concat(sid, ctid, xmin, xmax, expire, sess), ' ' ORDER BY sid) FROM schema_system.session"
	before := queryOne[string](t, pool, rows)
	peeked, err := store.Peek(t.Context(), []string{expired, id})
	if err != nil || !errors.Is(peeked[0].Err, session.ErrExpired) || peeked[1].Err != nil {
		t.Fatalf("got %v, %v, want an expired one and a live one", peeked, err)
	}
	if queryOne[string](t, pool, rows) != before {
		t.Error("Peek has written")
	}
	execSQL(t, pool, "DELETE FROM schema_system.session WHERE sid = $1", expired) // as a prune does
	if peeked, err = store.Peek(t.Context(), []string{expired}); err != nil || !errors.Is(peeked[0].Err, session.ErrNotFound) || errors.Is(peeked[0].Err, session.ErrExpired) {
		t.Errorf("pruned: got %v, %v, want nothing there", peeked, err)
	}
	for _, expire := range []string{"infinity", "294276-01-01", "2200-01-01"} {
		execSQL(t, pool, "UPDATE schema_system.session SET expire = '"+expire+"' WHERE sid = $1", id)
		if peeked, err = store.Peek(t.Context(), []string{id}); err != nil || peeked[0].Err != nil || peeked[0].TTL < 90*365*24*time.Hour {
			t.Errorf("%s: got %v, %v, want a live record of a hundred years", expire, peeked, err)
		}
	}
}

// Streams cost a statement for each look, however many are open. The store counts
// the looks; each is held until the statements so far are counted.
func TestPostgresWatchStatements(t *testing.T) {
	t.Parallel()
	const streams, looks = 500, 10
	var statements atomic.Int64
	pool := pgtest.Pool(t, maxConns(4), (&tracer{start: func(sql string) {
		if strings.Contains(sql, "schema_system") {
			statements.Add(1)
		}
	}}).use)
	store := newHookedStore()
	store.Store = newStore(t, pool)
	m := patientManager(t, store.whole())
	session.WatchEvery(m, time.Millisecond)
	hold, held := make(chan bool), make(chan bool)
	store.on("Peek", func(ctx context.Context, c *storeCall, do func() error) error {
		held <- true
		<-hold
		return do()
	})
	all := make([]*stream, streams)
	browsers := make([]*browser, streams)
	for i := range all {
		browsers[i] = login(t, m)
	}
	all[0] = browsers[0].stream()
	<-held // the look at the first one alone
	together(streams-1, func(i int) { all[i+1] = browsers[i+1].stream() })
	hold <- true
	<-held
	first := statements.Load()
	for range looks {
		hold <- true
		<-held
	}
	if got := statements.Load() - first; got != looks {
		t.Errorf("%d streams, %d looks: got %d statements, want one for each look", streams, looks, got)
	}
	before := statements.Load()
	store.on("Peek", nil)
	hold <- true
	browsers[7].visit(destroy)
	if got := awaitEnd(t, all[7]); !errors.Is(got, session.ErrDestroyed) {
		t.Errorf("a logout: got cause %v", got)
	}
	for i, s := range all {
		if i != 7 && s.Err() != nil {
			t.Errorf("stream %d: got %v", i, context.Cause(s))
		}
		s.leave()
	}
	if statements.Load() == before {
		t.Error("the counter counts nothing")
	}
}

// While the database is away streams stay open, and one that was revoked meanwhile
// ends once it is back.
func TestPostgresWatchInAnOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.Own(t, pgtest.Options{})
	pool := openPool(t, server.URL())
	var failed, answered atomic.Int64
	store := newHookedStore()
	store.Store = newStore(t, pool)
	store.on("Peek", func(_ context.Context, _ *storeCall, do func() error) error {
		err := do()
		if err != nil {
			failed.Add(1)
		} else {
			answered.Add(1)
		}
		return err
	})
	m := patientManager(t, store.whole(), storeTimeout(4*time.Second))
	session.WatchEvery(m, 20*time.Millisecond)
	lives, ends := login(t, m), login(t, m)
	id := ends.id()
	one, two := lives.stream(), ends.stream()
	await := func(what string, n *atomic.Int64, more int64) {
		t.Helper()
		for from, deadline := n.Load(), time.Now().Add(patience); n.Load() < from+more; <-time.After(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not after %v: %s", patience, what)
			}
		}
	}
	await("looks", &answered, 2)
	if err := server.Stop(t.Context(), "immediate"); err != nil {
		t.Fatal(err)
	}
	await("looks that fail", &failed, 5)
	if one.Err() != nil || two.Err() != nil {
		t.Errorf("in the outage: got %v, %v, want both open", context.Cause(one), context.Cause(two))
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := openPool(t, server.URL())
	execSQL(t, other, "DELETE FROM schema_system.session WHERE sid = $1", id)
	if got := awaitEnd(t, two); !errors.Is(got, session.ErrDestroyed) || errors.Is(got, session.ErrExpired) {
		t.Errorf("revoked: got cause %v, want ErrDestroyed", got)
	}
	await("looks afterwards", &answered, 2)
	if one.Err() != nil {
		t.Errorf("a session that lives: got %v", context.Cause(one))
	}
	one.leave()
	two.leave()
}

// A program whose clock is ahead of the database's ends no stream by an absolute
// timeout that is not over, and asks the database for the time once.
func TestWatchClockAhead(t *testing.T) {
	t.Parallel()
	const ahead, absolute = 24 * time.Hour, time.Hour
	looks, clocks := make(chan bool, 1000), atomic.Int64{}
	pool := openPool(t, behindBy(t, ahead), (&tracer{start: func(sql string) {
		switch {
		case strings.Contains(sql, "array_agg"):
			looks <- true
		case strings.HasPrefix(sql, "SELECT extract(epoch FROM clock.now())"):
			clocks.Add(1)
		}
	}}).use)
	store := newStore(t, pool)
	store.SetClock("clock.now()")
	m := patientManager(t, store, func(c *session.Config) { c.AbsoluteTimeout = absolute })
	session.WatchEvery(m, 10*time.Millisecond)
	b := login(t, m)
	made := time.Now().Add(-ahead - absolute + 5*time.Minute).UnixMilli() // five minutes are left, by the database's clock
	execSQL(t, pool, `UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{__created}', to_jsonb($1::bigint))::json`, made)
	s := b.stream()
	before := clocks.Load()
	for range 20 {
		select {
		case <-looks:
		case <-s.Done():
		case <-time.After(patience):
			t.Fatal("nobody looks")
		}
	}
	if s.Err() != nil {
		t.Errorf("got %v, want it open", context.Cause(s))
	}
	if got := clocks.Load() - before; got > 1 {
		t.Errorf("the time was asked for %d times, want once", got)
	}
	s.leave()
}

// Streams open and close, sessions are renewed, destroyed and used, all at once. No
// stream ends while its session lives, and every one whose session has ended ends.
func TestWatchRace(t *testing.T) {
	m := patientManager(t, session.NewMemoryStore())
	session.WatchEvery(m, 100*time.Microsecond)
	alive := login(t, m)
	var wg sync.WaitGroup
	ended := make(chan bool)
	for range 4 {
		wg.Go(func() { // streams of a session that lives, and whose own request renews nothing
			for {
				s := alive.with(m).stream()
				select {
				case <-ended:
				case <-time.After(time.Millisecond):
				}
				if s.Err() != nil {
					t.Errorf("a session that lives: got %v", context.Cause(s))
				}
				s.leave()
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	together(8, func(i int) {
		for n := range 25 {
			b := login(t, m)
			one, two := b.stream(), b.with(m).stream()
			end, want := destroy, session.ErrDestroyed
			if n%2 == 1 {
				end, want = renew, session.ErrRenewed
			}
			b.visit(end)
			for _, s := range []*stream{one, two} {
				if got := awaitEnd(t, s); !errors.Is(got, want) {
					t.Errorf("got cause %v, want %v", got, want)
				}
				s.leave()
			}
			if n%2 == 1 { // renewed by its own request, while somebody looks
				b.serve(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					ctx, stop := s.Watch(r.Context())
					defer stop()
					s.Renew()
					if err := s.Save(r.Context()); err != nil || ctx.Err() != nil {
						t.Errorf("its own Renew: got %v, cause %v", err, context.Cause(ctx))
					}
				})
			}
		}
	})
	close(ended)
	wg.Wait()
}

// BenchmarkPostgresPeek is a look at 10,000 open streams.
func BenchmarkPostgresPeek(b *testing.B) {
	pool := openPool(b, pgtest.URL(b))
	store, err := session.NewPostgresStore(b.Context(), pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	execSQL(b, pool, `INSERT INTO schema_system.session SELECT 'peeked-' || n, json_build_object('cookie', repeat('x', 200)), now() + interval '1 day' FROM generate_series(1, 20000) n;
		ANALYZE schema_system.session`)
	store.Grown()
	for _, n := range []int{1, 100, 10_000} {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("peeked-%d", i+1)
		}
		b.Run(fmt.Sprintf("ids=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				peeked, err := store.Peek(context.Background(), ids)
				if err != nil || len(peeked) != n || peeked[n-1].Err != nil {
					b.Fatalf("got %d, %v", len(peeked), err)
				}
			}
		})
	}
}

// A Destroy that is taken back ends no stream, and one that is committed does.
func TestWatchAndDestroyInTransact(t *testing.T) {
	shop := newShop(t, session.PostgresOptions{})
	session.WatchEvery(shop.m, 5*time.Millisecond)
	b := login(t, shop.m)
	b.serve(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		ctx, cancel := s.Watch(r.Context())
		defer cancel()
		end := func(result error) func(context.Context, pgx.Tx) error {
			return func(context.Context, pgx.Tx) error { s.Destroy(); return result }
		}
		if err := session.Transact(r.Context(), s, end(errShop)); err != errShop {
			t.Errorf("Transact: got %v, want the function's error", err)
		}
		time.Sleep(50 * time.Millisecond)
		if ctx.Err() != nil {
			t.Errorf("rolled back: the stream has ended with %v", context.Cause(ctx))
		}
		if err := session.Transact(r.Context(), s, end(nil)); err != nil {
			t.Errorf("Transact: got %v, want no error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Error("committed: the stream goes on")
		}
	})
}
