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
	"testing"
	"time"

	"github.com/pgsession/session"
)

// What a session does for a handler, over the memory store.

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
	wantCalls(t, "both", store, "Create Load Load") // the second before its cookie is sent
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

// A logout that is left to the handler is one: it is carried out, and one that
// fails is an error, not a page that says goodbye.
func TestDetachedLogout(t *testing.T) {
	for name, logout := range map[string]func(*session.Session){
		"destroyed first": func(s *session.Session) { s.Destroy(); s.Detach() },
		"detached first":  func(s *session.Session) { s.Detach(); s.Destroy() },
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b, other := login(t, m), login(t, m)
		wantResponse(t, name, b.visit(logout), 200, "expired")
		if n := len(store.live(t)); n != 1 {
			t.Errorf("%s: got %d sessions left, want the other one", name, n)
		}
		store.on("Delete", fails(errStoreDown))
		wantResponse(t, name+", outage", other.visit(logout), 503, "nothing")
	}
}

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
