package explore_test

import (
	"context"
	"errors"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/explore"
)

var errFault = errors.New("the store is down")

// hook stands between manager and store: it stops every operation of an actor
// before and after it happens, and is where faults happen.
type hook struct {
	session.Store
	session.Finder
	loses bool // what comes beside an error, as a store around a store may
}

func (h *hook) Load(ctx context.Context, id string) (rec session.Record, err error) {
	a, watched := ctx.Value(actorKey{}).(*actor)
	if watched && len(a.presented) > 1 { // both are looked for at once, so say which comes first
		switch id {
		case a.presented[0]:
			defer a.firstLoaded.pass()
		case a.presented[1]:
			<-a.firstLoaded.ch
		}
	}
	err = do(ctx, explore.Op{Name: "Load"}, id, "", func(op *explore.Op) error {
		rec, err = h.Store.Load(ctx, id)
		op.Left, op.Data = rec.TTL, string(rec.Data)
		return err
	})
	if err != nil && (!errors.Is(err, session.ErrRenewed) || h.loses) {
		rec = session.Record{}
	}
	return rec, err
}

func (h *hook) Create(ctx context.Context, id string, r session.Record) error {
	op := explore.Op{Name: "Create", TTL: r.TTL, Data: string(r.Data)}
	return do(ctx, op, id, "", func(*explore.Op) error { return h.Store.Create(ctx, id, r) })
}

func (h *hook) Update(ctx context.Context, id string, c session.Change) error {
	op := explore.Op{Name: "Update", TTL: c.TTL, Shorten: c.Shorten, Data: string(c.New)}
	return do(ctx, op, id, c.NewID, func(*explore.Op) error { return h.Store.Update(ctx, id, c) })
}

func (h *hook) Touch(ctx context.Context, id string, ttl time.Duration) error {
	return do(ctx, explore.Op{Name: "Touch", TTL: ttl}, id, "", func(*explore.Op) error { return h.Store.Touch(ctx, id, ttl) })
}

func (h *hook) Delete(ctx context.Context, id string) error {
	return do(ctx, explore.Op{Name: "Delete"}, id, "", func(*explore.Op) error { return h.Store.Delete(ctx, id) })
}

func (h *hook) Find(ctx context.Context, q session.Query) (found []session.Found, err error) {
	err = do(ctx, explore.Op{Name: "Find"}, "", "", func(*explore.Op) error {
		found, err = h.Finder.Find(ctx, q)
		return err
	})
	return found, err
}

func (h *hook) DeleteFound(ctx context.Context, q session.Query) (n int64, err error) {
	err = do(ctx, explore.Op{Name: "DeleteFound"}, "", "", func(*explore.Op) error {
		n, err = h.Finder.DeleteFound(ctx, q)
		return err
	})
	return n, err
}

// do carries out an operation: it stops, happens or does not, and stops again.
func do(ctx context.Context, op explore.Op, id, newID string, happen func(*explore.Op) error) error {
	a, ok := ctx.Value(actorKey{}).(*actor)
	if !ok {
		return happen(&op) // nobody watches
	}
	w := a.w
	seat := w.seat(a)
	on := w.actors[seat]
	on.storing = true
	defer func() { on.storing = false }()
	w.stage.Stop(seat, op.Name)
	a.ops++
	fault := w.fault(a)
	op.Hit = fault != ""
	var err error
	switch fault {
	case explore.Never:
		select {}
	case explore.Refused, explore.Down:
		err = errFault
	case explore.Lost:
		err = unanswered(op.Name)
	default:
		err = happen(&op)
		op.Done = err == nil
		if op.Done && fault != "" {
			err = unanswered(op.Name)
		}
	}
	w.happened(a, seat, op, id, newID, err)
	a.begun.pass()
	if fault == explore.Late && op.Done {
		<-ctx.Done()
		w.stage.Await(seat, "deadline")
		return err
	}
	if seat != a.number || !a.beforeHeader() || w.script.Split {
		w.stage.Stop(seat, "answer of "+op.Name)
	}
	return err
}

// seat returns who on the stage carries out an operation of a request: the second
// goroutine of its handler has a place of its own.
func (w *world) seat(a *actor) int {
	if len(w.script.Beside) > 0 {
		if seat, ok := w.seats.Load(goroutine()); ok {
			return seat.(int)
		}
	}
	return a.number
}

// unanswered is what a store says that got no answer. Of what can be done again
// it does not say that it may have happened.
func unanswered(name string) error {
	if name == "Create" || name == "Update" {
		return session.ErrUncertain
	}
	return errFault
}

// fault returns what is to go wrong with the operation that a is about to do.
func (w *world) fault(a *actor) explore.FaultKind {
	f := &w.script.Fault
	if f.Kind != "" && f.Actor == a.number && f.Nth == a.ops {
		w.down = f.Kind == explore.Down
		return f.Kind
	}
	if w.down {
		return explore.Down
	}
	return ""
}
