package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/tests/faults"
)

// Keys of the application's sessions, as package faults has them.
const (
	keyUser    = session.Key[string]("user")
	markPrefix = "m"
)

// The ledger knows one end of a session, the logout. The other ends are told to
// it as logouts, which a wire makes of them: the first part of the path, which
// goes no further, says what a request is about.
const (
	wayPlain  = ""
	wayUsed   = "/used"   // it uses a session, which may have ended by itself
	wayRested = "/rested" // the logout asks whether it has
	wayRevoke = "/revoke" // the logout waits for a revocation; a read carries it out
)

const (
	// briefTimeout is the idle timeout of those sessions that are to expire.
	briefTimeout = 2 * time.Second
	// slack is what times may be rounded by.
	slack = 250 * time.Millisecond
	// resting is after how long an unused brief session is surely dead.
	resting = briefTimeout + time.Second
)

var (
	// errHeld is for a login while its user's sessions are revoked: nobody can say
	// whether it is among them. The browser waits.
	errHeld = errors.New("not sent")
	errLost = errors.New("the answer was lost on purpose")

	errNoAnswer = errors.New("not answered in time")
)

// wire is what a browser's requests go through.
type wire struct {
	s     *soak
	user  *user
	brief bool

	// lapsed says that the session is not there, and that this is nobody's
	// fault: the browser logs out.
	lapsed atomic.Bool

	// late says that a request of the session was not answered, or a read whose touch may
	// have been given up: a statement may come late, and let the session live longer.
	late atomic.Bool

	mu       sync.Mutex
	promised time.Time // a brief session lives until then
	doubt    bool      // a renewal was not answered: the browser may have the old ID
	cookie   string    // of the session; a browser forgets it when its lifetime is over
}

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	way := wayPlain
	for _, known := range []string{wayUsed, wayRested, wayRevoke} {
		if rest, ok := strings.CutPrefix(req.URL.Path, known); ok {
			way = known
			req = req.Clone(req.Context())
			req.URL.Path = rest
		}
	}
	rep, err := w.send(way, req)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: rep.status, ProtoMajor: 1, ProtoMinor: 1, Header: rep.header,
		Body: io.NopCloser(bytes.NewReader(rep.body)), ContentLength: int64(len(rep.body)), Request: req,
	}, nil
}

func (w *wire) send(way string, req *http.Request) (*reply, error) {
	logout := req.URL.Path == "/logout"
	switch {
	case req.URL.Path == "/login":
		return w.login(req)
	case way == wayRevoke && logout:
		return w.revoked(req)
	case way == wayRevoke:
		return w.revoke(req)
	case way == wayRested && logout:
		return w.rested(req)
	case way == wayUsed && logout:
		return w.s.exchange(w.withCookie(req))
	case way == wayUsed:
		return w.used(req)
	}
	return w.s.exchange(req)
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// empty and unavailable are answers that no process has given.
func empty() *reply { return &reply{http.StatusOK, http.Header{}, []byte("{}")} }

func unavailable() *reply { return &reply{http.StatusServiceUnavailable, http.Header{}, nil} }

// shows reports whether the answer shows a session.
func (r *reply) shows() bool {
	var row faults.Row
	return r.status == http.StatusOK && json.Unmarshal(r.body, &row) == nil && len(row) > 0
}

// absent reports whether the answer says that there is no session.
func (r *reply) absent() bool {
	return r.status == http.StatusConflict || r.status == http.StatusOK && !r.shows()
}

func (w *wire) login(req *http.Request) (*reply, error) {
	began, held := w.user.revocations()
	if held {
		return nil, errHeld
	}
	now := time.Now()
	if w.brief {
		req = req.Clone(req.Context())
		req.URL.RawQuery += "&idle=" + briefTimeout.String()
	}
	rep, err := w.s.exchange(req)
	if ended, held := w.user.revocations(); held || began != ended {
		return nil, errLost
	}
	if err == nil && rep.shows() {
		w.lapsed.Store(false)
		w.late.Store(false)
		w.acknowledged(req, rep, now)
	}
	return rep, err
}

// used sends a request that uses the session.
func (w *wire) used(req *http.Request) (*reply, error) {
	now := time.Now()
	doubt := w.inDoubt()
	if req.URL.Path == "/renew" {
		w.setDoubt(true) // until it is acknowledged
	}
	if req.Header.Get("Cookie") == "" { // its lifetime was over while an answer with the next one was under way
		req = w.withCookie(req)
	}
	rep, err := w.s.exchange(req)
	untouched := err == nil && req.URL.Path == "/all" && rep.header.Get("Set-Cookie") == ""
	if err != nil || !rep.shows() && !rep.absent() || untouched && time.Since(now) > storeTimeout/2 {
		w.late.Store(true)
	}
	if err != nil {
		return nil, err
	}
	if rep.shows() {
		w.acknowledged(req, rep, now)
	}
	return w.judge(rep, doubt), nil
}

// judge keeps some ends from the ledger: that of a brief session, unless it was
// promised to live, and that of an ID that may have been replaced, for the row of
// the new one, which no browser knows, may be revoked or expire.
func (w *wire) judge(rep *reply, doubt bool) *reply {
	if !rep.absent() || !doubt && !(w.brief && time.Now().After(w.promisedUntil())) {
		return rep
	}
	w.lapsed.Store(true)
	return unavailable()
}

// inDoubt reports whether the ID may have been replaced.
func (w *wire) inDoubt() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.doubt
}

func (w *wire) setDoubt(doubt bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doubt = doubt
}

// acknowledged takes an answer, to a request that began at t, that shows the
// session.
func (w *wire) acknowledged(req *http.Request, rep *reply, t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if path := req.URL.Path; path == "/renew" || path == "/login" {
		w.doubt = false
	}
	for _, c := range (&http.Response{Header: rep.header}).Cookies() {
		w.cookie = c.Name + "=" + c.Value
		// What is left since the touch, which came after the request.
		if life, least := time.Duration(c.MaxAge)*time.Second, briefTimeout-time.Since(t); c.MaxAge != 0 && max(life, 0) < least {
			w.s.problem("a cookie with a session: got a lifetime of %v, want at least %v", life, least)
		}
	}
	// A read whose touch has failed is acknowledged as well, but without a cookie.
	if req.URL.Path != "/all" || rep.header.Get("Set-Cookie") != "" {
		if until := t.Add(briefTimeout - touchInterval - slack); until.After(w.promised) {
			w.promised = until
		}
	}
}

// withCookie returns a request with the session's cookie, even if the browser has
// forgotten it: the session must have ended, not the cookie alone.
func (w *wire) withCookie(req *http.Request) *http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	req = req.Clone(req.Context())
	req.Header.Set("Cookie", w.cookie)
	return req
}

func (w *wire) promisedUntil() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.promised
}

// rested asks whether a brief session that was not used for long has expired.
func (w *wire) rested(req *http.Request) (*reply, error) {
	ask := w.withCookie(req)
	ask.Method, ask.URL.Path = http.MethodGet, "/all"
	if ask.Header.Get("Cookie") == "" {
		w.s.problem("a session is asked for without a cookie: that says nothing")
	}
	for {
		rep, err := w.s.exchange(ask)
		switch {
		case err != nil || rep.status != http.StatusOK:
		case rep.shows():
			w.s.undead.Add(1)
			return rep, nil
		default:
			w.s.expired.Add(1)
			return rep, nil
		}
		if w.s.crashed.Load() || !pause(req.Context(), again) {
			return nil, cmp.Or(err, errNoAnswer)
		}
		// The process may be gone for ever, a steady one is not.
		ask.URL.Host, ask.Host = w.s.steadyHost(), ""
	}
}

// revoked is the logout of a browser whose session somebody else revokes. The
// ledger knows now that the session may end.
func (w *wire) revoked(req *http.Request) (*reply, error) {
	r := w.user.revocation()
	r.arrived[w]()
	select {
	case <-r.answered:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if r.ok {
		return empty(), nil
	}
	return unavailable(), nil
}

// revoke is the read of a browser that revokes all other sessions of its user.
func (w *wire) revoke(req *http.Request) (*reply, error) {
	r := w.user.revocation()
	r.ready.Wait()
	req = req.Clone(req.Context())
	req.Method, req.URL.Path = http.MethodPost, "/soak/others"
	rep, err := w.s.exchange(req)
	if err != nil {
		return nil, err
	}
	r.ok = rep.shows()
	return w.judge(rep, w.inDoubt()), nil
}

// tally counts requests and what became of them.
type tally struct {
	requests, ok, ended, unavailable, other, broken atomic.Int64

	marks atomic.Int64 // the highest number of a mark
}

// exchange sends a request and reads the answer.
func (s *soak) exchange(req *http.Request) (*reply, error) {
	s.requests.Add(1)
	if mark, err := strconv.ParseInt(req.URL.Query().Get("mark"), 10, 64); err == nil {
		for last := s.marks.Load(); last < mark; last = s.marks.Load() {
			s.marks.CompareAndSwap(last, mark)
		}
	}
	rep, err := s.receive(req)
	switch {
	case err != nil:
		s.broken.Add(1)
	case rep.status >= 200 && rep.status <= 299:
		s.ok.Add(1)
	case rep.status == http.StatusConflict:
		s.ended.Add(1)
	case rep.status == http.StatusServiceUnavailable:
		s.unavailable.Add(1)
	default:
		s.other.Add(1)
	}
	return rep, err
}

// receive sends a copy: the transport may still read it after an error, when its caller
// asks again elsewhere.
func (s *soak) receive(req *http.Request) (*reply, error) {
	resp, err := s.transport.RoundTrip(req.Clone(req.Context()))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &reply{resp.StatusCode, resp.Header, body}, nil
}
