package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

func enter(user string) func(*session.Session) {
	return func(s *session.Session) { userKey.Set(s, user) }
}

// keysOf returns the keys of the browser's session.
func (b *browser) keysOf() (keys []string) {
	b.visit(func(s *session.Session) { keys = s.Keys() })
	return keys
}

// A visitor who becomes a user keeps what he has and gets another ID, with or
// without Renew, in one renewal, and in the statements of one.
func TestUserKeyLoginRenews(t *testing.T) {
	for name, use := range map[string]func(*session.Session){
		"alone":        enter("ada"),
		"Renew before": func(s *session.Session) { s.Renew(); enter("ada")(s) },
		"Renew after":  func(s *session.Session) { enter("ada")(s); s.Renew() },
		"by Update":    func(s *session.Session) { userKey.Update(s, func(string) string { return "ada" }) },
		"twice":        func(s *session.Session) { enter("ada")(s); enter("ada")(s) },
		"saved, then Renew of an ID made already": func(s *session.Session) {
			s.Renew()
			_ = s.Save(context.Background())
			enter("ada")(s)
		},
	} {
		eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
			t.Run(name, func(t *testing.T) {
				b := &browser{m: open(keyOfUser)}
				b.visit(func(s *session.Session) { keyA.Set(s, "the cart"); s.SetIdleTimeout(time.Hour) })
				planted, before := b.with(b.m), b.id()
				store.took()
				wantResponse(t, "login", b.visit(use), 200, "set")
				if !strings.HasPrefix(name, "saved") {
					wantCalls(t, "login", store, "Load Update")
				}
				if b.id() == before {
					t.Error("the ID is the visitor's still")
				}
				if got := b.m.Stats().Renewals; got != 1 {
					t.Errorf("got %d renewals, want 1", got)
				}
				b.visit(func(s *session.Session) {
					if v, _ := keyA.Get(s); v != "the cart" {
						t.Errorf("got %q, want the visitor's data", v)
					}
				})
				b.wantUser(t, "ada")
				planted.wantUser(t, "")
			})
		})
	}
}

// The same user again is no login: nothing is written, and the ID stays.
func TestUserKeySameUserChangesNothing(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{UserKey: string(userKey)}))
	b.visit(func(s *session.Session) { keyA.Set(s, "1") })
	id := b.id()
	store.took()
	for name, use := range map[string]func(*session.Session){
		"Set":    enter("ada"),
		"Update": func(s *session.Session) { userKey.Update(s, func(u string) string { return u }) },
	} {
		wantResponse(t, name, b.visit(use), 200, "nothing")
		wantCalls(t, name, store, "Load Load")
	}
	if b.id() != id || len(b.keysOf()) != 2 {
		t.Error("the same user has got another ID, or lost a value")
	}
	// Nor is it another user whose name is spelt in another way, as a column of jsonb does.
	store.express(t, time.Hour, func(data string) string { return strings.Replace(data, `"ada"`, `"\u0061da"`, 1) })
	if b.visit(enter("ada")); b.id() != id {
		t.Error("another spelling is taken for another user")
	}
}

// Another user gets a session of his own: nothing of the one before, not even in the
// rest of the request, nor what that has set for the one before.
func TestUserKeyOtherUserBeginsFresh(t *testing.T) {
	for name, use := range map[string]func(*session.Session){
		"Set":               enter("bob"),
		"Renew before":      func(s *session.Session) { s.Renew(); enter("bob")(s) },
		"Renew after":       func(s *session.Session) { enter("bob")(s); s.Renew() },
		"Update":            func(s *session.Session) { userKey.Update(s, func(string) string { return "bob" }) },
		"over a third user": func(s *session.Session) { enter("eve")(s); keyB.Set(s, "eve's"); enter("bob")(s) },
		"there and back":    func(s *session.Session) { enter("bob")(s); enter("ada")(s); enter("bob")(s) },
	} {
		eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
			for _, encrypt := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ", encrypt ", encrypt), func(t *testing.T) {
					store.forget()
					m := open(keyOfUser, func(c *session.Config) { c.Encrypt = encrypt })
					b := login(t, m)
					b.visit(func(s *session.Session) {
						keyA.Set(s, "ada's")
						countKey.Set(s, 5)
						s.SetIdleTimeout(30 * 24 * time.Hour)
					})
					old := b.with(m)
					renewals := m.Stats().Renewals
					store.took()
					resp := b.visit(func(s *session.Session) {
						keyB.Set(s, "set for ada")
						increment(s)
						use(s)
						if keys := s.Keys(); !slices.Equal(keys, []string{string(userKey)}) {
							t.Errorf("Keys: got %q, want the user's alone", keys)
						}
						_, a := keyA.Get(s)
						_, other := keyB.Get(s)
						_, taken := keyA.Take(s)
						if a || other || taken {
							t.Error("the rest of the request reads ada's data")
						}
						if s.ID() != "" || s.Handle() != "" || !s.CreatedAt().IsZero() || !s.RenewedAt().IsZero() {
							t.Error("got ada's ID or times")
						}
						increment(s)
					})
					wantResponse(t, "login", resp, 200, "set")
					wantCalls(t, "login", store, "Load Update")
					if got := m.Stats().Renewals - renewals; got != 1 {
						t.Errorf("got %d renewals, want 1", got)
					}
					if resp.maxAge(t) > 24*60*60 {
						t.Error("the cookie has ada's timeout")
					}
					store.wantRecords(t, 1)
					if left := store.ttl(t); left > 24*time.Hour {
						t.Errorf("the record has %v left: ada's timeout", left)
					}
					for _, data := range store.live(t) {
						if !encrypt && strings.Contains(data, "ada") { // sealed it may be spelt by chance
							t.Error("the record holds something of ada's")
						}
					}
					old.wantUser(t, "")
					b.wantUser(t, "bob")
					b.visit(func(s *session.Session) {
						if keys := s.Keys(); !slices.Equal(keys, []string{string(userKey), string(countKey)}) {
							t.Errorf("Keys: got %q, want user and count", keys)
						}
						if n, _ := countKey.Get(s); n != 1 {
							t.Errorf("count: got %d, want 1: from nothing, once", n)
						}
					})
				})
			}
		})
	}
}

// What is asked for after it is bob's: values, the timeout, the rest of the day.
func TestUserKeyOtherUserKeepsWhatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{UserKey: string(userKey), AbsoluteTimeout: 12 * time.Hour})
		b := login(t, m)
		pass(11 * time.Hour)
		b.visit(func(s *session.Session) {
			s.SetIdleTimeout(time.Minute)
			enter("bob")(s)
			keyA.Set(s, "bob's")
			s.SetIdleTimeout(8 * time.Hour)
		})
		pass(7 * time.Hour) // over ada's absolute timeout
		b.wantUser(t, "bob")
		b.visit(func(s *session.Session) {
			if v, _ := keyA.Get(s); v != "bob's" {
				t.Errorf("got %q, want what was set after the login", v)
			}
			if since := time.Since(s.CreatedAt()); since != 7*time.Hour {
				t.Errorf("created %v ago, want 7h", since)
			}
		})
	})
}

// Nobody any more is a logout, however the key goes.
func TestUserKeyDeletedEndsTheSession(t *testing.T) {
	for name, use := range map[string]func(*session.Session){
		"Delete": userKey.Delete,
		"Take":   func(s *session.Session) { userKey.Take(s) },
		"null":   func(s *session.Session) { session.Key[*string](userKey).Set(s, nil) },
		"Update to null": func(s *session.Session) {
			session.Key[*string](userKey).Update(s, func(*string) *string { return nil })
		},
		"after another user": func(s *session.Session) { enter("bob")(s); userKey.Delete(s) },
		"after a Save":       func(s *session.Session) { enter("bob")(s); _ = s.Save(context.Background()); userKey.Delete(s) },
	} {
		eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
			t.Run(name, func(t *testing.T) {
				b := login(t, open(keyOfUser))
				b.visit(func(s *session.Session) { keyA.Set(s, "ada's") })
				thief := b.with(b.m)
				resp := b.visit(func(s *session.Session) {
					keyB.Set(s, "ada's")
					use(s)
					if keys := s.Keys(); len(keys) != 0 || s.ID() != "" {
						t.Errorf("after it: got keys %q, want none, and no ID", keys)
					}
				})
				wantResponse(t, "logout", resp, 200, "expired")
				store.wantRecords(t, 0)
				thief.wantUser(t, "")
			})
		})
	}
}

// A later Set begins a session with a new ID and nothing of before, as after Destroy.
func TestUserKeyDeletedThenFresh(t *testing.T) {
	for _, next := range []string{"", "ada", "bob"} {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{UserKey: string(userKey)}))
		b.visit(func(s *session.Session) { keyA.Set(s, "ada's") })
		id := b.id()
		b.visit(func(s *session.Session) {
			userKey.Delete(s)
			keyB.Set(s, "goodbye")
			if next != "" {
				enter(next)(s)
			}
		})
		store.wantRecords(t, 1)
		b.wantUser(t, next)
		b.visit(func(s *session.Session) {
			_, a := keyA.Get(s)
			if bye, _ := keyB.Get(s); a || bye != "goodbye" || s.ID() == id {
				t.Errorf("then %q: got the old ID, or other data than what was set since", next)
			}
		})
	}
}

// A visitor without a user who deletes the key ends nothing.
func TestUserKeyDeletedByAVisitor(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{UserKey: string(userKey)})}
	b.visit(func(s *session.Session) { keyA.Set(s, "the cart") })
	for name, use := range map[string]func(*session.Session){
		"Delete": userKey.Delete, "Take": func(s *session.Session) { userKey.Take(s) },
		"null": func(s *session.Session) { session.Key[*string](userKey).Set(s, nil) },
	} {
		wantResponse(t, name, b.visit(use), 200, "nothing")
		store.wantRecords(t, 1)
	}
}

// Without UserKey a value is a value.
func TestUserKeyNotSet(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	b.visit(func(s *session.Session) { keyA.Set(s, "1") })
	id := b.id()
	for _, use := range []func(*session.Session){enter("ada"), enter("bob"), userKey.Delete} {
		wantResponse(t, "a change", b.visit(use), 200, "nothing")
	}
	if b.id() != id || !slices.Equal(b.keysOf(), []string{string(keyA)}) {
		t.Error("got another ID, or other data, want those of before")
	}
}

// After the first byte no other ID can be sent: a login is cut off, a logout works.
func TestUserKeyAfterTheFirstByte(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, c := range []struct {
			name   string
			before func(*session.Session) // in an earlier request
			first  func(*session.Session) // before the byte
			late   func(*session.Session)
			cut    bool
			user   string
		}{
			{"login", func(s *session.Session) { keyA.Set(s, "1") }, readUser, enter("ada"), true, ""},
			{"another user", enter("ada"), readUser, enter("bob"), true, "ada"},
			{"first used then", enter("ada"), nil, enter("bob"), true, "ada"},
			{"the same user", enter("ada"), readUser, enter("ada"), false, "ada"},
			{"logout", enter("ada"), readUser, userKey.Delete, false, ""},
			{"login in a session of the request's own", nil, func(s *session.Session) { keyA.Set(s, "1") }, enter("ada"), false, "ada"},
			{"login after a renewal of its own", func(s *session.Session) { keyA.Set(s, "1") }, renew, enter("ada"), false, "ada"},
			{"another user in a session of the request's own", nil, enter("ada"), enter("bob"), true, "ada"},
		} {
			t.Run(c.name, func(t *testing.T) {
				store.forget()
				b := &browser{m: m}
				if c.before != nil {
					b.visit(c.before)
				}
				resp := b.serve(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					if c.first != nil {
						c.first(s)
					}
					_, _ = io.WriteString(w, "<html>")
					c.late(s)
				})
				if cut := resp.err == http.ErrAbortHandler; cut != c.cut {
					t.Errorf("cut off: got %v, want %v", cut, c.cut)
				}
				b.wantUser(t, c.user)
			})
		}
	})
}

// Requests of ada that are under way while bob logs in with her browser: none gets
// her data into his session, begins one beside it, or is told a lie.
func TestUserKeyOtherUserBesideSlowRequests(t *testing.T) {
	for _, loaded := range []bool{false, true} {
		eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
			m := open(keyOfUser)
			for _, c := range []struct {
				name    string
				use     func(*session.Session)
				status  int
				sent    string
				user    string // of the browser in the end
				records int
			}{
				{"reads", readUser, 200, "nothing", "bob", 1},
				{"a change", func(s *session.Session) { keyA.Set(s, "ada's") }, 409, "nothing", "bob", 1},
				{"a count", increment, 409, "nothing", "bob", 1},
				{"a timeout", func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, 409, "nothing", "bob", 1},
				{"a renewal", renew, 409, "nothing", "bob", 1},
				{"a third user", func(s *session.Session) { keyB.Set(s, "ada's"); enter("eve")(s) }, 200, "set", "eve", 2},
				{"a logout", destroy, 200, "expired", "", 0},
			} {
				t.Run(fmt.Sprint(c.name, ", loaded before ", loaded), func(t *testing.T) {
					store.forget()
					b := login(t, m)
					slow := b.begin()
					if loaded {
						slow.do(readUser)
					}
					b.visit(enter("bob"))
					bob := b.with(m)
					slow.do(c.use)
					wantResponse(t, "the slow request", slow.end(), c.status, c.sent)
					store.wantRecords(t, c.records)
					b.wantUser(t, c.user)
					if c.records > 0 && !slices.Equal(bob.keysOf(), []string{string(userKey)}) {
						t.Error("bob's session holds more than his name")
					}
				})
			}
		})
	}
}

// The key as a logout, in a request that meets a login: the session that it knows ends
// by whatever ID. What it does not know is an error, never a goodbye.
func TestUserKeyDeletedBesideALogin(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, loaded := range []bool{false, true} {
			store.forget()
			b := login(t, m)
			slow := b.begin()
			status, sent, user := 409, "nothing", "bob"
			if loaded {
				slow.do(readUser)
				status, sent, user = 200, "expired", ""
			}
			b.visit(enter("bob"))
			slow.do(userKey.Delete)
			wantResponse(t, fmt.Sprint("loaded before ", loaded), slow.end(), status, sent)
			b.wantUser(t, user)
		}
	})
}

// Another program changes the user under the same ID, as Express without regenerate:
// what a request of before has read does not get into that session.
func TestUserKeyChangedInPlaceByOthers(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, other func(*session.Session)
		use           func(*session.Session)
		status        int
		user          string // of the old ID
		mine          string // of the browser
	}{
		{"a visitor's change", readUser, enter("bob"), func(s *session.Session) { keyA.Set(s, "the cart") }, 200, "bob", "bob"},
		{"a user's change", enter("ada"), enter("bob"), func(s *session.Session) { keyA.Set(s, "ada's") }, 409, "bob", "bob"},
		{"a user's count", enter("ada"), enter("bob"), increment, 409, "bob", "bob"},
		{"a change of one logged out", enter("ada"), userKey.Delete, func(s *session.Session) { keyA.Set(s, "ada's") }, 409, "", ""},
		{"a login", readUser, enter("bob"), enter("ada"), 200, "bob", "ada"},
		{"the same user again", enter("ada"), enter("bob"), enter("ada"), 409, "bob", "bob"},
		{"a Delete of nobody", readUser, enter("bob"), userKey.Delete, 409, "bob", "bob"},
		{"a third user", enter("ada"), enter("bob"), enter("eve"), 200, "", "eve"},
		{"a logout", enter("ada"), enter("bob"), userKey.Delete, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := newHookedStore()
			m, express := newManager(t, store, session.Config{UserKey: string(userKey)}), newManager(t, store, session.Config{})
			b := &browser{m: m}
			b.visit(func(s *session.Session) { keyB.Set(s, "1"); c.before(s) })
			old := b.with(m)
			slow := b.begin()
			slow.do(readUser)
			b.with(express).visit(c.other)
			slow.do(c.use)
			if resp := slow.end(); resp.status != c.status {
				t.Errorf("the slow request: got %d, want %d", resp.status, c.status)
			}
			old.wantUser(t, c.user)
			b.wantUser(t, c.mine)
			old.visit(func(s *session.Session) {
				if v, ok := keyA.Get(s); ok && v == "ada's" {
					t.Error("one user's data is in another's session")
				}
			})
		})
	}
}

// The answer to the write is lost: the login happens once, and nobody is left without
// a session.
func TestUserKeyOtherUserUncertain(t *testing.T) {
	for _, when := range []string{"applied", "lost", "late"} {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{UserKey: string(userKey)}))
		b.visit(func(s *session.Session) { keyA.Set(s, "ada's") })
		(&lostAnswer{when: when}).into(store)
		wantResponse(t, when, b.visit(func(s *session.Session) { enter("bob")(s); increment(s) }), 200, "set")
		store.wantRecords(t, 1)
		b.wantUser(t, "bob")
		if got := b.keysOf(); !slices.Equal(got, []string{string(userKey), string(countKey)}) {
			t.Errorf("%s: got keys %q, want user and count", when, got)
		}
	}
}

// A save that fails leaves the old session as it was, and the browser in it.
func TestUserKeyOtherUserInAnOutage(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{UserKey: string(userKey)}))
	for name, use := range map[string]func(*session.Session){"another user": enter("bob"), "nobody": userKey.Delete} {
		store.fail("Update", "Delete")
		wantResponse(t, name, b.visit(use), 503, "nothing")
		store.fail()
		b.wantUser(t, "ada")
	}
}

// The session of another user counts for that one.
func TestUserKeyOtherUserCountsForThatOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.NewMemoryStore(), session.Config{UserKey: string(userKey), MaxPerUser: 1})
		first := login(t, m)
		first.visit(enter("bob"))
		time.Sleep(time.Second) // of two logins in a millisecond either may be the later
		second := login(t, m)   // ada again: her first session is gone
		if got := handlesOf(t, m, userKey.Is("ada")); len(got) != 1 {
			t.Errorf("ada's sessions: got %d, want 1", len(got))
		}
		first.wantUser(t, "bob")
		time.Sleep(time.Second)
		second.visit(enter("bob"))
		first.wantUser(t, "")
		second.wantUser(t, "bob")
		if got := handlesOf(t, m, userKey.Is("ada")); len(got) != 0 {
			t.Errorf("ada's sessions: got %d, want none", len(got))
		}
	})
}

// A binding is the session's of which it is proven: another user's has none, unless
// the request asks for one, before or after it sets the user.
func TestUserKeyOtherUserDropsTheBinding(t *testing.T) {
	for _, c := range []struct {
		name  string
		use   func(*session.Session)
		offer bool
	}{
		{"no Bind", enter("eve"), false},
		{"Bind after", func(s *session.Session) { enter("eve")(s); s.Bind() }, true},
		{"Bind before", func(s *session.Session) { s.Bind(); enter("eve")(s) }, true},
		{"Bind and Save before", func(s *session.Session) { s.Bind(); _ = s.Save(context.Background()); enter("eve")(s) }, true},
		{"Renew alone keeps it", renew, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				site := newBoundSite(t, keyOfUser)
				pages := site.h
				site.h = site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/switch" {
						pages.ServeHTTP(w, r)
						return
					}
					c.use(session.From(r.Context()))
				}))
				u := site.boundUnit()
				resp := u.get("/switch")
				if offered := resp.header.Get("Secure-Session-Registration") != ""; offered != c.offer {
					t.Errorf("asked for a key: got %v, want %v", offered, c.offer)
				}
				user := "eve"
				if strings.HasPrefix(c.name, "Renew") {
					user = "ada"
				}
				want(t, "the next page", u.get("/"), 200, fmt.Sprint(user, " ", user == "ada"))
				delete(u.jar, "session-bound")
				if user == "eve" { // nobody has to prove ada's key
					want(t, "without ada's bound cookie", u.get("/"), 200, "eve false")
				}
			})
		})
	}
}

// Overlapping logins of two users in two tabs both succeed; each has a session of its
// own, and the browser is in the last one.
func TestUserKeyTwoUsersInTwoTabs(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open(keyOfUser)
		for _, before := range []string{"", "eve"} {
			store.forget()
			b := &browser{m: m}
			b.visit(func(s *session.Session) { keyA.Set(s, "1") })
			if before != "" {
				b.visit(enter(before))
				b.visit(func(s *session.Session) { keyA.Set(s, "eve's") })
			}
			one, two := b.begin(), b.begin()
			one.do(enter("ada"))
			two.do(enter("bob"))
			wantResponse(t, "the first", one.end(), 200, "set")
			ada := b.with(m)
			wantResponse(t, "the second", two.end(), 200, "set")
			b.wantUser(t, "bob")
			ada.wantUser(t, "ada")
			if got := b.keysOf(); !slices.Equal(got, []string{string(userKey)}) {
				t.Errorf("bob's keys: got %q, want his name alone", got)
			}
			if _, kept := slices.BinarySearch(ada.keysOf(), string(keyA)); kept != (before == "") {
				t.Errorf("before %q: ada has the value of before: got %v, want %v", before, kept, before == "")
			}
		}
	})
}

// Many at once, from two programs: every session has one user, and only his data.
func TestUserKeyRace(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, _ *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		managers := []*session.Manager{open(keyOfUser), open(keyOfUser)}
		b := login(t, managers[0])
		b.visit(func(s *session.Session) { keyA.Set(s, "ada") })
		var mu sync.Mutex
		var sessions []string
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range 16 {
			wg.Go(func() {
				one := b.with(managers[i%2])
				<-begin
				resp := one.visit(func(s *session.Session) {
					if i%4 == 0 {
						readUser(s)
						keyB.Set(s, "ada")
						return
					}
					user := fmt.Sprint("user", i)
					if before, _ := userKey.Get(s); before == "ada" {
						keyB.Set(s, "ada")
					}
					enter(user)(s)
					keyA.Set(s, user)
				})
				if resp.status != 200 && resp.status != 409 || i%4 != 0 && resp.status != 200 {
					t.Errorf("request %d: got status %d", i, resp.status)
				}
				mu.Lock()
				defer mu.Unlock()
				sessions = append(sessions, one.cookie)
			})
		}
		close(begin)
		wg.Wait()
		users := map[string]bool{}
		for _, cookie := range sessions {
			useSession(managers[0], cookie, func(s *session.Session) {
				user, ok := userKey.Get(s)
				if !ok {
					return // ada's, which one of them has ended
				}
				a, _ := keyA.Get(s)
				if _, other := keyB.Get(s); a != user || other {
					t.Errorf("the session of %q has data of %q", user, a)
				}
				users[user] = true
			})
		}
		if len(users) != 12 {
			t.Errorf("got sessions of %d users, want 12", len(users))
		}
	})
}

// Goroutines of one request that change user and data: no data race, no data of ada.
func TestUserKeyGoroutinesOfOneRequest(t *testing.T) {
	for range 20 {
		b := login(t, newManager(t, session.NewMemoryStore(), session.Config{UserKey: string(userKey)}))
		b.visit(func(s *session.Session) { keyA.Set(s, "ada's") })
		b.visit(func(s *session.Session) {
			var wg sync.WaitGroup
			for _, f := range []func(){
				func() { enter("bob")(s) }, func() { increment(s) }, func() { _ = s.Save(context.Background()) }, func() { keyA.Get(s) }, func() { s.Keys() }, func() { s.Renew() },
			} {
				wg.Go(f)
			}
			wg.Wait()
		})
		b.wantUser(t, "bob")
		if slices.Contains(b.keysOf(), string(keyA)) {
			t.Error("bob has ada's data")
		}
	}
}

// A function of Key.Update that logs another user in does not bring ada's value along.
func TestUserKeySetByAFunctionOfUpdate(t *testing.T) {
	b := login(t, newManager(t, session.NewMemoryStore(), session.Config{UserKey: string(userKey)}))
	b.visit(func(s *session.Session) { countKey.Set(s, 41) })
	b.visit(func(s *session.Session) {
		countKey.Update(s, func(n int) int { enter("bob")(s); return n + 1 })
	})
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 1 {
			t.Errorf("got %d, want 1: of bob's count", n)
		}
	})
	b.wantUser(t, "bob")
}

// Reload and Save in the middle of it.
func TestUserKeyReload(t *testing.T) {
	b := login(t, newManager(t, session.NewMemoryStore(), session.Config{UserKey: string(userKey)}))
	b.visit(func(s *session.Session) { keyA.Set(s, "ada's"); countKey.Set(s, 5) })
	stream := b.begin()
	stream.do(readUser)
	b.visit(func(s *session.Session) {
		enter("bob")(s)
		increment(s)
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("Reload: got %v", err)
		}
		if _, ok := keyA.Get(s); ok {
			t.Error("after Reload: got ada's data")
		}
		save(t)(s)
		if n, _ := countKey.Get(s); n != 1 || s.ID() == "" || s.CreatedAt().IsZero() {
			t.Errorf("after Save: got count %d, ID %v", n, s.ID() != "")
		}
		increment(s)
	})
	b.visit(func(s *session.Session) {
		if n, _ := countKey.Get(s); n != 2 {
			t.Errorf("count: got %d, want 2", n)
		}
	})
	stream.do(func(s *session.Session) {
		if err := s.Reload(t.Context()); !errors.Is(err, session.ErrRenewed) {
			t.Errorf("ada's stream: got %v, want ErrRenewed", err)
		}
	})
	stream.end()
	b.wantUser(t, "bob")
}

// The cookie of another user's session takes the place of the one that the browser has,
// whose attributes Express keeps in the record: two of one name, and the first would
// decide.
func TestUserKeyOtherUserInExpressKeepsTheCookiesPlace(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{UserKey: string(userKey), Cookie: session.CookieConfig{Format: session.FormatExpress}})
	id := strings.Repeat("e", 32)
	data := `{"cookie":{"originalMaxAge":60000,"domain":"example.com","path":"/app","sameSite":"strict"},"user":"ada","cart":"ada's"}`
	if err := store.Create(t.Context(), id, session.Record{Data: []byte(data), TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	value, err := m.SignCookie(id)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{m: m, cookie: "connect.sid=" + value}
	if got := b.visit(enter("bob")).attributes(); !strings.HasPrefix(got, "Domain=example.com; Path=/app; ") || !strings.HasSuffix(got, "SameSite=Strict") {
		t.Errorf("got %q, want the attributes of the record", got)
	}
	for _, data := range store.live(t) {
		if strings.Contains(data, "ada") || !strings.Contains(data, `"domain":"example.com"`) || !strings.Contains(data, `"path":"/app"`) {
			t.Error("the record holds something of ada's, or not the cookie's attributes")
		}
	}
	b.wantUser(t, "bob")
}
