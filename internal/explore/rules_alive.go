package explore

import (
	"slices"
	"time"
)

// slack is what a time may be off: cookies count in seconds.
const slack = 2 * time.Second

// nobodyIsLoggedOut is R5.
func nobodyIsLoggedOut(h *History, breach func(string, ...any)) {
	if h.Script.Has(Destroy, Leave, Revoke) || len(h.Hung) > 0 || h.lateRenewal() || h.Script.NoUserKey && h.renewals() > 1 || h.outlives() || h.tooLateForGrace() || h.visitorRenewed() {
		return
	}
	expected := h.Script.Setup != None && h.Script.Setup != Visitor
	for _, r := range h.requests() {
		login := r.asked(h, Login, Enter, EnterOther) >= 0
		left := r.asked(h, Detach) >= 0 || len(h.Script.Beside) > 0 && h.Script.Has(Detach)
		if login && r.good() && !left {
			expected = true
		}
		login = login && !left && r.good() && r.asked(h, Login, Enter, EnterOther) < r.at.header
		if r.begin.ID == "" && !login && r.header != nil && r.header.ID != "" {
			return // nothing tells a session without a cookie from the one that a login makes beside it
		}
	}
	if expected && !h.Next.User {
		breach("the browser holds %s and is logged out", or(h.Jar.ID, "no cookie"))
	}
}

// lateRenewal reports whether an answer that came too late, or was lost and not
// found out in time, told nobody of a new ID: no browser can get it.
func (h *History) lateRenewal() bool {
	kind := h.Script.Fault.Kind
	return (kind == Late || kind == ReplyLost && h.Script.Has(Minutes)) && slices.ContainsFunc(h.Events, func(e Event) bool {
		return e.Op.Hit && (e.Op.NewID != "" || e.Op.Name == "Create")
	})
}

// outlives reports whether so much time passes that the session may end by it.
func (h *History) outlives() bool {
	life := h.Idle
	if h.Script.Setup == Aged || h.Script.Setup == OldAged {
		life = time.Hour
	}
	if h.Script.Has(IdleShort) {
		life = 10 * time.Minute
	}
	if h.Absolute > 0 {
		life = min(life, h.Absolute)
	}
	var passed time.Duration
	for _, calls := range h.Script.Actors {
		for _, c := range calls {
			passed += Later(c)
		}
	}
	return passed >= life
}

// tooLateForGrace reports whether a request began with an ID that had been renewed
// for longer than a new cookie takes, and sends another session's: the renewing
// response is slower than that. The request cannot be told from one whose browser
// never gets that response, and who answers it with an error for a quarter of an
// hour locks that browser out of every form.
func (h *History) tooLateForGrace() bool {
	return slices.ContainsFunc(h.requests(), func(r *request) bool {
		renewed := h.renewedBy(r.begin.ID, r.actor)
		return renewed >= 0 && h.Events[renewed].At < r.begin.At-renewedLately && r.header != nil && r.header.ID != "" &&
			h.lineage(r.header.ID) != h.lineage(r.begin.ID)
	})
}

// visitorRenewed reports whether a request has renewed a session that is nobody's
// and has not logged in. A login in another request then begins a session of its own,
// for whoever planted the ID must not get the user; nothing ties the two to one browser,
// and the cookie that comes last counts.
func (h *History) visitorRenewed() bool {
	return h.Script.Setup == Visitor && slices.ContainsFunc(h.Events, func(e Event) bool {
		row, ok := e.Table.Find(e.Op.NewID)
		return e.Kind == Stores && e.Op.Done && ok && row.Who == 0
	})
}

// renewals returns how many calls ask for one.
func (h *History) renewals() (n int) {
	for _, calls := range h.Script.Actors {
		for _, c := range calls {
			if c == Renew || c == Login {
				n++
			}
		}
	}
	return n
}

// useExtends is R6.
func useExtends(h *History, breach func(string, ...any)) {
	for _, r := range h.requests() {
		if r.asked(h, Skip) >= 0 {
			r.skipExtends(h, breach)
			continue
		}
		load := r.loads(h)
		if load < 0 || !r.good() || r.asked(h, Detach) >= 0 || r.hit(h) || r.lacks(h, "Touch") || h.Script.Fault.Kind == Down {
			continue
		}
		if by := h.renewedBy(r.begin.ID, r.actor); by >= 0 && slices.Contains(h.Script.Actors[h.Events[by].Actor], Skip) {
			continue // nothing is left under this ID to be extended, and the renewal extends nothing
		}
		session := h.lineage(r.begin.ID)
		before, _ := h.Events[load].Table.Find(r.begin.ID)
		idle := h.idle(before)
		for _, after := range r.end.Table {
			if after.Lineage != session || !h.idleStays(load, r.at.end, session, idle) {
				continue
			}
			due := h.Events[load].At + idle
			if h.Absolute > 0 {
				due = min(due, after.Created+h.Absolute)
			}
			late := h.Interval + slack
			if !h.Script.Token && (r.asked(h, Public) >= 0 || r.hijacked() || load > r.at.header) {
				// Without a cookie a record stays an interval short, for the next
				// response with one; and for an interval that is near enough.
				late += h.Interval
			}
			if after.Expires < due-late {
				breach("%s has used the session and not extended it", Name(r.actor))
			}
			if h.idleStays(0, r.at.end, session, idle) {
				r.cookieFollows(h, before, after, breach)
			}
		}
	}
}

// skipExtends checks that a request which says first of all that it is none of the
// user's has moved no expiry. A new idle timeout counts from now; what is too long is
// shortened.
func (r *request) skipExtends(h *History, breach func(string, ...any)) {
	if r.calls[0] != Skip || r.asked(h, IdleLong, IdleShort) >= 0 || len(h.Script.Beside) > 0 {
		return
	}
	for _, i := range r.events {
		if op := &h.Events[i].Op; op.Name == "Touch" || op.Name == "Update" && op.TTL > 0 && !op.Shorten {
			breach("%s is none of the user's and has extended the session", Name(r.actor))
		}
	}
}

// lacks reports whether an operation of the request was not carried out, as where
// another's wait for the store has left it no time.
func (r *request) lacks(h *History, op string) bool {
	return slices.ContainsFunc(r.events, func(i int) bool {
		e := &h.Events[i]
		return e.Kind == Stores && e.Op.Name == op && !e.Op.Done
	})
}

// cookieFollows checks that a response which can carry a cookie has left the
// browser with one that lives as long as the record which its request loaded.
func (r *request) cookieFollows(h *History, before, after Row, breach func(string, ...any)) {
	if r.asked(h, Public) >= 0 || r.hijacked() || max(r.asked(h, IdleLong), r.asked(h, IdleShort)) > r.at.header || r.loads(h) > r.at.header || r.header.Jar.ID != after.ID || r.begin.ID != after.ID {
		return
	}
	for _, other := range h.requests() {
		if other.hit(h) { // a touch whose answer came too late or not at all moves a record and no cookie
			return
		}
		if other.header != nil && other.at.header > r.at.header && other.header.ID == after.ID {
			return // its cookie was still to come
		}
	}
	if r.header.Jar.Expires < min(before.Expires, after.Expires)-h.Interval-slack {
		breach("%s could send a cookie, and the browser's ends before the record", Name(r.actor))
	}
}

// idleStays reports whether a session had the same idle timeout all the time
// between two events. A request that knows another one than the record has by now
// may end last, with the cookie that was right for it: the browser keeps that until
// the first request that comes a touch interval later. To know better before every
// such cookie would cost a load.
func (h *History) idleStays(from, to, session int, idle time.Duration) bool {
	for i := from; i <= to; i++ {
		for _, row := range h.Events[i].Table {
			if row.Lineage == session && h.idle(row) != idle {
				return false
			}
		}
	}
	return true
}

// idle returns a record's own idle timeout, else the configured one.
func (h *History) idle(r Row) time.Duration {
	if r.Own > 0 {
		return r.Own
	}
	return h.Idle
}

// idleTimeoutHolds is R7: once the browser's next request has come, the record
// has no more time left than its own idle timeout.
func idleTimeoutHolds(h *History, breach func(string, ...any)) {
	row, ok := h.Next.Table.Find(h.Next.ID)
	if !ok || len(h.Events) == 0 {
		return
	}
	now := h.Events[len(h.Events)-1].At
	if left := row.Expires - now; left > h.idle(row)+time.Minute {
		breach("a session with an idle timeout of %v has %v left", h.idle(row), left.Round(time.Minute))
	}
}
