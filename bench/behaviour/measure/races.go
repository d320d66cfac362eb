package measure

import (
	"context"
	"fmt"
	"net/http"
)

// afterRaces is where the rows of the outage go.
const afterRaces = 4

var questions = []question{
	{"overlap", "two overlapping requests set different keys", askOverlap},
	{"logout, change", "logout during a slow request that changes the session", askLogoutChange},
	{"logout, read", "logout during a slow request that reads it", askLogoutRead},
	{"login", "login during a slow request that changes the session", askLogin},
	{"unused", "statements of a page that does not use the session", askUnused},
	{"read", "statements of a read", askRead},
	{"sliding", "rows written by 100 reads, sliding expiry", askSliding},
	{"renew", "login changes the ID: statements", askRenew},
	{"cache", "`Cache-Control` beside `Set-Cookie`", askCache},
	{"late", "a value set after the first byte", askLate},
	{"rotation", "secret rotation", askRotation},
	{"encryption", "data encrypted in the table", askEncryption},
}

// trials plays a trial as often as asked.
func (b *bench) trials(a *app, trial func() error) error {
	for range b.Trials {
		if err := trial(); err != nil {
			return err
		}
	}
	return nil
}

// of is like "3 of 200".
func (b *bench) of(n int) string { return fmt.Sprintf("%d of %d", n, b.Trials) }

func (b *bench) always() string { return " (" + b.of(b.Trials) + ")" }

// The first request has read the session before the second begins, and sets its key
// when the second has been answered.
func askOverlap(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	lost := 0
	err = b.trials(a, func() error {
		w, err := a.user(ctx)
		if err != nil {
			return err
		}
		h, err := w.hold(ctx, b.gates, "/set?key=late")
		if err != nil {
			return err
		}
		err = w.must(ctx, "/set?key=b")
		if _, e := h.finish(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		r, err := w.peek(ctx, "/state")
		if !r.has("b") || !r.has("late") {
			lost++
		}
		return err
	})
	if lost == 0 {
		return "both kept" + b.always(), err
	}
	return "one lost in " + b.of(lost), err
}

// duringLogout counts the browsers that are logged in after their logout, because a
// request that had read the session before ends after it. statuses are that
// request's.
func (b *bench) duringLogout(ctx context.Context, a *app, path string) (back int, statuses map[int]int, err error) {
	statuses = map[int]int{}
	err = b.trials(a, func() error {
		w, err := a.user(ctx)
		if err != nil {
			return err
		}
		if err := a.db.exec(ctx, a.lib.age); err != nil { // an extension is due
			return err
		}
		old := *w
		h, err := w.hold(ctx, b.gates, path)
		if err != nil {
			return err
		}
		err = w.must(ctx, "/logout")
		late, e := h.finish()
		if err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		statuses[late.status]++
		in, err := old.loggedIn(ctx)
		if err != nil {
			return err
		}
		w.take(&late)
		again, err := w.loggedIn(ctx)
		if in || again {
			back++
		}
		return err
	})
	return back, statuses, err
}

// back says how many came back.
func (b *bench) back(n int) string {
	if n == 0 {
		return "stays out" + b.always()
	}
	return "back in " + b.of(n)
}

func askLogoutChange(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	n, statuses, err := b.duringLogout(ctx, a, "/set?key=b")
	cell := b.back(n)
	if statuses[http.StatusConflict] == b.Trials {
		cell += "; the slow one gets a 409"
	}
	return cell, err
}

func askLogoutRead(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	n, _, err := b.duringLogout(ctx, a, "/read?x=")
	if err != nil {
		return "", err
	}
	if a, err = b.sliding(ctx, l); err != nil {
		return "", err
	}
	sliding, _, err := b.duringLogout(ctx, a, "/read?x=")
	if sliding != n {
		return fmt.Sprintf("%s; with an idle timeout %s", b.back(n), b.back(sliding)), err
	}
	return b.back(n), err
}

// A visitor's session gets a new ID at the login, while a request that has read it
// before is still busy.
func askLogin(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	alive, out := 0, 0
	err = b.trials(a, func() error {
		w, err := a.visitor(ctx)
		if err != nil {
			return err
		}
		old := *w
		h, err := w.hold(ctx, b.gates, "/set?key=b")
		if err != nil {
			return err
		}
		err = w.must(ctx, "/login")
		late, e := h.finish()
		if err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		if w.cookie == old.cookie {
			return fmt.Errorf("%s: got the same cookie after the login, want another", l.name)
		}
		r, err := old.peek(ctx, "/state")
		if err != nil {
			return err
		}
		if r.has("a") || r.has("b") {
			alive++
		}
		w.take(&late) // it came last
		in, err := w.loggedIn(ctx)
		if !in {
			out++
		}
		return err
	})
	id, browser := "old ID dead"+b.always(), "browser stays logged in"+b.always()
	if alive > 0 {
		id = "old ID alive in " + b.of(alive)
	}
	if out > 0 {
		browser = "browser logged out in " + b.of(out)
	}
	return id + "; " + browser, err
}
