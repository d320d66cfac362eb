package sessiontest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgsession/session"
)

// expiry waits once for all of its records.
func expiry(f *fixture) {
	const data = `{"a":1}`
	byRule := make(map[string]string)
	for _, rule := range []string{"load", "update", "renewal", "onto", "touch", "create", "delete"} {
		byRule[rule] = f.create(data, short)
	}
	shortened := f.create(data, time.Hour)
	c := f.change(shortened, data)
	c.TTL, c.Shorten = short, true
	f.update(shortened, c)
	touched := f.createTouched(data)
	f.awaitExpiry(append(slices.Collect(maps.Values(byRule)), shortened)...)

	late := session.Change{Old: c.Old, New: []byte(`{"a":2}`), TTL: time.Hour}
	f.sub("Load does not find an expired record", func(f *fixture) {
		f.wantGone(byRule["load"])
	})
	f.sub("Update does not find an expired record", func(f *fixture) {
		err := f.store.Update(f.ctx, byRule["update"], late)
		f.want("Update", err, session.ErrNotFound, session.ErrConflict)
		f.wantGone(byRule["update"])
	})
	f.sub("A renewal does not find an expired record", func(f *fixture) {
		late.NewID = f.id()
		err := f.store.Update(f.ctx, byRule["renewal"], late)
		f.want("renewal", err, session.ErrNotFound, session.ErrConflict)
		f.wantGone(late.NewID)
	})
	f.sub("A renewal does not overwrite an expired record", func(f *fixture) {
		id := f.create(data, time.Hour)
		c := f.change(id, `{"a":2}`)
		c.NewID, c.TTL = byRule["onto"], time.Hour
		f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrExists)
		f.wantRecord(id, data, time.Hour)
		f.wantGone(byRule["onto"])
	})
	f.sub("Touch does not find an expired record", func(f *fixture) {
		f.want("Touch", f.store.Touch(f.ctx, byRule["touch"], time.Hour), session.ErrNotFound)
		f.wantGone(byRule["touch"])
	})
	f.sub("Create does not overwrite an expired record", func(f *fixture) {
		err := f.store.Create(f.ctx, byRule["create"], session.Record{Data: []byte(data), TTL: time.Hour})
		f.want("Create", err, session.ErrExists)
		f.wantGone(byRule["create"])
	})
	f.sub("Delete removes an expired record", func(f *fixture) {
		if err := f.store.Delete(f.ctx, byRule["delete"]); err != nil {
			f.Errorf("Delete: got %v, want no error", err)
		}
		f.createAs(byRule["delete"], data, time.Hour)
		f.wantRecord(byRule["delete"], data, time.Hour)
	})
	f.sub("A shortened record expires", func(f *fixture) {
		f.wantGone(shortened)
	})
	f.sub("A touched record outlives its first expiry", func(f *fixture) {
		f.wantRecord(touched, data, time.Hour)
	})
}

// createTouched creates a record that would expire soon and touches it before
// it does; on a busy machine not at the first attempt.
func (f *fixture) createTouched(data string) string {
	f.Helper()
	for ttl := short; ; ttl *= 2 {
		id := f.create(data, ttl)
		err := f.store.Touch(f.ctx, id, time.Hour)
		if err == nil {
			return id
		}
		if !errors.Is(err, session.ErrNotFound) || ttl > expiryPatience {
			f.Fatalf("Touch: got %v, want no error", err)
		}
	}
}

// prune waits once for all of its records.
func prune(f *fixture) {
	pruner, ok := f.store.(session.Pruner)
	if !ok {
		f.Skip("the store has no Prune method")
	}
	const data = `{"a":1}`
	var expired []string
	for range 5 {
		expired = append(expired, f.create(data, short))
	}
	shortened := f.create(data, time.Hour)
	c := f.change(shortened, data)
	c.TTL, c.Shorten = short, true
	f.update(shortened, c)
	expired = append(expired, shortened)
	live, touched := f.create(data, time.Hour), f.createTouched(data)
	chain := f.chain(data, 2)
	f.awaitExpiry(expired...)

	var n atomic.Int64
	f.sub("Prune whose context has ended returns without an error", func(f *fixture) {
		ended, cancel := context.WithCancel(f.ctx)
		cancel()
		err := f.promptly("Prune", func() error {
			some, err := pruner.Prune(ended, time.Minute)
			n.Store(some)
			return err
		})
		if err != nil {
			f.Errorf("Prune: got %v, want no error", err)
		}
	})
	f.sub("Prune deletes expired records and counts them", func(f *fixture) {
		more, err := pruner.Prune(f.ctx, time.Minute)
		if err != nil {
			f.Errorf("Prune: got %v, want no error", err)
		}
		if got, want := n.Load()+more, int64(len(expired)); got < want {
			f.Errorf("deleted: got %d, want at least %d", got, want)
		}
		for _, id := range expired {
			f.createAs(id, data, time.Hour) // the session ID is free
		}
	})
	f.sub("Prune keeps live records", func(f *fixture) {
		f.wantRecord(live, data, time.Hour)
		f.wantRecord(touched, data, time.Hour)
	})
	f.sub("Prune keeps marks that have not expired", func(f *fixture) {
		f.wantMark(chain[0])
		f.wantMark(chain[1])
		f.wantRecord(chain[2], data, time.Hour)
	})
}
