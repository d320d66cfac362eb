package sessiontest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/pgsession/session"
)

// racers is how many calls a race has. All begin from what they loaded before
// the gate, so the order in which they come does not matter.
const racers = 16

// winner checks that exactly one of errs is nil, that the others are one of
// lost, and returns the index of the winner.
func (f *fixture) winner(errs []error, lost ...error) int {
	f.Helper()
	winner, winners := 0, 0
	for i, err := range errs {
		if err == nil {
			winner = i
			winners++
			continue
		}
		f.want("a call that lost", err, lost...)
	}
	if winners != 1 {
		f.Fatalf("calls that won: got %d, want 1", winners)
	}
	return winner
}

func createsRace(f *fixture) {
	id := f.id()
	data := func(i int) string { return fmt.Sprintf(`{"creator":%d}`, i) }
	errs := make([]error, racers)
	together(racers, func(i int) {
		errs[i] = f.store.Create(f.ctx, id, session.Record{Data: []byte(data(i)), TTL: time.Hour})
	})
	f.wantRecord(id, data(f.winner(errs, session.ErrExists)), time.Hour)
}

func updatesRace(f *fixture) {
	id := f.create(`{"updater":"none"}`, time.Hour)
	data := func(i int) string { return fmt.Sprintf(`{"updater":%d}`, i) }
	old := f.load(id)
	errs := make([]error, racers)
	together(racers, func(i int) {
		errs[i] = f.store.Update(f.ctx, id, session.Change{Old: old, New: []byte(data(i))})
	})
	f.wantRecord(id, data(f.winner(errs, session.ErrConflict)), time.Hour)
}

func renewalsRace(f *fixture) {
	id := f.create(`{"renewer":"none"}`, time.Hour)
	old := f.load(id)
	newIDs := make([]string, racers)
	for i := range newIDs {
		newIDs[i] = f.id()
	}
	errs := make([]error, racers)
	together(racers, func(i int) {
		errs[i] = f.store.Update(f.ctx, id, session.Change{Old: old, New: old, NewID: newIDs[i]})
	})
	winner := f.winner(errs, session.ErrNotFound, session.ErrConflict)
	f.wantGone(id)
	for i, newID := range newIDs {
		if i == winner {
			f.wantRecord(newID, `{"renewer":"none"}`, time.Hour)
		} else {
			f.wantGone(newID)
		}
	}
}

func renewalsOntoOneRace(f *fixture) {
	newID := f.id()
	data := func(i int) string { return fmt.Sprintf(`{"onto":%d}`, i) }
	ids := make([]string, racers)
	changes := make([]session.Change, racers)
	for i := range ids {
		ids[i] = f.create(data(i), time.Hour)
		changes[i] = f.change(ids[i], data(i))
		changes[i].NewID = newID
	}
	errs := make([]error, racers)
	together(racers, func(i int) { errs[i] = f.store.Update(f.ctx, ids[i], changes[i]) })
	winner := f.winner(errs, session.ErrExists)
	f.wantRecord(newID, data(winner), time.Hour)
	for i, id := range ids {
		if i == winner {
			f.wantGone(id)
		} else {
			f.wantRecord(id, data(i), time.Hour)
		}
	}
}

// increment adds one to the counter in the record of id, which had data when
// it was loaded, as often as it takes.
func (f *fixture) increment(id string, data []byte) error {
	for {
		var counter struct {
			N int `json:"n"`
		}
		if err := json.Unmarshal(data, &counter); err != nil {
			return err
		}
		err := f.store.Update(f.ctx, id, session.Change{Old: data, New: fmt.Appendf(nil, `{"n":%d}`, counter.N+1)})
		if !errors.Is(err, session.ErrConflict) {
			return err
		}
		r, err := f.store.Load(f.ctx, id)
		if err != nil {
			return err
		}
		data = r.Data
	}
}

func incrementsRace(f *fixture) {
	id := f.create(`{"n":0}`, time.Hour)
	loaded := f.load(id)
	errs := make([]error, racers)
	together(racers, func(i int) { errs[i] = f.increment(id, loaded) })
	for _, err := range errs {
		if err != nil {
			f.Errorf("increment: got %v, want no error", err)
		}
	}
	f.wantRecord(id, fmt.Sprintf(`{"n":%d}`, racers), time.Hour)
}

func touchesRace(f *fixture) {
	id := f.create(`{"n":0}`, time.Hour)
	loaded := f.load(id)
	errs := make([]error, racers)
	together(racers, func(i int) {
		if i%2 == 0 {
			errs[i] = f.increment(id, loaded)
		} else {
			errs[i] = f.store.Touch(f.ctx, id, time.Hour+time.Duration(i)*time.Hour)
		}
	})
	for i, err := range errs {
		if err != nil {
			f.Errorf("call %d: got %v, want no error", i, err)
		}
	}
	f.wantRecord(id, fmt.Sprintf(`{"n":%d}`, racers/2), racers*time.Hour)
}

func deleteRace(f *fixture) {
	id := f.create(`{"n":0}`, time.Hour)
	loaded := f.load(id)
	errs := make([]error, racers)
	together(racers, func(i int) {
		switch {
		case i == 0:
			errs[i] = f.store.Delete(f.ctx, id)
		case i%2 == 0:
			errs[i] = f.increment(id, loaded)
		default:
			errs[i] = f.store.Touch(f.ctx, id, 2*time.Hour)
		}
	})
	for i, err := range errs {
		if err != nil && (i == 0 || !errors.Is(err, session.ErrNotFound)) {
			f.Errorf("call %d: got %v, want no error", i, err)
		}
	}
	f.wantGone(id)
	f.wantStaysGone(id, loaded, f.id())
}
