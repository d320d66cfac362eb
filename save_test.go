package session_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/pgsession/session"
)

// Saving before the first byte. Races are forced: the store holds a call at a
// gate, and each test says which.

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
	store.during("Update", func() { close(reached); <-release })
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
