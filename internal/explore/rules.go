package explore

import (
	"fmt"
	"net/http"
	"slices"
)

// Rule is a promise that every history must keep.
type Rule struct {
	Name  string
	Says  string
	check func(h *History, breach func(format string, args ...any))

	// beside says that the rule can also be checked where a handler has a second
	// goroutine: whose call it was that a response acknowledges is not known then.
	beside bool

	// limited says that the rule also holds where a login ends other sessions.
	limited bool
}

// Rules are all of them.
var Rules = []Rule{
	{"R1", "what was acknowledged is stored", acknowledgedIsStored, false, false},
	{"R2", "no response sends an ID that is dead", deadStaysDead, true, true},
	{"R3", "logout wins over everything", logoutWins, false, false},
	{"R4", "a renewed ID is not a stranger's", renewedIsNoStranger, false, false},
	{"R5", "nobody is logged out who did not ask", nobodyIsLoggedOut, true, false},
	{"R6", "use extends, in the record and in the browser", useExtends, false, false},
	{"R7", "an idle timeout is what the record says", idleTimeoutHolds, true, true},
	{"R8", "nothing hangs", nothingHangs, true, true},
	{"R9", "a session that is bound is its device's", boundIsBound, true, false},
	{"R10", "one user's session is not another's", usersAreApart, false, true},
	{"R11", "a user has no more sessions than allowed", limitHolds, false, true},
}

// Breach is a promise broken by a history.
type Breach struct {
	Rule string
	Why  string
}

// Breaches returns the promises that a history breaks, each rule once.
func Breaches(h *History) (breaches []Breach) {
	for _, rule := range Rules {
		if len(h.Script.Beside) > 0 && !rule.beside || h.Script.Limited && !rule.limited {
			continue
		}
		rule.check(h, func(format string, args ...any) {
			b := Breach{Rule: rule.Name, Why: fmt.Sprintf(format, args...)}
			if !Broken(breaches, rule.Name) {
				breaches = append(breaches, b)
			}
		})
	}
	return breaches
}

// Broken reports whether a rule is among the breaches.
func Broken(breaches []Breach, rule string) bool {
	return slices.ContainsFunc(breaches, func(b Breach) bool { return b.Rule == rule })
}

// request is one request in a history.
type request struct {
	actor  int
	calls  []Call
	events []int // its own, by index in the history
	begin  *Event
	header *Event // nil: none left
	end    *Event // nil: it hangs
	at     struct{ begin, header, end int }
}

// good reports whether the response tells the user that all went well.
func (r *request) good() bool {
	return r.end != nil && r.end.Full && r.header != nil && r.header.Code < 300
}

// hijacked reports whether the handler took the connection over before a header left.
func (r *request) hijacked() bool {
	return r.header != nil && r.header.Code == http.StatusSwitchingProtocols
}

// requests returns those of a history, without revocations, edits and refreshes.
func (h *History) requests() []*request {
	all := make([]*request, len(h.Script.Actors))
	for i := range h.Events {
		e := &h.Events[i]
		r := all[e.Actor]
		if r == nil {
			r = &request{actor: e.Actor, calls: h.Script.Actors[e.Actor]}
			all[e.Actor] = r
		}
		r.events = append(r.events, i)
		switch e.Kind {
		case Begins:
			r.begin, r.at.begin = e, i
		case Header:
			r.header, r.at.header = e, i
		case Ends:
			r.end, r.at.end = e, i
		}
	}
	return slices.DeleteFunc(all, func(r *request) bool {
		return r == nil || r.begin == nil || h.Script.Outside(r.actor)
	})
}

// asked returns the index of the request's first event of a call, -1 without.
func (r *request) asked(h *History, calls ...Call) int {
	for _, i := range r.events {
		if e := &h.Events[i]; e.Kind == Asks && slices.Contains(calls, e.Call) {
			return i
		}
	}
	return -1
}

// lineage returns which session an ID belongs to, 0 for none. An ID that was
// live once keeps it.
func (h *History) lineage(id string) int {
	if id == "" {
		return 0
	}
	for i := range h.Events {
		if row, ok := h.Events[i].Table.Find(id); ok {
			return row.Lineage
		}
	}
	return 0
}

// hit reports whether a fault struck one of the request's operations.
func (r *request) hit(h *History) bool {
	return slices.ContainsFunc(r.events, func(i int) bool { return h.Events[i].Op.Hit })
}

// loads returns the index of the first load that found the request's session,
// -1 without.
func (r *request) loads(h *History) int {
	for _, i := range r.events {
		if e := &h.Events[i]; e.Kind == Stores && e.Op.Name == "Load" && e.Op.Done && e.Op.ID == r.begin.ID {
			return i
		}
	}
	return -1
}

// renewedBy returns the index of the event in which another actor renewed the
// ID, -1 if nobody did.
func (h *History) renewedBy(id string, not int) int {
	for i := range h.Events {
		if e := &h.Events[i]; id != "" && e.Kind == Stores && e.Op.Done && e.Op.ID == id && e.Op.NewID != "" && e.Actor != not {
			return i
		}
	}
	return -1
}

// nothingHangs is R8.
func nothingHangs(h *History, breach func(string, ...any)) {
	for _, actor := range h.Hung {
		breach("%s never ends", Name(actor))
	}
	for _, r := range h.requests() {
		if r.asked(h, Reenter) >= 0 && !h.Script.Has(Detach) && r.good() {
			breach("%s uses the session inside of Update, which may hang, and is not told", Name(r.actor))
		}
	}
}
