package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

const (
	userIDKey = session.Key[int]("userId")
	deviceKey = session.Key[string]("device")
	tenantKey = session.Key[string]("tenant")
)

// eachFindingStore are the stores that can find sessions, in the ways they can keep
// them.
func eachFindingStore(t *testing.T, test func(t *testing.T, store session.Store, cfg session.Config)) {
	pool := pgtest.Pool(t)
	postgres := func(schema string, opts session.PostgresOptions) func(*testing.T) session.Store {
		return func(t *testing.T) session.Store {
			opts.Schema = schema
			store := newStore(t, pool, opts)
			return store
		}
	}
	memory := func(*testing.T) session.Store { return session.NewMemoryStore() }
	for _, c := range []struct {
		name    string
		store   func(*testing.T) session.Store
		encrypt bool
	}{
		{"memory", memory, false},
		{"memory, encrypted", memory, true},
		{"postgres", postgres("plain", session.PostgresOptions{}), false},
		{"postgres, indexed", postgres("indexed", session.PostgresOptions{IndexKeys: []string{"userId", "tenant"}}), false},
		{"postgres, encrypted", postgres("encrypted", session.PostgresOptions{IndexKeys: []string{"userId"}}), true},
		{"postgres, hashed", postgres("hashed", session.PostgresOptions{HashIDs: true}), false},
		{"postgres, hashed and encrypted", postgres("both", session.PostgresOptions{HashIDs: true, IndexKeys: []string{"userId"}}), true},
		{"postgres, unshared", postgres("unshared", session.PostgresOptions{DisableBatching: true, HashIDs: true}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			test(t, c.store(t), session.Config{
				Secret: postgresSecret, Encrypt: c.encrypt, UserKey: "userId", DisablePrune: true, StoreTimeout: patience,
			})
		})
	}
}

// loginAs logs a user in and returns the cookie and the session's handle.
func loginAs(t testing.TB, m *session.Manager, user int, device string) (cookie, handle string) {
	t.Helper()
	resp := useSession(m, "", func(s *session.Session) {
		userIDKey.Set(s, user)
		deviceKey.Set(s, device)
		if err := s.Save(t.Context()); err != nil {
			t.Errorf("login: got %v, want no error", err)
		}
		handle = s.Handle()
	})
	if cookie = resp.newCookie(); cookie == "" || handle == "" {
		t.Fatal("login: got no session")
	}
	return cookie, handle
}

// userIn reports which user a browser is.
func userIn(m *session.Manager, cookie string) (user int) {
	useSession(m, cookie, func(s *session.Session) { user, _ = userIDKey.Get(s) })
	return user
}

func handlesOf(t testing.TB, m *session.Manager, f session.Filter) []string {
	t.Helper()
	infos, err := m.Sessions(t.Context(), f)
	if err != nil {
		t.Fatalf("Sessions: got %v, want no error", err)
	}
	handles := []string{}
	for _, i := range infos {
		handles = append(handles, i.Handle)
	}
	slices.Sort(handles)
	return handles
}

func sorted(s ...string) []string {
	slices.Sort(s)
	return s
}

func TestSessionsAreListed(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		m := newManager(t, store, cfg)
		before := time.Now().Truncate(time.Millisecond)
		laptop, laptopHandle := loginAs(t, m, 1, "laptop")
		_, phoneHandle := loginAs(t, m, 1, "phone")
		_, otherHandle := loginAs(t, m, 11, "tablet")
		loginCounter(t, m) // nobody's

		if got, want := handlesOf(t, m, userIDKey.Is(1)), sorted(laptopHandle, phoneHandle); !slices.Equal(got, want) {
			t.Errorf("user 1: got %d sessions, want exactly the %d of this user", len(got), len(want))
		}
		if got := handlesOf(t, m, session.Key[string]("userId").Is("11")); !slices.Equal(got, []string{otherHandle}) {
			t.Errorf("user 11, as a string: got %d sessions, want exactly this user's", len(got))
		}
		if got := handlesOf(t, m, session.Everyone()); len(got) != 4 {
			t.Errorf("everyone: got %d sessions, want 4", len(got))
		}
		if got := handlesOf(t, m, userIDKey.Is(1).Handle(otherHandle)); len(got) != 0 {
			t.Errorf("another's handle: got %d sessions, want none", len(got))
		}
		if got := handlesOf(t, m, userIDKey.Is(2)); len(got) != 0 {
			t.Errorf("an unknown user: got %d sessions, want none", len(got))
		}

		var id string
		useSession(m, laptop, func(s *session.Session) {
			id = s.ID()
			if s.Handle() != laptopHandle {
				t.Error("Session.Handle: got another handle in a later request, want the same")
			}
			if got := handlesOf(t, m, userIDKey.Is(1).Except(s)); !slices.Equal(got, []string{phoneHandle}) {
				t.Errorf("all but this one: got %d sessions, want the other", len(got))
			}
		})
		infos, err := m.Sessions(t.Context(), userIDKey.Is(1).Handle(laptopHandle))
		if err != nil || len(infos) != 1 {
			t.Fatalf("by handle: got %d sessions, %v, want 1, no error", len(infos), err)
		}
		i := infos[0]
		after := time.Now()
		for name, at := range map[string]time.Time{"CreatedAt": i.CreatedAt, "RenewedAt": i.RenewedAt, "LastSeenAt": i.LastSeenAt} {
			if at.Before(before) || at.After(after.Add(time.Second)) {
				t.Errorf("%s: got %v, want between %v and %v", name, at, before, after)
			}
		}
		if left := i.ExpiresAt.Sub(after); left < 23*time.Hour || left > 25*time.Hour {
			t.Errorf("ExpiresAt: got %v from now, want about a day", left)
		}
		readable := "laptop"
		if ps, ok := store.(*session.PostgresStore); ok && cfg.Encrypt && strings.Contains(ps.LogValue().String(), "hashIDs=true") {
			readable = "" // the key to the data is the ID, which nobody has
		}
		if device, _ := deviceKey.Of(i); device != readable {
			t.Errorf("a key of a listed session: got %q, want %q", device, readable)
		}
		if strings.Contains(i.Handle, id) || len(i.Handle) != 32 {
			t.Error("Handle: got something that is no hash of the ID")
		}
	})
}

func TestSessionsAreRevoked(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		m := newManager(t, store, cfg)
		revoke := func(what string, f session.Filter, want int64) {
			t.Helper()
			if n, err := m.Revoke(t.Context(), f); n != want || err != nil {
				t.Errorf("%s: got %d, %v, want %d, no error", what, n, err, want)
			}
		}
		in := func(what string, cookie string, want int) {
			t.Helper()
			if got := userIn(m, cookie); got != want {
				t.Errorf("%s: got user %d, want %d", what, got, want)
			}
		}
		a, _ := loginAs(t, m, 1, "a")
		b, bHandle := loginAs(t, m, 1, "b")
		c, _ := loginAs(t, m, 1, "c")
		other, _ := loginAs(t, m, 2, "other")

		revoke("one of another user's", userIDKey.Is(2).Handle(bHandle), 0)
		in("b, asked for as another's", b, 1)
		revoke("one of one's own", userIDKey.Is(1).Handle(bHandle), 1)
		in("b, revoked", b, 0)
		useSession(m, a, func(s *session.Session) { revoke("all but this", userIDKey.Is(1).Except(s), 1) })
		in("a, left out", a, 1)
		in("c, revoked with the others", c, 0)
		revoke("all of a user", userIDKey.Is(1), 1)
		in("a, revoked", a, 0)
		in("another user", other, 2)
		_, _ = loginAs(t, m, 3, "third")
		useSession(m, other, func(s *session.Session) { revoke("everyone but this", session.Everyone().Except(s), 1) })
		in("left out of everyone", other, 2)
		revoke("everyone", session.Everyone(), 1)
		in("everyone", other, 0)
		if got := m.Stats().Destroys; got != 5 {
			t.Errorf("Stats.Destroys: got %d, want the 5 that were live", got)
		}
	})
}

// Expiry is another order where sessions have idle timeouts of their own.
func TestSessionsAreListedTheLastSeenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{})
		var want []string
		for _, idle := range []time.Duration{30 * 24 * time.Hour, time.Hour, 2 * time.Hour} {
			b := login(t, m)
			b.visit(func(s *session.Session) {
				s.SetIdleTimeout(idle)
				want = append([]string{s.Handle()}, want...)
			})
			pass(time.Minute)
		}
		infos, err := m.Sessions(t.Context(), session.Everyone())
		var got []string
		for _, i := range infos {
			got = append(got, i.Handle)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %d sessions, %v, want 3, the last seen first", len(got), err)
		}
	})
}

// A password is changed while the thief's request runs.
func TestRevokedStaysRevoked(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		m := newManager(t, store, cfg)
		for _, change := range []struct {
			name string
			do   func(*session.Session)
		}{
			{"set", func(s *session.Session) { deviceKey.Set(s, "thief") }},
			{"renewal", func(s *session.Session) { s.Renew() }},
			{"both", func(s *session.Session) { s.Renew(); deviceKey.Set(s, "thief") }},
		} {
			cookie, _ := loginAs(t, m, 7, "victim")
			resp := useSession(m, cookie, func(s *session.Session) {
				userIDKey.Get(s) // loaded
				change.do(s)
				if n, err := m.Revoke(t.Context(), userIDKey.Is(7)); n != 1 || err != nil {
					t.Errorf("Revoke: got %d, %v, want 1, no error", n, err)
				}
			})
			if resp.status != http.StatusConflict || resp.newCookie() != "" {
				t.Errorf("%s: got status %d, cookie %t, want 409 and no cookie", change.name, resp.status, resp.newCookie() != "")
			}
			if got := handlesOf(t, m, session.Everyone()); len(got) != 0 {
				t.Errorf("%s: got %d sessions afterwards, want none", change.name, len(got))
			}
		}
	})
}

// The row's ID changes while the statement that deletes it waits for its lock.
func TestARenewalDoesNotEscapeRevoke(t *testing.T) {
	pool := pgtest.Pool(t)
	m := patientManager(t, newStore(t, pool))
	cookie, _ := loginAs(t, m, 1, "a")
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE schema_system.session SET sid = reverse(sid)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan int64)
	go func() {
		n, err := m.Revoke(context.Background(), userIDKey.Is(1))
		if err != nil {
			t.Errorf("Revoke: got %v, want no error", err)
		}
		done <- n
	}()
	awaitSQL(t, pool, "Revoke waits for the row", blockedSQL, 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-done; n != 1 || countRecords(t, pool) != 0 {
		t.Errorf("got %d revoked and %d rows, want 1 and none", n, countRecords(t, pool))
	}
	if user := userIn(m, cookie); user != 0 {
		t.Errorf("got user %d, want nobody", user)
	}
}

func TestFilterRefusals(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true})
	sealed := newManager(t, session.NewMemoryStore(), session.Config{DisablePrune: true, Encrypt: true, UserKey: "userId"})
	blind := newManager(t, newHookedStore(), session.Config{DisablePrune: true})
	broken := newManager(t, failingStore("Load"), session.Config{DisablePrune: true})
	cookie, _ := loginAs(t, m, 1, "a")
	for _, c := range []struct {
		name string
		m    *session.Manager
		f    session.Filter
		want string
	}{
		{"zero", m, session.Filter{}, "names no sessions"},
		{"zero but one", m, session.Filter{}.Except(nil), "names no sessions"},
		{"empty handle", m, session.Everyone().Handle(""), "handle is empty"},
		{"handle with NUL", m, session.Everyone().Handle("a\x00"), "handle is empty or no text"},
		{"handle that is no UTF-8", m, session.Everyone().Handle("\xff"), "handle is empty or no text"},
		{"NUL", m, tenantKey.Is("a\x00b"), "without NUL"},
		{"line separator", m, tenantKey.Is("a\u2028b"), "without NUL"},
		{"empty handle of a user", m, userIDKey.Is(1).Handle(""), "handle is empty"},
		{"object", m, session.Key[map[string]int]("userId").Is(map[string]int{"a": 1}), "string, a number or a boolean"},
		{"null", m, session.Key[*int]("userId").Is(nil), "string, a number or a boolean"},
		{"long", m, tenantKey.Is(strings.Repeat("x", 201)), "at most 200 bytes"},
		{"reserved", m, session.Key[string]("cookie").Is("x"), "reserved"},
		{"sealed key", sealed, tenantKey.Is("x"), "only Config.UserKey can be searched"},
		{"store that cannot find", blind, userIDKey.Is(1), "no Finder"},
	} {
		_, listed := c.m.Sessions(t.Context(), c.f)
		n, revoked := c.m.Revoke(t.Context(), c.f)
		for what, err := range map[string]error{"Sessions": listed, "Revoke": revoked} {
			if err == nil || !strings.Contains(err.Error(), c.want) || n != 0 {
				t.Errorf("%s: %s: got %d, %v, want an error with %q", c.name, what, n, err, c.want)
			}
		}
		if c.m != blind && !errors.Is(listed, session.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", c.name, listed)
		}
	}
	if user := userIn(m, cookie); user != 1 {
		t.Errorf("after the refusals: got user %d, want 1", user)
	}
	// Whoever cannot say which session is to be left out would end it too.
	useSession(broken, cookie, func(s *session.Session) {
		if n, err := m.Revoke(t.Context(), session.Everyone().Except(s)); err == nil || n != 0 {
			t.Errorf("Except of a session that could not be loaded: got %d, %v, want an error", n, err)
		}
	})
	if user := userIn(m, cookie); user != 1 {
		t.Errorf("after a failed Except: got user %d, want 1", user)
	}
}

func TestMaxPerUser(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		cfg.MaxPerUser = 2
		m := newManager(t, store, cfg)
		anonymous, _ := loginCounter(t, m) // older than all, logs in last
		a, _ := loginAs(t, m, 1, "a")
		other, _ := loginAs(t, m, 2, "other")
		awaitNextMillisecond()
		b, _ := loginAs(t, m, 1, "b")
		awaitNextMillisecond()
		resp := useSession(m, anonymous, func(s *session.Session) { s.Renew(); userIDKey.Set(s, 1) })
		c := resp.newCookie()
		for _, want := range []struct {
			name   string
			cookie string
			user   int
		}{{"the oldest", a, 0}, {"the newer", b, 1}, {"the one logged in last", c, 1}, {"another user's", other, 2}} {
			if got := userIn(m, want.cookie); got != want.user {
				t.Errorf("%s: got user %d, want %d", want.name, got, want.user)
			}
		}
		// A save of a user who is in already is no login.
		useSession(m, b, func(s *session.Session) { deviceKey.Set(s, "renamed") })
		if got := len(handlesOf(t, m, userIDKey.Is(1))); got != 2 {
			t.Errorf("sessions of the user: got %d, want 2", got)
		}

		var start, done sync.WaitGroup // together
		start.Add(8)
		for range 8 {
			done.Go(func() {
				useSession(m, "", func(s *session.Session) {
					userIDKey.Set(s, 5)
					start.Done()
					start.Wait()
				})
			})
		}
		done.Wait()
		if got := len(handlesOf(t, m, userIDKey.Is(5))); got != 2 {
			t.Errorf("after 8 logins at once: got %d sessions, want 2", got)
		}
	})
}

// awaitNextMillisecond makes the next login a later one, by the clock that is
// stored.
func awaitNextMillisecond() {
	for now := time.Now().UnixMilli(); time.Now().UnixMilli() <= now; {
	}
}

func TestMaxPerUserNeedsAKeyAndAFinder(t *testing.T) {
	for _, c := range []struct {
		store session.Store
		cfg   session.Config
		want  string
	}{
		{session.NewMemoryStore(), session.Config{MaxPerUser: 1}, "needs Config.UserKey"},
		{session.NewMemoryStore(), session.Config{MaxPerUser: -1, UserKey: "u"}, "must not be negative"},
		{newHookedStore(), session.Config{MaxPerUser: 1, UserKey: "u"}, "a Finder"},
		{session.NewMemoryStore(), session.Config{MaxPerUser: 1000, UserKey: "u"}, "nor over 999"},
		{session.NewMemoryStore(), session.Config{UserKey: "a\x00b"}, "not UTF-8"},
		{session.NewMemoryStore(), session.Config{UserKey: "cookie"}, "reserved"},
		{session.NewMemoryStore(), session.Config{UserKey: "__find_x"}, "reserved"},
		{session.NewMemoryStore(), session.Config{UserKey: "\xff"}, "not UTF-8"},
	} {
		c.cfg.Secret, c.cfg.Logger = postgresSecret, slog.New(slog.DiscardHandler)
		if _, err := session.New(c.store, c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

// An Express session that Go sees for the first time has not just logged in.
func TestStepUpOfAnExpressSession(t *testing.T) {
	const row = `{"cookie":{"originalMaxAge":86400000,"expires":"2000-01-02T00:00:00.000Z","httpOnly":true,"path":"/"},"user":"ada"}`
	synctest.Test(t, func(t *testing.T) {
		for _, absolute := range []time.Duration{0, 12 * time.Hour} {
			store := newHookedStore()
			b := seededRow(t, store, newManager(t, store, session.Config{AbsoluteTimeout: absolute}), row, 24*time.Hour)
			for range 3 {
				b.visit(func(s *session.Session) {
					if at := s.RenewedAt(); !at.IsZero() {
						t.Errorf("absolute timeout %v: got a login %v ago, want none known", absolute, time.Since(at))
					}
				})
			}
			b.visit(func(s *session.Session) { s.Renew() })
			pass(time.Minute)
			b.visit(func(s *session.Session) {
				if age := time.Since(s.RenewedAt()); age != time.Minute {
					t.Errorf("absolute timeout %v: renewed: got %v ago, want a minute", absolute, age)
				}
			})
		}
	})
}

// The browser that asked is gone; the sessions are to end all the same.
func TestRevokeOutlivesItsRequest(t *testing.T) {
	eachFindingStore(t, func(t *testing.T, store session.Store, cfg session.Config) {
		m := newManager(t, store, cfg)
		for name, f := range map[string]session.Filter{"of a user": userIDKey.Is(1), "everyone": session.Everyone()} {
			cookie, _ := loginAs(t, m, 1, "a")
			ctx, leave := context.WithTimeout(t.Context(), time.Hour)
			leave()
			if n, err := m.Revoke(ctx, f); n != 1 || err != nil {
				t.Errorf("%s: got %d, %v, want 1, no error", name, n, err)
			}
			if user := userIn(m, cookie); user != 0 {
				t.Errorf("%s: got user %d, want nobody", name, user)
			}
		}
	})
}

// Another manager's session would leave out nothing.
func TestExceptOfAnotherManager(t *testing.T) {
	cfg := session.Config{DisablePrune: true}
	m, other := newManager(t, session.NewMemoryStore(), cfg), newManager(t, session.NewMemoryStore(), cfg)
	cookie, _ := loginAs(t, m, 1, "a")
	useSession(other, "", func(s *session.Session) {
		if n, err := m.Revoke(t.Context(), userIDKey.Is(1).Except(s)); n != 0 || !errors.Is(err, session.ErrInvalid) {
			t.Errorf("Revoke: got %d, %v, want ErrInvalid", n, err)
		}
	})
	if user := userIn(m, cookie); user != 1 {
		t.Errorf("got user %d, want 1", user)
	}
}

// A failing limit is no failing login.
func TestMaxPerUserInAnOutage(t *testing.T) {
	log := &logRecorder{}
	m := newManager(t, failingStore("Find").whole(), session.Config{
		Secret: postgresSecret, UserKey: "userId", MaxPerUser: 1, DisablePrune: true, Logger: log.logger(),
	})
	cookie, _ := loginAs(t, m, 1, "a")
	if user := userIn(m, cookie); user != 1 {
		t.Errorf("got user %d, want 1", user)
	}
	if got := log.String(); !strings.Contains(got, "Config.MaxPerUser could not be destroyed") || m.Stats().StoreErrors != 1 {
		t.Errorf("got %d store errors, want one, and logged", m.Stats().StoreErrors)
	}
}

// NIST SP 800-63B-4, section 2.2.3, AAL2: reauthentication after 24 hours, or one
// hour of inactivity.
func TestAAL2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{IdleTimeout: time.Hour, AbsoluteTimeout: 24 * time.Hour})
		idle := login(t, m)
		pass(time.Hour + time.Millisecond)
		if got := idle.user(); got != "" {
			t.Errorf("an hour without use: got user %q, want nobody", got)
		}
		busy := login(t, m)
		for at := time.Duration(0); at < 24*time.Hour-30*time.Minute; at += 30 * time.Minute {
			pass(30 * time.Minute)
			if at == 12*time.Hour {
				busy.visit(func(s *session.Session) { s.Renew() })
			}
			if got := busy.user(); got != "ada" {
				t.Fatalf("in use, after %v: got user %q, want ada", at, got)
			}
		}
		pass(30*time.Minute + time.Millisecond)
		if got := busy.user(); got != "" {
			t.Errorf("in use for 24 hours, renewed once: got user %q, want nobody", got)
		}
	})
}

func TestStepUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{})
		b := login(t, m)
		login := time.Now().Truncate(time.Millisecond)
		ages := func() (created, renewed time.Duration) {
			b.visit(func(s *session.Session) { created, renewed = time.Since(s.CreatedAt()), time.Since(s.RenewedAt()) })
			return created, renewed
		}
		pass(20 * time.Minute)
		if created, renewed := ages(); created != renewed || created != time.Since(login) {
			t.Errorf("before a renewal: got %v and %v, want both %v", created, renewed, time.Since(login))
		}
		b.visit(func(s *session.Session) {
			s.Renew() // the password was asked for again
			if age := time.Since(s.RenewedAt()); age != 0 {
				t.Errorf("in the request that renews: got %v, want 0", age)
			}
		})
		pass(5 * time.Minute)
		b.visit(func(s *session.Session) { keyA.Set(s, "kept in the record") })
		if created, renewed := ages(); created != 25*time.Minute || renewed != 5*time.Minute {
			t.Errorf("after a renewal: got %v and %v, want 25m and 5m", created, renewed)
		}
		b.visit(func(s *session.Session) {
			if keys := s.Keys(); slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "__") }) {
				t.Errorf("Keys: got %v, want the application's only", keys)
			}
			if _, ok := session.Key[int64]("__renewed").Get(s); ok {
				t.Error("Get of the bookkeeping: got a value, want none")
			}
		})
		nobody := browser{m: m}
		nobody.visit(func(s *session.Session) {
			if !s.CreatedAt().IsZero() || !s.RenewedAt().IsZero() || s.Handle() != "" {
				t.Error("without a record: got times or a handle, want none")
			}
		})
	})
}
