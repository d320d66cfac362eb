package explore

import "strconv"

// numbersAreFinal is the part of R1 that UpdateNow has: the number that it returns is
// what a write of that call has stored, and nobody else has got it.
func numbersAreFinal(h *History, breach func(string, ...any)) {
	type number struct{ session, n int }
	said := map[number]bool{}
	for _, r := range h.requests() {
		asked := 0
		for _, i := range r.events {
			switch e := &h.Events[i]; {
			case e.Kind == Asks && e.Call == UpdateNow:
				asked = i
			case e.Kind == Returns && e.Call == UpdateNow && e.Err == "":
				n, _ := strconv.Atoi(e.Value)
				session := r.wrote(h, asked, i, n)
				switch {
				case session == 0:
					breach("%s: UpdateNow returned %d, which it has not stored", Name(r.actor), n)
				case said[number{session, n}]:
					breach("%s: UpdateNow returned %d, which another call has got", Name(r.actor), n)
				}
				said[number{session, n}] = true
			}
		}
	}
}

// wrote returns the session in which the request has stored the counter's value n
// between two events, 0 without one.
func (r *request) wrote(h *History, from, to, n int) int {
	for _, i := range r.events {
		e := &h.Events[i]
		if i <= from || i >= to || !e.writes() {
			continue
		}
		if row, ok := e.Table.Find(or(e.Op.NewID, e.Op.ID)); ok && row.N == n && h.adds(i) > 0 {
			return row.Lineage
		}
	}
	return 0
}

// editsReachAll is the part of R1 that Edit has: what answers without an error has
// changed every session that was the user's when it began and still lives, whatever
// became of its ID; each once at most, error or not; and it says how many.
func editsReachAll(h *History, breach func(string, ...any)) {
	for actor := range h.Script.Actors {
		if !h.Script.Is(actor, Edit) {
			continue
		}
		var begin *Event
		changed, all := map[int]int{}, 0
		for i := range h.Events {
			e := &h.Events[i]
			switch {
			case e.Actor != actor:
			case e.Kind == Asks:
				begin = e
			case e.writes():
				session := h.lineage(e.Op.ID)
				changed[session]++
				all++
				if changed[session] > 1 || h.adds(i) != 1 || e.Op.TTL != 0 {
					breach("%s: Edit changed a session twice, by more than it was asked for, or moved its expiry", Name(actor))
				}
			case e.Kind == Returns && e.Err == "":
				for _, row := range begin.Table {
					if row.Who == 1 && e.Table.Alive(row.Lineage) && changed[row.Lineage] == 0 {
						breach("%s: a session has escaped an Edit", Name(actor))
					}
				}
				if e.Value != strconv.Itoa(all) && h.Script.Fault.Actor != actor {
					breach("%s: Edit says that it changed %s sessions, which were %d", Name(actor), e.Value, all)
				}
			}
		}
	}
}
