package session

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Event is something that has become of a session, for [Config.OnEvent]. It holds
// neither session ID nor data.
type Event struct {
	_ struct{}

	// Kind is "created", "renewed", "destroyed" ([Session.Destroy]), "revoked"
	// ([Manager.Revoke]) or "expired" (its time was over, and its record was
	// deleted).
	Kind string

	// Reason says more where there is more to say: of "revoked" "limit"
	// ([Config.MaxPerUser]), of "destroyed" "device" (a second key was registered for
	// it, see [Config.DeviceBound]), of "expired" "absolute"
	// ([Config.AbsoluteTimeout], found by a request).
	Reason string

	// Handle is the session's, as in [Info.Handle]; OldHandle, of "renewed" alone,
	// the one that it had before.
	Handle, OldHandle string

	// User is the value of [Config.UserKey] as text, "42" for a number and for a
	// string. It is empty without one, where that has more than 200 bytes, and where
	// the ended record could not be read: over 16 KiB as stored, or encrypted
	// with [PostgresOptions.HashIDs].
	User string

	// At is when this program learned of it.
	At time.Time
}

// LogValue is the event as a group of attributes, without those that are empty.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", e.Kind)}
	for _, a := range []slog.Attr{slog.String("reason", e.Reason), slog.String("handle", e.Handle), slog.String("oldHandle", e.OldHandle), slog.String("user", e.User)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return slog.GroupValue(append(attrs, slog.Time("at", e.At))...)
}

// maxEvents is how many events wait for Config.OnEvent at most, and how many a
// single Revoke tells of.
const maxEvents = 1024

// events hands events to Config.OnEvent, one after the other. It is safe for
// concurrent use, and nobody waits for that function: its goroutine runs only
// while there is something to hand over. A nil *events forgets everything.
type events struct {
	hear    func(Event)
	log     *slog.Logger
	dropped atomic.Uint64
	warn    sync.Once

	mu      sync.Mutex
	waiting []Event
	running bool
	idle    chan struct{} // closed when nothing is left; nil if nobody waits for that

	// Of a session whose beginning is on its way to the store and back: what has
	// been heard of its end meanwhile. Who began it must be heard first.
	beginning map[string][]Event
}

func newEvents(hear func(Event), log *slog.Logger) *events {
	if hear == nil {
		return nil
	}
	return &events{hear: hear, log: log, beginning: map[string][]Event{}}
}

// tell hands over an event, once those before it have been.
func (v *events) tell(e Event) {
	v.mu.Lock()
	held, begins := v.beginning[e.Handle]
	if begins && len(held) < maxEvents {
		v.beginning[e.Handle] = append(held, e)
		v.mu.Unlock()
		return
	}
	lost := v.enqueueLocked(e)
	v.mu.Unlock()
	v.drop(lost)
}

// begins says that a session of this handle may begin, until begun.
func (v *events) begins(handle string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.beginning[handle] = nil
}

// begun says that it is settled whether a session has begun: then e is its event,
// else nil.
func (v *events) begun(handle string, e *Event) {
	v.mu.Lock()
	lost := 0
	if e != nil {
		lost = v.enqueueLocked(*e)
	}
	for _, later := range v.beginning[handle] {
		lost += v.enqueueLocked(later)
	}
	delete(v.beginning, handle)
	v.mu.Unlock()
	v.drop(lost)
}

// enqueueLocked returns how many events there is no room for: one or none.
func (v *events) enqueueLocked(e Event) (lost int) {
	if len(v.waiting) >= maxEvents {
		return 1
	}
	v.waiting = append(v.waiting, e)
	if !v.running {
		v.running = true
		go v.deliver()
	}
	return 0
}

// inside returns events of a transaction, which wait until it is known whether it
// was committed.
func (v *events) inside() *events {
	if v == nil {
		return nil
	}
	return &events{log: v.log, running: true, beginning: map[string][]Event{}}
}

// announce is called before COMMIT: who ends meanwhile what the transaction has begun
// is heard after it.
func (v *events) announce(to *events) {
	if v == nil {
		return
	}
	for _, e := range v.waiting {
		if e.begins() {
			to.begins(e.Handle)
		}
	}
}

// settle tells what has waited, after announce, if the transaction is known to have been committed.
func (v *events) settle(to *events, committed bool) {
	if v == nil {
		return
	}
	for _, e := range v.waiting {
		switch {
		case e.begins() && committed:
			to.begun(e.Handle, &e)
		case e.begins():
			to.begun(e.Handle, nil)
		case committed:
			to.tell(e)
		}
	}
	if committed {
		to.dropped.Add(v.count())
	}
	v.waiting = nil
}

// begins reports whether the event is the first of a handle.
func (e *Event) begins() bool { return e.Kind == "created" || e.Kind == "renewed" }

// drop counts events that OnEvent will not hear of.
func (v *events) drop(n int) {
	if n <= 0 {
		return
	}
	v.dropped.Add(uint64(n))
	v.warn.Do(func() {
		v.log.Warn("session: Config.OnEvent is too slow, or more has happened at once than is told: events are dropped, Stats counts them in EventsDropped",
			"waiting", maxEvents)
	})
}

// deliver calls OnEvent until nothing waits. What it does wrong is its own matter.
func (v *events) deliver() {
	done := false
	defer func() {
		if done {
			return
		}
		if p := recover(); p != nil { // else it has called runtime.Goexit
			v.log.Error("session: Config.OnEvent panicked, the event is lost to it", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		}
		go v.deliver()
	}()
	for {
		e, ok := v.next()
		if !ok {
			done = true
			return
		}
		v.hear(e)
	}
}

func (v *events) next() (e Event, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.waiting) == 0 {
		v.running, v.waiting = false, nil
		if v.idle != nil {
			close(v.idle)
			v.idle = nil
		}
		return e, false
	}
	e = v.waiting[0]
	v.waiting = v.waiting[1:]
	return e, true
}

var nothingWaits = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// settled returns what is closed once OnEvent has come back from all that it was
// called for and that waits.
func (v *events) settled() <-chan struct{} {
	if v == nil {
		return nothingWaits
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.running {
		return nothingWaits
	}
	if v.idle == nil {
		v.idle = make(chan struct{})
	}
	return v.idle
}

// count is Stats.EventsDropped.
func (v *events) count() uint64 {
	if v == nil {
		return 0
	}
	return v.dropped.Load()
}
