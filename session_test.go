package session_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// What a session does for a handler, over the memory store. Races are forced:
// a store between the manager and the memory store holds calls at gates, or
// handlers meet at barriers, and each test says which.

// --- Reading and being new

func TestSessionWithoutCookieCostsNothing(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	resp := b.visit(func(s *session.Session) {
		if !s.IsNew() {
			t.Error("IsNew: got false, want true")
		}
		if id := s.ID(); id != "" {
			t.Error("ID: got one, want none")
		}
		if keys := s.Keys(); len(keys) != 0 {
			t.Errorf("Keys: got %d, want none", len(keys))
		}
		s.SetIdleTimeout(time.Hour) // on its own no reason for a record
		s.Renew()
	})
	wantResponse(t, "new, nothing set", resp, 200, "nothing")
	wantCalls(t, "new, nothing set", store, "")
}

func TestSessionIsNewAndID(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	b.visit(func(s *session.Session) {
		userKey.Set(s, "ada")
		if s.ID() != "" {
			t.Error("ID before the commit: got one, want none")
		}
		if err := s.Save(t.Context()); err != nil {
			t.Errorf("Save: got %v, want no error", err)
		}
		if len(s.ID()) != 32 {
			t.Errorf("ID after the commit: got %d characters, want 32", len(s.ID()))
		}
		if !s.IsNew() {
			t.Error("IsNew in the request that created it: got false, want true")
		}
	})
	b.visit(func(s *session.Session) {
		if s.IsNew() {
			t.Error("IsNew at the next request: got true, want false")
		}
		if len(s.ID()) != 32 {
			t.Errorf("ID: got %d characters, want 32", len(s.ID()))
		}
	})
	wantCalls(t, "both", store, "Create Load")
}

func TestSessionKeys(t *testing.T) {
	b := login(t, newManager(t, newHookedStore(), session.Config{}))
	b.visit(func(s *session.Session) { keyB.Set(s, "1"); keyA.Set(s, "2") })
	b.visit(func(s *session.Session) {
		keyB.Delete(s)
		countKey.Set(s, 1)
		userKey.Set(s, "grace")
		if got, want := s.Keys(), []string{"user", "a", "count"}; !slices.Equal(got, want) {
			t.Errorf("Keys with changes: got %q, want %q", got, want)
		}
	})
	b.visit(func(s *session.Session) {
		if got, want := s.Keys(), []string{"user", "a", "count"}; !slices.Equal(got, want) {
			t.Errorf("Keys as stored: got %q, want %q", got, want)
		}
	})
}

func TestUnknownIDIsNeverAdopted(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	foreign := strings.Repeat("x", 32)
	value, err := m.SignCookie(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		do     func(*session.Session)
		calls  string
		cookie string
	}{
		{"read", func(s *session.Session) { userKey.Get(s) }, "Load", "nothing"},
		{"renew", func(s *session.Session) { s.Renew() }, "Load", "nothing"},
		{"set", func(s *session.Session) { userKey.Set(s, "ada") }, "Load Create", "set"},
		{"read, destroy", func(s *session.Session) { userKey.Get(s); s.Destroy() }, "Load", "nothing"},
	} {
		b := &browser{m: m, cookie: "session=" + value}
		before := b.cookie
		resp := b.visit(func(s *session.Session) {
			c.do(s)
			if !s.IsNew() {
				t.Errorf("%s: IsNew: got false, want true", c.name)
			}
		})
		wantResponse(t, c.name, resp, 200, c.cookie)
		wantCalls(t, c.name, store, c.calls)
		if c.cookie == "set" && b.cookie == before {
			t.Errorf("%s: the client's ID was adopted", c.name)
		}
	}
	if _, ok := store.live(t)[foreign]; ok {
		t.Error("got a record under the client's ID, want none")
	}
}

// --- Renew

func TestRenew(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	old, oldID := *b, b.id()
	store.took()
	resp := b.visit(func(s *session.Session) {
		s.Renew()
		s.Renew() // twice is once
		keyA.Set(s, "1")
		if s.ID() != oldID {
			t.Error("ID before the commit: got another, want the old one")
		}
	})
	wantResponse(t, "renewal", resp, 200, "set")
	wantCalls(t, "renewal", store, "Load Update")
	if b.id() == oldID {
		t.Error("ID after a renewal: got the old one, want a new one")
	}
	b.visit(func(s *session.Session) {
		user, _ := userKey.Get(s)
		a, _ := keyA.Get(s)
		if user != "ada" || a != "1" {
			t.Errorf("data after a renewal: got %q, %q, want ada, 1", user, a)
		}
	})
	if got := old.user(); got != "" {
		t.Errorf("old ID: got user %q, want nobody", got)
	}
	if n := len(store.live(t)); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
}

func TestRenewAlone(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	old := *b
	store.took()
	wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew() }), 200, "set")
	wantCalls(t, "renewal", store, "Load Update")
	if b.user() != "ada" || old.user() != "" {
		t.Error("got the session under the old ID, want it under the new one only")
	}
}

// --- Destroy

func TestDestroy(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(*session.Session)
		calls  string
		cookie string
		user   string // at the next visit
		a      string
	}{
		{"alone, without a load", func(s *session.Session) { s.Destroy() }, "Delete", "expired", "", ""},
		{"twice", func(s *session.Session) { s.Destroy(); s.Destroy() }, "Delete", "expired", "", ""},
		{"after a read", func(s *session.Session) { userKey.Get(s); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"beats Renew", func(s *session.Session) { s.Renew(); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"beats Set", func(s *session.Session) { keyA.Set(s, "1"); s.Destroy() }, "Load Delete", "expired", "", ""},
		{"then Renew", func(s *session.Session) { s.Destroy(); s.Renew() }, "Delete", "expired", "", ""},
		{"then Get", func(s *session.Session) { s.Destroy(); userKey.Get(s) }, "Delete", "expired", "", ""},
		{"then Set", func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }, "Delete Create", "set", "", "1"},
		{"Set, Destroy, Set", func(s *session.Session) { keyB.Set(s, "0"); s.Destroy(); keyA.Set(s, "1") }, "Load Delete Create", "set", "", "1"},
		{"Destroy, Set, Destroy", func(s *session.Session) { s.Destroy(); keyA.Set(s, "1"); s.Destroy() }, "Delete", "expired", "", ""},
		{"Destroy, Set, Save, Destroy", func(s *session.Session) {
			s.Destroy()
			keyA.Set(s, "1")
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Delete Create Delete", "expired", "", ""},
		{"Set, Save, Destroy", func(s *session.Session) {
			keyA.Set(s, "1")
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Load Update Delete", "expired", "", ""},
		{"Renew, Save, Destroy", func(s *session.Session) {
			s.Renew()
			_ = s.Save(context.Background())
			s.Destroy()
		}, "Load Update Delete", "expired", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			b := login(t, newManager(t, store, session.Config{}))
			old, oldID := *b, b.id()
			store.took()
			wantResponse(t, "destroy", b.visit(func(s *session.Session) {
				c.do(s)
				if s.ID() != "" {
					t.Error("ID after Destroy: got one, want none")
				}
			}), 200, c.cookie)
			wantCalls(t, "destroy", store, c.calls)
			live := store.live(t)
			if want := map[string]int{"set": 1, "expired": 0}[c.cookie]; len(live) != want {
				t.Errorf("got %d records, want %d", len(live), want)
			}
			if _, there := live[oldID]; there {
				t.Error("got the old ID used again, want a new one")
			}
			if got := old.user(); got != "" {
				t.Errorf("replay of the old cookie: got user %q, want nobody", got)
			}
			b.visit(func(s *session.Session) {
				user, _ := userKey.Get(s)
				a, _ := keyA.Get(s)
				if user != c.user || a != c.a {
					t.Errorf("next visit: got %q, %q, want %q, %q", user, a, c.user, c.a)
				}
				if _, ok := keyB.Get(s); ok {
					t.Error("next visit: got a value from before Destroy, want none")
				}
			})
		})
	}
}

func TestDestroyWithoutCookie(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	wantResponse(t, "nothing there", b.visit(func(s *session.Session) { s.Destroy() }), 200, "nothing")
	wantResponse(t, "new, changed", b.visit(func(s *session.Session) { keyA.Set(s, "1"); s.Destroy() }), 200, "nothing")
	wantCalls(t, "both", store, "")
}

// The gate is in Load: Destroy happens while another goroutine of the request
// waits for it.
func TestDestroyDuringLoad(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	reached, release := make(chan bool), make(chan bool)
	store.on("Load", func(_ context.Context, _ *storeCall, do func() error) error {
		close(reached)
		<-release
		return do()
	})
	resp := b.visit(func(s *session.Session) {
		got := make(chan bool)
		go func() {
			_, ok := userKey.Get(s)
			got <- ok
		}()
		<-reached
		s.Destroy()
		close(release)
		if <-got {
			t.Error("Get that overlapped Destroy: got a value, want none")
		}
	})
	wantResponse(t, "destroy", resp, 200, "expired")
	if n := len(store.live(t)); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

// The gate is in Update or Create: the request destroys its session while its
// own commit is under way.
func TestDestroyDuringCommit(t *testing.T) {
	for _, c := range []struct {
		name  string
		fresh bool
		do    func(*session.Session)
	}{
		{"update", false, func(s *session.Session) { keyA.Set(s, "1") }},
		{"renewal", false, func(s *session.Session) { s.Renew() }},
		{"create", true, func(s *session.Session) { keyA.Set(s, "1") }},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := &browser{m: m}
		if !c.fresh {
			b = login(t, m)
		}
		reached, release := make(chan bool), make(chan bool)
		gate := func(_ context.Context, _ *storeCall, do func() error) error {
			close(reached)
			<-release
			return do()
		}
		store.on("Create", gate)
		store.on("Update", gate)
		b.visit(func(s *session.Session) {
			c.do(s)
			saved := make(chan error)
			go func() { saved <- s.Save(context.Background()) }()
			<-reached
			s.Destroy()
			close(release)
			if err := <-saved; err != nil {
				t.Errorf("%s: Save: got %v, want no error", c.name, err)
			}
		})
		if n := len(store.live(t)); n != 0 {
			t.Errorf("%s: got %d records, want none", c.name, n)
		}
		if b.user() != "" {
			t.Errorf("%s: got a user after Destroy, want nobody", c.name)
		}
	}
}

// --- Save

func TestSaveOnceThenAtTheEnd(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	resp := b.visit(func(s *session.Session) {
		keyA.Set(s, "1")
		if err := s.Save(t.Context()); err != nil {
			t.Errorf("Save: got %v, want no error", err)
		}
		if err := s.Save(t.Context()); err != nil { // nothing left
			t.Errorf("second Save: got %v, want no error", err)
		}
		keyB.Set(s, "2")
	})
	wantResponse(t, "saves", resp, 200, "nothing")
	wantCalls(t, "saves", store, "Load Update Update")
	b.visit(func(s *session.Session) {
		a, _ := keyA.Get(s)
		bb, _ := keyB.Get(s)
		if a != "1" || bb != "2" {
			t.Errorf("data: got %q, %q, want 1, 2", a, bb)
		}
	})
}

func TestSaveKeepsTheCookieForTheHeader(t *testing.T) {
	b := &browser{m: newManager(t, newHookedStore(), session.Config{})}
	resp := b.visit(func(s *session.Session) {
		userKey.Set(s, "ada")
		_ = s.Save(t.Context())
		keyA.Set(s, "1")
		_ = s.Save(t.Context())
	})
	wantResponse(t, "two saves", resp, 200, "set")
	if got := b.user(); got != "ada" {
		t.Errorf("next visit: got user %q, want ada", got)
	}
}

// The gate is in Update; it opens only after Save has given up.
func TestSaveContextBoundsOnlyTheWait(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	release := make(chan bool)
	store.on("Update", func(ctx context.Context, _ *storeCall, do func() error) error {
		<-release
		if err := ctx.Err(); err != nil {
			t.Errorf("the store's context: got %v, want none", err)
		}
		return do()
	})
	resp := b.visit(func(s *session.Session) {
		keyA.Set(s, "1")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(io.ErrClosedPipe)
		if err := s.Save(ctx); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Save: got %v, want the cause", err)
		}
		if err := s.Err(); err != nil {
			t.Errorf("Err: got %v, want none", err)
		}
		close(release)
	})
	wantResponse(t, "given up", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		if a, _ := keyA.Get(s); a != "1" {
			t.Errorf("data: got %q, want 1", a)
		}
	})
}

// A change of the same request that comes while its commit is under way counts
// from what the commit makes of the data, not from what was there before. The
// gate is in Update; the other program's increment happens while it is closed.
func TestUpdateDuringOwnCommit(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	other := b.with(newManager(t, store.Store, session.Config{}))
	reached, release := make(chan bool), make(chan bool)
	var once sync.Once
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		once.Do(func() { close(reached); <-release })
		return do()
	})
	inc := func(n int) int { return n + 1 }
	resp := b.visit(func(s *session.Session) {
		countKey.Update(s, inc)
		saved := make(chan error)
		go func() { saved <- s.Save(context.Background()) }()
		<-reached
		for range 3 {
			other.visit(func(s *session.Session) { countKey.Update(s, inc) })
		}
		countKey.Update(s, inc)
		close(release)
		if err := <-saved; err != nil {
			t.Errorf("Save: got %v, want no error", err)
		}
	})
	wantResponse(t, "overlapping", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 5 {
			t.Errorf("count: got %d, want 5", n)
		}
	})
}

// --- Reload

func TestReload(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	other := b.with(m)
	resp := b.visit(func(s *session.Session) {
		userKey.Get(s)
		keyB.Set(s, "mine")
		countKey.Update(s, func(n int) int { return n + 1 })
		other.visit(func(s *session.Session) {
			keyA.Set(s, "theirs")
			keyB.Set(s, "theirs")
			countKey.Set(s, 10)
		})
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
		a, _ := keyA.Get(s)
		bb, _ := keyB.Get(s)
		n, _ := countKey.Get(s)
		if a != "theirs" || bb != "mine" || n != 11 {
			t.Errorf("after Reload: got %q, %q, %d, want theirs, mine, 11", a, bb, n)
		}
	})
	wantResponse(t, "reloaded", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		a, _ := keyA.Get(s)
		bb, _ := keyB.Get(s)
		n, _ := countKey.Get(s)
		if a != "theirs" || bb != "mine" || n != 11 {
			t.Errorf("stored: got %q, %q, %d, want theirs, mine, 11", a, bb, n)
		}
	})
}

func TestReloadWithoutRecord(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	b.visit(func(s *session.Session) {
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
	})
	wantCalls(t, "no record", store, "")
}

func TestReloadAfterTheEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*session.Session)
	}{
		{"logout elsewhere", func(s *session.Session) { s.Destroy() }},
		{"renewal elsewhere", func(s *session.Session) { s.Renew() }},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := login(t, m)
		other := b.with(m)
		resp := b.visit(func(s *session.Session) {
			userKey.Get(s)
			other.visit(c.end)
			if err := s.Reload(t.Context()); !errors.Is(err, session.ErrDestroyed) {
				t.Errorf("%s: Reload: got %v, want ErrDestroyed", c.name, err)
			}
			if _, ok := userKey.Get(s); ok || s.ID() != "" {
				t.Errorf("%s: got data or an ID after the end, want neither", c.name)
			}
			keyA.Set(s, "1")
			if _, ok := keyA.Get(s); ok {
				t.Errorf("%s: Set after the end: got it accepted, want it refused", c.name)
			}
			if err := s.Err(); !errors.Is(err, session.ErrDestroyed) {
				t.Errorf("%s: Err: got %v, want ErrDestroyed", c.name, err)
			}
		})
		wantResponse(t, c.name, resp, 409, "nothing")
		if c.name == "logout elsewhere" && len(store.live(t)) != 0 {
			t.Errorf("%s: got a record, want none", c.name)
		}
	}
}

func TestReloadTransientErrorDoesNotStick(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	resp := b.visit(func(s *session.Session) {
		keyA.Set(s, "1")
		store.on("Load", fails(errStoreDown))
		if err := s.Reload(t.Context()); !errors.Is(err, errStoreDown) {
			t.Errorf("Reload: got %v, want the store's error", err)
		}
		store.on("Load", nil)
		if err := s.Err(); err != nil {
			t.Errorf("Err: got %v, want none", err)
		}
		if user, _ := userKey.Get(s); user != "ada" {
			t.Errorf("Get: got %q, want ada", user)
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v, want no error", err)
		}
	})
	wantResponse(t, "recovered", resp, 200, "nothing")
	b.visit(func(s *session.Session) {
		if a, _ := keyA.Get(s); a != "1" {
			t.Errorf("stored: got %q, want 1", a)
		}
	})
}

func TestReloadDoesNotExtend(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{TouchInterval: 1})
	b := login(t, m)
	store.took()
	b.visit(func(s *session.Session) {
		userKey.Get(s)
		_ = s.Reload(t.Context())
		wantCalls(t, "Reload", store, "Load Load")
		s.Detach()
	})
}

// --- Detach

func TestAbandon(t *testing.T) {
	down := func(s *hookedStore) {
		s.on("Load", fails(errStoreDown))
	}
	for _, c := range []struct {
		name  string
		prep  func(*hookedStore)
		do    func(*session.Session)
		calls string
	}{
		{"outage", down, func(s *session.Session) { userKey.Get(s); s.Detach() }, "Load"},
		{"outage, before use", down, func(s *session.Session) { s.Detach(); userKey.Get(s) }, "Load"},
		{"change", nil, func(s *session.Session) { keyA.Set(s, "1"); s.Detach() }, "Load"},
		{"logout", nil, func(s *session.Session) { s.Destroy(); s.Detach() }, ""},
		{"renewal", nil, func(s *session.Session) { s.Renew(); s.Detach() }, "Load"},
		{"invalid value", nil, func(s *session.Session) { session.Key[func()]("f").Set(s, nil); s.Detach() }, "Load"},
		{"due touch", nil, func(s *session.Session) { userKey.Get(s); s.Detach() }, "Load"},
		{"Save afterwards", nil, func(s *session.Session) {
			keyA.Set(s, "1")
			s.Detach()
			if err := s.Save(context.Background()); err != nil {
				t.Errorf("Save after Detach: got %v, want no error", err)
			}
		}, "Load"},
	} {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{TouchInterval: 1}))
		before := store.live(t)
		store.took()
		if c.prep != nil {
			c.prep(store)
		}
		resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
			c.do(session.From(r.Context()))
			_, _ = io.WriteString(w, "page")
		})
		wantResponse(t, c.name, resp, 200, "nothing")
		if resp.body != "page" {
			t.Errorf("%s: got another body, want the handler's page", c.name)
		}
		wantCalls(t, c.name, store, c.calls)
		if !maps.Equal(store.live(t), before) {
			t.Errorf("%s: got other records than before, want the same", c.name)
		}
	}
}

// --- Err

func TestErrSticks(t *testing.T) {
	store := newHookedStore()
	log := &logRecorder{}
	b := login(t, newManager(t, store, session.Config{Logger: log.logger()}))
	store.took()
	store.on("Load", fails(errStoreDown))
	resp := b.visit(func(s *session.Session) {
		if err := s.Err(); err != nil {
			t.Errorf("Err before use: got %v, want none", err)
		}
		if _, ok := userKey.Get(s); ok {
			t.Error("Get: got a value, want none")
		}
		first := s.Err()
		if !errors.Is(first, errStoreDown) {
			t.Errorf("Err: got %v, want the store's error", first)
		}
		store.on("Load", nil) // it would work now
		keyA.Set(s, "1")
		countKey.Update(s, func(n int) int { t.Error("Update ran f after an error"); return n })
		s.Renew()
		s.SetIdleTimeout(time.Hour)
		keyA.Delete(s)
		keyA.Take(s)
		session.Key[int]("cookie").Set(s, 1)
		if err := s.Save(t.Context()); err != first {
			t.Errorf("Save: got %v, want the first error", err)
		}
		if err := s.Reload(t.Context()); err != first {
			t.Errorf("Reload: got %v, want the first error", err)
		}
		if err := s.Err(); err != first {
			t.Errorf("Err: got %v, want the first error", err)
		}
	})
	wantResponse(t, "outage", resp, 503, "nothing")
	if resp.header.Get("Retry-After") == "" || resp.header.Get("Cache-Control") != "no-store" {
		t.Error("outage: got no Retry-After or no no-store, want both")
	}
	wantCalls(t, "outage", store, "Load")
	if !strings.Contains(log.String(), errStoreDown.Error()) {
		t.Error("log: got nothing about the store's error")
	}
	if b.user() != "ada" {
		t.Error("after the outage: got nobody, want the user still logged in")
	}
}

func TestSaveErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		prep   func(*hookedStore)
		do     func(*session.Session)
		status int
		is     error
	}{
		{"update fails", func(s *hookedStore) {
			s.on("Update", fails(errStoreDown))
		}, func(s *session.Session) { keyA.Set(s, "1") }, 503, errStoreDown},
		{"delete fails", func(s *hookedStore) { s.on("Delete", fails(errStoreDown)) }, func(s *session.Session) { s.Destroy() }, 503, errStoreDown},
		{"create fails after a delete", func(s *hookedStore) {
			s.on("Create", fails(errStoreDown))
		}, func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }, 503, errStoreDown},
	} {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{}))
		c.prep(store)
		var got error
		m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			got = err
			w.WriteHeader(503)
		}})
		resp := b.with(m).visit(c.do)
		wantResponse(t, c.name, resp, c.status, "nothing")
		if !errors.Is(got, c.is) {
			t.Errorf("%s: got error %v, want %v", c.name, got, c.is)
		}
	}
}

// A touch is a service, not a condition: the page does not depend on it.
func TestTouchFailurePasses(t *testing.T) {
	store := newHookedStore()
	log := &logRecorder{}
	b := login(t, newManager(t, store, session.Config{TouchInterval: 1, Logger: log.logger()}))
	store.on("Touch", fails(errStoreDown))
	wantResponse(t, "touch fails", b.visit(func(s *session.Session) { userKey.Get(s) }), 200, "nothing")
	if !strings.Contains(log.String(), errStoreDown.Error()) {
		t.Error("log: got nothing about the failed touch")
	}
}

func TestFinished(t *testing.T) {
	log := &logRecorder{}
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{Logger: log.logger()}))
	var kept *session.Session
	b.visit(func(s *session.Session) { kept = s; userKey.Get(s) })
	store.took()
	if user, _ := userKey.Get(kept); user != "ada" {
		t.Errorf("Get after the handler: got %q, want ada", user)
	}
	keyA.Set(kept, "1")
	if err := kept.Err(); !errors.Is(err, session.ErrFinished) {
		t.Errorf("Err: got %v, want ErrFinished", err)
	}
	if err := kept.Save(t.Context()); !errors.Is(err, session.ErrFinished) {
		t.Errorf("Save: got %v, want ErrFinished", err)
	}
	kept.Destroy()
	if !strings.Contains(log.String(), "after its handler has returned") {
		t.Error("log: got nothing about the late change")
	}
	wantCalls(t, "after the handler", store, "")

	b.visit(func(s *session.Session) { kept = s })
	store.took()
	if _, ok := userKey.Get(kept); ok {
		t.Error("first use after the handler: got a value, want none")
	}
	wantCalls(t, "first use after the handler", store, "")
}

// --- What a session shows of itself

func TestSessionShowsNothing(t *testing.T) {
	log, jsonLog := &logRecorder{}, &logRecorder{}
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	b.visit(func(s *session.Session) {
		id := s.ID()
		var out []string
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x", "%10.3v"} {
			out = append(out, fmt.Sprintf(format, s), fmt.Sprintf(format, []any{s}), fmt.Sprintf(format, struct{ S *session.Session }{s}))
		}
		log.logger().Info("look", "session", s)
		slog.New(slog.NewJSONHandler(jsonLog, nil)).Info("look", "session", s, slog.Group("g", "s", s))
		out = append(out, fmt.Sprint(s), fmt.Sprintln(s), log.String(), jsonLog.String())
		for i, text := range out {
			for _, secret := range []string{id, "ada", testSecret, b.cookie} {
				if strings.Contains(text, secret) {
					t.Errorf("output %d shows an ID, data, secret or cookie", i)
				}
			}
			if !strings.Contains(text, "session") && i%3 != 2 {
				t.Errorf("output %d: got nothing that says what it is", i)
			}
		}
	})
}

// --- IDs

func TestIDCollision(t *testing.T) {
	id := func(c byte) []byte { return bytes.Repeat([]byte{c}, 24) }
	name := func(c byte) string { return base64.RawURLEncoding.EncodeToString(id(c)) }

	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	m.SetRandom(bytes.NewReader(slices.Concat(id(1), id(1), id(2))))
	first := login(t, m)
	second := &browser{m: m}
	store.took()
	wantResponse(t, "create", second.visit(func(s *session.Session) { userKey.Set(s, "grace") }), 200, "set")
	wantCalls(t, "create", store, "Create Create")
	if first.user() != "ada" || second.user() != "grace" {
		t.Error("create: got a record overwritten, want both users")
	}
	if second.id() != name(2) {
		t.Error("create: got another ID than the next from the source")
	}

	m.SetRandom(bytes.NewReader(slices.Concat(id(1), id(3))))
	store.took()
	wantResponse(t, "renew", second.visit(func(s *session.Session) { s.Renew() }), 200, "set")
	if first.user() != "ada" || second.user() != "grace" {
		t.Error("renew: got a record overwritten, want both users")
	}
	if second.id() != name(3) {
		t.Error("renew: got another ID than the next from the source")
	}
	if n := len(store.live(t)); n != 2 {
		t.Errorf("got %d records, want 2", n)
	}
}

func TestFailingRandomness(t *testing.T) {
	for _, c := range []struct {
		name  string
		known bool
		do    func(*session.Session)
	}{
		{"create", false, func(s *session.Session) { keyA.Set(s, "1") }},
		{"renew", true, func(s *session.Session) { s.Renew() }},
		{"destroy and create", true, func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := &browser{m: m}
		if c.known {
			b = login(t, m)
		}
		n := len(store.live(t))
		m.SetRandom(bytes.NewReader(make([]byte, 23))) // one byte short
		store.took()
		wantResponse(t, c.name, b.visit(c.do), 503, "nothing")
		if calls := store.took(); strings.Contains(calls, "Create") || strings.Contains(calls, "Update") {
			t.Errorf("%s: got calls %q, want no write", c.name, calls)
		}
		if got := len(store.live(t)); got > n {
			t.Errorf("%s: got %d records, want at most %d", c.name, got, n)
		}
	}
}

func TestIDsAreRandom(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	seen := make(map[string]bool)
	for range 200 {
		b := login(t, m)
		id := b.id()
		if raw, err := base64.RawURLEncoding.DecodeString(id); err != nil || len(raw) != 24 {
			t.Fatal("got an ID that is not 24 bytes of base64url")
		}
		seen[id] = true
	}
	if len(seen) != 200 {
		t.Errorf("got %d different IDs, want 200", len(seen))
	}
}

// --- Overlapping requests

// overlapTrials is how often each race is run; the barriers force it every time.
const overlapTrials = 200

// Two requests of one session have both loaded it before either saves: they
// meet at a barrier between Get and Set.
func TestOverlappingRequestsKeepBothKeys(t *testing.T) {
	for _, managers := range []int{1, 2} {
		store := session.NewMemoryStore()
		var ms []*session.Manager
		for range managers {
			ms = append(ms, newManager(t, store, session.Config{StoreTimeout: time.Minute, DisablePrune: true}))
		}
		kept := 0
		for range overlapTrials {
			b := login(t, ms[0])
			var loaded, done sync.WaitGroup
			loaded.Add(2)
			for i, key := range []session.Key[string]{keyA, keyB} {
				done.Go(func() {
					resp := b.with(ms[i%managers]).visit(func(s *session.Session) {
						userKey.Get(s)
						loaded.Done()
						loaded.Wait()
						key.Set(s, "set")
					})
					wantResponse(t, "overlapping", resp, 200, "nothing")
				})
			}
			done.Wait()
			b.visit(func(s *session.Session) {
				_, a := keyA.Get(s)
				_, bb := keyB.Get(s)
				if a && bb {
					kept++
				}
			})
		}
		if kept != overlapTrials {
			t.Errorf("%d managers: got both keys in %d of %d trials, want all", managers, kept, overlapTrials)
		}
	}
}

// The slow request has loaded the session; then the session ends, in a request
// of its own that has returned; only then the slow one goes on.
func TestGoneStaysGone(t *testing.T) {
	ends := []struct {
		name string
		end  func(t *testing.T, b *browser, store *hookedStore, id string)
		left int // records afterwards
	}{
		{"logout", func(t *testing.T, b *browser, _ *hookedStore, _ string) {
			wantResponse(t, "logout", b.visit(func(s *session.Session) { s.Destroy() }), 200, "expired")
		}, 0},
		{"renewal", func(t *testing.T, b *browser, _ *hookedStore, _ string) {
			wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew() }), 200, "set")
		}, 1},
		{"expiry", func(t *testing.T, _ *browser, store *hookedStore, id string) {
			r, err := store.Store.Load(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := store.Store.Update(t.Context(), id, session.Change{Old: r.Data, New: r.Data, TTL: 1, Shorten: true}); err != nil {
				t.Fatal(err)
			}
			for !errors.Is(err, session.ErrNotFound) { // until the clock has moved
				_, err = store.Store.Load(t.Context(), id)
			}
		}, 0},
	}
	slow := []struct {
		name   string
		do     func(*session.Session)
		status int
	}{
		{"mutating", func(s *session.Session) { keyA.Set(s, "late") }, 409},
		{"updating", func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) }, 409},
		{"renewing", func(s *session.Session) { s.Renew() }, 409},
		{"touching only", func(*session.Session) {}, 200},
	}
	for _, e := range ends {
		for _, w := range slow {
			t.Run(e.name+" during a "+w.name+" request", func(t *testing.T) {
				var down atomic.Bool // PostgreSQL cannot tell gone from changed
				store := newHookedStore()
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
					err := do()
					if down.Load() && errors.Is(err, session.ErrNotFound) {
						return session.ErrConflict
					}
					return err
				})
				m := newManager(t, store, session.Config{TouchInterval: 1})
				dead := 0
				for trial := range overlapTrials {
					down.Store(trial%2 == 0)
					store.forget()
					b := login(t, m)
					id := b.id()
					slowOne, ender := b.with(m), b.with(m)
					store.took()
					resp := slowOne.visit(func(s *session.Session) {
						userKey.Get(s)
						e.end(t, ender, store, id)
						w.do(s)
					})
					wantResponse(t, "slow request", resp, w.status, "nothing")
					live := store.live(t)
					_, back := live[id]
					if !back && len(live) == e.left && b.user() == "" {
						dead++
					}
				}
				if dead != overlapTrials {
					t.Errorf("got %d of %d sessions dead, want all", dead, overlapTrials)
				}
			})
		}
	}
}

// 64 requests on 4 managers, like 4 programs, have all loaded the session
// before the first saves: they meet at a barrier after Update.
func TestOverlappingUpdatesAllCount(t *testing.T) {
	const requests = 64
	store := session.NewMemoryStore()
	var ms []*session.Manager
	for range 4 {
		ms = append(ms, newManager(t, store, session.Config{StoreTimeout: time.Minute, DisablePrune: true}))
	}
	b := login(t, ms[0])
	var loaded, done sync.WaitGroup
	loaded.Add(requests)
	for i := range requests {
		done.Go(func() {
			resp := b.with(ms[i%4]).visit(func(s *session.Session) {
				countKey.Update(s, func(n int) int { return n + 1 })
				loaded.Done()
				loaded.Wait()
			})
			wantResponse(t, "increment", resp, 200, "nothing")
		})
	}
	done.Wait()
	var conflicts uint64
	for _, m := range ms {
		conflicts += m.Stats().Conflicts
	}
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != requests {
			t.Errorf("count: got %d, want %d", n, requests)
		}
	})
	// Of four first saves, three meet another program's; those behind them in the
	// same program need not.
	if conflicts < 3 {
		t.Errorf("conflicts: got %d, want at least 3, or the barrier did not hold", conflicts)
	}
}

func TestMergeIsPerKey(t *testing.T) {
	m := newManager(t, newHookedStore(), session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { keyA.Set(s, "0"); keyB.Set(s, "0") })
	b.visit(func(s *session.Session) {
		keyA.Set(s, "late")
		keyB.Delete(s)
		b.with(m).visit(func(s *session.Session) { // gets there first
			keyA.Set(s, "early")
			keyB.Set(s, "early")
			userKey.Delete(s)
			countKey.Set(s, 7)
		})
	})
	b.visit(func(s *session.Session) {
		a, _ := keyA.Get(s)
		n, _ := countKey.Get(s)
		if a != "late" || n != 7 {
			t.Errorf("got %q, %d, want late, 7", a, n)
		}
		if got, want := s.Keys(), []string{"a", "count"}; !slices.Equal(got, want) {
			t.Errorf("Keys: got %q, want %q", got, want)
		}
	})
}

func TestMergeOfAnUpdateThatNoLongerFits(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	resp := b.visit(func(s *session.Session) {
		countKey.Update(s, func(n int) int { return n + 1 })
		b.with(m).visit(func(s *session.Session) { session.Key[string]("count").Set(s, "seven") })
	})
	wantResponse(t, "not a number any more", resp, 500, "nothing")
	b.visit(func(s *session.Session) {
		if v, _ := session.Key[string]("count").Get(s); v != "seven" {
			t.Errorf("count: got %q, want it left alone", v)
		}
	})
}

// A store that never stops saying conflict: the save ends with StoreTimeout.
func TestConflictsEndWithStoreTimeout(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{StoreTimeout: 50 * time.Millisecond}))
	store.on("Update", fails(session.ErrConflict))
	wantResponse(t, "endless conflict", b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 503, "nothing")
}

// --- Writes without an answer

// lostAnswer answers the first write of a kind with ErrUncertain. Whether and
// when it happens: at once, never, or late: just before the manager's next
// write, so after it has looked.
type lostAnswer struct {
	when string // applied, lost, late
	mu   sync.Mutex
	n    int
	late func() error
	look func() // once, between the write and the manager's look at the record
}

func (u *lostAnswer) write(do func() error) error {
	u.mu.Lock()
	u.n++
	n, late := u.n, u.late
	u.late = nil
	u.mu.Unlock()
	if n > 1 {
		if late != nil {
			_ = late()
		}
		return do()
	}
	switch u.when {
	case "applied":
		_ = do()
	case "late":
		u.late = do
	}
	if u.look != nil {
		u.look()
	}
	return session.ErrUncertain
}

func (u *lostAnswer) into(s *hookedStore) {
	s.on("Create", func(_ context.Context, _ *storeCall, do func() error) error { return u.write(do) })
	s.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		// As PostgreSQL: one statement cannot tell gone from changed.
		err := u.write(do)
		if errors.Is(err, session.ErrNotFound) {
			err = session.ErrConflict
		}
		return err
	})
}

func TestUncertainUpdate(t *testing.T) {
	for _, c := range []struct {
		name  string
		when  string
		other func(*session.Session) // lands between the write and the look
		count int
		a     string
		calls string
	}{
		{"applied", "applied", nil, 11, "mine", "Load Update Load"},
		{"lost", "lost", nil, 11, "mine", "Load Update Load Update"},
		{"late", "late", nil, 11, "mine", "Load Update Load Update Load"},
		{"applied, then another key changed", "applied", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", "Load Update Load Update Load"},
		{"lost, then another key changed", "lost", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", ""},
		{"late, but another key changed first", "late", func(s *session.Session) { keyB.Set(s, "x") }, 11, "mine", ""},
		{"applied, then the same keys changed", "applied", func(s *session.Session) {
			keyA.Set(s, "theirs")
			countKey.Update(s, func(n int) int { return n + 5 })
		}, 16, "theirs", ""},
		{"lost, then the same keys changed", "lost", func(s *session.Session) {
			keyA.Set(s, "theirs")
			countKey.Update(s, func(n int) int { return n + 5 })
		}, 16, "mine", ""},
		{"applied, then the very same change", "applied", changeBoth, 12, "mine", ""},
		{"lost, then the very same change", "lost", changeBoth, 12, "mine", ""},
		{"late, but the very same change first", "late", changeBoth, 12, "mine", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			other := newManager(t, store.Store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10); keyA.Set(s, "old") })
			store.took()
			u := &lostAnswer{when: c.when}
			if c.other != nil {
				u.look = func() { b.with(other).visit(c.other) }
			}
			u.into(store)
			resp := b.visit(changeBoth)
			wantResponse(t, "save", resp, 200, "nothing")
			if calls := store.took(); c.calls != "" && calls != c.calls && c.other == nil {
				t.Errorf("got calls %q, want %q", calls, c.calls)
			}
			b.visit(func(s *session.Session) {
				n, _ := countKey.Get(s)
				a, _ := keyA.Get(s)
				if n != c.count || a != c.a {
					t.Errorf("got %d, %q, want %d, %q", n, a, c.count, c.a)
				}
				if _, ok := keyB.Get(s); ok != (c.other != nil && c.count == 11) {
					t.Errorf("the other request's key: got %v", ok)
				}
			})
		})
	}
}

func changeBoth(s *session.Session) {
	countKey.Update(s, func(n int) int { return n + 1 })
	keyA.Set(s, "mine")
}

// A record tells which programs have counted last. So many others that it cannot
// tell any more: the application hears that nobody knows.
func TestUncertainUpdateAmongMany(t *testing.T) {
	for _, when := range []string{"applied", "lost"} {
		for _, others := range []int{7, 8} {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10) })
			u := &lostAnswer{when: when}
			u.look = func() {
				for range others {
					b.with(newManager(t, store.Store, session.Config{})).visit(changeBoth)
				}
			}
			u.into(store)
			status, cookie, count := 200, "nothing", 11+others
			if others == 8 {
				status = 503
				if when == "lost" {
					count--
				}
			}
			wantResponse(t, fmt.Sprintf("%s, then %d others", when, others), b.visit(changeBoth), status, cookie)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != count {
					t.Errorf("%s, then %d others: got count %d, want %d", when, others, n, count)
				}
			})
		}
	}
}

// An attempt without an answer that turns out not to have happened, because
// somebody else's change stands there instead, is over: a later conflict is
// merged as any other.
func TestUncertainUpdateThenConflict(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	other := newManager(t, store.Store, session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { countKey.Set(s, 10) })
	try := 0
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		switch try++; try {
		case 1: // lost; another program changes another key
			b.with(other).visit(func(s *session.Session) { keyB.Set(s, "x") })
			return session.ErrUncertain
		case 2: // another program counts as well, first
			b.with(other).visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
		}
		return do()
	})
	wantResponse(t, "save", b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) }), 200, "nothing")
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 12 {
			t.Errorf("count: got %d, want 12", n)
		}
	})
}

func TestUncertainRenew(t *testing.T) {
	for _, c := range []struct {
		when  string
		calls string
	}{
		{"applied", "Load Update Load Load"},
		{"lost", "Load Update Load Update"},
		{"late", "Load Update Load Update Load Load"},
	} {
		t.Run(c.when, func(t *testing.T) {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			b.visit(func(s *session.Session) { countKey.Set(s, 10) })
			old := *b
			store.took()
			(&lostAnswer{when: c.when}).into(store)
			resp := b.visit(func(s *session.Session) {
				s.Renew()
				countKey.Update(s, func(n int) int { return n + 1 })
			})
			wantResponse(t, "renewal", resp, 200, "set")
			wantCalls(t, "renewal", store, c.calls)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != 11 {
					t.Errorf("count: got %d, want 11", n)
				}
			})
			if old.user() != "" {
				t.Error("old ID: got the session, want nothing")
			}
			if n := len(store.live(t)); n != 1 {
				t.Errorf("got %d records, want 1", n)
			}
		})
	}
}

func TestUncertainCreate(t *testing.T) {
	for _, c := range []struct {
		when  string
		calls string
	}{
		{"applied", "Create Load"},
		{"lost", "Create Load Create"},
		{"late", "Create Load Create Load"},
	} {
		t.Run(c.when, func(t *testing.T) {
			store := newHookedStore()
			b := &browser{m: newManager(t, store, session.Config{})}
			(&lostAnswer{when: c.when}).into(store)
			resp := b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
			wantResponse(t, "create", resp, 200, "set")
			wantCalls(t, "create", store, c.calls)
			b.visit(func(s *session.Session) {
				if n, _ := countKey.Get(s); n != 1 {
					t.Errorf("count: got %d, want 1", n)
				}
			})
			if n := len(store.live(t)); n != 1 {
				t.Errorf("got %d records, want 1: no duplicate, no orphan", n)
			}
		})
	}
}

// A renewal that has not happened is made with all its changes, whoever has
// changed the same keys meanwhile.
func TestUncertainRenewThenChanged(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	other := newManager(t, store.Store, session.Config{})
	b := login(t, m)
	b.visit(func(s *session.Session) { countKey.Set(s, 10) })
	u := &lostAnswer{when: "lost", look: func() { b.with(other).visit(changeBoth) }}
	u.into(store)
	wantResponse(t, "renewal", b.visit(func(s *session.Session) { s.Renew(); changeBoth(s) }), 200, "set")
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 12 {
			t.Errorf("count: got %d, want 12", n)
		}
	})
}

// A session that ended after the write without an answer: nothing comes back.
func TestUncertainThenGone(t *testing.T) {
	for _, when := range []string{"applied", "lost", "late"} {
		for _, what := range []string{"update", "renew"} {
			store := newHookedStore()
			m := newManager(t, store, session.Config{})
			b := login(t, m)
			u := &lostAnswer{when: when}
			u.look = func() {
				for id := range store.live(t) { // a logout of all sessions
					_ = store.Store.Delete(t.Context(), id)
				}
			}
			u.into(store)
			resp := b.visit(func(s *session.Session) {
				if what == "renew" {
					s.Renew()
				}
				keyA.Set(s, "1")
			})
			wantResponse(t, when+" "+what, resp, 409, "nothing")
			if n := len(store.live(t)); n != 0 {
				t.Errorf("%s %s: got %d records, want none", when, what, n)
			}
		}
	}
}

// No look possible: the application must hear that nobody knows.
func TestUncertainWithoutALook(t *testing.T) {
	for _, what := range []string{"update", "create"} {
		store := newHookedStore()
		var got error
		m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			got = err
			w.WriteHeader(503)
		}})
		b := &browser{m: m}
		if what == "update" {
			b = login(t, m)
		}
		u := &lostAnswer{when: "applied"}
		u.look = func() {
			store.on("Load", fails(errStoreDown))
		}
		u.into(store)
		wantResponse(t, what, b.visit(func(s *session.Session) { keyA.Set(s, "1") }), 503, "nothing")
		if !errors.Is(got, session.ErrUncertain) || !errors.Is(got, errStoreDown) {
			t.Errorf("%s: got %v, want ErrUncertain and the store's error", what, got)
		}
	}
}

// --- Goroutines of one request

func TestGoroutinesOfOneRequest(t *testing.T) {
	const n = 32
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	store.took()
	b.visit(func(s *session.Session) {
		var start, done sync.WaitGroup
		start.Add(n)
		for i := range n {
			done.Go(func() {
				start.Done()
				start.Wait()
				countKey.Update(s, func(n int) int { return n + 1 })
				session.Key[int](fmt.Sprintf("key%d", i)).Set(s, i)
				userKey.Get(s)
				s.Keys()
				_ = s.ID()
				_ = s.Err()
				if i%8 == 0 {
					_ = s.Save(context.Background())
				}
				if i%8 == 1 {
					_ = s.Reload(context.Background())
				}
			})
		}
		done.Wait()
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count in the request: got %d, want %d", got, n)
		}
	})
	b.visit(func(s *session.Session) {
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count: got %d, want %d", got, n)
		}
		if got := len(s.Keys()); got != n+2 {
			t.Errorf("Keys: got %d, want %d", got, n+2)
		}
	})
}

// One load for however many goroutines; the gate is in Load.
func TestGoroutinesShareOneLoad(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	reached, release := make(chan bool), make(chan bool)
	store.on("Load", func(_ context.Context, _ *storeCall, do func() error) error {
		close(reached)
		<-release
		return do()
	})
	b.visit(func(s *session.Session) {
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("Get: got %q, want ada", user)
				}
			})
		}
		<-reached
		_ = s.Err() // never waits
		close(release)
		done.Wait()
	})
	wantCalls(t, "8 goroutines", store, "Load")
}
