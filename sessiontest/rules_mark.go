package sessiontest

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgsession/session"
)

// markLife is how long a mark lives.
const markLife = 15 * time.Minute

// renew renews the record of id and returns its new ID.
func (f *fixture) renew(id string) string {
	f.Helper()
	c := f.change(id, string(f.load(id)))
	c.NewID = f.id()
	f.update(id, c)
	return c.NewID
}

// chain returns the IDs of a record that has been renewed, the first to the
// last.
func (f *fixture) chain(data string, renewals int) []string {
	f.Helper()
	ids := []string{f.create(data, time.Hour)}
	for range renewals {
		ids = append(ids, f.renew(ids[len(ids)-1]))
	}
	return ids
}

// wantMark checks that id has a mark that nothing has moved since f began.
func (f *fixture) wantMark(id string) {
	f.Helper()
	r, err := f.store.Load(f.ctx, id)
	f.want("Load of a renewed ID", err, session.ErrRenewed)
	if r.Data != nil {
		f.Errorf("Load of a renewed ID: got %d bytes of data, want none", len(r.Data))
	}
	f.wantTTL(r.TTL, markLife)
}

func markLeft(f *fixture) {
	ids := f.chain(`{"a":1}`, 3)
	for _, id := range ids[:3] {
		f.wantMark(id)
		_, err := f.store.Load(f.ctx, id)
		f.want("Load of a renewed ID", err, session.ErrNotFound)
	}
	f.wantRecord(ids[3], `{"a":1}`, time.Hour)

	// One that did not happen leaves none.
	id := f.create(`{"a":1}`, time.Hour)
	c := session.Change{Old: []byte(`{"a":2}`), New: []byte(`{"a":3}`), NewID: f.id()}
	f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrConflict)
	f.wantRecord(id, `{"a":1}`, time.Hour)
	absent := f.id()
	f.want("renewal", f.store.Update(f.ctx, absent, c), session.ErrConflict, session.ErrNotFound)
	if _, err := f.store.Load(f.ctx, absent); errors.Is(err, session.ErrRenewed) {
		f.Errorf("Load of an ID that was never there: got %v, want ErrNotFound", err)
	}
}

func markTouched(f *fixture) {
	ids := f.chain(`{"a":1}`, 2)
	for _, ttl := range []time.Duration{time.Second, time.Hour, 24 * time.Hour} {
		for _, id := range ids[:2] {
			f.want("Touch", f.store.Touch(f.ctx, id, ttl), session.ErrNotFound)
			f.wantMark(id)
		}
	}
	f.wantRecord(ids[2], `{"a":1}`, time.Hour)
}

func markUpdated(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	old := f.load(id)
	newID := f.renew(id)
	for _, old := range [][]byte{old, []byte(`{}`), nil} {
		for _, c := range []session.Change{
			{},
			{TTL: 2 * time.Hour},
			{TTL: time.Second, Shorten: true},
			{NewID: f.id()},
			{NewID: newID, TTL: 2 * time.Hour},
		} {
			c.Old, c.New = old, []byte(`{"a":2}`)
			f.want("Update", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
			f.wantMark(id)
			if c.NewID != "" && c.NewID != newID {
				f.wantGone(c.NewID)
			}
		}
	}
	f.wantRecord(newID, `{"a":1}`, time.Hour)
}

func markKeepsID(f *fixture) {
	ids := f.chain(`{"a":1}`, 2)
	for _, id := range ids[:2] {
		err := f.store.Create(f.ctx, id, session.Record{Data: []byte(`{"a":2}`), TTL: 2 * time.Hour})
		f.want("Create", err, session.ErrExists)
		f.wantMark(id)

		other := f.create(`{"a":3}`, time.Hour)
		c := f.change(other, `{"a":4}`)
		c.NewID = id
		f.want("renewal", f.store.Update(f.ctx, other, c), session.ErrExists)
		f.wantMark(id)
		f.wantRecord(other, `{"a":3}`, time.Hour)
	}
	f.wantRecord(ids[2], `{"a":1}`, time.Hour)
}

func deleteFollows(f *fixture) {
	const renewals = 4
	for from := range renewals + 1 {
		ids, other := f.chain(`{"a":1}`, renewals), f.chain(`{"a":1}`, 1)
		if err := f.store.Delete(f.ctx, ids[from]); err != nil {
			f.Errorf("Delete: got %v, want no error", err)
		}
		if _, err := f.store.Load(f.ctx, ids[renewals]); !errors.Is(err, session.ErrNotFound) {
			f.Errorf("Delete by the ID of %d renewals ago: the record lives", renewals-from)
		}
		f.wantRecord(other[1], `{"a":1}`, time.Hour)
	}
}

func deleteLeavesMarks(f *fixture) {
	ids := f.chain(`{"a":1}`, 3)
	for range 2 {
		if err := f.store.Delete(f.ctx, ids[1]); err != nil {
			f.Errorf("Delete: got %v, want no error", err)
		}
		for _, id := range ids[:3] {
			f.wantMark(id)
		}
		f.wantGone(ids[3])
	}
}

// chainRace deletes a record by its first ID while it is renewed again and
// again. Where in the chain the Delete comes is left to chance, so there are
// some tries, each with the Delete a little later.
func chainRace(f *fixture) {
	const renewals, tries = 8, 24
	for try := range tries {
		ids := make([]string, renewals+1)
		for i := range ids {
			ids[i] = f.id()
		}
		data := fmt.Appendf(nil, `{"chain":%d}`, try)
		f.createAs(ids[0], string(data), time.Hour)
		old := f.load(ids[0])
		under := make(chan struct{}) // way, as far as the try says
		var errs [2]error
		together(2, func(i int) {
			if i == 1 {
				<-under
				errs[i] = f.store.Delete(f.ctx, ids[0])
				return
			}
			for n := range renewals {
				if n == try%renewals {
					close(under)
				}
				c := session.Change{Old: old, New: old, NewID: ids[n+1]}
				if err := f.store.Update(f.ctx, ids[n], c); errs[i] == nil {
					errs[i] = err
				}
			}
		})
		if err := errs[0]; err != nil {
			f.want("a renewal after the Delete", err, session.ErrNotFound, session.ErrConflict)
		}
		if errs[1] != nil {
			f.Errorf("Delete: got %v, want no error", errs[1])
		}
		for n, id := range ids {
			if _, err := f.store.Load(f.ctx, id); !errors.Is(err, session.ErrNotFound) {
				f.Errorf("try %d: after Delete and renewal %d at once: got %v, want ErrNotFound", try, n, err)
			}
		}
	}
}
