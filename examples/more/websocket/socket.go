package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/pgsession/session"
)

const (
	// pingInterval is how soon a browser that has vanished is noticed.
	pingInterval = 30 * time.Second
	pingTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second

	maxMessageBytes = 64
	maxWaiting      = 100 // taps that have come while others are saved
)

// What a socket is closed with (RFC 6455, section 7.4, and its registry at IANA).
// The page logs out at the first, and connects again at the others.
const (
	closeLoggedOut = websocket.StatusPolicyViolation // 1008
	closeRenewed   = websocket.StatusServiceRestart  // 1012: with the new cookie
	closeEnding    = websocket.StatusServiceRestart  // likewise
	closeOutage    = websocket.StatusTryAgainLater   // 1013
)

var errMessage = errors.New("not a message of ours")

// socket counts taps until the browser leaves, the session ends or the program
// does. The session is the handshake's, a request that goes on for hours; only this
// goroutine uses it.
func (a *app) socket(w http.ResponseWriter, r *http.Request) {
	a.sockets.Add(1)
	defer a.sockets.Done()
	s := session.From(r.Context())
	if _, ok := user.Get(s); !ok {
		// A session cannot begin in a socket: no cookie can be sent any more
		// (session.ErrHeaderSent). Login is a page of its own.
		http.Error(w, "You are not logged in.", http.StatusUnauthorized)
		return
	}
	// Another site's page could open a socket, and the browser would send our
	// cookie along (cross-site websocket hijacking). Accept refuses a handshake
	// whose Origin is another host than the request's; http.CrossOriginProtection
	// lets every GET pass. Behind a proxy that changes the Host, name the origins:
	// &websocket.AcceptOptions{OriginPatterns: …}.
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(maxMessageBytes)
	// A logout, here or at any other program, ends the socket within a second. All
	// sockets of this program cost one statement a second.
	watched, stop := s.Watch(r.Context())
	defer stop()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // after Close: it cuts the connection
	came, gone := make(chan struct{}, maxWaiting), make(chan error, 1)
	go func() { gone <- listen(ctx, c, came) }()
	go ping(ctx, c)
	code, reason := a.talk(ctx, watched, c, s, came, gone)
	if n := drain(came); n > 0 { // a browser may tap and leave
		_ = a.count(ctx, s, n) // nobody is there to be told
	}
	if watched.Err() != nil || code == closeLoggedOut || code == closeRenewed {
		s.Detach() // a tap after the logout counts for nobody
	}
	_ = c.Close(code, reason)
}

// talk counts the taps that come until something ends the socket, and says what.
func (a *app) talk(ctx, watched context.Context, c *websocket.Conn, s *session.Session, came <-chan struct{}, gone <-chan error) (websocket.StatusCode, string) {
	var shown *state
	for {
		total, more := a.total.now()
		n, _ := taps.Get(s)
		if now := (state{n, total}); shown == nil || *shown != now {
			if send(ctx, c, now) != nil {
				c.CloseNow() // listen says so when it has passed on what had come
			}
			shown = &now
		}
		var err error
		select {
		case <-came:
			err = a.count(ctx, s, 1+drain(came))
		case <-watched.Done():
			err = context.Cause(watched)
		case <-more: // perhaps by another socket of this session
			// An outage is no logout.
			if err = s.Reload(ctx); !errors.Is(err, session.ErrDestroyed) {
				err = nil
			}
		case <-a.ending:
			return closeEnding, "restarting"
		case err := <-gone:
			if errors.Is(err, errMessage) {
				return websocket.StatusUnsupportedData, err.Error()
			}
			return websocket.StatusNormalClosure, ""
		}
		switch {
		case errors.Is(err, session.ErrRenewed): // in another window
			return closeRenewed, "logged in again"
		case errors.Is(err, session.ErrDestroyed):
			return closeLoggedOut, "logged out"
		case watched.Err() != nil: // the browser has gone, or the program ends
			return closeEnding, "restarting"
		case err != nil: // it sticks: this session of ours can save no more
			return closeOutage, "not saved"
		}
	}
}

// count saves n taps, before the browser gets to see them. Other sockets of the
// session may do so at the same moment: the function runs again on what they have
// saved, and no tap is lost.
func (a *app) count(ctx context.Context, s *session.Session, n int) error {
	taps.Update(s, func(before int) int { return before + n })
	if err := s.Save(ctx); err != nil {
		return err
	}
	a.total.add(n)
	return nil
}

// listen passes taps on until the socket ends or something else comes.
func listen(ctx context.Context, c *websocket.Conn, came chan<- struct{}) error {
	for {
		kind, message, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageText || string(message) != "tap" {
			return errMessage
		}
		select {
		case came <- struct{}{}: // when it is full, the browser has to wait
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain takes what has come meanwhile, to be saved together.
func drain(came <-chan struct{}) (n int) {
	for {
		select {
		case <-came:
			n++
		default:
			return n
		}
	}
}

// ping cuts a connection at whose other end is nobody.
func ping(ctx context.Context, c *websocket.Conn) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		waiting, cancel := context.WithTimeout(ctx, pingTimeout)
		err := c.Ping(waiting)
		cancel()
		if err != nil {
			c.CloseNow()
			return
		}
	}
}

// state is what the browser gets.
type state struct {
	Taps  int `json:"taps"`  // of this session
	Total int `json:"total"` // of everybody, since the program began
}

func send(ctx context.Context, c *websocket.Conn, now state) error {
	message, err := json.Marshal(now)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, message)
}
