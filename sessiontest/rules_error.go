package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgsession/session"
)

func endedContext(f *fixture) {
	id, newID := f.create(`{"a":1}`, time.Hour), f.id()
	c := f.change(id, `{"a":2}`)
	renewal := c
	renewal.NewID = newID

	cancelled, cancel := context.WithCancel(f.ctx)
	cancel()
	late, cancel := context.WithTimeout(f.ctx, -time.Second)
	defer cancel()
	for _, ctx := range []context.Context{cancelled, late} {
		for _, call := range []struct {
			what string
			call func() error
		}{
			{"Load", func() error { _, err := f.store.Load(ctx, id); return err }},
			{"Load of an absent record", func() error { _, err := f.store.Load(ctx, f.id()); return err }},
			{"Create", func() error { return f.store.Create(ctx, newID, session.Record{Data: c.New, TTL: time.Hour}) }},
			{"Update", func() error { return f.store.Update(ctx, id, c) }},
			{"renewal", func() error { return f.store.Update(ctx, id, renewal) }},
			{"Touch", func() error { return f.store.Touch(ctx, id, 2*time.Hour) }},
			{"Delete", func() error { return f.store.Delete(ctx, id) }},
		} {
			err := f.promptly(call.what, call.call)
			if err == nil {
				f.Errorf("%s: got no error, want one", call.what)
			}
			for _, answer := range []error{session.ErrNotFound, session.ErrExists, session.ErrConflict} {
				if errors.Is(err, answer) {
					f.Errorf("%s: got %v, want an error that is no answer", call.what, err)
				}
			}
		}
	}
}

func errorsAreDiscreet(f *fixture) {
	const (
		stored = `{"a":"stored-in-confidence"}`
		given  = `{"a":"given-in-confidence"}`
	)
	id, taken, absent := f.create(stored, time.Hour), f.create(stored, time.Hour), f.id()
	old := f.load(id)
	cancelled, cancel := context.WithCancel(f.ctx)
	cancel()

	calls := []func(context.Context) error{
		func(ctx context.Context) error { _, err := f.store.Load(ctx, id); return err },
		func(ctx context.Context) error { _, err := f.store.Load(ctx, absent); return err },
		func(ctx context.Context) error {
			return f.store.Create(ctx, taken, session.Record{Data: []byte(given), TTL: time.Hour})
		},
		func(ctx context.Context) error { return f.store.Touch(ctx, absent, time.Hour) },
	}
	for id, c := range map[string]session.Change{
		absent: {Old: old, New: []byte(given)},
		id:     {Old: []byte(`{}`), New: []byte(given)},
		taken:  {Old: old, New: []byte(given), NewID: id},
	} {
		calls = append(calls, func(ctx context.Context) error { return f.store.Update(ctx, id, c) })
	}
	calls = append(calls, func(ctx context.Context) error { return f.store.Delete(ctx, id) })

	var errs []error
	for _, call := range calls {
		errs = append(errs, f.promptly("a call", func() error { return call(cancelled) }))
	}
	for _, call := range calls {
		errs = append(errs, call(f.ctx))
	}
	for _, err := range errs {
		if err == nil {
			continue
		}
		for _, secret := range []string{id, taken, absent, "in-confidence"} {
			// %+v, because some packages show more with it.
			if text := err.Error() + fmt.Sprintf(" %+v", err); strings.Contains(text, secret) {
				f.Errorf("got an error that shows %q: %s", secret, text)
			}
		}
	}
}
