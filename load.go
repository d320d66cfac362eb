package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/row"
)

// renewGrace is how long before a request began its ID may have been renewed for
// the request to count as one of before: its browser has sent it without the new
// ID's cookie. One that began later comes from a browser that never got that
// cookie, and may begin anew.
const renewGrace = 10 * time.Second

// clockSlack is how far the clocks of two programs may be apart.
const clockSlack = time.Minute

// loadFirst fetches the first live record of those that a request presents, all
// at once, so that they share a statement. Where none is live err is an
// [ErrNotFound]: the first [ErrRenewed] among them, beside what is left of its
// mark, if there is one. token says that they come from a token: see load.
func (e *engine) loadFirst(ctx context.Context, presented []cookie.Signed, token bool) (which int, rec loaded, err error) {
	if len(presented) == 1 { // as nearly always
		rec, err = e.load(ctx, presented[0].ID, token)
		return 0, rec, err
	}
	type answer struct {
		loaded
		err      error
		panicked any
	}
	answers := make([]answer, len(presented))
	var all sync.WaitGroup
	for i, p := range presented {
		all.Add(1)
		go func() {
			defer all.Done()
			a := &answers[i]
			a.err = errPanic
			defer func() { a.panicked = recover() }() // or it would end the program
			a.loaded, a.err = e.load(ctx, p.ID, token)
		}()
	}
	all.Wait()
	err = ErrNotFound
	for i := range answers {
		switch a := &answers[i]; {
		case a.panicked != nil:
			panic(a.panicked)
		case a.err == nil:
			return i, a.loaded, nil
		case !errors.Is(a.err, ErrNotFound): // it may be the one that is live
			return i, a.loaded, a.err
		case errors.Is(a.err, ErrRenewed) && !errors.Is(err, ErrRenewed):
			which, rec, err = i, a.loaded, a.err
		}
	}
	return which, rec, err
}

// load fetches the record of id for a request, once. That of a token is no record for
// a cookie, and the other way about: each has rules of its own, and nothing that lets
// an ID get from one into the other may get around them.
func (e *engine) load(ctx context.Context, id string, token bool) (loaded, error) {
	ctx, cancel := e.storeContext(ctx)
	defer cancel()
	e.stats.loads.Add(1)
	rec, err := e.fetch(ctx, id)
	if err == nil && rec.idle.token != token {
		e.log.LogAttrs(ctx, slog.LevelError, "session: a token's session was asked for by a cookie, or a cookie's by a token, and is treated as absent: who else signs with the secret?")
		rec, err = loaded{}, ErrNotFound
	}
	if errors.Is(err, ErrNotFound) {
		e.stats.misses.Add(1)
	}
	return rec, err
}

// renewedSince reports whether an ID that was not found, and was alive when a
// request began, has been renewed. Once its mark may be gone that is assumed.
func renewedSince(began time.Time, rec loaded, err error) bool {
	if errors.Is(err, ErrRenewed) {
		if rec.left <= 0 { // a store around a store has lost it
			return true
		}
		renewed := rec.asOf.Add(rec.left - markLife)
		return began.Before(renewed.Add(renewGrace))
	}
	return time.Since(began) > markLife
}

// whyGone says how a record that an operation did not find has ended.
func (e *engine) whyGone(ctx context.Context, id string, err error) error {
	if !errors.Is(err, ErrRenewed) {
		_, err = e.store.Load(ctx, id)
	}
	if errors.Is(err, ErrRenewed) {
		return ErrRenewed
	}
	return ErrDestroyed
}

// fetch loads and reads a record. One that is over its absolute timeout, or is
// no session at all, is [ErrNotFound].
func (e *engine) fetch(ctx context.Context, id string) (loaded, error) {
	r, err := e.store.Load(ctx, id)
	return e.read(ctx, id, r, err)
}

// read is fetch for a record that was loaded, or not, already.
func (e *engine) read(ctx context.Context, id string, r Record, err error) (loaded, error) {
	if err != nil {
		return loaded{left: r.TTL, asOf: time.Now()}, e.countError(err)
	}
	rec := loaded{left: min(r.TTL, row.MaxLifetime), asOf: time.Now()}
	if rec.Row, err = row.Parse(r.Data); err != nil {
		// It is not overwritten either: a new session gets another ID.
		e.log.LogAttrs(ctx, slog.LevelError, "session: a record cannot be read, its session is treated as absent and the row left alone", slog.Any("error", err))
		return loaded{}, ErrNotFound
	}
	if err := e.sealer.Load().Open(id, &rec.Row); err != nil {
		return loaded{}, err
	}
	rec.idle = e.idle(&rec.Row)
	if e.limits.absoluteTimeout == 0 {
		return rec, nil
	}
	created, ok := rec.Created()
	// A creation that is still to come is no time to count from.
	rec.newborn = !ok || created.Sub(rec.asOf) > clockSlack
	if !rec.newborn && rec.asOf.Sub(created) >= e.limits.absoluteTimeout && !e.clockIsAhead(ctx, created) {
		// Express knows no absolute timeout and would keep it alive.
		if err := e.store.Delete(e.hears(ctx, whyAbsolute), id); err != nil {
			e.log.LogAttrs(ctx, levelOf(err), "session: a record over its absolute timeout could not be deleted; it is refused all the same", slog.Any("error", e.countError(err)))
		}
		return loaded{}, ErrNotFound
	}
	return rec, nil
}

// clockIsAhead reports whether a record made at created is over the absolute
// timeout by this program's clock alone. A store that has a clock is asked before
// anything is deleted, or one machine with a wrong clock would log everybody out.
func (e *engine) clockIsAhead(ctx context.Context, created time.Time) bool {
	store, ok := e.store.(interface {
		now(context.Context) (time.Time, error)
	})
	if !ok {
		return false
	}
	now, err := store.now(ctx)
	if err != nil {
		_ = e.countError(err)
		return false
	}
	if now.Sub(created) >= e.limits.absoluteTimeout {
		return false
	}
	e.warnClock.Do(func() {
		e.log.LogAttrs(ctx, slog.LevelError, "session: this program's clock is ahead of the database's; absolute timeouts go by the database's until it is right",
			slog.Duration("ahead", time.Since(now).Round(time.Second)))
	})
	return true
}
