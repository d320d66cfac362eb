package session_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// stream is a response that watches its session until somebody ends it.
type stream struct {
	context.Context
	leave func() *response // ends the handler, if it has not ended
}

// stream begins one, and returns when its first byte has left.
func (b *browser) stream() *stream { return newStream(b.serve) }

// newStream is stream of who sends a request in another way.
func newStream(serve func(http.HandlerFunc) *response) *stream {
	opened, leave, ended := make(chan context.Context, 1), make(chan bool), make(chan *response, 1)
	go func() {
		ended <- serve(func(w http.ResponseWriter, r *http.Request) {
			ctx, stop := session.From(r.Context()).Watch(r.Context())
			defer stop()
			_, _ = w.Write([]byte("stream\n"))
			opened <- ctx
			<-leave
		})
	}()
	return &stream{Context: <-opened, leave: sync.OnceValue(func() *response { close(leave); return <-ended })}
}

// wantCause checks that the stream has ended for a reason, nil for not at all.
func (s *stream) wantCause(t testing.TB, what string, want error) {
	t.Helper()
	synctest.Wait()
	if got := context.Cause(s); !errors.Is(got, want) || errors.Is(got, session.ErrRenewed) != errors.Is(want, session.ErrRenewed) ||
		errors.Is(got, session.ErrExpired) != errors.Is(want, session.ErrExpired) {
		t.Errorf("%s: the stream: got cause %v, want %v", what, got, want)
	}
}

// watched is a bubble with a browser that is logged in.
func watched(t *testing.T, cfg session.Config, f func(t *testing.T, store *hookedStore, b *browser)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newHookedStore()
		cfg.DisablePrune = true
		f(t, store, login(t, newManager(t, store.whole(), cfg)))
	})
}

// What ends a session ends its streams within a second, at the next look, and says
// why. Other sessions' streams go on.
func TestWatchEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, b *browser)
		want error
	}{
		{"a logout", func(_ *testing.T, b *browser) { b.visit(destroy) }, session.ErrDestroyed},
		{"a renewal by another request", func(_ *testing.T, b *browser) { b.visit(renew) }, session.ErrRenewed},
		{"a renewal and a logout", func(_ *testing.T, b *browser) { b.visit(renew); b.visit(destroy) }, session.ErrRenewed},
		{"Revoke", func(t *testing.T, b *browser) {
			if n, err := b.m.Revoke(t.Context(), userKey.Is("ada")); n != 1 || err != nil {
				t.Errorf("Revoke: got %d, %v", n, err)
			}
		}, session.ErrDestroyed},
		{"an idle timeout that is shortened", func(_ *testing.T, b *browser) {
			b.visit(func(s *session.Session) { s.SetIdleTimeout(time.Millisecond) })
		}, session.ErrExpired},
		{"nothing", func(*testing.T, *browser) {}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watched(t, session.Config{UserKey: "user"}, func(t *testing.T, _ *hookedStore, b *browser) {
				other := &browser{m: b.m}
				other.visit(func(s *session.Session) { userKey.Set(s, "bob") })
				one, two, bobs := b.stream(), b.with(b.m).stream(), other.stream()
				pass(10 * time.Second)
				one.wantCause(t, "before", nil)
				tt.end(t, b)
				pass(time.Second)
				one.wantCause(t, "a second later", tt.want)
				two.wantCause(t, "another of the session", tt.want)
				bobs.wantCause(t, "another session's", nil)
				for _, s := range []*stream{one, two, bobs} {
					s.leave()
				}
			})
		})
	}
}

// The time of a session runs out, pruned or not, and by the absolute timeout too.
// What another request does to the expiry counts.
func TestWatchExpires(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    session.Config
		during func(t *testing.T, b *browser) // half an hour later
		after  time.Duration                  // since the login
	}{
		{"by the idle timeout", session.Config{}, nil, time.Hour},
		{"and was extended", session.Config{}, func(_ *testing.T, b *browser) { b.user() }, 90 * time.Minute},
		{"and was shortened", session.Config{}, func(_ *testing.T, b *browser) {
			b.visit(func(s *session.Session) { s.SetIdleTimeout(10 * time.Minute) })
		}, 40 * time.Minute},
		{"by the absolute timeout", session.Config{AbsoluteTimeout: 80 * time.Minute}, func(_ *testing.T, b *browser) { b.user() }, 80 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.IdleTimeout = time.Hour
			watched(t, tt.cfg, func(t *testing.T, _ *hookedStore, b *browser) {
				s := b.with(b.m).stream()
				pass(30 * time.Minute)
				if tt.during != nil {
					tt.during(t, b)
				}
				pass(tt.after - 30*time.Minute - time.Millisecond)
				s.wantCause(t, "before its time", nil)
				pass(time.Second + 2*time.Millisecond)
				s.wantCause(t, "after its time", session.ErrExpired)
				s.leave()
				if got := b.user(); got != "" {
					t.Errorf("the session: got user %q, want nobody", got)
				}
			})
		})
	}
}

// A row that a prune took between two looks has expired all the same.
func TestWatchOfAPrunedRecord(t *testing.T) {
	watched(t, session.Config{IdleTimeout: time.Hour}, func(t *testing.T, _ *hookedStore, b *browser) {
		s := b.stream()
		pass(time.Hour + time.Millisecond)
		if n, err := b.m.Prune(t.Context()); n != 1 || err != nil {
			t.Fatalf("Prune: got %d, %v", n, err)
		}
		pass(time.Second)
		s.wantCause(t, "pruned", session.ErrExpired)
		s.leave()
	})
}

// In an outage a stream lives on, until the last known expiry and no longer, whether
// the store fails, hangs until its deadline, or for ever; and one that answers again
// is heard.
func TestWatchInAnOutage(t *testing.T) {
	hangs := func(ctx context.Context, _ *storeCall, _ func() error) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, tt := range []struct {
		name string
		peek func(release chan bool) hook
	}{
		{"fails", func(chan bool) hook { return fails(errStoreDown) }},
		{"hangs until its deadline", func(chan bool) hook { return hangs }},
		{"never answers", func(release chan bool) hook {
			return func(context.Context, *storeCall, func() error) error { <-release; return errStoreDown }
		}},
		{"panics", func(chan bool) hook { return func(context.Context, *storeCall, func() error) error { panic("Peek") } }},
		{"answers for nobody", func(chan bool) hook {
			return func(_ context.Context, c *storeCall, _ func() error) error { c.peeked = nil; return nil }
		}},
		{"answers for too many", func(chan bool) hook {
			return func(_ context.Context, c *storeCall, _ func() error) error {
				c.peeked = make([]session.Peeked, 9)
				return nil
			}
		}},
		{"says nonsense", func(chan bool) hook {
			return func(_ context.Context, c *storeCall, _ func() error) error {
				c.peeked = []session.Peeked{{TTL: -time.Second}}
				return nil
			}
		}},
		{"does not know", func(chan bool) hook {
			return func(_ context.Context, c *storeCall, _ func() error) error {
				c.peeked = []session.Peeked{{Err: errStoreDown}}
				return nil
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			watched(t, session.Config{IdleTimeout: time.Hour}, func(t *testing.T, store *hookedStore, b *browser) {
				release := make(chan bool)
				s := b.stream()
				pass(time.Minute)
				store.on("Peek", tt.peek(release))
				pass(59*time.Minute - time.Millisecond)
				s.wantCause(t, "before the last known expiry", nil)
				pass(time.Second + 2*time.Millisecond)
				s.wantCause(t, "after it", session.ErrExpired)
				s.leave()
				close(release)
			})
			watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
				release := make(chan bool)
				s := b.stream()
				store.on("Peek", tt.peek(release))
				pass(time.Hour)
				b.visit(destroy)
				pass(time.Minute)
				s.wantCause(t, "nobody knows", nil)
				store.on("Peek", nil)
				close(release)
				pass(7 * time.Second) // a look that hangs ends with StoreTimeout
				s.wantCause(t, "the store answers again", session.ErrDestroyed)
				s.leave()
			})
		})
	}
}

// Whoever is on call reads one line when looks begin to fail, and one when they do not.
func TestWatchLogsAnOutageOnce(t *testing.T) {
	var log bytes.Buffer
	watched(t, session.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, store *hookedStore, b *browser) {
		s := b.stream()
		before := b.m.Stats().StoreErrors
		store.on("Peek", fails(errStoreDown))
		pass(10*time.Second + time.Millisecond)
		store.on("Peek", nil)
		pass(10 * time.Second)
		s.leave()
		if got := strings.Count(log.String(), "sessions of open streams live"); got != 2 {
			t.Errorf("got %d lines, want 2:\n%s", got, &log)
		}
		if got := b.m.Stats().StoreErrors - before; got != 10 {
			t.Errorf("StoreErrors: got %d, want one for each look, 10", got)
		}
	})
}

// Watching extends nothing, nor does the end of a request that has watched. What the
// request uses before its first byte does, and so does what it saves.
func TestWatchDoesNotExtend(t *testing.T) {
	for _, tt := range []struct {
		name   string
		in     func(*session.Session) // the stream, after half an hour
		expiry time.Duration          // since the login, half an hour before the stream
	}{
		{"watching", func(*session.Session) {}, 90 * time.Minute},
		{"reading", readUser, 90 * time.Minute},
		{"saving", func(s *session.Session) { keyA.Set(s, "x") }, 2*time.Hour - time.Minute}, // no cookie can follow: a touch interval less
	} {
		t.Run(tt.name, func(t *testing.T) {
			watched(t, session.Config{IdleTimeout: time.Hour}, func(t *testing.T, store *hookedStore, b *browser) {
				pass(30 * time.Minute)
				b.serve(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					ctx, stop := s.Watch(r.Context())
					defer stop()
					_, _ = w.Write([]byte("stream\n"))
					pass(30 * time.Minute)
					if ctx.Err() != nil {
						t.Error("the stream has ended")
					}
					tt.in(s)
				})
				if got, want := store.ttl(t), tt.expiry-time.Hour; got != want {
					t.Errorf("time left: got %v, want %v", got, want)
				}
			})
		})
	}
}

// What a request does to its own session.
func TestWatchOfTheRequestItself(t *testing.T) {
	t.Run("Renew is followed", func(t *testing.T) {
		watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
			ctx, _ := openStream(b, func(s *session.Session, ctx context.Context) {
				s.Renew()
				// A look between the store's step and its answer sees the mark.
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
					err := do()
					pass(3 * time.Second)
					return err
				})
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
				}
				pass(3 * time.Second)
				if ctx.Err() != nil {
					t.Errorf("after Renew: got %v, want nothing", context.Cause(ctx))
				}
				b.with(b.m).visit(readUser) // the old cookie is nobody's
				if _, err := b.m.Revoke(t.Context(), session.Everyone()); err != nil {
					t.Error(err)
				}
				pass(time.Second + time.Millisecond)
			})
			wantCause(t, "the renewed session was revoked", ctx, session.ErrDestroyed)
		})
	})
	t.Run("Destroy ends it at once", func(t *testing.T) {
		watched(t, session.Config{}, func(t *testing.T, _ *hookedStore, b *browser) {
			ctx, _ := openStream(b, func(s *session.Session, ctx context.Context) {
				s.Destroy()
				wantCause(t, "Destroy", ctx, session.ErrDestroyed)
				again, stop := s.Watch(t.Context())
				defer stop()
				wantCause(t, "Watch after Destroy", again, session.ErrDestroyed)
				userKey.Set(s, "eve")
				fresh, stop := s.Watch(t.Context())
				defer stop()
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
				}
				pass(2 * time.Second)
				wantCause(t, "a session begun anew", fresh, nil)
				s.Destroy()
				wantCause(t, "which is destroyed", fresh, session.ErrDestroyed)
			})
			wantCause(t, "the first", ctx, session.ErrDestroyed)
		})
	})
	t.Run("a session that it begins", func(t *testing.T) {
		watched(t, session.Config{}, func(t *testing.T, _ *hookedStore, b *browser) {
			visitor := &browser{m: b.m}
			openStream(visitor, func(s *session.Session, ctx context.Context) {
				pass(2 * time.Second)
				wantCause(t, "without a record", ctx, nil)
				userKey.Set(s, "eve")
				if err := s.Save(t.Context()); err != nil {
					t.Error(err)
				}
				pass(2 * time.Second)
				wantCause(t, "with one", ctx, nil)
				if _, err := b.m.Revoke(t.Context(), session.Everyone()); err != nil {
					t.Error(err)
				}
				pass(time.Second)
				wantCause(t, "revoked", ctx, session.ErrDestroyed)
				s.Detach()
			})
		})
	})
	t.Run("a renewal of which nobody knows", func(t *testing.T) {
		watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
			store.on("Load", nil)
			openStream(b, func(s *session.Session, ctx context.Context) {
				s.Renew()
				store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
					_ = do()
					store.on("Load", fails(errStoreDown))
					return session.ErrUncertain
				})
				if err := s.Save(t.Context()); !errors.Is(err, session.ErrUncertain) && !errors.Is(err, errStoreDown) {
					t.Errorf("Save: got %v", err)
				}
				pass(2 * time.Second)
				wantCause(t, "it was one", ctx, session.ErrRenewed)
			})
		})
	})
}

// openStream lets a handler work with its session and a context that watches it.
func openStream(b *browser, f func(s *session.Session, ctx context.Context)) (ctx context.Context, resp *response) {
	resp = b.visit(func(s *session.Session) {
		var stop context.CancelFunc
		ctx, stop = s.Watch(context.Background())
		defer stop()
		f(s, ctx)
	})
	return ctx, resp
}

func wantCause(t testing.TB, what string, ctx context.Context, want error) {
	t.Helper()
	(&stream{Context: ctx}).wantCause(t, what, want)
}

// Where there is nothing to watch.
func TestWatchOfNothing(t *testing.T) {
	watched(t, session.Config{UserKey: "user"}, func(t *testing.T, store *hookedStore, b *browser) {
		store.on("Load", fails(errStoreDown))
		ctx, resp := openStream(b, func(*session.Session, context.Context) {})
		if got := context.Cause(ctx); !errors.Is(got, errStoreDown) || resp.status != 503 {
			t.Errorf("a session that cannot be loaded: got cause %v, status %d, want the store's error, 503", got, resp.status)
		}
		store.on("Load", nil)

		late := b.with(b.m)
		resp = late.visit(func(s *session.Session) {
			b.visit(renew)
			ctx, stop := s.Watch(t.Context())
			defer stop()
			wantCause(t, "renewed before its first use", ctx, session.ErrRenewed)
		})
		wantResponse(t, "renewed before its first use", resp, 200, "nothing")

		var s *session.Session
		b.visit(func(of *session.Session) { s = of; readUser(s) })
		ctx, stop := s.Watch(t.Context())
		defer stop()
		wantCause(t, "after the handler", ctx, session.ErrFinished)

		ended, cancel := context.WithCancelCause(t.Context())
		cancel(errStoreDown)
		b.visit(func(s *session.Session) {
			ctx, stop := s.Watch(ended)
			defer stop()
			wantCause(t, "a context that has ended", ctx, errStoreDown)
		})

		// A stream outlives its handler if its context does.
		b.visit(func(of *session.Session) { ctx, stop = of.Watch(t.Context()) })
		pass(2 * time.Second)
		wantCause(t, "a handler that has returned", ctx, nil)
		b.visit(destroy)
		pass(time.Second)
		wantCause(t, "a logout after that", ctx, session.ErrDestroyed)
		stop()
	})
}

// Close ends the streams, which is no logout, and those that come later.
func TestCloseEndsStreams(t *testing.T) {
	watched(t, session.Config{}, func(t *testing.T, _ *hookedStore, b *browser) {
		s := b.stream()
		if err := b.m.Close(); err != nil {
			t.Error(err)
		}
		s.wantCause(t, "Close", context.Canceled)
		late := b.stream()
		late.wantCause(t, "after Close", context.Canceled)
		if cause := context.Cause(late); errors.Is(cause, session.ErrDestroyed) || cause == context.Canceled {
			t.Errorf("after Close: got %v, want what says so and is no logout", cause)
		}
		s.leave()
		late.leave()
		if got := b.user(); got != "ada" {
			t.Errorf("after Close: got user %q, want ada", got)
		}
	})
}

// Close waits for the look under way, and not for ever.
func TestCloseWaitsForALook(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
			release, looking := make(chan bool), make(chan bool, 1)
			store.on("Peek", func(_ context.Context, _ *storeCall, do func() error) error {
				looking <- true
				<-release
				return do()
			})
			s := b.stream()
			<-looking
			if !hangs {
				time.AfterFunc(2*time.Second, func() { close(release) })
			}
			began := time.Now()
			err := b.m.Close()
			if took := time.Since(began); (err != nil) != hangs || took != map[bool]time.Duration{false: 2 * time.Second, true: session.DefaultStoreTimeout}[hangs] {
				t.Errorf("Close: got %v after %v", err, took)
			}
			if hangs {
				close(release)
			}
			s.leave()
		})
	}
}

// One goroutine while streams are open, whatever their number, and none when the
// last has ended. One question a second, in which each session is named once.
func TestWatchAsksOnce(t *testing.T) {
	watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
		var asked []int64
		store.on("Peek", func(_ context.Context, c *storeCall, do func() error) error {
			asked = append(asked, c.n)
			return do()
		})
		other := login(t, b.m)
		var all []*stream
		for range 20 {
			all = append(all, b.stream(), other.stream())
		}
		store.took()
		pass(5*time.Second + time.Millisecond)
		if got := store.took(); got != "Peek Peek Peek Peek Peek" {
			t.Errorf("5 seconds: got calls %q, want 5 of Peek", got)
		}
		synctest.Wait()
		for _, n := range asked {
			if n != 2 {
				t.Errorf("got a look at %d IDs, want 2", n)
			}
		}
		for _, s := range all {
			s.leave()
		}
		store.took()
		synctest.Wait()
		pass(time.Minute)
		wantCalls(t, "nothing is open", store, "")
		if !session.WatcherRests(b.m) {
			t.Error("nothing is open: a goroutine still looks")
		}
		s := b.stream()
		pass(2*time.Second + time.Millisecond)
		if got := store.count("Peek"); got != 2 {
			t.Errorf("opened again: got %d looks in 2 seconds, want 2", got)
		}
		s.leave()
	}) // the bubble fails where a goroutine is left
}

// More sessions than one question may have are asked for by several.
func TestWatchAsksInParts(t *testing.T) {
	watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
		session.SetMostPeeked(b.m, 3)
		var parts []int64
		store.on("Peek", func(_ context.Context, c *storeCall, do func() error) error {
			parts = append(parts, c.n)
			return do()
		})
		browsers := []*browser{b}
		var all []*stream
		for len(browsers) < 8 {
			browsers = append(browsers, login(t, b.m))
		}
		for _, b := range browsers {
			all = append(all, b.stream(), b.stream())
		}
		browsers[4].visit(destroy)
		pass(time.Second + time.Millisecond)
		for i, s := range all {
			var want error
			if i/2 == 4 {
				want = session.ErrDestroyed
			}
			s.wantCause(t, "in parts", want)
			s.leave()
		}
		if len(parts) != 3 || parts[0] != 3 || parts[1] != 3 || parts[2] != 2 {
			t.Errorf("got parts of %d, want 3, 3 and 2", parts)
		}
	})
}

// A store that is no Watcher is asked by Load, and the log says what that costs.
func TestWatchWithoutAWatcher(t *testing.T) {
	for _, tt := range []struct {
		end  func(*session.Session)
		want error
	}{{destroy, session.ErrDestroyed}, {renew, session.ErrRenewed}, {func(s *session.Session) { s.SetIdleTimeout(time.Second) }, session.ErrExpired}} {
		var log bytes.Buffer
		synctest.Test(t, func(t *testing.T) {
			store := newHookedStore()
			b := login(t, newManager(t, store, session.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}))
			s, same := b.stream(), b.stream()
			store.took()
			pass(2*time.Second + time.Millisecond)
			wantCalls(t, "2 seconds", store, "Load Load")
			b.visit(tt.end)
			pass(3 * time.Second)
			s.wantCause(t, "without a Watcher", tt.want)
			s.leave()
			same.leave()
			if got := strings.Count(log.String(), "the store is no Watcher"); got != 1 {
				t.Errorf("got %d lines in the log that say so, want 1", got)
			}
		})
	}
}

// A stream of a session that is bound to a device ends when its request's proof
// does, and is let in again with a new one.
func TestWatchOfABoundSession(t *testing.T) {
	watch := func(u *unit) *stream {
		return newStream(func(h http.HandlerFunc) *response { return ask(u.site.m.Handler(h), u.request("GET", "/")) })
	}
	const life = boundRefresh + time.Minute // and the slack
	t.Run("proven", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSiteOver(t, newHookedStore())
			u := b.boundUnit()
			pass(5 * time.Minute)
			s := watch(u)
			pass(life - boundGrace - 5*time.Minute - time.Second)
			s.wantCause(t, "before the proof's end", nil)
			pass(3 * time.Second)
			s.wantCause(t, "after it", session.ErrUnproven)
			s.leave()
			u.forget()
			u.refresh()
			again := watch(u)
			pass(5 * time.Minute)
			again.wantCause(t, "with a new proof", nil)
			u.send("POST", "/logout")
			pass(time.Second)
			again.wantCause(t, "logged out", session.ErrDestroyed)
			again.leave()
		})
	})
	t.Run("before the key counts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSiteOver(t, newHookedStore())
			u := b.unit()
			u.send("POST", "/login")
			s := watch(u)
			u.register()
			u.get("/")
			pass(life - time.Second)
			s.wantCause(t, "before a proof would end", nil)
			pass(3 * time.Second)
			s.wantCause(t, "after that", session.ErrUnproven)
			s.leave()
		})
	})
	t.Run("Require", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSiteOver(t, newHookedStore(), func(c *session.Config) { c.DeviceBound.Require = 2 * time.Minute })
			u := b.unit()
			u.send("POST", "/login")
			s := watch(u)
			pass(2*time.Minute - time.Second)
			s.wantCause(t, "before a key is required", nil)
			pass(3 * time.Second)
			s.wantCause(t, "after that", session.ErrUnproven)
			s.leave()
		})
	})
	t.Run("beside the registration", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSiteOver(t, newHookedStore())
			u := b.unit()
			u.send("POST", "/login")
			u.register()
			u.get("/")
			thief := u.copied().forget()
			s := watch(thief) // let in: it may have left the browser before the key counted
			s.wantCause(t, "let in", nil)
			pass(12 * time.Second)
			s.wantCause(t, "a moment later", session.ErrUnproven)
			s.leave()
		})
	})
	t.Run("not bound", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBoundSiteOver(t, newHookedStore())
			u := b.unit()
			u.send("POST", "/cart")
			s := watch(u)
			pass(10 * life)
			s.wantCause(t, "a session without a device", nil)
			s.leave()
		})
	})
}

// A record that was made without an absolute timeout has more time left than that
// allows: its stream ends all the same, though the store says that it lives.
func TestWatchOfARecordWithoutAbsoluteTimeout(t *testing.T) {
	watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
		m := newManager(t, store.whole(), session.Config{AbsoluteTimeout: time.Hour, DisablePrune: true})
		pass(50 * time.Minute)
		store.fail("Update", "Touch") // which would shorten it
		s := b.with(m).stream()
		pass(9 * time.Minute)
		s.wantCause(t, "before its hour is over", nil)
		pass(time.Minute + 2*time.Second)
		s.wantCause(t, "after it", session.ErrExpired)
		store.fail()
		s.leave()
	})
}

// An answer that was about the ID of before comes once the request has renewed it:
// it is nobody's any more.
func TestWatchPassesOverALateAnswer(t *testing.T) {
	watched(t, session.Config{}, func(t *testing.T, store *hookedStore, b *browser) {
		openStream(b, func(s *session.Session, ctx context.Context) {
			ask, asked, hold := make(chan bool), make(chan bool), make(chan bool)
			store.on("Peek", func(_ context.Context, _ *storeCall, do func() error) error {
				ask <- true
				<-asked // the record has been renewed
				err := do()
				<-hold // and the request knows
				return err
			})
			<-ask
			s.Renew()
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			store.on("Peek", nil)
			close(asked)
			close(hold)
			pass(3 * time.Second)
			wantCause(t, "a late answer", ctx, nil)
		})
	})
}
