package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// protocolFirstUses are the ways to use a session first, with the status where
// the session was renewed since the request began.
var protocolFirstUses = []struct {
	name   string
	use    func(*session.Session)
	status int
}{
	{"Get", readUser, 200},
	{"Take", func(s *session.Session) { userKey.Take(s) }, 200},
	{"ID", func(s *session.Session) { s.ID() }, 200},
	{"Handle", func(s *session.Session) { s.Handle() }, 200},
	{"Keys", func(s *session.Session) { s.Keys() }, 200},
	{"CreatedAt", func(s *session.Session) { s.CreatedAt() }, 200},
	{"RenewedAt", func(s *session.Session) { s.RenewedAt() }, 200},
	{"Set", func(s *session.Session) { keyA.Set(s, "1") }, 409},
	{"Update", func(s *session.Session) { increment(s) }, 409},
	{"Delete", func(s *session.Session) { userKey.Delete(s) }, 409},
	{"SetIdleTimeout", func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, 409},
	{"Renew", renew, 409},
	{"Renew and Set of another key", func(s *session.Session) { s.Renew(); keyA.Set(s, "1") }, 409},
	{"Set and Save", func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(context.Background()) }, 409},
}

// A request that first uses its session when another has renewed it sees none, and
// neither begins one nor sends a cookie.
func TestProtocolFirstUseAfterLogin(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, u := range protocolFirstUses {
			t.Run(u.name, func(t *testing.T) {
				store.forget()
				b := login(t, m)
				upload := b.begin()
				b.visit(logIn("eve"))
				upload.do(func(s *session.Session) {
					u.use(s)
					if _, ok := userKey.Get(s); ok && u.status == 200 {
						t.Error("Get: got the user, want none")
					}
					if !s.IsNew() || s.ID() != "" {
						t.Error("IsNew and ID: got those of a session, want none")
					}
				})
				wantResponse(t, "the slow request", upload.end(), u.status, "nothing")
				store.wantRecords(t, 1)
				b.wantUser(t, "eve")
			})
		}
	})
}

// The error of such a change says that the session was renewed: an application can
// ask the browser to come again.
func TestProtocolChangeAfterLoginIsErrRenewed(t *testing.T) {
	var answered error
	m := newManager(t, session.NewMemoryStore(), session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
		answered = err
		w.WriteHeader(http.StatusTeapot)
	}})
	for _, loaded := range []bool{false, true} {
		b := login(t, m)
		slow := b.begin()
		if loaded {
			slow.do(readUser)
		}
		b.visit(logIn("eve"))
		slow.do(func(s *session.Session) {
			keyA.Set(s, "1")
			err := s.Save(t.Context())
			for _, want := range []error{session.ErrRenewed, session.ErrDestroyed, session.ErrNotFound} {
				if !errors.Is(err, want) || !errors.Is(s.Err(), want) {
					t.Errorf("loaded %t: Save and Err: got %v, %v, want %v", loaded, err, s.Err(), want)
				}
			}
		})
		if resp := slow.end(); resp.status != http.StatusTeapot || !errors.Is(answered, session.ErrRenewed) {
			t.Errorf("loaded %t: the error handler: got status %d, %v, want its own, ErrRenewed", loaded, resp.status, answered)
		}
	}
}

// A second login, in another tab or by a second click, begins a session with what it
// sets and nothing of the other's, in whatever order it does things.
func TestProtocolSecondLoginBeginsAnew(t *testing.T) {
	orders := []struct {
		name string
		use  func(*session.Session)
	}{
		{"Renew and Set", func(s *session.Session) { s.Renew(); userKey.Set(s, "bob"); increment(s) }},
		{"Set and Renew", func(s *session.Session) { userKey.Set(s, "bob"); increment(s); s.Renew() }},
		{"Set alone", func(s *session.Session) { userKey.Set(s, "bob"); increment(s) }},
	}
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, o := range orders {
			for _, loaded := range []bool{false, true} {
				t.Run(fmt.Sprint(o.name, ", loaded before ", loaded), func(t *testing.T) {
					store.forget()
					b := &browser{m: m}
					b.visit(func(s *session.Session) { keyA.Set(s, "the planter's"); countKey.Set(s, 5) })
					planted := b.with(m)
					second := b.begin()
					if loaded {
						second.do(func(s *session.Session) { keyA.Get(s) })
					}
					b.visit(logIn("ada"))
					first := b.with(m)
					second.do(o.use)
					wantResponse(t, "the second login", second.end(), 200, "set")
					b.wantUser(t, "bob")
					first.wantUser(t, "ada")
					planted.wantUser(t, "")
					b.visit(func(s *session.Session) {
						if v, ok := keyA.Get(s); ok {
							t.Errorf("got %q of the renewed session, want nothing", v)
						}
						if n, _ := countKey.Get(s); n != 1 {
							t.Errorf("count: got %d, want 1, from nothing", n)
						}
					})
				})
			}
		}
	})
}

// Without a UserKey only a request that has seen nothing of the renewed session can
// be told to be a login.
func TestProtocolSecondLoginWithoutUserKey(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{})
	for _, loaded := range []bool{false, true} {
		b := login(t, m)
		second := b.begin()
		status, sent, user := 200, "set", "bob"
		if loaded {
			second.do(readUser)
			status, sent, user = 409, "nothing", "eve"
		}
		b.visit(logIn("eve"))
		second.do(logIn("bob"))
		wantResponse(t, fmt.Sprint("loaded before ", loaded), second.end(), status, sent)
		b.wantUser(t, user)
	}
}

// A logout by an ID that was renewed ends the renewed session, also the second
// login's and the one before it.
func TestProtocolLogoutByRenewedID(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, tt := range []struct {
			name   string
			before func(*session.Session)
			logins int
			after  func(*session.Session)
		}{
			{"never used", nil, 1, destroy},
			{"loaded before", readUser, 1, destroy},
			{"never used, renewed three times", nil, 3, destroy},
			{"loaded before, renewed three times", readUser, 3, destroy},
			{"used since", nil, 1, func(s *session.Session) { readUser(s); s.Destroy() }},
			{"refused since", nil, 1, func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(context.Background()); s.Destroy() }},
			{"refused since, loaded before", readUser, 1, func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(context.Background()); s.Destroy() }},
			{"logged in since", nil, 1, func(s *session.Session) { logIn("bob")(s); save(t)(s); s.Destroy() }},
			{"logged in since, loaded before", readUser, 1, func(s *session.Session) { logIn("bob")(s); save(t)(s); s.Destroy() }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				store.forget()
				b := login(t, m)
				logout := b.begin()
				if tt.before != nil {
					logout.do(tt.before)
				}
				for range tt.logins {
					b.visit(logIn("eve"))
				}
				logout.do(tt.after)
				logout.end()
				store.wantRecords(t, 0)
				b.wantUser(t, "")
			})
		}
	})
}

// A request that began long after the renewal comes from a browser that never got
// the new ID: it may begin anew. One that is older than the mark's life may not.
func TestProtocolLaterRequestBeginsAnew(t *testing.T) {
	const grace, markLife = 10 * time.Second, 15 * time.Minute
	for _, tt := range []struct {
		name          string
		begins, works time.Duration // after the renewal
		status        int
	}{
		{"began before", -time.Second, 0, 409},
		{"began with it", 0, 0, 409},
		{"began within the grace", grace - 1, 0, 409},
		{"began after the grace", grace, 0, 200},
		{"began before, and worked until the mark was gone", -time.Second, markLife + time.Second, 409},
		{"began within the grace, and worked until the mark was gone", grace - 1, markLife + time.Second, 409},
		{"began when the mark was gone", markLife + 1, 0, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{})
				b := login(t, m)
				stale := b.with(m)
				var p *puppet
				if tt.begins < 0 {
					p = stale.begin()
					pass(-tt.begins)
				}
				b.visit(logIn("eve"))
				if tt.begins >= 0 {
					if tt.begins > 0 {
						pass(tt.begins)
					}
					p = stale.begin()
				}
				if tt.works > 0 {
					pass(tt.works)
				}
				p.do(func(s *session.Session) { keyA.Set(s, "1") })
				sent := map[int]string{200: "set", 409: "nothing"}[tt.status]
				wantResponse(t, "the stale request", p.end(), tt.status, sent)
				b.wantUser(t, "eve")
			})
		})
	}
}

// A logout ends the session also where another request of it renews it, before,
// meanwhile or in the same instant.
func TestProtocolLogoutWinsOverRenewal(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		for _, then := range []struct {
			name   string
			use    func(*session.Session)
			status int
		}{
			{"ends", func(*session.Session) {}, 200},
			{"reads", readUser, 200},
			{"changes", func(s *session.Session) { keyA.Set(s, "1") }, 409},
			{"renews again", renew, 409},
			{"changes and saves", func(s *session.Session) { keyA.Set(s, "1"); _ = s.Save(context.Background()) }, 409},
			{"extends", func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, 409},
		} {
			t.Run("a renewal is saved and "+then.name, func(t *testing.T) {
				store.forget()
				b := login(t, m)
				slow := b.begin()
				slow.do(func(s *session.Session) { logIn("eve")(s); save(t)(s) })
				wantResponse(t, "logout", b.visit(destroy), 200, "expired")
				store.wantRecords(t, 0)
				slow.do(then.use)
				wantResponse(t, "the slow login", slow.end(), then.status, "nothing")
				store.wantRecords(t, 0)
				b.wantUser(t, "")
			})
		}
		t.Run("a renewal at the store's door", func(t *testing.T) {
			store.forget()
			b := login(t, m)
			reached, release := store.gate("Update")
			slow, done := b.begin(), make(chan *response)
			slow.do(logIn("eve"))
			go func() { done <- slow.end() }()
			<-reached
			store.on("Update", nil)
			other := slow.b.with(m)
			wantResponse(t, "logout", other.visit(destroy), 200, "expired")
			close(release)
			wantResponse(t, "the slow login", <-done, 409, "nothing")
			store.wantRecords(t, 0)
		})
		t.Run("a renewal between its statement and its response", func(t *testing.T) {
			store.forget()
			b := login(t, m)
			other := b.with(m)
			store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
				err := do()
				wantResponse(t, "logout", other.visit(destroy), 200, "expired")
				return err
			})
			b.visit(logIn("eve")) // whatever cookie it sends is worth nothing
			store.on("Update", nil)
			store.wantRecords(t, 0)
			b.wantUser(t, "")
		})
	})
}
