package explore

import "slices"

// passage is what a call makes of the request's session by changing its user.
type passage int

const (
	same  passage = iota
	in            // nobody's becomes somebody's
	other         // somebody's another's
	out           // somebody's nobody's
)

// passages returns what the calls of a request that change the user make of its
// session, by the index of the call's event: as the handler sees it, whatever others
// do meanwhile. Without Config.UserKey none makes anything of it.
func (r *request) passages(h *History) map[int]passage {
	all := map[int]passage{}
	if h.Script.NoUserKey {
		return all
	}
	who, known, own, reloads := 0, false, false, false
	for n, i := range r.events {
		e := &h.Events[i]
		if e.Kind == Asks || e.Kind == Returns {
			reloads = e.Kind == Asks && e.Call == Reload
		}
		switch {
		case e.Kind == Stores && e.Op.Name == "Load" && reloads && !own && e.Op.Done: // somebody else may be logged in by now
			if row, ok := e.Table.Find(e.Op.ID); ok {
				who, known = row.Who, true
			}
		case e.Kind == Stores && e.Op.Name == "Load" && e.Op.ID == r.begin.ID && !known:
			known = true
			if row, ok := e.Table.Find(e.Op.ID); ok && e.Op.Done {
				who = row.Who
			}
		case e.Kind == Asks && e.Call == Destroy:
			who, known, own = 0, true, true
		case e.Kind == Returns && slices.Contains([]Call{Login, Enter, EnterOther, Leave}, e.Call):
			var next int
			switch e.Call {
			case Login, Enter:
				next = 1
			case EnterOther:
				next = 2
			}
			all[r.askedBefore(h, n)] = turn(who, next)
			who, own = next, true
		}
	}
	return all
}

// askedBefore returns the index of the event in which the call was made that returns
// in the request's nth.
func (r *request) askedBefore(h *History, n int) int {
	for h.Events[r.events[n]].Kind != Asks {
		n--
	}
	return r.events[n]
}

func turn(who, next int) passage {
	switch {
	case who == next:
		return same
	case who == 0:
		return in
	case next == 0:
		return out
	}
	return other
}

// logsOut returns the index of the request's first event that ends its session, -1
// without. A Leave is a change, which an error refuses, as of a load; where the response
// is left to the handler nobody is told.
func (r *request) logsOut(h *History) int {
	first := r.asked(h, Destroy)
	if r.asked(h, Detach) >= 0 {
		return first
	}
	for i, p := range r.passages(h) {
		if p == out && (first < 0 || i < first) {
			first = i
		}
	}
	return first
}

// usersAreApart is R10: whoever gets a user, or another one, gets another ID, and
// nothing of one user's is in the session of the next.
func usersAreApart(h *History, breach func(string, ...any)) {
	if h.Script.NoUserKey {
		return
	}
	for _, r := range h.requests() {
		for _, i := range r.events {
			e := &h.Events[i]
			if !e.writes() || e.Op.Name != "Update" {
				continue
			}
			before, was := h.Events[i-1].Table.Find(e.Op.ID)
			after, is := e.Table.Find(or(e.Op.NewID, e.Op.ID))
			if !was || !is || before.Who == after.Who && before.Lineage == after.Lineage {
				continue
			}
			if e.Op.NewID == "" && !r.made(h, e.Op.ID) {
				breach("%s: %s is another user's now, under the same ID", Name(r.actor), e.Op.ID)
			}
			if before.Who == 0 {
				continue
			}
			if after.Who == 0 {
				breach("%s: what was a user's is nobody's", Name(r.actor))
			}
			if after.HasX && r.asked(h, SetLight, SetDark) < 0 || after.N > 0 && r.asked(h, Update, UpdateNow) < 0 {
				breach("%s: one user's data is another's", Name(r.actor))
			}
			if after.Lineage == before.Lineage {
				breach("%s: another user's session is as old as the one before it", Name(r.actor))
			}
		}
	}
}
