package explore

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// History is what happened in a run of a [Script], in order.
type History struct {
	Script *Script
	Events []Event
	Steps  []int  // who moved, those included that the script left open
	Moves  []Move // the same, with what they did

	// The browser and the table at the end, and what a further request saw.
	Jar   Jar
	Table Table
	Next  Next

	Hung []int // actors that never ended

	// Heirs are the sessions that took another's place, by that one: made for another
	// user, under an ID to which the old one's mark leads.
	Heirs map[int]int

	// Idle and Interval are the configured idle timeout and touch interval,
	// Absolute the absolute timeout, 0 for none.
	Idle, Interval, Absolute time.Duration
}

// Move is one step: the events from First to before Last, and where the actor
// came to.
type Move struct {
	First, Last int
	Where       string
}

// Kind is what an event is.
type Kind string

// The events. A request begins with the cookie that the browser holds; its
// handler calls and the call returns; a store operation happens; the header
// leaves and the browser takes its cookie; the response ends.
const (
	Begins  Kind = "begins"
	Asks    Kind = "calls"
	Returns Kind = "returns"
	Stores  Kind = "stores"
	Header  Kind = "header"
	Ends    Kind = "ends"
)

// Event is one thing that happened. IDs have names by their first appearance,
// ID1 for the session that was there from the beginning.
type Event struct {
	Kind  Kind
	Actor int
	At    time.Duration // since the beginning
	Call  Call          // calls, returns
	Index int           // of the call in the script; their number once the handler has returned
	Op    Op            // stores
	ID    string        // begins: of the cookie; header: of the cookie that is set
	Code  int           // header
	Drops bool          // header: the browser is told to drop its cookie
	Full  bool          // ends: the response is complete
	Value string        // returns: what a read gave
	Err   string        // returns, stores: as told to the caller

	Fields map[string][]string // header: all of it, where that is kept

	Table Table // after it; shared by events that changed nothing
	Jar   Jar   // after it
}

// Op is a store operation.
type Op struct {
	Name    string // Load, Create, Update, Touch, Delete, DeleteFound
	ID      string
	NewID   string
	TTL     time.Duration
	Shorten bool
	Data    string // what is to be written
	Left    time.Duration
	Done    bool // the store has carried it out
	Hit     bool // by the script's fault
}

// Row is a live record.
type Row struct {
	ID      string
	Lineage int // which session it is, whatever its ID was: 1 for the first
	X       string
	HasX    bool
	N       int
	User    bool
	Who     int           // the user's number, 0 for nobody
	Own     time.Duration // its own idle timeout; 0: the configured one
	Created time.Duration // since the beginning
	Expires time.Duration // likewise
	Raw     string
}

// Table holds the live records, by the age of their IDs.
type Table []Row

// Jar is the browser's cookie. An empty ID is no cookie.
type Jar struct {
	ID      string
	Expires time.Duration // since the beginning
}

// Next is what the browser's next request saw, after everything.
type Next struct {
	User  bool
	Table Table // after it
	ID    string
	Code  int

	// Bound says that the session is bound to the browser's device by then, Stolen
	// that one more request, with a copy of the session's cookie alone, was let in.
	Bound, Stolen bool
}

// Find returns the live record of an ID.
func (t Table) Find(id string) (Row, bool) {
	for _, r := range t {
		if r.ID == id {
			return r, true
		}
	}
	return Row{}, false
}

// Alive reports whether any record of a session is live.
func (t Table) Alive(lineage int) bool {
	for _, r := range t {
		if r.Lineage == lineage {
			return true
		}
	}
	return false
}

// line writes an event for people, and in full with all that can be compared.
func (e *Event) line(full bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", Name(e.Actor), e.Kind)
	switch e.Kind {
	case Begins:
		fmt.Fprintf(&b, " with %q", e.ID)
	case Asks:
		fmt.Fprintf(&b, " %s", e.Call)
	case Returns:
		fmt.Fprintf(&b, " %s: %s", e.Call, e.Value)
	case Stores:
		o := &e.Op
		fmt.Fprintf(&b, " %s %s", o.Name, o.ID)
		if o.NewID != "" {
			fmt.Fprintf(&b, " to %s", o.NewID)
		}
		if full {
			fmt.Fprintf(&b, " ttl %v shorten %v left %v data %s", o.TTL, o.Shorten, o.Left, o.Data)
		}
		fmt.Fprintf(&b, " done %v", o.Done)
	case Header:
		fmt.Fprintf(&b, " %d", e.Code)
		if e.ID != "" || e.Drops {
			fmt.Fprintf(&b, " sets %q", e.ID)
		}
		if full {
			fmt.Fprintf(&b, " %v", e.Fields)
		}
	case Ends:
		fmt.Fprintf(&b, " complete %v", e.Full)
	}
	if e.Err != "" {
		fmt.Fprintf(&b, " (%s)", e.Err)
	}
	return b.String()
}

// String tells the history, a line an event.
func (h *History) String() string {
	var b strings.Builder
	for i := range h.Events {
		b.WriteString(h.Events[i].line(false) + "\n")
	}
	fmt.Fprintf(&b, "browser holds %q, its next request is logged in: %v\n", h.Jar.ID, h.Next.User)
	return b.String()
}

// Outcome tells everything that can be compared: calls of the
// store in order, what calls returned, headers, and the rows at the end.
func (h *History) Outcome() string {
	var b strings.Builder
	b.WriteString(h.Script.Head())
	for i := range h.Events {
		fmt.Fprintf(&b, "%v %s\n", h.Events[i].At, h.Events[i].line(true))
	}
	for _, r := range h.Table {
		fmt.Fprintf(&b, "row %s until %v: %s\n", r.ID, r.Expires, r.Raw)
	}
	fmt.Fprintf(&b, "jar %+v\nnext %d %v\nhung %v\n", h.Jar, h.Next.Code, h.Next.User, h.Hung)
	return b.String()
}

// Struck reports whether the script's fault struck: its operation came.
func (h *History) Struck() bool {
	return slices.ContainsFunc(h.Events, func(e Event) bool { return e.Op.Hit })
}

// Print is a short hash of the schedule as it happened: two runs that have the
// same print were the same schedule. Faults that did not strike, and what is
// configured, do not make another one.
func (h *History) Print() uint64 {
	head := *h.Script
	head.Config = Config{}
	if !h.Struck() {
		head.Fault = Fault{}
	}
	p := Mix(0, head.Head())
	for i := range h.Events {
		p = h.Events[i].Mix(p)
	}
	return p
}

// Mix adds an event to a hash: what happened, not when.
func (e *Event) Mix(hash uint64) uint64 {
	done := ""
	if e.Op.Done {
		done = "done"
	}
	return Mix(hash+uint64(e.Actor<<16+e.Index<<8+e.Code), string(e.Kind), string(e.Call), e.Op.Name, e.Op.ID, e.Op.NewID, done, e.ID, e.Value, e.Err)
}

// Mix adds texts to a hash (FNV-1a).
func Mix(hash uint64, texts ...string) uint64 {
	for _, text := range texts {
		for i := range len(text) {
			hash = (hash ^ uint64(text[i])) * 1099511628211
		}
		hash = (hash ^ 0xff) * 1099511628211
	}
	return hash
}

// Overlaps reports whether a store operation of one actor lies between the first
// one and the end of another's.
func (h *History) Overlaps() bool {
	for a := range h.Script.Actors {
		first, last := -1, -1
		for i := range h.Events {
			if e := &h.Events[i]; e.Actor == a && (e.Kind == Stores || e.Kind == Header || e.Kind == Ends) {
				if first < 0 && e.Kind == Stores {
					first = i
				}
				last = i
			}
		}
		for i := first + 1; first >= 0 && i < last; i++ {
			if e := &h.Events[i]; e.Kind == Stores && e.Actor != a {
				return true
			}
		}
	}
	return false
}

// Did tells in a few words what each step did.
func (h *History) Did() (did []string) {
	for _, m := range h.Moves {
		words := summary(h.Events[m.First:m.Last])
		if words == "" {
			words = "comes to " + or(m.Where, "another's turn")
		}
		did = append(did, words)
	}
	return did
}

func summary(events []Event) string {
	var words []string
	for i := range events {
		switch e := &events[i]; e.Kind {
		case Begins:
			words = append(words, "begins with "+or(e.ID, "no cookie"))
		case Stores:
			word := strings.TrimSpace(e.Op.Name + " " + e.Op.ID)
			if e.Op.NewID != "" {
				word += " to " + e.Op.NewID
			}
			words = append(words, word+map[bool]string{true: "", false: " fails"}[e.Op.Done])
		case Asks:
			words = append(words, string(e.Call))
		case Header:
			words = append(words, fmt.Sprintf("sends %d", e.Code)+map[bool]string{true: " with " + or(e.ID, "the cookie's end")}[e.ID != "" || e.Drops])
		case Ends:
			words = append(words, map[bool]string{true: "ends", false: "breaks off"}[e.Full])
		}
	}
	return strings.Join(words, "; ")
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
