package explore

import (
	"slices"
	"time"
)

// renewedLately is how long before a request began a renewal still counts as
// one that happened meanwhile: its cookie may be on its way.
const renewedLately = 10 * time.Second

// markLife is how long a renewal leaves word of where the session went.
const markLife = 15 * time.Minute

// deadStaysDead is R2. The header leaves in the step of the last store
// operation before it, so what is live at the header was live there. An ID that
// the request made itself, and somebody else ended, is harmless. So is one whose
// own renewal got no answer: nobody can know that it is dead.
func deadStaysDead(h *History, breach func(string, ...any)) {
	for _, r := range h.requests() {
		if r.header == nil || r.header.ID == "" {
			continue
		}
		by := h.endedBy(r.header.ID)
		if _, live := r.header.Table.Find(r.header.ID); live || r.made(h, r.header.ID) && (by != r.actor || r.hit(h)) {
			continue
		}
		breach("%s sends %s, which is dead", Name(r.actor), r.header.ID)
	}
}

// made reports whether the request made an ID.
func (r *request) made(h *History, id string) bool {
	return slices.ContainsFunc(r.events, func(i int) bool {
		e := &h.Events[i]
		return e.writes() && (e.Op.NewID == id || e.Op.Name == "Create" && e.Op.ID == id)
	})
}

// endedBy returns who ended the record of an ID, -1 if nobody did: one that has
// expired was alive at the last store operation before.
func (h *History) endedBy(id string) int {
	was := false
	var expires time.Duration
	for i := range h.Events {
		row, is := h.Events[i].Table.Find(id)
		if was && !is && h.Events[i].At < expires {
			return h.Events[i].Actor
		}
		if was = is; is {
			expires = row.Expires
		}
	}
	return -1
}

// logoutWins is R3, for Destroy and for Revoke.
func logoutWins(h *History, breach func(string, ...any)) {
	for _, r := range h.requests() {
		asked := r.logsOut(h)
		if asked < 0 || !r.good() {
			continue
		}
		r.dropsCookie(h, asked, breach)
		if renewed := h.renewedBy(r.begin.ID, r.actor); renewed >= 0 && h.Events[renewed].At < r.begin.At-markLife {
			continue // nobody knows any more where the session went
		}
		ended := []int{h.lineage(r.begin.ID)}
		for heir := h.Heirs[ended[0]]; heir != 0; heir = h.Heirs[heir] {
			ended = append(ended, heir)
		}
		for _, i := range r.events {
			if e := &h.Events[i]; i < asked && e.Kind == Stores && e.Op.Done && e.Op.Name == "Create" {
				ended = append(ended, h.lineage(e.Op.ID))
			}
		}
		for _, session := range ended {
			if session != 0 && h.aliveFrom(r.at.end, session) {
				breach("%s: a session is alive after its Destroy was answered with success", Name(r.actor))
			}
		}
	}
	for i := range h.Events {
		e := &h.Events[i]
		if e.Op.Name != "DeleteFound" || !e.Op.Done {
			continue
		}
		for _, row := range h.Events[i-1].Table {
			if row.Who == 1 && h.aliveFrom(i, row.Lineage) {
				breach("%s: a session is alive after Revoke", Name(e.Actor))
			}
		}
	}
}

// dropsCookie checks that the browser is told of its logout, unless the request has
// begun another session or has found none; of both cookies where it has sent two: of one
// alone nobody can tell from which time it is.
func (r *request) dropsCookie(h *History, asked int, breach func(string, ...any)) {
	deleted := slices.ContainsFunc(r.events, func(i int) bool { return h.Events[i].Op.Name == "Delete" && h.Events[i].Op.Done })
	switch {
	case r.begin.ID == "" || !deleted || asked > r.at.header || r.header.ID != "":
	case h.Script.Token: // whose client drops it by itself
	case r.hijacked(): // which can tell nothing; the next response does
	case !r.header.Drops:
		breach("%s: the browser keeps the cookie after Destroy", Name(r.actor))
	case h.Script.Stray && h.lineage(r.begin.ID) != 0 && r.header.Jar.ID != "":
		breach("%s: the browser keeps a second cookie after Destroy", Name(r.actor))
	}
}

// aliveFrom reports whether a session is live at an event or later.
func (h *History) aliveFrom(event, session int) bool {
	for _, e := range h.Events[event:] {
		if e.Table.Alive(session) {
			return true
		}
	}
	return h.Table.Alive(session) || h.Next.Table.Alive(session)
}

// renewedIsNoStranger is R4.
func renewedIsNoStranger(h *History, breach func(string, ...any)) {
	for _, r := range h.requests() {
		renewed := h.renewedBy(r.begin.ID, r.actor)
		if renewed < 0 || h.Events[renewed].At < r.begin.At-renewedLately {
			continue
		}
		for _, i := range r.events {
			e := &h.Events[i]
			if i < renewed || e.Kind != Stores || e.Op.Name != "Create" || !e.Op.Done {
				continue
			}
			if !r.mayBegin(h, i) {
				breach("%s: %s was renewed meanwhile, and a session of its own begins", Name(r.actor), r.begin.ID)
			}
			r.beginsFresh(h, i, breach)
		}
		if r.header != nil && r.at.header > renewed && r.header.ID != "" && !r.mayBegin(h, r.at.header) {
			breach("%s: %s was renewed meanwhile, and a cookie is sent", Name(r.actor), r.begin.ID)
		}
		r.readsAbsence(h, renewed, breach)
		r.isTold(h, renewed, breach)
	}
}

// isTold checks that a change in a request which finds its ID renewed is an error.
// Where it logs in or out, or leaves the response to its handler, it is another matter.
func (r *request) isTold(h *History, renewed int, breach func(string, ...any)) {
	found := slices.IndexFunc(r.events, func(i int) bool {
		return h.Events[i].Kind == Stores && h.Events[i].Op.Name == "Load" && h.Events[i].Op.ID == r.begin.ID
	})
	if found < 0 || r.events[found] < renewed || !r.good() || r.asked(h, Login, Enter, EnterOther, Leave, Destroy, Detach) >= 0 {
		return
	}
	if h.Script.NoUserKey && r.asked(h, Renew) >= 0 { // then that may be a login
		return
	}
	if r.asked(h, IdleLong, IdleShort, Delete, Renew) >= 0 {
		breach("%s changes a session that was renewed, and is not told", Name(r.actor))
	}
}

// mayBegin reports whether the request had logged in, or out, before an event:
// then it may begin a session, and send its cookie.
func (r *request) mayBegin(h *History, event int) bool {
	ask := []Call{Login, Destroy}
	if h.Script.NoUserKey { // then a Renew may be a login
		ask = append(ask, Renew)
	}
	first := r.asked(h, ask...)
	renews := r.asked(h, Renew)
	for i, p := range r.passages(h) {
		switch {
		case p == same && (renews < 0 || h.Events[i].Call == Leave):
			continue
		case p == same: // a Renew beside it makes it a login
			i = max(i, renews)
		}
		if first < 0 || i < first {
			first = i
		}
	}
	return first >= 0 && first < event
}

// beginsFresh checks that a session which the request creates has no data but
// what the request itself has put there.
func (r *request) beginsFresh(h *History, create int, breach func(string, ...any)) {
	row, ok := h.Events[create].Table.Find(h.Events[create].Op.ID)
	if !ok {
		return
	}
	if set := r.asked(h, SetLight, SetDark); row.HasX && (set < 0 || set > create) {
		breach("%s: a new session has the data of the renewed one", Name(r.actor))
	}
	if update := r.asked(h, Update, UpdateNow); row.N > 0 && (update < 0 || update > create) {
		breach("%s: a new session has the counter of the renewed one", Name(r.actor))
	}
}

// readsAbsence checks that a request which first loads a renewed ID reads
// nothing of it.
func (r *request) readsAbsence(h *History, renewed int, breach func(string, ...any)) {
	loaded := -1
	for _, i := range r.events {
		e := &h.Events[i]
		if e.Kind == Stores && e.Op.Name == "Load" && loaded < 0 {
			loaded = i
		}
		if e.Kind == Asks && slices.Contains([]Call{SetLight, SetDark}, e.Call) {
			return
		}
		if e.Kind == Returns && e.Call == Get && e.Value != "" && loaded > renewed {
			breach("%s reads a session that was renewed before", Name(r.actor))
		}
	}
}
