package session_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// An idle timeout that was made shorter is not undone by a request of before that
// extends the record: the next load mends it.
func TestProtocolShortIdleTimeoutStays(t *testing.T) {
	const long, short = 30 * 24 * time.Hour, 10 * time.Minute
	slow := []struct {
		name string
		use  func(*session.Session)
	}{
		{"reads", readUser},
		{"changes", func(s *session.Session) { keyA.Set(s, "1") }},
		{"counts", increment},
	}
	mends := []struct {
		name string
		page http.HandlerFunc
	}{
		{"a read", func(_ http.ResponseWriter, r *http.Request) { readUser(session.From(r.Context())) }},
		{"a change", func(_ http.ResponseWriter, r *http.Request) { keyB.Set(session.From(r.Context()), "1") }},
		{"a renewal", func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).Renew() }},
		{"a public page", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public")
			readUser(session.From(r.Context()))
		}},
		{"a first use after the first byte", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			readUser(session.From(r.Context()))
		}},
		{"an early Save", func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			readUser(s)
			save(t)(s)
		}},
	}
	for _, s := range slow {
		for _, mend := range mends {
			t.Run(s.name+", mended by "+mend.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore()
					b := login(t, newManager(t, store, session.Config{}))
					b.visit(func(s *session.Session) { s.SetIdleTimeout(long) })
					pass(time.Hour)
					p := b.begin()
					p.do(s.use)
					b.visit(func(s *session.Session) { s.SetIdleTimeout(short) })
					stale := b.cookie
					p.end()
					b.cookie = stale // the same ID, whatever lifetime the browser was told
					b.serve(mend.page)
					if got := store.ttl(t); got > short {
						t.Errorf("time left: got %v, want %v at most", got, short)
					}
					b.wantUser(t, "ada")
					pass(short + time.Second)
					b.wantUser(t, "")
				})
			})
		}
	}
}

// What mends an expiry brings the browser's cookie in line, and is no reason to fail.
func TestProtocolShortIdleTimeoutIsMendedQuietly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		b := login(t, newManager(t, store, session.Config{}))
		b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
		store.express(t, 30*24*time.Hour, func(data string) string { return data })
		store.on("Update", fails(errStoreDown))
		wantResponse(t, "a read while saves fail", b.visit(readUser), 200, "nothing")
		store.on("Update", nil)
		resp := b.visit(readUser)
		wantResponse(t, "a read", resp, 200, "set")
		if got := resp.maxAge(t); got != 3600 {
			t.Errorf("Max-Age: got %d, want 3600", got)
		}
		store.took()
		b.visit(readUser)
		wantCalls(t, "the next read", store, "Load")
	})
}

// A change to what the request has loaded is a change all the same where another
// request has stored something else since.
func TestProtocolChangeToWhatWasLoaded(t *testing.T) {
	has := func(key session.Key[string], want string) func(*session.Session) string {
		return func(s *session.Session) string {
			if got, ok := key.Get(s); got != want || ok != (want != "") {
				return fmt.Sprintf("got %s=%q, want %q", string(key), got, want)
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name              string
		first             func(*session.Session)
		other, own        func(*session.Session)
		want              func(*session.Session) string
		alone, withOthers string // the store's calls at the commit
	}{
		{
			name:  "Set of the value that was loaded",
			first: func(s *session.Session) { keyA.Set(s, "light") },
			other: func(s *session.Session) { keyA.Set(s, "dark") },
			own:   func(s *session.Session) { keyA.Set(s, "light") },
			want:  has(keyA, "light"), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "Set of it, deleted by another",
			first: func(s *session.Session) { keyA.Set(s, "light") },
			other: func(s *session.Session) { keyA.Delete(s) },
			own:   func(s *session.Session) { keyA.Set(s, "light") },
			want:  has(keyA, "light"), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "Set of another and back",
			first: func(s *session.Session) { keyA.Set(s, "light") },
			other: func(s *session.Session) { keyA.Set(s, "dark") },
			own:   func(s *session.Session) { keyA.Set(s, "blue"); keyA.Set(s, "light") },
			want:  has(keyA, "light"), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "Delete of what was not there",
			other: func(s *session.Session) { keyA.Set(s, "dark") },
			own:   func(s *session.Session) { keyA.Delete(s) },
			want:  has(keyA, ""), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "Set and Delete of what was not there",
			other: func(s *session.Session) { keyA.Set(s, "dark") },
			own:   func(s *session.Session) { keyA.Set(s, "light"); keyA.Delete(s) },
			want:  has(keyA, ""), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "Update to the value that was loaded",
			first: func(s *session.Session) { keyA.Set(s, "light") },
			other: func(s *session.Session) { keyA.Set(s, "dark") },
			own:   func(s *session.Session) { keyA.Update(s, func(string) string { return "light" }) },
			want:  has(keyA, "light"), alone: "Load", withOthers: "Load Update",
		},
		{
			name:  "SetIdleTimeout to the one that was loaded",
			first: func(s *session.Session) { s.SetIdleTimeout(time.Hour) },
			other: func(s *session.Session) { s.SetIdleTimeout(2 * time.Hour) },
			own:   func(s *session.Session) { s.SetIdleTimeout(time.Hour) },
			want:  func(*session.Session) string { return "" }, alone: "Load", withOthers: "Load Update",
		},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, ", after the first byte ", late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore()
					m := newManager(t, store, session.Config{})
					b := login(t, m)
					if tt.first != nil {
						b.visit(tt.first)
					}
					for _, others := range []bool{false, true} {
						socket := b.begin()
						socket.serve(func(w http.ResponseWriter, r *http.Request) {
							if late {
								w.WriteHeader(http.StatusOK)
							}
							readUser(session.From(r.Context()))
						})
						want := tt.alone
						if others {
							want = tt.withOthers
							b.visit(tt.other)
						}
						store.took()
						socket.do(func(s *session.Session) { tt.own(s); save(t)(s) })
						wantCalls(t, fmt.Sprint("the save, another's change meanwhile ", others), store, want)
						if resp := socket.end(); resp.err != nil || resp.status != 200 {
							t.Errorf("response: got status %d, %v, want 200, complete", resp.status, resp.err)
						}
						b.visit(func(s *session.Session) {
							if wrong := tt.want(s); wrong != "" {
								t.Error(wrong)
							}
						})
						least := time.Hour
						if late { // no cookie can follow
							least -= session.DefaultTouchInterval
						}
						if got := store.ttl(t); tt.name == "SetIdleTimeout to the one that was loaded" && (got > time.Hour || got < least) {
							t.Errorf("time left: got %v, want %v to an hour", got, least)
						}
					}
				})
			})
		}
	}
}

// The same where nobody saves early.
func TestProtocolChangeToWhatWasLoadedAtTheEnd(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		b := login(t, open())
		b.visit(func(s *session.Session) { keyA.Set(s, "light") })
		slow := b.begin()
		slow.do(func(s *session.Session) { keyA.Set(s, "light"); keyB.Delete(s) })
		b.visit(func(s *session.Session) { keyA.Set(s, "dark"); keyB.Set(s, "added") })
		wantResponse(t, "the slow request", slow.end(), 200, "nothing")
		b.visit(func(s *session.Session) {
			if v, _ := keyA.Get(s); v != "light" {
				t.Errorf("a: got %q, want light", v)
			}
			if v, ok := keyB.Get(s); ok {
				t.Errorf("b: got %q, want it deleted", v)
			}
		})
	})
}

// An idle timeout alone makes no record, also where it is saved, by itself or beside
// a logout: it waits for the one that comes later.
func TestProtocolIdleTimeoutWaitsForTheRecord(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore()
			b := &browser{m: newManager(t, store, session.Config{})}
			want := ""
			if before {
				b, want = login(t, b.m), "Delete"
				store.took()
			}
			b.visit(func(s *session.Session) {
				if before {
					s.Destroy()
				}
				s.SetIdleTimeout(30 * 24 * time.Hour)
				if err := s.Save(t.Context()); err != nil {
					t.Errorf("Save: got %v, want no error", err)
				}
				wantCalls(t, "Save of a timeout", store, want)
				userKey.Set(s, "ada")
			})
			if got, want := store.ttl(t), 30*24*time.Hour; got != want {
				t.Errorf("after a logout %t: time left: got %v, want %v", before, got, want)
			}
		})
	}
}
