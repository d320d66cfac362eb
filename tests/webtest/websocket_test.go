package webtest

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	neturl "net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/pgsession/session"
)

// upgrade answers a websocket handshake and returns how to echo one message
// and end.
type upgrade func(w http.ResponseWriter, r *http.Request) (echo func() error, err error)

func coderUpgrade(w http.ResponseWriter, r *http.Request) (func() error, error) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return nil, err
	}
	return func() error {
		defer c.CloseNow()
		typ, msg, err := c.Read(context.WithoutCancel(r.Context()))
		if err != nil {
			return err
		}
		return c.Write(context.WithoutCancel(r.Context()), typ, msg)
	}, nil
}

func gorillaUpgrade(w http.ResponseWriter, r *http.Request) (func() error, error) {
	c, err := new(gorilla.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	return func() error {
		defer c.Close()
		typ, msg, err := c.ReadMessage()
		if err != nil {
			return err
		}
		return c.WriteMessage(typ, msg)
	}, nil
}

// proxyUpgrade hands the connection to a websocket server behind a reverse
// proxy, which echoes by itself.
func proxyUpgrade(t *testing.T) upgrade {
	backend, _ := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if echo, err := coderUpgrade(w, r); err == nil {
			_ = echo()
		}
	}))
	u, err := neturl.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	return func(w http.ResponseWriter, r *http.Request) (func() error, error) {
		proxy.ServeHTTP(w, r)
		return func() error { return nil }, session.From(r.Context()).Err()
	}
}

// dial opens a websocket, has one message echoed if that works, and returns
// the handshake's response with its body.
func dial(t *testing.T, url, cookie string) (*http.Response, string, error) {
	t.Helper()
	h := http.Header{}
	if cookie != "" {
		h.Set("Cookie", cookie)
	}
	c, res, err := websocket.Dial(t.Context(), strings.Replace(url, "http", "ws", 1), &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		if res == nil {
			t.Fatalf("handshake: got no response: %v", err)
		}
		body, _ := io.ReadAll(res.Body)
		return res, string(body), err
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatalf("send: got %v, want no error", err)
	}
	if _, msg, err := c.Read(t.Context()); err != nil || string(msg) != "hello" {
		t.Fatalf("echo: got %q, %v, want hello", msg, err)
	}
	return res, "", nil
}

func TestWebsocket(t *testing.T) {
	set := func(s *session.Session) { name.Set(s, "eve") }
	for _, tt := range []struct {
		name   string
		anon   bool
		fails  string
		before func(s *session.Session)
		code   int  // as a library that hijacks sees it
		coder  int  // as one does that calls WriteHeader(101) first
		cookie bool // with coder
		want   string
	}{
		{"unused", false, "", func(*session.Session) {}, 101, 101, false, "ada"},
		{"read", false, "", func(s *session.Session) { name.Get(s) }, 101, 101, false, "ada"},
		{"changed", false, "", set, 101, 101, false, "eve"},
		{"renewed", false, "", (*session.Session).Renew, 500, 101, true, "ada"},
		{"renewed and changed", false, "", func(s *session.Session) { s.Renew(); set(s) }, 500, 101, true, "eve"},
		{"new", true, "", set, 500, 101, true, "eve"},
		{"load fails", false, "Load", func(s *session.Session) { name.Get(s) }, 503, 503, false, "ada"},
		{"save fails", false, "Update", set, 503, 503, false, "ada"},
		{"bad value", false, "", func(s *session.Session) { session.Key[func()]("bad").Set(s, func() {}) }, 500, 500, false, "ada"},
	} {
		for _, lib := range []string{"coder", "gorilla", "proxy", "coder under gzip", "gorilla under gzip"} {
			t.Run(tt.name+"/"+lib, func(t *testing.T) {
				s := newSite(t)
				cookie := ""
				if !tt.anon {
					cookie = s.login(t)
				}
				s.store.fail(tt.fails)
				kind, _, gzipped := strings.Cut(lib, " ")
				up, code := upgrade(gorillaUpgrade), tt.code
				switch kind {
				case "coder":
					up, code = coderUpgrade, tt.coder
				case "proxy":
					up = proxyUpgrade(t)
				}
				returned := make(chan struct{})
				h := s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sess := session.From(r.Context())
					w.Header().Set("X-Handler", "yes")
					tt.before(sess)
					echo, err := up(w, r)
					if code != 101 {
						if err == nil || sess.Err() == nil {
							t.Errorf("upgrade: got %v and Err %v, want two errors", err, sess.Err())
						}
						if err == nil {
							_ = echo()
						}
						return
					}
					if err != nil {
						t.Errorf("upgrade: got %v, want no error", err)
						return
					}
					if err := echo(); err != nil {
						t.Errorf("echo: got %v, want no error", err)
					}
				}))
				inner := h
				h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(returned)
					inner.ServeHTTP(w, r)
				})
				also := ""
				if gzipped {
					h, also = gzips[0].wrap(h), "Vary"
				}
				url, _ := serve(t, "HTTP/1.1", outside(h))
				res, body, _ := dial(t, url, cookie)
				<-returned
				sent := sessionCookie(res.Header)
				if code != 101 {
					wantRefused(t, res, body, code, also)
					if got := s.store.writes(); got != 0 && tt.fails == "" {
						t.Errorf("writes: got %d, want none", got)
					}
					s.wantStored(t, cookie, name, map[bool]string{false: "ada"}[tt.anon])
					return
				}
				if res.StatusCode != 101 {
					t.Fatalf("handshake: got %d, want 101", res.StatusCode)
				}
				if got := sent != ""; got != tt.cookie {
					t.Fatalf("cookie in the handshake: got %v, want %v", got, tt.cookie)
				}
				if tt.cookie {
					if cookie != "" {
						s.wantStored(t, cookie, name, "") // renewed: the old ID is dead
					}
					cookie = sent
				}
				s.wantStored(t, cookie, name, tt.want)
			})
		}
	}
}

// After the upgrade the session goes on: a change is saved at Save or at the
// return, a logout elsewhere is seen by Reload, and a change of a session that
// has ended does not bring it back.
func TestWebsocketChangesAfterUpgrade(t *testing.T) {
	for _, lib := range []struct {
		name string
		up   upgrade
	}{{"coder", coderUpgrade}, {"gorilla", gorillaUpgrade}} {
		for _, tt := range []struct {
			name  string
			fails string
			after func(t *testing.T, s *site, cookie string, sess *session.Session)
			want  [2]string // name and city
		}{
			{"changed", "", func(_ *testing.T, _ *site, _ string, sess *session.Session) { city.Set(sess, "London") }, [2]string{"eve", "London"}},
			{"saved at once", "", func(t *testing.T, s *site, cookie string, sess *session.Session) {
				city.Set(sess, "London")
				if err := sess.Save(t.Context()); err != nil {
					t.Errorf("Save: got %v, want no error", err)
				}
				s.wantStored(t, cookie, city, "London")
			}, [2]string{"eve", "London"}},
			{"renewed", "", func(t *testing.T, _ *site, _ string, sess *session.Session) {
				sess.Renew()
				if !errors.Is(sess.Err(), session.ErrHeaderSent) {
					t.Errorf("Err after Renew: got %v, want ErrHeaderSent", sess.Err())
				}
			}, [2]string{"eve", ""}},
			{"destroyed", "", func(_ *testing.T, _ *site, _ string, sess *session.Session) { sess.Destroy() }, [2]string{}},
			{"save fails", "Update", func(_ *testing.T, _ *site, _ string, sess *session.Session) { city.Set(sess, "London") }, [2]string{"eve", ""}},
			{"logged out elsewhere", "", func(t *testing.T, s *site, cookie string, sess *session.Session) {
				s.visit(t, cookie, (*session.Session).Destroy)
				if err := sess.Reload(t.Context()); !errors.Is(err, session.ErrDestroyed) {
					t.Errorf("Reload: got %v, want ErrDestroyed", err)
				}
				city.Set(sess, "London")
			}, [2]string{}},
			{"logged out elsewhere and changed", "", func(t *testing.T, s *site, cookie string, sess *session.Session) {
				s.visit(t, cookie, (*session.Session).Destroy)
				city.Set(sess, "London")
			}, [2]string{}},
		} {
			t.Run(lib.name+"/"+tt.name, func(t *testing.T) {
				s := newSite(t)
				cookie := s.login(t)
				returned := make(chan struct{})
				h := s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					sess := session.From(r.Context())
					name.Set(sess, "eve")
					echo, err := lib.up(w, r)
					if err != nil {
						t.Errorf("upgrade: got %v, want no error", err)
						return
					}
					s.store.fail(tt.fails) // from here on
					tt.after(t, s, cookie, sess)
					if err := echo(); err != nil {
						t.Errorf("echo: got %v, want no error", err)
					}
				}))
				url, _ := serve(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(returned)
					h.ServeHTTP(w, r)
				}))
				if res, _, err := dial(t, url, cookie); err != nil {
					t.Errorf("handshake: got %d, want 101", res.StatusCode)
				}
				<-returned
				s.wantStored(t, cookie, name, tt.want[0])
				s.wantStored(t, cookie, city, tt.want[1])
			})
		}
	}
}
