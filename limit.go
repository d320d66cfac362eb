package session

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// limitUser destroys a user's oldest sessions once a commit has given the user
// one more than Config.MaxPerUser. It runs after the commit, so of two logins at
// once the later sees both. before is the record as the commit found it.
func (e *engine) limitUser(ctx context.Context, before *view, out *outcome) {
	if !e.limitDue(before, out) {
		return
	}
	text, _ := jsonobj.Text(out.rec.Get(e.limits.userKey))
	out.alive = false // a later login may have ended it, or this look has
	if err := e.removeOldest(ctx, text, out.rec.id); err != nil {
		e.log.LogAttrs(ctx, slog.LevelError, "session: the user's sessions over Config.MaxPerUser could not be destroyed, the next login tries again", slog.Any("error", err))
	}
}

// limitDue reports whether a commit has given a user one session more.
func (e *engine) limitDue(before *view, out *outcome) bool {
	if e.limits.maxPerUser == 0 || out.rec == nil {
		return false
	}
	user := out.rec.Get(e.limits.userKey)
	text, ok := jsonobj.Text(user)
	return ok && len(text) <= maxFindBytes && (before == nil || out.fresh || string(user) != string(before.Get(e.limits.userKey)))
}

// limiter is a [Finder] that can destroy all but a user's newest sessions in one
// statement, with the times of [engine.loginTime]. Others are asked for all of
// them, and then to delete one after the other.
type limiter interface {
	limits() bool
	limitFound(ctx context.Context, q Query, keep int, own string, now time.Time, slack time.Duration) (int64, error)
}

// login is one of a user's sessions.
type login struct {
	handle string
	at     int64 // in milliseconds since 1970
}

func (e *engine) removeOldest(ctx context.Context, user, own string) error {
	finder := e.store.(Finder) // New has checked
	values, err := e.sealer.Load().FindValues(e.limits.userKey, user)
	if err != nil {
		return err
	}
	q := Query{Key: e.limits.userKey, Values: values, Limit: math.MaxInt32}
	now := time.Now()
	if l, ok := finder.(limiter); ok && l.limits() {
		if e.events != nil {
			ctx = e.hears(ctx, whyLimit)
		}
		n, err := l.limitFound(ctx, q, e.limits.maxPerUser, own, now, e.limits.storeTimeout)
		e.stats.destroys.Add(uint64(max(n, 0)))
		if err != nil {
			return e.countError(err)
		}
		return nil
	}
	found, err := finder.Find(ctx, q)
	if err != nil {
		return e.countError(err)
	}
	ownHandle := finder.Handle(own)
	logins := make([]login, 0, len(found))
	for i := range found {
		logins = append(logins, login{found[i].Handle, e.loginTime(&found[i], ownHandle, now).UnixMilli()})
	}
	slices.SortFunc(logins, func(a, b login) int {
		return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(a.handle, b.handle))
	})
	for _, l := range logins[min(len(logins), e.limits.maxPerUser):] {
		q.Handle = l.handle
		n, err := finder.DeleteFound(e.hears(ctx, whyLimit), q)
		e.stats.destroys.Add(uint64(max(n, 0)))
		if err != nil {
			return e.countError(err)
		}
	}
	return nil
}

// loginTime returns when a session of the user began, as far as it matters which
// came first. All logins at the same time must see the same order, or they would
// destroy each other: one that comes late may be over the limit itself. Only a
// wrong clock, or a session that was anonymous for long and not renewed, is off
// by more than a commit takes.
func (e *engine) loginTime(r *Found, own string, now time.Time) time.Time {
	var at time.Time
	if d, err := row.Parse(r.Data); err == nil {
		at = d.Renewed()
	}
	switch age := now.Sub(at); {
	case r.Handle == own && age > e.limits.storeTimeout:
		return now
	case age < -e.limits.storeTimeout:
		return now.Add(-e.limits.storeTimeout)
	}
	return at
}
