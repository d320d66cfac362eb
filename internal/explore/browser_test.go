package explore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/explore"
)

// actor is a request of the browser, or a revocation.
type actor struct {
	w      *world
	number int
	calls  []explore.Call
	index  int  // of the call under way; their number once the handler has returned
	sent   bool // the header has left
	ops    int  // of the store

	storing bool         // waits for the store
	name    atomic.Value // of its goroutine

	presented   []string // the IDs in its cookies
	firstLoaded gate     // the first of them was looked for
	seen        uint64

	// For a further goroutine of the handler.
	session *session.Session
	request *http.Request
	begun   gate // the first store operation was carried out
	loaded  gate // the session is loaded
}

// gate is a channel that is closed once.
type gate struct {
	ch   chan struct{}
	open bool
}

func newGate() gate { return gate{ch: make(chan struct{})} }

func (g *gate) pass() {
	if !g.open {
		g.open = true
		close(g.ch)
	}
}

type actorKey struct{}

// beforeHeader reports whether a commit under way is the one before the header.
func (a *actor) beforeHeader() bool {
	if a.sent || a.script().Outside(a.number) {
		return false
	}
	return a.index == len(a.calls) || a.calls[a.index] == explore.Write || a.calls[a.index] == explore.Hijack
}

func (a *actor) script() *explore.Script { return a.w.script }

func (a *actor) manager() *session.Manager { return a.w.lab.manager(a.script().Config, a.number) }

// calls0 is the first call, "" without one.
func (a *actor) calls0() explore.Call {
	if len(a.calls) == 0 {
		return ""
	}
	return a.calls[0]
}

// live is the actor's goroutine.
func (a *actor) live() {
	defer a.begun.pass()
	defer a.loaded.pass()
	if of, ok := a.script().Beside[a.number]; ok {
		a.beside(a.w.actors[of])
		return
	}
	where := "begins"
	if explore.Later(a.calls0()) > 0 {
		where = string(a.calls[0])
	}
	a.name.Store(goroutine())
	a.w.stage.Stop(a.number, where)
	switch {
	case a.script().Is(a.number, explore.Revoke):
		a.revoke()
	case a.script().Is(a.number, explore.Edit):
		a.edit()
	case a.script().Is(a.number, explore.Refresh):
		a.refresh()
	default:
		a.visit()
	}
	a.w.stage.End(a.number)
}

// beside makes its calls in the handler of another actor. It begins once they
// need no store: then no call of it waits for anything but a lock.
func (a *actor) beside(of *actor) {
	if a.calls0() == explore.Destroy { // which needs no load
		<-of.begun.ch
	} else {
		<-of.loaded.ch
	}
	a.w.seats.Store(goroutine(), a.number)
	for i, call := range a.calls {
		a.index = i
		a.w.stage.Stop(a.number, string(call))
		if of.session == nil {
			break // it never got to its handler
		}
		a.record(explore.Event{Kind: explore.Asks, Call: call})
		value, err := a.call(call, of.session, nil, of.request)
		a.record(explore.Event{Kind: explore.Returns, Call: call, Value: value, Err: text(err)})
	}
	a.w.stage.End(a.number)
}

func (a *actor) revoke() {
	a.record(explore.Event{Kind: explore.Begins})
	a.record(explore.Event{Kind: explore.Asks, Call: explore.Revoke})
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	_, err := a.manager().Revoke(ctx, keyUser.Is(1))
	a.record(explore.Event{Kind: explore.Returns, Call: explore.Revoke, Err: text(err)})
	a.record(explore.Event{Kind: explore.Ends, Full: err == nil})
}

func (a *actor) edit() {
	a.record(explore.Event{Kind: explore.Begins})
	a.record(explore.Event{Kind: explore.Asks, Call: explore.Edit})
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	n, err := a.manager().Edit(ctx, keyUser.Is(1), func(s *session.Session) error {
		keyN.Update(s, func(n int) int { return n + 1 })
		return nil
	})
	a.record(explore.Event{Kind: explore.Returns, Call: explore.Edit, Value: strconv.FormatInt(n, 10), Err: text(err)})
	a.record(explore.Event{Kind: explore.Ends, Full: err == nil})
}

// visit sends a request with the cookie that the browser holds now.
func (a *actor) visit() {
	jar := a.w.jarNow()
	a.record(explore.Event{Kind: explore.Begins, ID: jar.ID})
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	w := &response{header: http.Header{}, leaves: a.headerLeaves}
	cookies := a.w.cookiesNow()
	for _, c := range cookies {
		a.presented = append(a.presented, idOf(c))
	}
	full := a.serve(w, a.w.device.brings(request(ctx, cookies...)))
	a.record(explore.Event{Kind: explore.Ends, Full: full})
}

// serve is net/http around a middleware that recovers, around the session's.
// It reports whether the response is complete.
func (a *actor) serve(w *response, r *http.Request) (full bool) {
	defer func() {
		switch v := recover(); {
		case v == nil:
		case v == http.ErrAbortHandler || w.code != 0:
			full = false
		default:
			w.WriteHeader(http.StatusInternalServerError)
			full = true
		}
	}()
	a.manager().Handler(http.HandlerFunc(a.handler)).ServeHTTP(w, r)
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return true
}

func (a *actor) handler(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	a.session, a.request = s, r
	if a.script().Token {
		s.UseToken()
	}
	for i, call := range a.calls {
		a.index = i
		if explore.Later(call) > 0 {
			if i > 0 {
				a.w.stage.Stop(a.number, string(call))
			}
			continue
		}
		a.record(explore.Event{Kind: explore.Asks, Call: call})
		value, err := a.call(call, s, w, r)
		if a.ops > 0 {
			a.loaded.pass()
		}
		a.record(explore.Event{Kind: explore.Returns, Call: call, Value: value, Err: text(err)})
	}
	a.index = len(a.calls)
}

// call makes one call of the handler.
func (a *actor) call(call explore.Call, s *session.Session, w http.ResponseWriter, r *http.Request) (value string, err error) {
	switch call {
	case explore.Get:
		return show(keyX.Get(s)), nil
	case explore.SetLight:
		keyX.Set(s, "light")
	case explore.SetDark:
		keyX.Set(s, "dark")
	case explore.Update:
		keyN.Update(s, func(n int) int { return n + 1 })
	case explore.UpdateNow:
		n, err := keyN.UpdateNow(r.Context(), s, func(n int) int { return n + 1 })
		return strconv.Itoa(n), err
	case explore.Reenter:
		keyN.Update(s, func(n int) int {
			_ = s.Save(r.Context())
			keyX.Set(s, "reentered")
			return n + 1
		})
	case explore.Take:
		return show(keyX.Take(s)), nil
	case explore.Delete:
		keyX.Delete(s)
	case explore.Login:
		s.Renew()
		keyUser.Set(s, 1)
	case explore.Enter:
		keyUser.Set(s, 1)
	case explore.EnterOther:
		keyUser.Set(s, 2)
	case explore.Leave:
		keyUser.Delete(s)
	case explore.Renew:
		s.Renew()
	case explore.Bind:
		s.Bind()
	case explore.Skip:
		s.SkipTouch()
	case explore.Destroy:
		s.Destroy()
	case explore.Save:
		return "", s.Save(r.Context())
	case explore.Reload:
		return "", s.Reload(r.Context())
	case explore.IdleLong:
		s.SetIdleTimeout(idleLong)
	case explore.IdleShort:
		s.SetIdleTimeout(idleShort)
	case explore.Write:
		_, err = io.WriteString(w, "page")
	case explore.Hijack:
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return "", err
		}
		return "", c.Close()
	case explore.Public:
		w.Header().Set("Cache-Control", "public, max-age=60")
	case explore.Detach:
		s.Detach()
	case explore.Panic:
		panic("the handler's")
	}
	return "", err
}

// show writes what a read gave. Absent is "".
func show(value string, ok bool) string {
	if !ok {
		return ""
	}
	return value
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// headerLeaves is called when the final header is written.
func (a *actor) headerLeaves(code int, h http.Header) {
	e := explore.Event{Kind: explore.Header, Code: code}
	a.w.stage.Await(a.number, "header")
	a.w.device.take(h)
	if a.script().Token && len(h["Set-Cookie"]) > 0 || !a.script().Token && h.Get("Session-Token") != "" {
		a.w.t.Errorf("got a cookie by a token, or a token by a cookie, in\n%s", a.script())
	}
	for _, c := range readCookies(h) {
		e.ID = a.w.takeCookie(c)
		e.Drops = e.ID == ""
	}
	if a.w.lab.full {
		e.Fields = a.w.plainHeader(h)
	}
	a.sent = true
	a.record(e)
}

// response is the server's ResponseWriter.
type response struct {
	header http.Header
	code   int
	leaves func(code int, h http.Header)
}

func (w *response) Header() http.Header { return w.header }

func (w *response) WriteHeader(code int) {
	if w.code != 0 {
		return
	}
	w.code = code
	if w.leaves != nil {
		w.leaves(code, w.header)
	}
}

// Hijack ends the server's part in the response. What its handler sends instead has no
// header of ours.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.code == 0 {
		w.code = http.StatusSwitchingProtocols
		if w.leaves != nil {
			w.leaves(w.code, http.Header{})
		}
	}
	c, _ := net.Pipe()
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}

func request(ctx context.Context, cookies ...string) *http.Request {
	r := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"}, Host: "example.com", Proto: "HTTP/1.1",
		ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
	}
	switch {
	case len(cookies) == 0:
	case strings.HasPrefix(cookies[0], tokenPrefix):
		r.Header.Set("Authorization", "Bearer "+cookies[0])
	default:
		r.Header.Set("Cookie", "session="+strings.Join(cookies, "; session="))
	}
	return r.WithContext(ctx)
}

// setCookie is a Set-Cookie header of the session's, not of the bound cookie, or what a
// client without cookies keeps, a token. A value of "" drops the cookie.
type setCookie struct {
	value  string
	domain bool
	maxAge time.Duration
}

func readCookies(h http.Header) (all []setCookie) {
	for _, token := range h["Session-Token"] {
		all = append(all, setCookie{value: token, maxAge: untilExit})
	}
	for _, line := range h["Set-Cookie"] {
		if !strings.HasPrefix(line, "session=") {
			continue
		}
		var c setCookie
		var ends time.Time
		byAge := false
		for i, part := range strings.Split(line, "; ") {
			name, v, _ := strings.Cut(part, "=")
			switch {
			case i == 0:
				c.value = v
			case name == "Domain":
				c.domain = true
			case name == "Expires":
				ends, _ = http.ParseTime(v)
			case name == "Max-Age":
				seconds, _ := strconv.Atoi(v)
				c.maxAge, byAge = time.Duration(seconds)*time.Second, true
			}
		}
		switch {
		case byAge:
		case ends.IsZero():
			c.maxAge = untilExit
		default: // as in Express
			c.maxAge = time.Until(ends)
		}
		all = append(all, c)
	}
	return all
}

// idOf reads the session ID in a cookie: one of Express, or of securecookie, which
// is in base64 a date, the value in base64, and a signature. Of a token it opens it.
func idOf(value string) string {
	if strings.HasPrefix(value, tokenPrefix) {
		id, _, ok := tokens.Open(value)
		if !ok {
			panic("explore: a token that does not open")
		}
		return id
	}
	if signed, ok := strings.CutPrefix(value, "s%3A"); ok {
		return signed[:strings.IndexByte(signed, '.')]
	}
	b, err := base64.URLEncoding.DecodeString(value)
	parts := strings.SplitN(string(b), "|", 3)
	if err != nil || len(parts) < 2 {
		panic(fmt.Sprintf("explore: a cookie that is none of securecookie: %v", err))
	}
	id, err := base64.URLEncoding.DecodeString(parts[1])
	if err != nil {
		panic(fmt.Sprintf("explore: a cookie that is none of securecookie: %v", err))
	}
	return string(id)
}

// goroutine returns the number of the calling goroutine, by which the store knows
// a handler's second one.
func goroutine() string {
	var buf [64]byte
	text := buf[:runtime.Stack(buf[:], false)] // goroutine 1 [running]:
	_, text, _ = bytes.Cut(text, []byte(" "))
	text, _, _ = bytes.Cut(text, []byte(" "))
	return string(text)
}
