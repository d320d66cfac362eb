package session_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// detaching is a recovery that leaves the response to itself.
func detaching(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				session.From(r.Context()).Detach()
				http.Error(w, "recovered", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// An ID that an early Save has made is sent, however the request ends: the browser's
// old one is dead.
func TestProtocolMadeIDIsSent(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		inside := func(recovery func(http.Handler) http.Handler) func(http.Handler) http.Handler {
			return func(h http.Handler) http.Handler { return m.Handler(recovery(h)) }
		}
		panics := func(*session.Session) { panic("after the save") }
		for _, tt := range []struct {
			name   string
			around func(http.Handler) http.Handler
			then   func(*session.Session)
			status int
		}{
			{"a panic, a recovery inside that abandons the session", inside(detaching), panics, 500},
			{"a panic, a recovery inside", inside(recovering), panics, 500},
			{"a panic, a recovery outside", func(h http.Handler) http.Handler { return recovering(m.Handler(h)) }, panics, 500},
			{"left to the handler", m.Handler, func(s *session.Session) { s.Detach() }, 200},
			{"a later save fails", m.Handler, func(s *session.Session) {
				store.on("Update", fails(errStoreDown))
				keyA.Set(s, "1")
			}, 503},
			{"a later save fails, and the look at it too", m.Handler, func(s *session.Session) {
				store.on("*", fails(errStoreDown))
				keyA.Set(s, "1")
			}, 503},
			{"a later change is invalid", m.Handler, func(s *session.Session) { session.Key[string]("cookie").Set(s, "1") }, 500},
			{"a later change is too large", m.Handler, func(s *session.Session) {
				keyA.Set(s, string(make([]byte, session.DefaultMaxBytes)))
			}, 500},
			{"a later Save panics in the store, a recovery inside", inside(recovering), func(s *session.Session) {
				store.on("Update", func(context.Context, *storeCall, func() error) error { panic("store") })
				keyA.Set(s, "1")
				_ = s.Save(context.Background())
			}, 503},
		} {
			for _, known := range []bool{true, false} {
				name := tt.name + ", a new session"
				b := &browser{m: m}
				if known {
					name = tt.name + ", a renewed one"
					b = login(t, m)
				}
				t.Run(name, func(t *testing.T) {
					p := b.beginIn(tt.around)
					p.do(func(s *session.Session) {
						logIn("eve")(s)
						save(t)(s)
						tt.then(s)
					})
					resp := p.end()
					store.on("Update", nil)
					store.on("*", nil)
					wantResponse(t, "response", resp, tt.status, "set")
					b.wantUser(t, "eve")
				})
			}
		}
	})
}

// A logout is carried out, also where the response is left to the handler.
func TestProtocolDetachedLogout(t *testing.T) {
	eachProtocolStore(t, func(t *testing.T, store *hookedStore, open func(...func(*session.Config)) *session.Manager) {
		m := open()
		for _, tt := range []struct {
			name string
			use  func(*session.Session)
			sent string
		}{
			{"Detach, Destroy", func(s *session.Session) { s.Detach(); s.Destroy() }, "expired"},
			{"Destroy, Detach", func(s *session.Session) { s.Destroy(); s.Detach() }, "expired"},
			{"Get, Detach, Destroy", func(s *session.Session) { readUser(s); s.Detach(); s.Destroy() }, "expired"},
			{"Detach, Destroy, Save", func(s *session.Session) { s.Detach(); s.Destroy(); save(t)(s) }, "expired"},
			{"Set of a bad value, Destroy", func(s *session.Session) { session.Key[string]("id").Set(s, "1"); s.Detach(); s.Destroy() }, "expired"},
		} {
			for _, late := range []bool{false, true} {
				name := tt.name
				if late {
					name += " after the first byte"
				}
				t.Run(name, func(t *testing.T) {
					store.forget()
					b := login(t, m)
					p := b.begin()
					p.serve(func(w http.ResponseWriter, r *http.Request) {
						if late {
							w.WriteHeader(http.StatusOK)
						}
						tt.use(session.From(r.Context()))
					})
					sent := tt.sent
					if late {
						sent = "nothing"
					}
					resp := p.end()
					wantResponse(t, "response", resp, 200, sent)
					if resp.err != nil {
						t.Errorf("response: got %v, want a complete one", resp.err)
					}
					store.wantRecords(t, 0)
				})
			}
		}
	})
}

// Where it cannot be carried out that is no page that says goodbye.
func TestProtocolDetachedLogoutThatFails(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := login(t, m)
	store.on("Delete", fails(errStoreDown))
	for _, late := range []bool{false, true} {
		p := b.begin()
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			if late {
				w.WriteHeader(http.StatusOK)
			}
			s := session.From(r.Context())
			s.Detach()
			s.Destroy()
		})
		resp := p.end()
		if late && resp.err != http.ErrAbortHandler || !late && resp.status != http.StatusServiceUnavailable {
			t.Errorf("late %t: got status %d, %v, want 503, or aborted when late", late, resp.status, resp.err)
		}
	}
}

// waitingLog is a log that may take its time.
type waitingLog struct {
	logRecorder
	wait func(msg string)
}

func (l *waitingLog) Handle(_ context.Context, r slog.Record) error { l.wait(r.Message); return nil }

func (l *waitingLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *waitingLog) WithGroup(string) slog.Handler { return l }

// When a handler has panicked no Save of its goroutines makes an ID any more: the
// answer's cookie is being written, and would be another's.
func TestNoSaveAfterAPanic(t *testing.T) {
	logged, saved := make(chan bool), make(chan error, 1)
	log := &waitingLog{wait: func(msg string) {
		if strings.Contains(msg, "X-Forwarded-Proto seen") {
			close(logged)
			select {
			case err := <-saved:
				saved <- err
			case <-time.After(time.Second):
			}
		}
	}}
	plain := newHookedStore()
	m := newManager(t, plain, session.Config{DisablePrune: true, Logger: slog.New(log)})
	b := login(t, newManager(t, plain, session.Config{DisablePrune: true}))
	b.m = m
	r := request("POST", b.cookie)
	r.Header.Set("X-Forwarded-Proto", "https")
	resp := ask(recovering(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		save(t)(s)
		go func() {
			<-logged
			s.Renew()
			saved <- s.Save(context.Background())
		}()
		panic("the handler's")
	}))), r)
	b.take(resp)
	if err := <-saved; !errors.Is(err, session.ErrFinished) {
		t.Errorf("Save after the panic: got %v, want ErrFinished", err)
	}
	b.wantUser(t, "ada")
}
