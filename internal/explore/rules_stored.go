package explore

import "slices"

// wish is a change that a handler asked for.
type wish struct {
	call Call
	at   int // event
	age  int // how many Destroys of the request came before
}

// topic is what a wish is about: a later one about the same takes its place.
func (w *wish) topic() Call {
	switch w.call {
	case SetLight, SetDark, Take, Delete:
		return SetLight
	case IdleLong, IdleShort:
		return IdleLong
	case Enter, EnterOther:
		return Login
	}
	return w.call
}

// acknowledgedIsStored is R1. A good response, and a Save that says so,
// acknowledge what was asked for before. It is stored if the session's record
// held it at some moment between the call and the acknowledgment: what comes
// later may be somebody else's. Counts of Update are compared with what the
// request's own writes added. A creation without an answer is repeated under its ID,
// also where a Revoke has ended the first one meanwhile: then the ID does not say
// which of the two sessions a record is, and the request is left out.
func acknowledgedIsStored(h *History, breach func(string, ...any)) {
	numbersAreFinal(h, breach)
	editsReachAll(h, breach)
	for _, r := range h.requests() {
		if r.createsTwice(h) {
			continue
		}
		r.keepsWishes(h, breach)
		r.onlyItsOwn(h, breach)
	}
}

// createsTwice reports whether the request has made the same ID twice.
func (r *request) createsTwice(h *History) bool {
	made := map[string]bool{}
	return slices.ContainsFunc(r.events, func(i int) bool {
		e := &h.Events[i]
		if e.Kind != Stores || e.Op.Name != "Create" || !e.Op.Done {
			return false
		}
		before := made[e.Op.ID]
		made[e.Op.ID] = true
		return before
	})
}

// keepsWishes goes through a request from acknowledgment to acknowledgment. One
// that has left the response to its handler acknowledges nothing more.
func (r *request) keepsWishes(h *History, breach func(string, ...any)) {
	var wishes []wish
	age, passages := 0, r.passages(h)
	for _, i := range r.events {
		switch e := &h.Events[i]; {
		case e.Kind == Asks && e.Call == Detach:
			return
		case e.Kind == Asks && (e.Call == Destroy || passages[i] == out):
			age++
			wishes = nil
		case e.Kind == Asks && passages[i] == other:
			age++
			wishes = []wish{{e.Call, i, age}}
		case e.Kind == Asks && changes(e.Call):
			wishes = wanted(wishes, wish{plainly(e.Call), i, age})
		case e.Kind == Returns && e.Call == Take && e.Value == "": // nothing was there
			wishes = slices.DeleteFunc(wishes, func(w wish) bool { return w.call == Take })
		case e.Kind == Returns && (e.Call == Save || e.Call == UpdateNow) && e.Err == "", e.Kind == Ends && r.good():
			if w := r.unkept(h, wishes, i); w != nil {
				breach("%s: %s was acknowledged and never stored", Name(r.actor), w.call)
			}
			wishes = nil
		}
	}
}

// unkept returns the first wish that did not come true before the event at.
func (r *request) unkept(h *History, wishes []wish, at int) *wish {
	for i, w := range wishes {
		kept := false
		if w.call == Update {
			kept = r.added(h, w.at, at) >= updates(wishes[i:])
		} else {
			kept = r.stored(h, w, at)
		}
		if !kept {
			return &w
		}
	}
	return nil
}

func changes(c Call) bool {
	return slices.Contains([]Call{SetLight, SetDark, Update, UpdateNow, Take, Delete, Login, Enter, EnterOther, Renew, IdleLong, IdleShort}, c)
}

// plainly is the change that a call asks for.
func plainly(c Call) Call {
	if c == UpdateNow {
		return Update
	}
	return c
}

// updates counts the Updates among wishes.
func updates(wishes []wish) (n int) {
	for _, w := range wishes {
		if w.call == Update {
			n++
		}
	}
	return n
}

// wanted adds a wish; of those about the same only the last counts, but every
// Update does.
func wanted(wishes []wish, w wish) []wish {
	if w.call != Update {
		wishes = slices.DeleteFunc(wishes, func(old wish) bool { return old.topic() == w.topic() })
	}
	return append(wishes, w)
}

// stored reports whether a wish came true before the event at.
func (r *request) stored(h *History, w wish, at int) bool {
	mine := r.sessions(h, w, at)
	switch {
	case len(mine) == 0 && !slices.Contains([]Call{SetLight, SetDark, Login, Enter, EnterOther}, w.call):
		return true // nothing to delete, renew or give a timeout to
	case w.call == Renew, w.call == Login && w.age == 0 && r.loads(h) >= 0:
		return r.renewed(h, w.at, at) && (w.call == Renew || saw(h, w, at, mine))
	case w.age == 0 && r.loads(h) >= 0 && r.passages(h)[w.at] == in && !r.renewed(h, -1, w.at):
		return r.renewed(h, w.at, at) && saw(h, w, at, mine)
	}
	return saw(h, w, at, mine) || w.topic() == SetLight && r.doubtful(h, w.at, at)
}

// doubtful reports whether the answer to one of the request's writes was lost
// and another actor has written x: nobody can tell what was written over.
func (r *request) doubtful(h *History, from, to int) bool {
	if h.Script.Fault.Kind != Lost || !r.hit(h) {
		return false
	}
	for i := from + 1; i <= to; i++ {
		e := &h.Events[i]
		before, ok := h.Events[i-1].Table.Find(e.Op.ID)
		after, still := e.Table.Find(e.Op.ID)
		if e.Kind == Stores && e.Actor != r.actor && ok && still && (before.X != after.X || before.HasX != after.HasX) {
			return true
		}
	}
	return false
}

// sessions returns those that a wish is about: the one that the request loaded,
// unless it had destroyed it, and those that it has created since, before an
// event.
func (r *request) sessions(h *History, w wish, before int) (mine []int) {
	if w.age == 0 && r.loads(h) >= 0 {
		mine = append(mine, h.lineage(r.begin.ID))
	}
	age, passages := 0, r.passages(h)
	for _, i := range r.events {
		switch e := &h.Events[i]; {
		case e.Kind == Asks && (e.Call == Destroy || passages[i] == out || passages[i] == other):
			age++
		case i >= before || age < w.age || !e.writes():
		case e.Op.Name == "Create":
			mine = append(mine, h.lineage(e.Op.ID))
		case e.Op.NewID != "" && h.lineage(e.Op.NewID) != h.lineage(e.Op.ID): // for another user
			mine = append(mine, h.lineage(e.Op.NewID))
		}
	}
	return mine
}

// renewed reports whether the request made a new ID between two events.
func (r *request) renewed(h *History, from, to int) bool {
	return slices.ContainsFunc(r.events, func(i int) bool {
		e := &h.Events[i]
		return i > from && i < to && e.Kind == Stores && e.Op.Done && (e.Op.NewID != "" || e.Op.Name == "Create")
	})
}

// saw reports whether a record of the sessions showed what was wished for at
// some moment between the wish and the event at.
func saw(h *History, w wish, at int, sessions []int) bool {
	// A short timeout counts from now, unless the record has had it already: what a
	// slow touch then adds the next load takes away (R7).
	again := slices.ContainsFunc(h.Events[w.at].Table, func(row Row) bool {
		return slices.Contains(sessions, row.Lineage) && shows(row, w.call, h)
	})
	for i := w.at; i <= at; i++ {
		for _, row := range h.Events[i].Table {
			if slices.Contains(sessions, row.Lineage) && shows(row, w.call, h) && (again || w.call != IdleShort || row.Expires <= h.Events[i].At+row.Own+slack) {
				return true
			}
		}
	}
	return false
}

func shows(row Row, c Call, h *History) bool {
	switch c {
	case SetLight:
		return row.X == "light"
	case SetDark:
		return row.X == "dark"
	case Take, Delete:
		return !row.HasX
	case Login, Enter:
		return row.Who == 1
	case EnterOther:
		return row.Who == 2
	case IdleLong:
		return row.Own > h.Idle
	case IdleShort:
		return row.Own > 0 && row.Own < h.Idle
	}
	return true
}

// added returns how much the request's own writes have added to the counter.
func (r *request) added(h *History, from, to int) (n int) {
	for _, i := range r.events {
		if i > from && i <= to {
			n += h.adds(i)
		}
	}
	return n
}

// adds returns how much an event has added to the counter of the record that it
// wrote.
func (h *History) adds(i int) int {
	e := &h.Events[i]
	if !e.writes() {
		return 0
	}
	before, after, _ := h.written(i)
	return after.N - before.N
}

// written returns the record that an event wrote, before and after it. One that
// took another user's place had nothing before. still says that it is alive.
func (h *History) written(i int) (before, after Row, still bool) {
	e := &h.Events[i]
	before, _ = h.Events[i-1].Table.Find(e.Op.ID)
	after, still = e.Table.Find(or(e.Op.NewID, e.Op.ID))
	if e.Op.NewID != "" && h.lineage(e.Op.NewID) != h.lineage(e.Op.ID) {
		before = Row{}
	}
	return before, after, still
}

// onlyItsOwn checks the other half of R1: that a save undoes nothing of others.
// A write may add to the counter at most what was asked for since the last
// Destroy, and may change x only to what was.
func (r *request) onlyItsOwn(h *History, breach func(string, ...any)) {
	var asked []Call
	left, all := 0, 0 // Updates that are not stored yet, and all
	passages := r.passages(h)
	for _, i := range r.events {
		e := &h.Events[i]
		switch {
		case e.Kind == Asks && (e.Call == Destroy || passages[i] == out || passages[i] == other):
			asked, left, all = nil, 0, 0
		case e.Kind == Asks && plainly(e.Call) == Update:
			left, all = left+1, all+1
		case e.Kind == Asks:
			asked = append(asked, e.Call)
		case e.writes():
			n := h.adds(i)
			if e.Op.Name == "Create" { // also once more, where another has deleted the first
				left = all
			}
			if left -= n; n < 0 || left < 0 {
				breach("%s: a save added %d to the counter, which is not what was asked for", Name(r.actor), n)
			}
			before, after, still := h.written(i)
			if still && (before.X != after.X || before.HasX != after.HasX) && !mayTurn(after, asked) {
				breach("%s: a save changed x, which it was not asked for", Name(r.actor))
			}
		}
	}
}

// writes reports whether the event is a store operation that wrote data.
func (e *Event) writes() bool {
	return e.Kind == Stores && e.Op.Done && (e.Op.Name == "Create" || e.Op.Name == "Update")
}

func mayTurn(row Row, asked []Call) bool {
	switch {
	case row.X == "light":
		return slices.Contains(asked, SetLight)
	case row.X == "dark":
		return slices.Contains(asked, SetDark)
	}
	return slices.Contains(asked, Take) || slices.Contains(asked, Delete)
}
