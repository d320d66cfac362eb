package session

import (
	"context"
	"time"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// hears gives a store a context in which it says what it ends, and why ("destroyed",
// or "destroyed device"), for Config.OnEvent and for an outbox. Without the former
// a context is made only where why is not what the store takes it for anyway.
func (e *engine) hears(ctx context.Context, why string) context.Context {
	switch {
	case e.events != nil:
		return withEndings(ctx, &endings{why: why, hear: e.ended})
	case why == whyDestroyed || why == whyRevoked || why == whyExpired:
		return ctx
	}
	return withEndings(ctx, &endings{why: why})
}

// ended tells of records that a store has deleted, and that there were more of them.
func (e *engine) ended(why string, gone []ended, more int) {
	kind, reason := splitWhy(why)
	for i := range gone {
		ev := Event{Kind: kind, Reason: reason, Handle: handleOf(gone[i].sid), At: time.Now()}
		if !gone[i].live && kind != "expired" { // its time was over before
			ev.Kind, ev.Reason = "expired", ""
		}
		if d, err := row.Parse(gone[i].data); err == nil && e.sealer.Load().Open(gone[i].id, &d) == nil {
			ev.User = e.user(&d)
		}
		e.events.tell(ev)
	}
	e.events.drop(more)
}

// begins is called before a session is given an ID in the store, and once it is
// known whether it has it, began or renewed is.
func (e *engine) begins(id string) {
	if e.events != nil {
		e.events.begins(e.handle(id))
	}
}

// began tells that a session was created, if it was.
func (e *engine) began(id string, d *row.Row, stored bool) {
	if e.events == nil || id == "" {
		return
	}
	handle := e.handle(id)
	if !stored {
		e.events.begun(handle, nil)
		return
	}
	e.events.begun(handle, &Event{Kind: "created", Handle: handle, User: e.user(d), At: time.Now()})
}

// renewed tells that a session was given another ID, if it was: then d is its data.
func (e *engine) renewed(oldID, id string, d *row.Row) {
	if e.events == nil || id == "" {
		return
	}
	handle := e.handle(id)
	if d == nil {
		e.events.begun(handle, nil)
		return
	}
	e.events.begun(handle, &Event{Kind: "renewed", Handle: handle, OldHandle: e.handle(oldID), User: e.user(d), At: time.Now()})
}

// handle is Session.Handle.
func (e *engine) handle(id string) string {
	if f, ok := e.store.(interface{ Handle(id string) string }); ok {
		return f.Handle(id)
	}
	return handleOf(id)
}

// maxUserBytes is maxFindBytes: a longer value is nobody that could be found.
const maxUserBytes = 200

// user returns whose session it is.
func (e *engine) user(d *row.Row) string {
	if e.limits.userKey == "" {
		return ""
	}
	text, ok := jsonobj.Text(d.Get(e.limits.userKey))
	if !ok || len(text) > maxUserBytes {
		return ""
	}
	return text
}
