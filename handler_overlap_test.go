package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// The browser leaves while the save is under way; the save lands on a context
// that has not ended, and nobody is alarmed.
func TestHandlerClientGone(t *testing.T) {
	for _, proto := range protocols {
		for _, op := range []string{"Load", "Create", "Update", "Delete"} {
			for _, first := range []bool{false, true} {
				if first && op == "Create" {
					continue // too late then
				}
				t.Run(fmt.Sprint(proto, "/", op, "/after the first byte ", first), func(t *testing.T) {
					site := newSite(t)
					cookie := site.login(t)
					under, gone, returned := make(chan struct{}), make(chan struct{}), make(chan struct{})
					site.store.on(op, func(ctx context.Context, _ *storeCall, do func() error) error {
						close(under)
						<-gone
						if err := ctx.Err(); err != nil {
							return err
						}
						return do()
					})
					h := site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						s := session.From(r.Context())
						if first {
							_, _ = io.WriteString(w, "page")
						}
						switch op {
						case "Delete":
							s.Destroy()
						default:
							nameKey.Set(s, "eve")
						}
						if got := s.Err(); got != nil {
							t.Errorf("Err: got %v, want no error", got)
						}
					}))
					srv := startServer(t, proto, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer close(returned)
						context.AfterFunc(r.Context(), func() { close(gone) })
						h.ServeHTTP(w, r)
					}))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					req, err := http.NewRequestWithContext(ctx, "POST", srv.url, nil)
					if err != nil {
						t.Fatal(err)
					}
					go func() { <-under; cancel() }()
					sent := cookie
					if op == "Create" {
						sent = ""
					}
					if reply := srv.send(t, req, sent); reply.err == nil {
						t.Error("reply: got a complete one, want none")
					}
					<-returned
					switch op {
					case "Delete":
						site.wantStored(t, cookie, nameKey, "")
					case "Create":
						if got := site.store.count("Create"); got != 1 {
							t.Errorf("records created: got %d, want 1", got)
						}
					default:
						site.wantStored(t, cookie, nameKey, "eve")
					}
					if got := site.log.from(slog.LevelWarn); len(got) > 0 {
						t.Errorf("logged: got %q, want nothing", got)
					}
				})
			}
		}
	}
}

// Goroutines of one request use its session and its writer's commit at once.
// Run with -race.
func TestHandlerGoroutinesOfOneRequest(t *testing.T) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			const count = session.Key[int]("count")
			srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				var wg sync.WaitGroup
				start := make(chan struct{})
				for i := range 8 {
					wg.Go(func() {
						<-start
						for range 4 {
							count.Update(s, func(n int) int { return n + 1 })
							cityKey.Set(s, fmt.Sprint("city", i))
							session.Key[int](fmt.Sprint("own", i)).Set(s, i)
							nameKey.Get(s)
							s.Keys()
							s.ID()
							s.IsNew()
							s.SetIdleTimeout(time.Hour)
							_ = s.Reload(r.Context())
							_ = s.Save(r.Context())
							_ = s.Err()
						}
					})
				}
				close(start)
				_, _ = io.WriteString(w, "page")
				wg.Wait()
				if got := s.Err(); got != nil {
					t.Errorf("Err: got %v, want no error", got)
				}
			})))
			srv.do(t, "POST", cookie).want(t, 200, "page")
			r := httptest.NewRequest("POST", "/", nil)
			r.Header.Set("Cookie", cookie)
			site.peek.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if got, _ := count.Get(s); got != 32 {
					t.Errorf("count: got %d, want 32", got)
				}
				if got := len(s.Keys()); got != 11 {
					t.Errorf("keys: got %d, want name, city, count and 8 more", got)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
			if got := site.log.from(slog.LevelWarn); len(got) > 0 {
				t.Errorf("logged: got %q, want nothing", got)
			}
		})
	}
}

func TestHandlerLeakedGoroutine(t *testing.T) {
	for _, used := range []bool{true, false} {
		t.Run(fmt.Sprint("used before ", used), func(t *testing.T) {
			site := newSite(t)
			cookie := site.login(t)
			site.store.fail() // nothing; it counts afresh
			var s *session.Session
			post(site.m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s = session.From(r.Context())
				if used {
					nameKey.Get(s)
				}
			})), cookie)
			want, calls := "", 0
			if used {
				want, calls = "ada", 1
			}
			if got, _ := nameKey.Get(s); got != want {
				t.Errorf("Get after the return: got %q, want %q from memory", got, want)
			}
			// A first use finds nothing any more, and must not pass for a visitor's.
			if got := s.Err(); used && got != nil || !used && !errors.Is(got, session.ErrFinished) {
				t.Errorf("Err after a read: got %v, want ErrFinished %t", got, !used)
			}
			for name, change := range map[string]func(){
				"Set":            func() { nameKey.Set(s, "eve") },
				"Update":         func() { nameKey.Update(s, strings.ToUpper) },
				"Delete":         func() { nameKey.Delete(s) },
				"Renew":          s.Renew,
				"Destroy":        s.Destroy,
				"SetIdleTimeout": func() { s.SetIdleTimeout(time.Hour) },
			} {
				site.log.reset()
				change()
				if got := s.Err(); !errors.Is(got, session.ErrFinished) {
					t.Errorf("%s: Err: got %v, want ErrFinished", name, got)
				}
				if got := site.log.from(slog.LevelError); len(got) != 1 {
					t.Errorf("%s: logged: got %q, want one error", name, got)
				}
			}
			if got := s.Save(t.Context()); !errors.Is(got, session.ErrFinished) {
				t.Errorf("Save: got %v, want ErrFinished", got)
			}
			if got, _ := nameKey.Get(s); got != want {
				t.Errorf("Get after refused changes: got %q, want %q", got, want)
			}
			if got := site.store.count(""); got != calls {
				t.Errorf("store calls: got %d, want %d", got, calls)
			}
			site.wantStored(t, cookie, nameKey, "ada")
		})
	}
}

// The header waits for a Save under way in another goroutine, and both changes
// are saved once.
func TestHandlerSaveDuringTheFirstByte(t *testing.T) {
	for _, proto := range protocols {
		for _, op := range []string{"Create", "Update"} {
			t.Run(proto+"/"+op, func(t *testing.T) {
				site := newSite(t)
				cookie := ""
				if op == "Update" {
					cookie = site.login(t)
				}
				srv := startServer(t, proto, site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					nameKey.Set(s, "eve")
					if op == "Update" {
						s.Renew()
					}
					under, saved, writing := make(chan struct{}), make(chan error), make(chan struct{})
					site.store.during(op, func() { close(under); <-writing })
					go func() { saved <- s.Save(r.Context()) }()
					<-under
					cityKey.Set(s, "London")
					close(writing)
					_, _ = io.WriteString(w, "page")
					if err := <-saved; err != nil {
						t.Errorf("Save: got %v, want no error", err)
					}
				})))
				reply := srv.do(t, "POST", cookie)
				reply.want(t, 200, "page")
				sent := reply.cookie(t)
				site.wantStored(t, sent, nameKey, "eve")
				site.wantStored(t, sent, cityKey, "London")
				if op == "Update" {
					site.wantStored(t, cookie, nameKey, "")
				}
			})
		}
	}
}

// Another goroutine changes the session while the commit before the header is
// under way: that counts as after the first byte.
func TestHandlerChangeDuringTheFirstByte(t *testing.T) {
	for _, tt := range []struct {
		name   string
		known  bool
		during func(s *session.Session)
		op     string
		code   int
		err    error
		stored bool // name and city; else nothing
		logged int
	}{
		{"change of a known session", true, func(s *session.Session) { cityKey.Set(s, "London") }, "Update", 200, nil, true, 0},
		{"change of a new session", false, func(s *session.Session) { cityKey.Set(s, "London") }, "Create", 200, nil, true, 0},
		{"renew", true, (*session.Session).Renew, "Update", 200, session.ErrHeaderSent, false, 1},
		{"bad value", true, func(s *session.Session) { badKey.Set(s, func() {}) }, "Update", 500, session.ErrInvalid, false, 1},
		{"destroy", true, (*session.Session).Destroy, "Update", 200, nil, false, 0},
		{"destroy a new session", false, (*session.Session).Destroy, "Create", 200, nil, false, 0},
		{"destroy and begin another", true, func(s *session.Session) { s.Destroy(); cityKey.Set(s, "London") }, "Update", 200, session.ErrHeaderSent, false, 1},
		{"destroy a new session and begin another", false, func(s *session.Session) { s.Destroy(); cityKey.Set(s, "London") }, "Create", 200, session.ErrHeaderSent, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t)
			cookie := ""
			if tt.known {
				cookie = site.login(t)
			}
			var s *session.Session
			site.store.during(tt.op, func() { tt.during(s) })
			reply := askBroken(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s = session.From(r.Context())
				nameKey.Set(s, "eve")
				_, _ = io.WriteString(w, "page")
			})), request("POST", cookie))
			if lost := errors.Is(tt.err, session.ErrHeaderSent); (reply.err != nil) != lost {
				t.Errorf("reply: got error %v, want one %t: what is not stored must not look complete", reply.err, lost)
			}
			if got := s.Err(); !errors.Is(got, tt.err) {
				t.Errorf("Err: got %v, want %v", got, tt.err)
			}
			if got := site.log.from(slog.LevelError); len(got) != tt.logged {
				t.Errorf("errors logged: got %q, want %d", got, tt.logged)
			}
			if reply.status != tt.code {
				t.Errorf("status: got %d, want %d", reply.status, tt.code)
			}
			if tt.stored {
				if cookie == "" {
					cookie = reply.cookie(t)
				}
				site.wantStored(t, cookie, nameKey, "eve")
				site.wantStored(t, cookie, cityKey, "London")
				return
			}
			for _, id := range site.store.named() {
				if !strings.Contains(tt.name, "destroy") {
					break
				}
				if _, err := site.store.Store.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("a destroyed session's record: got %v, want ErrNotFound", err)
				}
			}
		})
	}
}

// Save's context bounds only the wait: a save that fails later still decides
// the response, and one that succeeds later is not lost.
func TestHandlerSaveWhoseWaitEnded(t *testing.T) {
	for _, proto := range protocols {
		for _, fails := range []bool{false, true} {
			for _, first := range []bool{false, true} {
				t.Run(fmt.Sprint(proto, "/fails ", fails, "/after the first byte ", first), func(t *testing.T) {
					site := newSite(t)
					cookie := site.login(t)
					writing := make(chan struct{})
					srv := startServer(t, proto, outside(site.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						s := session.From(r.Context())
						if first {
							_, _ = io.WriteString(w, "page")
						}
						nameKey.Set(s, "eve")
						ctx, cancel := context.WithCancel(r.Context())
						defer cancel()
						site.store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
							cancel()
							<-writing
							if fails {
								return errStoreDown
							}
							return do()
						})
						if err := s.Save(ctx); !errors.Is(err, context.Canceled) {
							t.Errorf("Save: got %v, want its context's error", err)
						}
						close(writing)
						if !first {
							_, _ = io.WriteString(w, "page")
						}
					}))))
					reply := srv.do(t, "POST", cookie)
					switch {
					case !fails:
						reply.want(t, 200, "page")
						site.wantStored(t, cookie, nameKey, "eve")
					case !first:
						reply.wantRefused(t, 503)
					case reply.err == nil:
						t.Errorf("reply: got a complete one, %d %q, want a broken one", reply.status, reply.body)
					}
				})
			}
		}
	}
}
