package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgsession/session"
)

// protocolDecided are requests that decide early that their response will send the
// session's cookie.
var protocolDecided = []struct {
	name string
	old  bool   // the cookie is signed with an old secret
	aged bool   // a touch is due
	look string // which calls confirm it, the first of them lost
	use  func(t testing.TB) func(*session.Session)
}{
	{name: "an old signature", old: true, look: "Load", use: func(testing.TB) func(*session.Session) { return readUser }},
	{name: "a touch saved early", aged: true, look: "Touch", use: func(t testing.TB) func(*session.Session) {
		return func(s *session.Session) { readUser(s); save(t)(s) }
	}},
	{name: "an idle timeout saved early", look: "Touch Load", use: func(t testing.TB) func(*session.Session) {
		return func(s *session.Session) { s.SetIdleTimeout(2 * session.DefaultIdleTimeout); save(t)(s) }
	}},
	{name: "a value and a touch saved early", aged: true, look: "Touch", use: func(t testing.TB) func(*session.Session) {
		return func(s *session.Session) { keyA.Set(s, "1"); save(t)(s) }
	}},
}

// A slow response that has decided to send its cookie does not put the ID back that
// another request has renewed or destroyed meanwhile.
func TestProtocolSlowResponseLeavesNewCookie(t *testing.T) {
	meanwhile := []struct {
		name string
		use  func(*session.Session)
		user string
	}{
		{"a login", logIn("eve"), "eve"},
		{"a renewal", renew, "ada"},
		{"a logout", destroy, ""},
		{"a logout and a login", func(s *session.Session) { s.Destroy(); userKey.Set(s, "eve") }, "eve"},
	}
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		now, before := open(protocolSecrets), open(oldSecret)
		for _, d := range protocolDecided {
			for _, m := range meanwhile {
				t.Run(d.name+", "+m.name, func(t *testing.T) {
					store.forget()
					b := login(t, now)
					if d.old {
						store.forget()
						b = login(t, before)
						b.m = now
					}
					if d.aged {
						store.age(t, 2*session.DefaultTouchInterval)
					}
					slow := b.begin()
					slow.do(d.use(t))
					b.visit(m.use)
					wantResponse(t, "the slow response", slow.end(), 200, "nothing")
					b.wantUser(t, m.user)
				})
			}
		}
	})
}

// Where nobody came between, the cookie leaves after one look more, which is the touch
// where one is due; where no look succeeds, the page passes without the cookie.
func TestProtocolDecidedCookieIsConfirmed(t *testing.T) {
	for _, d := range protocolDecided {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprint(d.name, ", look lost ", lost), func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{OldSecrets: []string{testSecretOld}})
				b := login(t, m)
				if d.old {
					store.forget()
					b = login(t, newManager(t, store, session.Config{Secret: testSecretOld}))
					b.m = m
				}
				if d.aged {
					store.age(t, 2*session.DefaultTouchInterval)
				}
				slow := b.begin()
				slow.do(d.use(t))
				store.took()
				looks, sent := d.look, "nothing"
				if lost {
					store.on("*", fails(errStoreDown))
				} else {
					looks, _, _ = strings.Cut(looks, " ")
					sent = "set"
				}
				wantResponse(t, "the slow response", slow.end(), 200, sent)
				wantCalls(t, "the slow response", store, looks)
				store.on("*", nil)
				b.wantUser(t, "ada")
			})
		}
	}
}

// An ID that the request has made itself is sent even where the look fails: nobody
// else will send it.
func TestProtocolMadeCookieIsSentUnconfirmed(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	for _, b := range []*browser{login(t, m), {m: m}} {
		slow := b.begin()
		slow.do(func(s *session.Session) { logIn("ada")(s); save(t)(s) })
		store.on("Load", fails(errStoreDown))
		wantResponse(t, "the slow response", slow.end(), 200, "set")
		store.on("Load", nil)
		b.wantUser(t, "ada")
	}
}

// But it is not sent when somebody else is known to have ended it.
func TestProtocolMadeCookieOfADeadRecordIsNotSent(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{})
	b := login(t, m)
	slow := b.begin()
	var thief *browser
	slow.do(func(s *session.Session) {
		s.Renew()
		save(t)(s)
		value, err := m.SignCookie(s.ID())
		if err != nil {
			t.Error(err)
		}
		thief = &browser{m: m, cookie: "session=" + value}
	})
	thief.visit(destroy)
	wantResponse(t, "the slow response", slow.end(), 200, "nothing")
}

// So it is where the request has stopped waiting for the Save that decided it, and
// that ends when another has logged in.
func TestProtocolSaveCutShortIsConfirmed(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	stored, release := make(chan bool), make(chan bool)
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		store.on("Update", nil)
		err := do()
		close(stored)
		<-release
		return err
	})
	slow := b.begin()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stored; cancel() }()
	slow.do(func(s *session.Session) {
		s.SetIdleTimeout(2 * session.DefaultIdleTimeout)
		if err := s.Save(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Save: got %v, want the context's end", err)
		}
	})
	b.with(newManager(t, struct{ session.Store }{store.Store}, session.Config{})).visit(destroy)
	close(release)
	wantResponse(t, "the slow response", slow.end(), 200, "nothing")
}
