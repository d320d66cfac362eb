package session_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

func errorHandler(h func(http.ResponseWriter, *http.Request, error)) func(*session.Config) {
	return func(c *session.Config) { c.ErrorHandler = h }
}

// An error handler that answers with no status there is, or with none at all, below
// a middleware that recovers: the outage is not answered with 200.
func TestProtocolErrorHandlerWithoutAStatus(t *testing.T) {
	handlers := map[string]func(http.ResponseWriter, *http.Request, error){
		"nothing": func(http.ResponseWriter, *http.Request, error) {},
		"a panic": func(http.ResponseWriter, *http.Request, error) { panic("sorry") },
		"an abort": func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusEarlyHints)
			panic(http.ErrAbortHandler)
		},
	}
	for _, status := range []int{-1, 0, 1, 99, 1000, 9999} {
		handlers[fmt.Sprint("status ", status)] = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(status) }
	}
	for name, h := range handlers {
		for _, proto := range protocols {
			for _, recovery := range []string{"inside", "outside"} {
				t.Run(fmt.Sprint(name, "/", proto, "/recovery ", recovery), func(t *testing.T) {
					site := newSite(t, errorHandler(h))
					cookie := site.login(t)
					site.store.fail("Load")
					page := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						nameKey.Get(session.From(r.Context()))
						_, _ = io.WriteString(w, "secret page")
					}))
					if recovery == "inside" {
						page = site.m.Handler(recovering(page))
					} else {
						page = recovering(site.m.Handler(page))
					}
					reply := startServer(t, proto, page).do(t, "POST", cookie)
					if reply.err != nil || reply.status != http.StatusServiceUnavailable || strings.Contains(reply.body, "secret") {
						t.Errorf("reply: got %d %q, %v, want the default 503", reply.status, reply.body, reply.err)
					}
				})
			}
		}
	}
}

// One that takes over the connection answers on it alone.
func TestProtocolErrorHandlerHijacks(t *testing.T) {
	answers := map[string]func(net.Conn, *bufio.ReadWriter) error{
		"with an answer": answerHijacked,
		"with none":      func(net.Conn, *bufio.ReadWriter) error { return nil },
	}
	for name, answer := range answers {
		for _, panics := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", panics ", panics), func(t *testing.T) {
				site := newSite(t, errorHandler(func(w http.ResponseWriter, _ *http.Request, _ error) {
					conn, rw, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Errorf("Hijack: got %v, want no error", err)
						return
					}
					defer conn.Close()
					_ = answer(conn, rw)
					_ = rw.Flush()
					if panics {
						panic(http.ErrAbortHandler)
					}
				}))
				cookie := site.login(t)
				site.store.fail("Load")
				srv := startServer(t, "HTTP/1.1", site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					nameKey.Get(session.From(r.Context()))
					_, _ = io.WriteString(w, "secret page")
				})))
				if got := rawReply(t, srv, cookie); strings.Count(got, "HTTP/1.1") > 1 || strings.Contains(got, "503") || strings.Contains(got, "secret") ||
					(name == "with none") != (got == "") {
					t.Errorf("on the connection: got %q, want the error handler's answer alone", got)
				}
			})
		}
	}
}

// Nothing is written into a connection that it has taken, nor said of its header, by
// either way of taking it.
func TestProtocolErrorHandlerHijacksUnseen(t *testing.T) {
	for _, way := range []string{"Hijacker", "ResponseController"} {
		store := failingStore("Load")
		m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			hijack := http.NewResponseController(w).Hijack
			if h, ok := w.(http.Hijacker); ok && way == "Hijacker" {
				hijack = h.Hijack
			} else if way == "Hijacker" {
				t.Error("got a writer that is no Hijacker, want one")
			}
			conn, _, err := hijack()
			if err != nil {
				t.Errorf("%s: got %v, want no error", way, err)
				return
			}
			_ = conn.Close()
		}})
		value, err := m.SignCookie(strings.Repeat("a", 32))
		if err != nil {
			t.Fatal(err)
		}
		w := &hijackableRecorder{ResponseRecorder: httptest.NewRecorder()}
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			readUser(session.From(r.Context()))
			_, _ = io.WriteString(w, "secret page")
		})).ServeHTTP(w, request("GET", "session="+value))
		if w.Body.Len() > 0 || w.Header().Get("Retry-After") != "" {
			t.Errorf("%s: got %q written, Retry-After %q, want nothing", way, w.Body, w.Header().Get("Retry-After"))
		}
	}
}

// rawReply returns all that a server writes into a connection.
func rawReply(t *testing.T, srv *testServer, cookie string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\nConnection: close\r\n\r\n", cookie); err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(conn)
	return string(all)
}

// Two calls of one request find the session gone at the same time: both say so.
func TestProtocolReloadBesideAFailingSave(t *testing.T) {
	for _, second := range []string{"Reload", "Save"} {
		t.Run(second, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{})
				b := login(t, m)
				p := b.begin()
				p.do(readUser)
				b.with(m).visit(destroy)
				release := make(chan bool)
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error { <-release; return do() })
				saved, reloaded := make(chan error, 1), make(chan error, 1)
				p.do(func(s *session.Session) {
					keyA.Set(s, "1")
					go func() { saved <- s.Save(context.Background()) }()
					synctest.Wait() // at the store
					go func() {
						if second == "Save" {
							reloaded <- s.Save(context.Background())
						} else {
							reloaded <- s.Reload(context.Background())
						}
					}()
					synctest.Wait() // behind the Save
					close(release)
					if err := <-saved; !errors.Is(err, session.ErrDestroyed) {
						t.Errorf("Save: got %v, want ErrDestroyed", err)
					}
					if err := <-reloaded; !errors.Is(err, session.ErrDestroyed) {
						t.Errorf("%s: got %v, want ErrDestroyed", second, err)
					}
				})
				wantResponse(t, "response", p.end(), 409, "nothing")
			})
		})
	}
}

// A Save that finds the session gone is no matter for the one that the request has
// begun after a Destroy meanwhile.
func TestProtocolSaveOverlapsDestroyAndLogin(t *testing.T) {
	for _, ended := range []bool{true, false} { // by another request as well
		t.Run(fmt.Sprint("ended by another ", ended), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				m := newManager(t, store, session.Config{})
				b := login(t, m)
				p := b.begin()
				p.do(readUser)
				if ended {
					b.with(m).visit(destroy)
				}
				reached, release := store.gate("Update")
				p.do(func(s *session.Session) {
					keyA.Set(s, "old")
					saved := make(chan error, 1)
					go func() { saved <- s.Save(context.Background()) }()
					<-reached
					store.on("Update", nil)
					s.Destroy()
					userKey.Set(s, "eve")
					close(release)
					if err := <-saved; err != nil {
						t.Errorf("Save: got %v, want no error", err)
					}
				})
				wantResponse(t, "response", p.end(), 200, "set")
				b.wantUser(t, "eve")
				b.visit(func(s *session.Session) {
					if _, ok := keyA.Get(s); ok {
						t.Error("got a value of the destroyed session, want none")
					}
				})
				store.wantRecords(t, 1)
			})
		})
	}
}

// What a store says to the manager only does not reach the application, also when
// time is up.
func TestProtocolStoreErrorsAtTheDeadline(t *testing.T) {
	for _, tt := range []struct {
		op     string
		answer error
		use    func(*session.Session)
	}{
		{"Update", session.ErrConflict, increment},
		{"Update", session.ErrConflict, func(s *session.Session) { keyA.Set(s, "1") }},
		{"Update", session.ErrConflict, renew},
		{"Update", session.ErrConflict, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }},
		{"Update", session.ErrExists, renew},
		{"Create", session.ErrExists, func(s *session.Session) { s.Destroy(); keyA.Set(s, "1") }},
		{"Update", fmt.Errorf("wrapped: %w", session.ErrConflict), increment},
	} {
		t.Run(fmt.Sprint(tt.op, " ", tt.answer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var answered error
				store := newHookedStore()
				m := newManager(t, store, session.Config{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					answered = err
					w.WriteHeader(http.StatusServiceUnavailable)
				}})
				b := login(t, m)
				store.on(tt.op, fails(tt.answer))
				wantResponse(t, "response", b.visit(tt.use), 503, "nothing")
				for _, never := range []error{session.ErrConflict, session.ErrExists, session.ErrNotFound, session.ErrDestroyed} {
					if errors.Is(answered, never) {
						t.Errorf("the error handler: got %v, want none of the store's own", answered)
					}
				}
				if !errors.Is(answered, context.DeadlineExceeded) {
					t.Errorf("the error handler: got %v, want the deadline", answered)
				}
			})
		})
	}
}

// Take leaves a value alone that is not of its type.
func TestProtocolTakeOfAnotherType(t *testing.T) {
	for name, take := range map[string]func(*session.Session) bool{
		"string as int":     func(s *session.Session) bool { _, ok := session.Key[int]("user").Take(s); return ok },
		"string as struct":  func(s *session.Session) bool { _, ok := session.Key[struct{ X int }]("user").Take(s); return ok },
		"string as slice":   func(s *session.Session) bool { _, ok := session.Key[[]int]("user").Take(s); return ok },
		"string as pointer": func(s *session.Session) bool { _, ok := session.Key[*int]("user").Take(s); return ok },
	} {
		t.Run(name, func(t *testing.T) {
			b := login(t, newManager(t, session.NewMemoryStore(), session.Config{}))
			resp := b.visit(func(s *session.Session) {
				if take(s) {
					t.Error("Take: got a value, want none")
				}
				if user, _ := userKey.Get(s); user != "ada" {
					t.Errorf("in the same request: got user %q, want ada", user)
				}
			})
			wantResponse(t, "response", resp, 200, "nothing")
			b.wantUser(t, "ada")
		})
	}
}

// A session that is first used when its handler has returned is not a visitor's
// without one: that is an error, and logged.
func TestProtocolFirstUseAfterTheHandler(t *testing.T) {
	for _, u := range protocolFirstUses {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprint(u.name, ", asked for before ", asked), func(t *testing.T) {
				for _, known := range []bool{true, false} {
					site := newSite(t) // which says it once a minute
					b, cookie := &browser{m: site.m}, ""
					if known {
						cookie = site.login(t)
					}
					b.cookie = cookie
					site.log.reset()
					site.store.took()
					var s *session.Session
					var ctx context.Context
					b.serve(func(_ http.ResponseWriter, r *http.Request) {
						if ctx = r.Context(); asked {
							s = session.From(ctx)
						}
					})
					if !asked {
						s = session.From(ctx)
					}
					u.use(s)
					wantCalls(t, "after the handler", site.store, "")
					bad := cookie != "" || u.status != 200
					if got := s.Err(); errors.Is(got, session.ErrFinished) != bad || (got != nil) != bad {
						t.Errorf("a cookie %t: Err: got %v, want ErrFinished %t", cookie != "", got, bad)
					}
					if got := site.log.from(slog.LevelWarn); len(got) > 0 != bad {
						t.Errorf("a cookie %t: logged: got %q, want something %t", cookie != "", got, bad)
					}
				}
			})
		}
	}
}
