package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of request.
type Kind string

// The kinds of requests.
const (
	Login  Kind = "login"  // a new session
	Write  Kind = "write"  // sets a key of its own and one that all writes set, sometimes deletes one
	Add    Kind = "add"    // counts by Key.Update
	Order  Kind = "order"  // counts in one transaction with a row of the application's
	Read   Kind = "read"   // everything is checked; moves the expiry where that is due
	Renew  Kind = "renew"  // a new ID
	Logout Kind = "logout" // the end
	Replay Kind = "replay" // the cookie of a session that has ended or been renewed
	Visit  Kind = "visit"  // no cookie
	Public Kind = "public" // the cookie, on a page that does not use the session
)

const (
	// patience is how long a browser waits for an answer.
	patience = 60 * time.Second
	// keptMarks is how many keys a session gathers before it deletes old ones.
	keptMarks = 6
	// keptCookies is how many cookies of ended sessions a browser tries again.
	keptCookies = 32
)

// Answer is what came back for a request.
type Answer struct {
	Kind   Kind
	Began  time.Time
	Took   time.Duration
	Status int    // 0: the connection broke
	Fault  string // what must never be in an answer of this kind, "" if nothing

	row    Row
	cookie bool // sets one
}

// OK reports whether the answer is 2xx.
func (a Answer) OK() bool { return a.Status >= 200 && a.Status <= 299 }

// Browser is one browser of a user. It is safe for concurrent use: its requests
// overlap, but for those that give it another cookie (Login, Renew), because the
// cookie of a slow answer would replace the new one, as in a real browser.
type Browser struct {
	ledger    *Ledger
	user      string
	transport http.RoundTripper
	pad       string

	turn   sync.RWMutex
	entry  *entry
	client atomic.Pointer[http.Client]

	mu      sync.Mutex
	retired []*http.Cookie
}

// NewBrowser returns a browser of a user who is not logged in. pad is text that
// its sessions carry, "" for none; transport nil means a connection of its own.
func (l *Ledger) NewBrowser(user, pad string, transport http.RoundTripper) *Browser {
	if transport == nil {
		transport = &http.Transport{MaxIdleConnsPerHost: 4}
	}
	b := &Browser{ledger: l, user: user, pad: pad, transport: transport}
	b.client.Store(newClient(transport))
	return b
}

func newClient(transport http.RoundTripper) *http.Client {
	jar, _ := cookiejar.New(nil) // never fails
	return &http.Client{Transport: transport, Jar: jar, Timeout: patience}
}

// Close closes the browser's idle connections.
func (b *Browser) Close() { b.client.Load().CloseIdleConnections() }

// Do sends one request of a kind to the program at base and enters the answer
// into the ledger. A browser that is not logged in logs in instead, where the
// kind needs that.
func (b *Browser) Do(kind Kind, base string) Answer {
	switch kind {
	case Visit:
		return b.visit(base)
	case Public:
		return b.public(base)
	case Replay:
		return b.replay(base)
	case Login, Renew:
		b.turn.Lock()
		defer b.turn.Unlock()
	default:
		b.turn.RLock()
		if !b.loggedIn() {
			b.turn.RUnlock()
			return b.Do(Login, base)
		}
		defer b.turn.RUnlock()
	}
	if b.loggedIn() && kind != Login {
		return b.use(kind, base, b.entry)
	}
	if b.loggedIn() { // another request has done it meanwhile
		return b.use(Read, base, b.entry)
	}
	return b.login(base)
}

// LoggedIn reports whether the browser has a session, as far as it knows.
func (b *Browser) LoggedIn() bool {
	b.turn.RLock()
	defer b.turn.RUnlock()
	return b.loggedIn()
}

func (b *Browser) loggedIn() bool { return b.entry != nil && !b.entry.over() }

func (b *Browser) login(base string) Answer {
	b.client.Store(newClient(b.transport))
	e := b.ledger.open(b.user)
	a := b.send(b.client.Load(), Login, http.MethodPost, base+"/login?"+url.Values{"user": {b.user}, "serial": {e.serial}, "pad": {b.pad}}.Encode(), nil)
	switch {
	case !a.OK(): // its row may be there, but nobody has the cookie
	case len(a.row) == 0:
		a.Fault = "a login that logs nobody in"
	case e.present(seen{}, a.row):
		e.mu.Lock()
		e.born = true
		e.mu.Unlock()
		b.entry = e
	}
	return a
}

// use sends a request of a session and enters the answer.
func (b *Browser) use(kind Kind, base string, e *entry) Answer {
	before := b.cookie(base)
	promise := e.promise(kind)
	s := e.begin()
	method, target := http.MethodPost, base+"/"+string(kind)+promise.query
	if kind == Read {
		method, target = http.MethodGet, base+"/all"
	}
	a := b.send(b.client.Load(), kind, method, target, nil)
	switch {
	case a.Status == http.StatusConflict, a.OK() && len(a.row) == 0 && kind != Logout:
		e.absent()
		return a
	case !a.OK():
		return a
	case kind != Logout && !e.present(s, a.row):
		return a
	}
	promise.keep()
	switch kind {
	case Read:
		e.compare(s, a.row)
	case Renew, Logout:
		b.retire(before)
	}
	return a
}

// promise is what a request asks for: keep is called if the answer is 2xx.
type promise struct {
	query string
	keep  func()
}

func (e *entry) promise(kind Kind) promise {
	e.mu.Lock()
	defer e.mu.Unlock()
	locked := func(f func()) func() {
		return func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			f()
		}
	}
	switch kind {
	case Write:
		return e.write(locked)
	case Add, Order:
		e.asked++
		return promise{keep: locked(func() { e.kept++ })}
	case Renew:
		e.renewDoubt = true
		return promise{keep: locked(func() { e.renewDoubt = false })}
	case Logout:
		e.leaving = true
		return promise{keep: locked(func() {
			if e.renewDoubt { // it may have another ID, which the browser does not know
				e.adrift = true
				return
			}
			e.end()
		})}
	}
	return promise{keep: func() {}}
}

// write asks for a new mark, and for the end of the oldest where there are many:
// of those that are stored, for one under way may come after its own end.
func (e *entry) write(locked func(func()) func()) promise {
	n := int(e.l.marks.Add(1))
	m := &mark{began: e.l.clock.Add(1)}
	e.marks[n] = m
	query := "?mark=" + strconv.Itoa(n)
	oldest, live := 0, 0
	for i, other := range e.marks {
		if other.dropAsked || other.ended == 0 {
			continue
		}
		live++
		if oldest == 0 || i < oldest {
			oldest = i
		}
	}
	var drop *mark
	if live > keptMarks {
		drop = e.marks[oldest]
		drop.dropAsked = true
		query += "&drop=" + strconv.Itoa(oldest)
	}
	return promise{query: query, keep: locked(func() {
		if m.ended == 0 {
			m.ended = e.l.clock.Add(1)
		}
		e.begun = max(e.begun, m.began)
		if drop != nil {
			drop.dropped = true
		}
	})}
}

// cookie returns the session cookie that the browser has, nil if none.
func (b *Browser) cookie(base string) *http.Cookie {
	u, err := url.Parse(base)
	if err != nil {
		return nil
	}
	for _, c := range b.client.Load().Jar.Cookies(u) {
		return c
	}
	return nil
}

func (b *Browser) retire(c *http.Cookie) {
	if c == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.retired) == keptCookies {
		b.retired = b.retired[1:]
	}
	b.retired = append(b.retired, c)
}

// replay sends the cookie of a session that is over.
func (b *Browser) replay(base string) Answer {
	b.mu.Lock()
	var c *http.Cookie
	if len(b.retired) > 0 {
		c = b.retired[rand.IntN(len(b.retired))]
	}
	b.mu.Unlock()
	if c == nil { // nothing has ended yet
		return b.visit(base)
	}
	a := b.send(&http.Client{Transport: b.transport, Timeout: patience}, Replay, http.MethodGet, base+"/all", c)
	if a.OK() && len(a.row) > 0 {
		b.ledger.note(&b.ledger.findings.Resurrected, nil, "the cookie of a session that was ended or renewed shows one")
	}
	return a
}

// visit asks for a page without a cookie.
func (b *Browser) visit(base string) Answer {
	a := b.send(&http.Client{Transport: b.transport, Timeout: patience}, Visit, http.MethodGet, base+"/all", nil)
	if len(a.row) > 0 {
		b.ledger.note(&b.ledger.findings.Foreign, nil, "a visitor without a cookie was shown a session")
	}
	if a.cookie && a.Fault == "" {
		a.Fault = "a visitor got a cookie"
	}
	return a
}

// public asks for a page that does not use the session.
func (b *Browser) public(base string) Answer {
	a := b.send(b.client.Load(), Public, http.MethodGet, base+"/public", nil)
	if a.cookie && a.Fault == "" {
		a.Fault = "a public page got a cookie"
	}
	return a
}

// send sends a request and reads the answer to its end.
func (b *Browser) send(client *http.Client, kind Kind, method, target string, c *http.Cookie) (a Answer) {
	a = Answer{Kind: kind, Began: time.Now()}
	defer func() { a.Took = time.Since(a.Began) }()
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		a.Fault = "not a request"
		return a
	}
	if c != nil {
		req.AddCookie(c)
	}
	resp, err := client.Do(req)
	if err != nil {
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a
	}
	a.Status, a.cookie = resp.StatusCode, len(resp.Cookies()) > 0
	switch {
	case a.OK() && kind != Public && json.Unmarshal(body, &a.row) != nil:
		a.Fault = "2xx without the page"
	case a.Status == http.StatusServiceUnavailable && a.cookie:
		a.Fault = "503 with a cookie"
	case !a.OK() && a.Status != http.StatusServiceUnavailable && a.Status != http.StatusConflict:
		a.Fault = fmt.Sprintf("status %d", a.Status)
	}
	return a
}
