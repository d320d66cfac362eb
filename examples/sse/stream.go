package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pgsession/session"
)

// beatInterval is how often a silent stream says something, so that proxies keep
// it and a browser that has vanished is noticed.
const beatInterval = 15 * time.Second

// event is what the browser gets for a message.
type event struct {
	message
	New   bool `json:"new"`   // to this session
	Count int  `json:"count"` // messages that this session has read
}

// stream sends messages until the browser leaves, the session ends or the program
// does. Its session is one of a request like any other: loaded at the first use,
// and the header leaves with the first byte. What is different is that the
// request goes on.
func (a *app) stream(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if _, ok := user.Get(s); !ok {
		// A session cannot begin in a stream: once its first byte has left, no
		// cookie can be sent (session.ErrHeaderSent). Login is a page of its own.
		http.Error(w, "You are not logged in.", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	_, _ = fmt.Fprint(w, "retry: 1000\n\n")
	out := http.NewResponseController(w)
	if out.Flush() != nil {
		return // the session could not be loaded: the browser has a 503
	}
	// A logout, here or at any other program, ends the stream within a second. All
	// streams of this program cost one statement a second.
	ctx, stop := s.Watch(r.Context())
	defer stop()
	err := a.follow(ctx, w, s, lastEventID(r))
	switch {
	case errors.Is(err, session.ErrRenewed):
		// Logged in again in another window: the browser comes back by itself, with
		// the new cookie.
	case errors.Is(err, session.ErrDestroyed):
		fmt.Fprint(w, "event: bye\ndata: {}\n\n")
	}
}

// follow sends the messages after one until something ends it. It returns
// session.ErrDestroyed when that was the session. An outage ends nothing: it is no
// logout.
func (a *app) follow(ctx context.Context, w http.ResponseWriter, s *session.Session, last int64) error {
	out := http.NewResponseController(w)
	before, _ := read.Get(s)
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		news, more := a.board.after(last)
		if len(news) > 0 {
			last = news[len(news)-1].ID
			count, err := markRead(ctx, s, news)
			if err != nil {
				return err
			}
			for _, m := range news {
				send(w, event{m, m.ID > before.Last, count})
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.ending:
			return nil // the browser comes back by itself, and finds the next program
		case <-more:
		case <-beat.C:
			_, _ = fmt.Fprint(w, ":\n\n")
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// markRead saves how far this session has read, before the browser gets to see
// it, and returns how many messages that makes. Another tab of the same browser
// may do so at the same moment: the function runs again on what it has saved, and
// each message counts once.
//
// One save for each message is for a small board. A large one would save every few
// seconds; what is not saved then is saved when the stream ends.
func markRead(ctx context.Context, s *session.Session, news []message) (int, error) {
	read.Update(s, func(p progress) progress {
		for _, m := range news {
			if m.ID > p.Last {
				p.Last = m.ID
				p.Count++
			}
		}
		return p
	})
	if err := s.Save(ctx); err != nil {
		return 0, err
	}
	p, _ := read.Get(s)
	return p.Count, nil
}

func send(w http.ResponseWriter, e event) {
	data, err := json.Marshal(e) // on one line, as an event wants it
	if err != nil {
		panic(err) // strings and numbers
	}
	fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.ID, data)
}

// lastEventID is where a browser that lost its connection goes on, 0 for one that
// begins.
func lastEventID(r *http.Request) int64 {
	id, _ := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	return id
}
