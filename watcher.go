package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgsession/session/internal/row"
)

const (
	// watchInterval is how often the watcher looks: what has ended a session has
	// ended its streams so soon.
	watchInterval = time.Second

	// mostPeeked bounds the IDs of a look that go to the store at once. A statement
	// for so many is a message of a megabyte, and takes a tenth of a second.
	mostPeeked = 20_000
)

// errClosed ends the streams that are open when the Manager is closed: the program
// ends, and nobody would look after them any more. It is no logout.
var errClosed error = &opError{"Watch", fmt.Errorf("Manager.Close was called: %w", context.Canceled)}

// errGarbled says that a [Watcher]'s answer is none.
var errGarbled = errors.New("session: the store's Peek does not answer for each session that it was asked for")

// watcher ends the streams of a program whose sessions have ended. One goroutine,
// which runs only while any is open, asks the store for all of them together. It
// knows no Session and no Manager.
//
// What nobody knows ends no stream: without an answer it lives on until the last
// known expiry of its session.
type watcher struct {
	engine *engine
	every  time.Duration // watchInterval
	most   int           // mostPeeked

	mu     sync.Mutex
	open   map[*watch]struct{}
	stop   chan struct{} // ends the goroutine; nil while there is none
	closed bool

	running   sync.WaitGroup
	silent    atomic.Bool // the store has not answered the last look
	warnLoads sync.Once
}

// watch is one open stream's.
type watch struct {
	ctx      context.Context // the stream's
	end      context.CancelCauseFunc
	renewing func() bool                     // the stream's own request may be about to give the record another ID
	proven   func(*loaded) (until time.Time) // how long that request may use the record; zero: as long as it lives

	mu      sync.Mutex
	id      string    // of the record; "" while there is none
	expires time.Time // the last known
	over    time.Time // by the absolute timeout; zero without one
	checked bool      // over has been compared with the store's clock
	proof   time.Time // when what proven has said is over; zero: never
}

// follow lets w watch a record.
func (w *watch) follow(e *engine, rec *view) {
	proof := w.proven(&rec.loaded)
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id, w.expires, w.proof = rec.id, rec.asOf.Add(rec.left), proof
	if e.limits.absoluteTimeout > 0 {
		created, ok := rec.Created()
		if !ok || created.Sub(now) > clockSlack { // it is noted, or mended, by a commit
			created = now
		}
		w.over = now.Add(e.limits.absoluteTimeout - now.Sub(created))
	}
}

// moved takes note of what the stream's own request has stored: it has made the
// record, or renewed it.
func (w *watch) moved(e *engine, before *view, out *outcome) {
	from := ""
	if before != nil {
		from = before.id
	}
	w.mu.Lock()
	ours := w.id == from && (before == nil || !out.fresh)
	w.mu.Unlock()
	if ours {
		w.follow(e, out.rec)
	}
}

// watches are the streams of one request. Its Session has the lock.
type watches struct{ open map[*watch]struct{} }

func (all *watches) end(cause error) {
	if all != nil {
		for w := range all.open {
			w.end(cause)
		}
	}
}

func (all *watches) moved(e *engine, before *view, out *outcome) {
	if all != nil {
		for w := range all.open {
			w.moved(e, before, out)
		}
	}
}

// endAt ends w if it is over by what this program knows itself; expired says that
// nobody else can be asked.
func (w *watch) endAt(now time.Time, expired bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.proof.IsZero() && !now.Before(w.proof):
		w.end(ErrUnproven)
	case expired && w.id != "" && now.After(w.expires):
		w.end(ErrExpired)
	}
}

// answer takes the store's answer for id.
func (w *watch) answer(id string, p Peeked, now time.Time) {
	if p.Err != nil && w.renewing() {
		return // the next look knows better
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.id != id: // renewed by the stream's own request
	case p.Err == nil && p.TTL >= 0:
		w.expires = now.Add(min(p.TTL, row.MaxLifetime))
	case errors.Is(p.Err, ErrRenewed):
		w.end(ErrRenewed)
	case errors.Is(p.Err, ErrExpired), now.After(w.expires):
		w.end(ErrExpired)
	case errors.Is(p.Err, ErrNotFound):
		w.end(ErrDestroyed)
	}
}

// add looks after w from now on.
func (g *watcher) add(w *watch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		w.end(errClosed)
		return
	}
	if g.open == nil {
		g.open = map[*watch]struct{}{}
	}
	g.open[w] = struct{}{}
	if g.stop == nil {
		g.stop = make(chan struct{})
		g.running.Add(1)
		go g.run(g.stop)
	}
}

// remove looks after w no more.
func (g *watcher) remove(w *watch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, w)
	g.restLocked()
}

// restLocked ends the goroutine if nothing is open.
func (g *watcher) restLocked() {
	if len(g.open) == 0 && g.stop != nil {
		close(g.stop)
		g.stop = nil
	}
}

// close ends all streams. What it returns is closed when the look under way has
// ended, and nil if nobody ever looked.
func (g *watcher) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if g.open == nil {
		return nil
	}
	for w := range g.open {
		w.end(errClosed)
	}
	clear(g.open)
	g.restLocked()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.running.Wait()
	}()
	return ended
}

// run looks every second. A look that takes longer is alone, and meanwhile what is
// known counts: a store that hangs keeps no stream open beyond it.
func (g *watcher) run(stop <-chan struct{}) {
	defer g.running.Done()
	t := time.NewTicker(g.every)
	defer t.Stop()
	var all []*watch
	looking, looked := false, make(chan struct{}, 1)
	for {
		select {
		case <-stop:
			return
		case <-looked:
			looking = false
		case now := <-t.C:
			if looking {
				endAll(all, now, true)
				continue
			}
			all = g.streams()
			endAll(all, now, g.silent.Load())
			looking = true
			g.running.Add(1)
			go func() {
				defer g.running.Done()
				defer func() { looked <- struct{}{} }()
				g.look(all)
			}()
		}
	}
}

func endAll(all []*watch, now time.Time, expired bool) {
	for _, w := range all {
		w.endAt(now, expired)
	}
}

func (g *watcher) streams() []*watch {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*watch, 0, len(g.open))
	for w := range g.open {
		all = append(all, w)
	}
	return all
}

// look asks the store what has become of the records of all, each once however many
// streams it has.
func (g *watcher) look(all []*watch) {
	type named struct {
		id string
		*watch
	}
	open := make([]named, 0, len(all))
	for _, w := range all {
		w.mu.Lock()
		if w.id != "" && w.ctx.Err() == nil {
			open = append(open, named{w.id, w})
		}
		w.mu.Unlock()
	}
	slices.SortFunc(open, func(a, b named) int { return cmp.Compare(a.id, b.id) })
	ids := make([]string, 0, min(len(open), g.most))
	for len(open) > 0 {
		ids = ids[:0]
		n := 0
		for ; n < len(open); n++ {
			if id := open[n].id; len(ids) == 0 || ids[len(ids)-1] != id {
				if len(ids) == g.most {
					break
				}
				ids = append(ids, id)
			}
		}
		answers := g.ask(ids)
		now := time.Now()
		at := 0
		for _, w := range open[:n] {
			if ids[at] != w.id {
				at++
			}
			if answers == nil {
				w.endAt(now, true)
			} else {
				w.answer(w.id, answers[at], now)
			}
		}
		open = open[n:]
	}
	g.endOver(all)
}

// ask asks the store, nil without an answer.
func (g *watcher) ask(ids []string) []Peeked {
	answers, err := g.peek(ids)
	e := g.engine
	switch {
	case err != nil:
		_ = e.countError(err)
		if !g.silent.Swap(true) {
			e.log.LogAttrs(context.Background(), levelOf(err), "session: the store does not say whether the sessions of open streams live; each stays open until the last known expiry", slog.Any("error", err))
		}
		return nil
	case g.silent.Swap(false):
		e.log.LogAttrs(context.Background(), slog.LevelInfo, "session: the store says again whether the sessions of open streams live")
	}
	return answers
}

// peek is Peek of whatever store there is.
func (g *watcher) peek(ids []string) (answers []Peeked, err error) {
	e := g.engine
	ctx, cancel := e.storeContext(context.Background())
	defer cancel()
	err = errPanic
	defer func() { _ = recover() }() // or it would end the program
	s, ok := e.store.(Watcher)
	if !ok {
		answers, err = g.loadAll(ids)
		return answers, err
	}
	if answers, err = s.Peek(ctx, slices.Clone(ids)); err == nil && len(answers) != len(ids) {
		err = errGarbled
	}
	return answers, err
}

// loadAll is Peek of a store that has none.
func (g *watcher) loadAll(ids []string) ([]Peeked, error) {
	e := g.engine
	g.warnLoads.Do(func() {
		e.log.LogAttrs(context.Background(), slog.LevelWarn, "session: the store is no Watcher: every session that has an open stream is loaded each second")
	})
	answers := make([]Peeked, len(ids))
	for i, id := range ids {
		ctx, cancel := e.storeContext(context.Background())
		rec, err := e.store.Load(ctx, id)
		cancel()
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		answers[i].Err, answers[i].TTL = err, rec.TTL
	}
	return answers, nil
}

// endOver ends those that are over their absolute timeout, by the store's clock if it
// has one: one machine with a wrong clock must not end all of its streams.
func (g *watcher) endOver(all []*watch) {
	ahead, known, asked := time.Duration(0), false, false
	for _, w := range all {
		w.mu.Lock()
		due, check := w.isOver(), !w.checked
		w.mu.Unlock()
		if due && check && !asked {
			ahead, known = g.ahead()
			asked = true
		}
		w.mu.Lock()
		if due && check && known {
			w.over, w.checked = w.over.Add(ahead), true
		}
		if w.checked && w.isOver() {
			w.end(ErrExpired)
		}
		w.mu.Unlock()
	}
}

// isOver is called with w.mu locked.
func (w *watch) isOver() bool {
	return !w.over.IsZero() && !time.Now().Before(w.over) && w.ctx.Err() == nil
}

// ahead returns how far this program's clock is ahead of the store's, 0 if it is not
// or the store has none. known is false if the store does not say.
func (g *watcher) ahead() (d time.Duration, known bool) {
	store, ok := g.engine.store.(interface {
		now(context.Context) (time.Time, error)
	})
	if !ok {
		return 0, true
	}
	ctx, cancel := g.engine.storeContext(context.Background())
	defer cancel()
	now, err := store.now(ctx)
	if err != nil {
		_ = g.engine.countError(err)
		return 0, false
	}
	return max(0, time.Since(now)), true
}
