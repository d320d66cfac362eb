package sessiontest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgsession/session"
)

// broken is a MemoryStore into which a fault puts methods of its own.
type broken struct {
	*session.MemoryStore // does it right

	load   func(ctx context.Context, id string) (session.Record, error)
	create func(ctx context.Context, id string, r session.Record) error
	update func(ctx context.Context, id string, c session.Change) error
	touch  func(ctx context.Context, id string, ttl time.Duration) error
	delete func(ctx context.Context, id string) error
	prune  func(ctx context.Context, within time.Duration) (int64, error)
	find   func(ctx context.Context, q session.Query) ([]session.Found, error)
	remove func(ctx context.Context, q session.Query) (int64, error)
	handle func(id string) string
	peek   func(ctx context.Context, ids []string) ([]session.Peeked, error)

	// stored is the last data of each record that was not deleted or renewed,
	// whether it has expired or not.
	mu     sync.Mutex
	stored map[string][]byte

	// renewed says where a renewed ID went, and aside under what other ID
	// the MemoryStore keeps what belongs to one: it never gives up a mark.
	renewed, aside map[string]string
}

func newBroken() *broken {
	s := session.NewMemoryStore()
	return &broken{
		MemoryStore: s,
		load:        s.Load, create: s.Create, update: s.Update, touch: s.Touch, delete: s.Delete, prune: s.Prune,
		find: s.Find, remove: s.DeleteFound, handle: s.Handle, peek: s.Peek,
		stored: make(map[string][]byte), renewed: make(map[string]string), aside: make(map[string]string),
	}
}

func (s *broken) Load(ctx context.Context, id string) (session.Record, error) {
	return s.load(ctx, s.name(id))
}

func (s *broken) Create(ctx context.Context, id string, r session.Record) error {
	err := s.create(ctx, s.name(id), r)
	if err == nil {
		s.note(id, bytes.Clone(r.Data))
	}
	return err
}

func (s *broken) Update(ctx context.Context, id string, c session.Change) error {
	err := s.update(ctx, s.name(id), c)
	if err == nil {
		if c.NewID != "" {
			s.note(id, nil)
			s.noteRenewed(id, c.NewID)
			id = c.NewID
		}
		s.note(id, bytes.Clone(c.New))
	}
	return err
}

func (s *broken) Touch(ctx context.Context, id string, ttl time.Duration) error {
	return s.touch(ctx, s.name(id), ttl)
}

func (s *broken) Delete(ctx context.Context, id string) error {
	err := s.delete(ctx, s.name(id))
	if err == nil {
		s.note(id, nil)
	}
	return err
}

func (s *broken) Prune(ctx context.Context, within time.Duration) (int64, error) {
	return s.prune(ctx, within)
}

func (s *broken) Find(ctx context.Context, q session.Query) ([]session.Found, error) {
	return s.find(ctx, q)
}

func (s *broken) DeleteFound(ctx context.Context, q session.Query) (int64, error) {
	return s.remove(ctx, q)
}

func (s *broken) Handle(id string) string { return s.handle(id) }

func (s *broken) Peek(ctx context.Context, ids []string) ([]session.Peeked, error) {
	ids = slices.Clone(ids)
	for i := range ids {
		ids[i] = s.name(ids[i])
	}
	return s.peek(ctx, ids)
}

// peeks lets a store change what Peek has to say of each ID.
func (s *broken) peeks(change func(id string, p *session.Peeked)) {
	s.peek = func(ctx context.Context, ids []string) ([]session.Peeked, error) {
		peeked, err := s.MemoryStore.Peek(ctx, ids)
		for i := range peeked {
			change(ids[i], &peeked[i])
		}
		return peeked, err
	}
}

func (s *broken) note(id string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data == nil {
		delete(s.stored, id)
		return
	}
	s.stored[id] = data
}

func (s *broken) noted(id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored[id]
}

func (s *broken) noteRenewed(id, newID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed[id] = newID
}

// renewedTo returns where a renewed ID went, or nothing.
func (s *broken) renewedTo(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed[id]
}

// end returns the ID that the record of id has now.
func (s *broken) end(id string) string {
	for to := s.renewedTo(id); to != ""; to = s.renewedTo(to) {
		id = to
	}
	return id
}

// name returns under what ID the MemoryStore keeps what belongs to id.
func (s *broken) name(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if aside := s.aside[id]; aside != "" {
		return aside
	}
	return id
}

// unmark lets a mark be forgotten. It tells whether there was one.
func (s *broken) unmark(ctx context.Context, id string) bool {
	if _, err := s.MemoryStore.Load(ctx, id); !errors.Is(err, session.ErrRenewed) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside[id] = id + " without its mark"
	return true
}

// revive creates a record also where a mark is.
func (s *broken) revive(ctx context.Context, id string, data []byte, ttl time.Duration) error {
	if s.unmark(ctx, id) {
		id = s.name(id)
	}
	return s.MemoryStore.Create(ctx, id, session.Record{Data: data, TTL: ttl})
}

func (s *broken) notedIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.stored))
}

// force writes a record whatever is there.
func (s *broken) force(ctx context.Context, id string, data []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.MemoryStore.Delete(ctx, id); err != nil {
		return err
	}
	return s.MemoryStore.Create(ctx, id, session.Record{Data: data, TTL: ttl})
}

// live tells whether the record of id is there and has not expired.
func (s *broken) live(ctx context.Context, id string) bool {
	_, err := s.MemoryStore.Load(ctx, id)
	return err == nil
}

// await waits for c, but not for ever: a rule other than the one that the fault
// is for may never close it.
func await(c <-chan struct{}) {
	select {
	case <-c:
	case <-time.After(time.Second):
	}
}

// pair makes the first two calls of the function it returns wait for each
// other. Later calls come back at once.
func pair() func() {
	var mu sync.Mutex
	calls, met := 0, make(chan struct{})
	return func() {
		mu.Lock()
		calls++
		call := calls
		mu.Unlock()
		switch call {
		case 1:
			await(met)
		case 2:
			close(met)
		}
	}
}

func has(data []byte, part string) bool { return bytes.Contains(data, []byte(part)) }

// faults are deliberately broken stores, and the rules of TestStore that each
// must fail; no others, but for mayFail, or unless andMore is set.
var faults = []struct {
	name    string
	inject  func(*broken)
	fails   []string
	andMore bool
	mayFail string // one rule more, whose requests overlap
}{
	{
		name: "writes JSON anew", inject: likeJSONB,
		fails: []string{
			"Load returns the bytes that Create stored",
			"Load returns the bytes that Update stored",
			"Touch leaves the data alone",
		}, andMore: true,
	},
	{
		name: "drops NUL", inject: func(s *broken) {
			s.create = func(ctx context.Context, id string, r session.Record) error {
				r.Data = bytes.ReplaceAll(r.Data, []byte(`\u0000`), nil)
				return s.MemoryStore.Create(ctx, id, r)
			}
		},
		fails: []string{"Load returns the bytes that Create stored", "Touch leaves the data alone"},
	},
	{
		name: "cuts data at 64 KiB", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				r.Data = r.Data[:min(len(r.Data), 64<<10)]
				return r, err
			}
		},
		fails: []string{"Load returns large data whole"},
	},
	{
		name: "reports no time left", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				r.TTL = 0
				return r, err
			}
		},
		fails: []string{"Load returns the time left"}, andMore: true,
	},
	{
		name: "reports at most a year left", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				r.TTL = min(r.TTL, 365*24*time.Hour)
				return r, err
			}
		},
		fails: []string{"Load returns the time left"},
	},
	{
		name: "loads absent records as empty ones", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if errors.Is(err, session.ErrNotFound) && s.noted(id) == nil {
					return session.Record{}, nil
				}
				return r, err
			}
		},
		fails: []string{"Load of an absent record returns ErrNotFound"}, andMore: true,
	},
	{
		name: "overwrites loaded data in place", inject: func(s *broken) {
			var loaded []byte
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if has(r.Data, `"first"`) {
					r.Data = bytes.Clone(r.Data)
					loaded = r.Data
				}
				return r, err
			}
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if has(c.New, `"other"`) {
					copy(loaded, c.New)
				}
				return err
			}
		},
		fails: []string{"Load's data stays as it is when the record changes"},
	},
	{
		name: "keeps the caller's bytes", inject: func(s *broken) {
			kept := make(map[string][]byte)
			s.create = func(ctx context.Context, id string, r session.Record) error {
				if has(r.Data, `"created"`) {
					kept[id] = r.Data
				}
				return s.MemoryStore.Create(ctx, id, r)
			}
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if data, ok := kept[id]; ok {
					r.Data = data
				}
				return r, err
			}
		},
		fails: []string{"Create and Update keep no hold of their caller's bytes"},
	},
	{
		name: "folds case", inject: mapIDs(strings.ToLower),
		fails: []string{"Session IDs are the same only byte for byte"},
	},
	{
		name: "trims IDs", inject: mapIDs(strings.TrimSpace),
		fails: []string{"Session IDs are the same only byte for byte"},
	},
	{
		name: "cuts IDs at 200 bytes", inject: mapIDs(func(id string) string { return id[:min(len(id), 200)] }),
		fails: []string{"Session IDs are the same only byte for byte"},
	},
	{
		name: "Create overwrites", inject: func(s *broken) {
			s.create = func(ctx context.Context, id string, r session.Record) error {
				err := s.MemoryStore.Create(ctx, id, r)
				if errors.Is(err, session.ErrExists) && s.live(ctx, id) {
					return s.force(ctx, id, r.Data, r.TTL)
				}
				return err
			}
		},
		fails: []string{"Create never overwrites a record", "Of Creates of one session ID exactly one wins"},
	},
	{
		name: "Create overwrites expired records", inject: func(s *broken) {
			s.create = func(ctx context.Context, id string, r session.Record) error {
				err := s.MemoryStore.Create(ctx, id, r)
				if errors.Is(err, session.ErrExists) && !s.live(ctx, id) && s.renewedTo(id) == "" {
					return s.force(ctx, id, r.Data, r.TTL)
				}
				return err
			}
		},
		fails: []string{"Expiry/Create does not overwrite an expired record"},
	},
	{
		name: "Update writes nothing", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				_, err := s.MemoryStore.Load(ctx, id)
				return err
			}
		},
		fails: []string{"Update replaces the data"}, andMore: true,
	},
	{
		name: "Update ignores Old", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				for {
					err := s.MemoryStore.Update(ctx, id, c)
					if !errors.Is(err, session.ErrConflict) {
						return err
					}
					r, err := s.MemoryStore.Load(ctx, id)
					if err != nil {
						return err
					}
					c.Old = r.Data
				}
			}
		},
		fails: []string{
			"Update of changed data returns ErrConflict and writes nothing",
			"Update compares bytes and not meaning",
			"A renewal of changed data returns ErrConflict and writes nothing",
			"Of Updates from the same data exactly one wins",
			"Increments by Load and Update all land",
			"A Touch undoes no Update",
			"A renewal leaves a mark for a quarter of an hour",
		},
	},
	{
		name: "Update compares JSON values", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if r, err := s.MemoryStore.Load(ctx, id); err == nil && normal(r.Data) == normal(c.Old) {
					c.Old = r.Data
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"Update compares bytes and not meaning"},
	},
	{
		name: "Update extends in spite of a conflict", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrConflict) {
					s.MemoryStore.Touch(ctx, id, c.TTL)
				}
				return err
			}
		},
		fails: []string{
			"Update of changed data returns ErrConflict and writes nothing",
			"A renewal of changed data returns ErrConflict and writes nothing",
		},
	},
	{
		name: "Update expires on a negative TTL", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if c.TTL < 0 {
					c.TTL, c.Shorten = 1, true
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"Update without a TTL leaves the expiry alone"},
	},
	{
		name: "Update always extends", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if c.TTL <= 0 {
					c.TTL = 24 * time.Hour
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"Update without a TTL leaves the expiry alone"}, andMore: true,
	},
	{
		name: "Update never extends", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if !c.Shorten {
					c.TTL = 0
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{
			"Update moves the expiry forward",
			"A renewal changes data and expiry in the same step",
		},
	},
	{
		name: "Update always shortens", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				c.Shorten = true
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{
			"Update moves the expiry backwards only with Shorten",
			"A renewal changes data and expiry in the same step",
		},
	},
	{
		name: "Update never shortens", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				c.Shorten = false
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{
			"Update moves the expiry backwards only with Shorten",
			"A renewal changes data and expiry in the same step",
			"Expiry/A shortened record expires",
			"Prune/Prune deletes expired records and counts them",
		},
	},
	{
		name: "Update resurrects", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if !errors.Is(err, session.ErrNotFound) {
					return err
				}
				if c.NewID != "" {
					id = c.NewID
				}
				if s.revive(ctx, id, c.New, time.Hour) != nil {
					return err
				}
				return nil
			}
		},
		fails: []string{
			"Update of an absent record returns ErrNotFound or ErrConflict",
			"A renewed session ID stays gone",
			"A deleted record stays gone",
			"Expiry/A renewal does not find an expired record",
			"Of renewals of one record exactly one wins",
			"A Delete beats Updates and Touches under way",
			"A renewal leaves a mark for a quarter of an hour",
			"Update of a mark writes nothing",
		}, mayFail: "A Delete beats renewals under way", // as which comes first
	},
	{
		name: "Update revives expired records", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrNotFound) && s.noted(id) != nil && c.NewID == "" {
					return s.force(ctx, id, c.New, c.TTL)
				}
				return err
			}
		},
		fails: []string{"Expiry/Update does not find an expired record"},
	},
	{
		name: "a renewal keeps the old ID", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				newID := c.NewID
				c.NewID = ""
				if newID == "" {
					return s.MemoryStore.Update(ctx, id, c)
				}
				if err := s.MemoryStore.Create(ctx, newID, session.Record{Data: c.New, TTL: time.Hour}); err != nil {
					return err
				}
				if err := s.MemoryStore.Update(ctx, id, c); err != nil {
					s.MemoryStore.Delete(ctx, newID)
					return err
				}
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil {
					return err
				}
				return s.force(ctx, newID, r.Data, r.TTL)
			}
		},
		fails: []string{
			"A renewal moves the record to the new session ID",
			"A renewal changes data and expiry in the same step",
			"A renewed session ID stays gone",
			"Of renewals of one record exactly one wins",
			"Of renewals onto one session ID exactly one wins",
			"A renewal leaves a mark for a quarter of an hour",
			"Touch never moves a mark",
			"Update of a mark writes nothing",
			"Create and renewals never overwrite a mark",
			"Delete follows marks to the record",
			"Delete leaves marks",
			"A Delete beats renewals under way",
			"Prune/Prune keeps marks that have not expired",
			"Find/Find and DeleteFound know no marks",
		},
	},
	{
		name: "a renewal keeps the old data", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if c.NewID != "" {
					c.New = c.Old
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{
			"Session IDs are the same only byte for byte",
			"A renewal changes data and expiry in the same step",
		},
	},
	{
		name: "a renewal keeps the old expiry", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if c.NewID != "" {
					c.TTL = 0
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"A renewal changes data and expiry in the same step"},
	},
	{
		name: "a renewal ignores Old", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if r, err := s.MemoryStore.Load(ctx, id); err == nil && c.NewID != "" {
					c.Old = r.Data
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{
			"A renewal of changed data returns ErrConflict and writes nothing",
			"A renewal leaves a mark for a quarter of an hour",
		},
	},
	{
		name: "a renewal of expired records works", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrNotFound) && s.noted(id) != nil && c.NewID != "" {
					return s.force(ctx, c.NewID, c.New, c.TTL)
				}
				return err
			}
		},
		fails: []string{"Expiry/A renewal does not find an expired record"},
	},
	{
		name: "a renewal overwrites", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrExists) && s.live(ctx, c.NewID) {
					s.MemoryStore.Delete(ctx, id)
					return s.force(ctx, c.NewID, c.New, time.Hour)
				}
				return err
			}
		},
		fails: []string{
			"A renewal never overwrites a record",
			"Of renewals onto one session ID exactly one wins",
		},
	},
	{
		name: "a renewal overwrites expired records", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if c.NewID != "" && s.noted(c.NewID) != nil && !s.live(ctx, c.NewID) {
					s.MemoryStore.Delete(ctx, c.NewID)
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"Expiry/A renewal does not overwrite an expired record"},
	},
	{
		name: "a renewal onto a taken ID changes the data", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrExists) {
					c.NewID = ""
					s.MemoryStore.Update(ctx, id, c)
				}
				return err
			}
		},
		fails: []string{
			"A renewal never overwrites a record",
			"Expiry/A renewal does not overwrite an expired record",
			"Create and renewals never overwrite a mark",
		},
	},
	{
		name: "Touch does nothing", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				_, err := s.MemoryStore.Load(ctx, id)
				return err
			}
		},
		fails: []string{
			"Session IDs are the same only byte for byte",
			"Touch moves the expiry forward",
			"A Touch undoes no Update",
			"Expiry/A touched record outlives its first expiry",
			"Prune/Prune keeps live records",
		},
	},
	{
		name: "Touch shortens", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil || ttl > r.TTL {
					return s.MemoryStore.Touch(ctx, id, ttl)
				}
				if has(r.Data, `"n"`) { // in a race the order is not known
					return nil
				}
				return s.MemoryStore.Update(ctx, id, session.Change{Old: r.Data, New: r.Data, TTL: ttl, Shorten: true})
			}
		},
		fails: []string{"Touch never moves the expiry backwards"},
	},
	{
		name: "Touch adds to the data", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil || has(r.Data, `"n"`) {
					return s.MemoryStore.Touch(ctx, id, ttl)
				}
				data := append(bytes.Clone(r.Data), ' ')
				return s.MemoryStore.Update(ctx, id, session.Change{Old: r.Data, New: data, TTL: ttl})
			}
		},
		fails: []string{"Touch leaves the data alone"}, andMore: true,
	},
	{
		name: "Touch resurrects", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				err := s.MemoryStore.Touch(ctx, id, ttl)
				if errors.Is(err, session.ErrNotFound) && s.revive(ctx, id, []byte(`{}`), ttl) == nil {
					return nil
				}
				return err
			}
		},
		fails: []string{
			"Touch of an absent record returns ErrNotFound",
			"A renewed session ID stays gone",
			"A deleted record stays gone",
			"A Delete beats Updates and Touches under way",
			"Touch never moves a mark",
		},
	},
	{
		name: "Touch revives expired records", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				err := s.MemoryStore.Touch(ctx, id, ttl)
				if data := s.noted(id); data != nil && errors.Is(err, session.ErrNotFound) {
					return s.force(ctx, id, data, ttl)
				}
				return err
			}
		},
		fails: []string{"Expiry/Touch does not find an expired record"},
	},
	{
		name: "Delete does nothing", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error { return ctx.Err() }
		},
		fails: []string{
			"Session IDs are the same only byte for byte",
			"Delete removes the record and no other",
			"A deleted record stays gone",
			"Expiry/Delete removes an expired record",
			"A Delete beats Updates and Touches under way",
			"Delete follows marks to the record",
			"Delete leaves marks",
			"A Delete beats renewals under way",
		},
	},
	{
		name: "Delete takes others along", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error {
				for _, id := range s.notedIDs() {
					s.MemoryStore.Delete(ctx, id)
				}
				return s.MemoryStore.Delete(ctx, id)
			}
		},
		fails: []string{"Delete removes the record and no other"}, andMore: true,
	},
	{
		name: "Delete wants a record", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error {
				if s.noted(id) == nil {
					return session.ErrNotFound
				}
				return s.MemoryStore.Delete(ctx, id)
			}
		},
		fails: []string{
			"Delete of an absent record is no error",
			"Delete follows marks to the record",
			"Delete leaves marks",
			"A Delete beats renewals under way",
		},
	},
	{
		name: "Load finds expired records", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if data := s.noted(id); data != nil && errors.Is(err, session.ErrNotFound) {
					return session.Record{Data: data}, nil
				}
				return r, err
			}
		},
		fails: []string{"Expiry/Load does not find an expired record"}, andMore: true,
	},
	{
		name: "ignores its context", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				return s.MemoryStore.Update(context.WithoutCancel(ctx), id, c)
			}
		},
		fails: []string{"An ended context is an error that says nothing of the record"},
	},
	{
		name: "takes an outage for a logout", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil && !errors.Is(err, session.ErrRenewed) {
					return session.Record{}, session.ErrNotFound
				}
				return r, err
			}
		},
		fails: []string{"An ended context is an error that says nothing of the record"},
	},
	{
		name: "hangs", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				if ctx.Err() != nil && string(s.noted(id)) == `{"a":1}` {
					select {}
				}
				return s.MemoryStore.Touch(ctx, id, ttl)
			}
		},
		fails: []string{"An ended context is an error that says nothing of the record"},
	},
	{
		name: "shows IDs in errors", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				if err := s.MemoryStore.Touch(ctx, id, ttl); err != nil {
					return fmt.Errorf("touch %s: %w", id, err)
				}
				return nil
			}
		},
		fails: []string{"An error shows neither session ID nor data"},
	},
	{
		name: "shows data in errors", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if err := s.MemoryStore.Update(ctx, id, c); err != nil {
					return fmt.Errorf("update to %s: %w", c.New, err)
				}
				return nil
			}
		},
		fails: []string{"An error shows neither session ID nor data"},
	},
	{
		// Two Creates both look before either writes.
		name: "Create looks and then writes", inject: func(s *broken) {
			meet := pair()
			s.create = func(ctx context.Context, id string, r session.Record) error {
				if !has(r.Data, `"creator"`) || s.live(ctx, id) {
					return s.MemoryStore.Create(ctx, id, r)
				}
				meet()
				return s.force(ctx, id, r.Data, r.TTL)
			}
		},
		fails: []string{"Of Creates of one session ID exactly one wins"},
	},
	{
		// Two Updates both compare before either writes.
		name: "Update compares and then writes", inject: func(s *broken) {
			meet := pair()
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if r, err := s.MemoryStore.Load(ctx, id); err != nil || !has(c.New, `"updater"`) || !bytes.Equal(r.Data, c.Old) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				meet()
				return s.force(ctx, id, c.New, time.Hour)
			}
		},
		fails: []string{"Of Updates from the same data exactly one wins"},
	},
	{
		// Two renewals both compare before either writes.
		name: "a renewal compares and then writes", inject: func(s *broken) {
			meet := pair()
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if !has(c.New, `"renewer"`) || !s.live(ctx, id) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				meet()
				s.MemoryStore.Delete(ctx, id)
				return s.force(ctx, c.NewID, c.New, time.Hour)
			}
		},
		fails: []string{"Of renewals of one record exactly one wins"},
	},
	{
		// Two renewals both find the new ID free before either writes.
		name: "a renewal looks and then writes", inject: func(s *broken) {
			meet := pair()
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if !has(c.New, `"onto"`) || s.live(ctx, c.NewID) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				meet()
				s.MemoryStore.Delete(ctx, id)
				return s.force(ctx, c.NewID, c.New, time.Hour)
			}
		},
		fails: []string{"Of renewals onto one session ID exactly one wins"},
	},
	{
		// The first Update waits until a Touch has loaded, and that Touch
		// writes what it loaded back after the Update.
		name: "Touch writes data back", inject: func(s *broken) {
			touching, updated := make(chan struct{}), make(chan struct{})
			var touchOnce, updateOnce sync.Once
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil || string(r.Data) != `{"n":0}` {
					return s.MemoryStore.Touch(ctx, id, ttl)
				}
				touchOnce.Do(func() { close(touching) })
				await(updated)
				if !s.live(ctx, id) {
					return session.ErrNotFound
				}
				return s.force(ctx, id, r.Data, max(r.TTL, ttl))
			}
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if string(c.Old) == `{"n":0}` {
					await(touching)
				}
				err := s.MemoryStore.Update(ctx, id, c)
				if err == nil {
					updateOnce.Do(func() { close(updated) })
				}
				return err
			}
			s.delete = func(ctx context.Context, id string) error {
				updateOnce.Do(func() { close(updated) })
				return s.MemoryStore.Delete(ctx, id)
			}
		},
		fails: []string{"A Touch undoes no Update"},
	},
	{
		// The Delete waits until an Update has compared, and that Update
		// writes after the Delete.
		name: "Update under way resurrects", inject: func(s *broken) {
			compared, deleted := make(chan struct{}), make(chan struct{})
			var compareOnce, deleteOnce sync.Once
			s.update = func(ctx context.Context, id string, c session.Change) error {
				r, err := s.MemoryStore.Load(ctx, id)
				if err != nil || string(r.Data) != `{"n":0}` || !bytes.Equal(r.Data, c.Old) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				compareOnce.Do(func() { close(compared) })
				await(deleted)
				if s.live(ctx, id) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				return s.force(ctx, id, c.New, time.Hour)
			}
			s.delete = func(ctx context.Context, id string) error {
				if string(s.noted(id)) != `{"n":0}` {
					return s.MemoryStore.Delete(ctx, id)
				}
				await(compared)
				err := s.MemoryStore.Delete(ctx, id)
				deleteOnce.Do(func() { close(deleted) })
				return err
			}
		},
		fails: []string{"A Delete beats Updates and Touches under way"},
	},
	{
		name: "Prune deletes live records", inject: func(s *broken) {
			s.prune = func(ctx context.Context, within time.Duration) (n int64, err error) {
				if ctx.Err() != nil {
					return 0, nil
				}
				for _, id := range s.notedIDs() {
					s.MemoryStore.Delete(ctx, id)
					n++
				}
				return n, nil
			}
		},
		fails: []string{
			"Prune/Prune keeps live records",
			"Prune/Prune keeps marks that have not expired",
		},
	},
	{
		name: "Prune deletes nothing", inject: func(s *broken) {
			s.prune = func(context.Context, time.Duration) (int64, error) { return 1000, nil }
		},
		fails: []string{"Prune/Prune deletes expired records and counts them"},
	},
	{
		name: "Prune does not count", inject: func(s *broken) {
			s.prune = func(ctx context.Context, within time.Duration) (int64, error) {
				_, err := s.MemoryStore.Prune(ctx, within)
				return 0, err
			}
		},
		fails: []string{"Prune/Prune deletes expired records and counts them"},
	},
	{
		name: "Prune takes Close for an error", inject: func(s *broken) {
			s.prune = func(ctx context.Context, within time.Duration) (int64, error) {
				if err := ctx.Err(); err != nil {
					return 0, err
				}
				return s.MemoryStore.Prune(ctx, within)
			}
		},
		fails: []string{"Prune/Prune whose context has ended returns without an error"},
	},
	{
		name: "Prune hangs", inject: func(s *broken) {
			s.prune = func(ctx context.Context, within time.Duration) (int64, error) {
				if ctx.Err() != nil {
					select {}
				}
				return s.MemoryStore.Prune(ctx, within)
			}
		},
		fails: []string{"Prune/Prune whose context has ended returns without an error"},
	},
	{
		name: "finds by the first value only", inject: findsWith(func(q *session.Query) { q.Values = q.Values[:min(1, len(q.Values))] }, asFound),
		fails: []string{"Find/Find returns the live records whose key has one of the values"},
	},
	{
		name: "finds in every key", inject: findsWith(func(q *session.Query) {
			q.Key = strings.TrimSuffix(q.Key, "x")
		}, asFound),
		fails: []string{"Find/Find returns the live records whose key has one of the values"},
	},
	{
		name: "finds empty records", inject: findsWith(asAsked, func(found []session.Found) []session.Found {
			for i := range found {
				found[i].Data = []byte(`{}`)
			}
			return found
		}),
		fails: []string{"Find/Find returns the records as Load does"},
	},
	{
		name: "finds in the wrong order", inject: findsWith(asAsked, func(found []session.Found) []session.Found {
			slices.Reverse(found)
			return found
		}),
		fails: []string{"Find/Find returns the latest expiry first and at most the limit"},
	},
	{
		name: "finds without a limit", inject: findsWith(func(q *session.Query) { q.Limit = 1000 }, asFound),
		fails: []string{"Find/Find returns the latest expiry first and at most the limit"},
	},
	{
		name: "ignores handles", inject: findsWith(func(q *session.Query) { q.Handle = "" }, asFound),
		fails: []string{
			"Find/A handle names one record and tells nothing of its session ID",
			"Find/Find and DeleteFound know no marks",
		},
	},
	{
		name: "shows the ID as the handle", inject: func(s *broken) {
			s.handle = func(id string) string { return id }
			s.find = func(ctx context.Context, q session.Query) ([]session.Found, error) {
				if q.Handle != "" {
					q.Handle = s.MemoryStore.Handle(q.Handle)
				}
				found, err := s.MemoryStore.Find(ctx, q)
				for i := range found {
					found[i].Handle = found[i].ID
				}
				return found, err
			}
			s.remove = func(ctx context.Context, q session.Query) (int64, error) {
				if q.Handle != "" {
					q.Handle = s.MemoryStore.Handle(q.Handle)
				}
				return s.MemoryStore.DeleteFound(ctx, q)
			}
		},
		fails: []string{"Find/A handle names one record and tells nothing of its session ID"},
	},
	{
		name: "finds the excepted", inject: findsWith(func(q *session.Query) { q.Except = "" }, asFound),
		fails: []string{"Find/Find and DeleteFound leave out the excepted record"},
	},
	{
		name: "deletes the excepted", inject: deletesWith(func(q *session.Query) { q.Except = "" }),
		fails: []string{"Find/Find and DeleteFound leave out the excepted record"},
	},
	{
		name: "stumbles over odd records", inject: func(s *broken) {
			s.find = func(ctx context.Context, q session.Query) ([]session.Found, error) {
				for _, id := range s.notedIDs() {
					if has(s.noted(id), `\u0000"}`) {
						return nil, errors.New("unsupported Unicode escape sequence")
					}
				}
				return s.MemoryStore.Find(ctx, q)
			}
		},
		fails: []string{"Find/An odd record keeps no other from being found"},
	},
	{
		name: "DeleteFound ignores the handle", inject: deletesWith(func(q *session.Query) { q.Handle = "" }),
		fails: []string{
			"Find/DeleteFound deletes what it was asked to and counts the live ones",
			"Find/Find and DeleteFound know no marks",
		},
	},
	{
		name: "DeleteFound counts expired records", inject: func(s *broken) {
			s.remove = func(ctx context.Context, q session.Query) (int64, error) {
				n, err := s.MemoryStore.DeleteFound(ctx, q)
				if slices.Equal(q.Values, []string{"42"}) && n > 0 {
					n++
				}
				return n, err
			}
		},
		fails: []string{"Find/DeleteFound deletes what it was asked to and counts the live ones"},
	},
	{
		name: "a renewal leaves no mark", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if err == nil && c.NewID != "" {
					s.unmark(ctx, id)
				}
				return err
			}
		},
		fails: []string{
			"A renewal leaves a mark for a quarter of an hour",
			"Create and renewals never overwrite a mark",
			"Delete follows marks to the record",
		}, andMore: true,
	},
	{
		name: "marks are what absent records are", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if errors.Is(err, session.ErrRenewed) {
					err = session.ErrNotFound
				}
				return r, err
			}
		},
		fails: []string{"A renewal leaves a mark for a quarter of an hour"}, andMore: true,
	},
	{
		name: "marks live as long as records", inject: func(s *broken) {
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if errors.Is(err, session.ErrRenewed) {
					r.TTL = time.Hour
				}
				return r, err
			}
		},
		fails: []string{"A renewal leaves a mark for a quarter of an hour"}, andMore: true,
	},
	{
		name: "a failed renewal leaves a mark", inject: func(s *broken) {
			var failed sync.Map
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if err != nil && c.NewID != "" {
					failed.Store(id, true)
				}
				return err
			}
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if _, ok := failed.Load(id); ok && errors.Is(err, session.ErrNotFound) {
					err = session.ErrRenewed
				}
				return r, err
			}
		},
		fails: []string{"A renewal leaves a mark for a quarter of an hour"},
	},
	{
		name: "Touch extends marks", inject: func(s *broken) {
			var left sync.Map
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				err := s.MemoryStore.Touch(ctx, id, ttl)
				if errors.Is(err, session.ErrNotFound) && ttl > 15*time.Minute {
					left.Store(id, ttl)
				}
				return err
			}
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if ttl, ok := left.Load(id); ok && errors.Is(err, session.ErrRenewed) {
					r.TTL = ttl.(time.Duration)
				}
				return r, err
			}
		},
		fails: []string{"Touch never moves a mark"},
	},
	{
		name: "Touch takes a mark for a record", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				if _, err := s.MemoryStore.Load(ctx, id); errors.Is(err, session.ErrRenewed) {
					return nil
				}
				return s.MemoryStore.Touch(ctx, id, ttl)
			}
		},
		fails: []string{"Touch never moves a mark", "A renewed session ID stays gone"},
	},
	{
		name: "Touch follows marks", inject: func(s *broken) {
			s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
				err := s.MemoryStore.Touch(ctx, id, ttl)
				for to := s.renewedTo(id); to != ""; to = s.renewedTo(to) {
					_ = s.MemoryStore.Touch(ctx, to, ttl)
				}
				return err
			}
		},
		fails: []string{"Touch never moves a mark"},
	},
	{
		name: "Update takes a mark for an empty record", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if _, err := s.MemoryStore.Load(ctx, id); errors.Is(err, session.ErrRenewed) && len(c.Old) <= 2 {
					return nil
				}
				return s.MemoryStore.Update(ctx, id, c)
			}
		},
		fails: []string{"Update of a mark writes nothing"},
	},
	{
		name: "Update follows marks", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrNotFound) && c.NewID == "" && s.renewedTo(id) != "" {
					_ = s.MemoryStore.Update(ctx, s.renewedTo(id), c)
				}
				return err
			}
		},
		fails: []string{"A renewed session ID stays gone", "Update of a mark writes nothing"},
	},
	{
		name: "Create overwrites marks", inject: func(s *broken) {
			s.create = func(ctx context.Context, id string, r session.Record) error {
				err := s.MemoryStore.Create(ctx, id, r)
				if errors.Is(err, session.ErrExists) && s.unmark(ctx, id) {
					return s.revive(ctx, id, r.Data, r.TTL)
				}
				return err
			}
		},
		fails: []string{"Create and renewals never overwrite a mark"},
	},
	{
		name: "a renewal overwrites marks", inject: func(s *broken) {
			s.update = func(ctx context.Context, id string, c session.Change) error {
				err := s.MemoryStore.Update(ctx, id, c)
				if errors.Is(err, session.ErrExists) && s.unmark(ctx, c.NewID) {
					c.NewID = s.name(c.NewID)
					return s.MemoryStore.Update(ctx, id, c)
				}
				return err
			}
		},
		fails: []string{"Create and renewals never overwrite a mark"},
	},
	{
		name: "Delete follows no marks", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error {
				if s.renewedTo(id) != "" {
					return ctx.Err()
				}
				return s.MemoryStore.Delete(ctx, id)
			}
		},
		fails: []string{"Delete follows marks to the record", "A Delete beats renewals under way"}, andMore: true,
	},
	{
		name: "Delete follows one mark", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error {
				if to := s.renewedTo(id); to != "" {
					id = to
				}
				if s.renewedTo(id) != "" {
					return ctx.Err()
				}
				return s.MemoryStore.Delete(ctx, id)
			}
		},
		fails: []string{"Delete follows marks to the record", "A Delete beats renewals under way"}, andMore: true,
	},
	{
		name: "Delete removes marks", inject: func(s *broken) {
			s.delete = func(ctx context.Context, id string) error {
				err := s.MemoryStore.Delete(ctx, id)
				s.unmark(ctx, id)
				return err
			}
		},
		fails: []string{"Delete leaves marks"},
	},
	{
		name: "Delete extends marks", inject: func(s *broken) {
			var deleted sync.Map
			s.delete = func(ctx context.Context, id string) error {
				deleted.Store(id, true)
				return s.MemoryStore.Delete(ctx, id)
			}
			s.load = func(ctx context.Context, id string) (session.Record, error) {
				r, err := s.MemoryStore.Load(ctx, id)
				if _, ok := deleted.Load(id); ok && errors.Is(err, session.ErrRenewed) {
					r.TTL = time.Hour
				}
				return r, err
			}
		},
		fails: []string{"Delete leaves marks"},
	},
	{
		// A renewal comes between, and the Delete finds no record.
		name: "Delete looks where the record is and then deletes", inject: func(s *broken) {
			looked, renewed := make(chan struct{}), make(chan struct{})
			var look, renewal sync.Once
			s.update = func(ctx context.Context, id string, c session.Change) error {
				if !has(c.New, `"chain":0}`) {
					return s.MemoryStore.Update(ctx, id, c)
				}
				await(looked)
				defer renewal.Do(func() { close(renewed) })
				return s.MemoryStore.Update(ctx, id, c)
			}
			s.delete = func(ctx context.Context, id string) error {
				end := s.end(id)
				if !has(s.noted(end), `"chain":0}`) {
					return s.MemoryStore.Delete(ctx, id)
				}
				look.Do(func() { close(looked) })
				await(renewed)
				if _, err := s.MemoryStore.Load(ctx, end); errors.Is(err, session.ErrRenewed) {
					return nil
				}
				return s.MemoryStore.Delete(ctx, end)
			}
		},
		fails: []string{"A Delete beats renewals under way"},
	},
	{
		name: "Prune deletes marks", inject: func(s *broken) {
			s.prune = func(ctx context.Context, within time.Duration) (int64, error) {
				s.mu.Lock()
				renewed := slices.Collect(maps.Keys(s.renewed))
				s.mu.Unlock()
				for _, id := range renewed {
					s.unmark(ctx, id)
				}
				return s.MemoryStore.Prune(ctx, within)
			}
		},
		fails: []string{"Prune/Prune keeps marks that have not expired"},
	},
	{
		name: "finds marks", inject: func(s *broken) {
			s.find = func(ctx context.Context, q session.Query) ([]session.Found, error) {
				found, err := s.MemoryStore.Find(ctx, q)
				s.mu.Lock()
				defer s.mu.Unlock()
				for id := range s.renewed {
					if q.Key == "" && q.Handle == s.MemoryStore.Handle(id) {
						found = append(found, session.Found{ID: id, Handle: q.Handle})
					}
				}
				return found, err
			}
		},
		fails: []string{"Find/Find and DeleteFound know no marks"},
	},
	{
		name: "DeleteFound deletes marks", inject: func(s *broken) {
			s.remove = func(ctx context.Context, q session.Query) (int64, error) {
				s.mu.Lock()
				renewed := slices.Collect(maps.Keys(s.renewed))
				s.mu.Unlock()
				for _, id := range renewed {
					if q.Handle == s.MemoryStore.Handle(id) {
						s.unmark(ctx, id)
					}
				}
				return s.MemoryStore.DeleteFound(ctx, q)
			}
		},
		fails: []string{"Find/Find and DeleteFound know no marks"},
	},
	{
		name: "DeleteFound counts marks", inject: func(s *broken) {
			s.remove = func(ctx context.Context, q session.Query) (int64, error) {
				n, err := s.MemoryStore.DeleteFound(ctx, q)
				s.mu.Lock()
				defer s.mu.Unlock()
				for id := range s.renewed {
					if q.Handle == s.MemoryStore.Handle(id) {
						n++
					}
				}
				return n, err
			}
		},
		fails: []string{"Find/Find and DeleteFound know no marks"},
	},
	{
		name: "peeks backwards", inject: func(s *broken) {
			s.peek = func(ctx context.Context, ids []string) ([]session.Peeked, error) {
				peeked, err := s.MemoryStore.Peek(ctx, ids)
				slices.Reverse(peeked)
				return peeked, err
			}
		},
		fails: []string{"Peek/Peek answers for each ID in the order asked"}, andMore: true,
	},
	{
		name: "extends what it peeks at", inject: func(s *broken) {
			s.peeks(func(id string, _ *session.Peeked) { _ = s.MemoryStore.Touch(context.Background(), id, 90*time.Minute) })
		},
		fails: []string{"Peek/Peek tells the time left and extends nothing"}, andMore: true,
	},
	{
		name: "peeks at what was never there", inject: func(s *broken) {
			s.peeks(func(_ string, p *session.Peeked) {
				if errors.Is(p.Err, session.ErrNotFound) && !errors.Is(p.Err, session.ErrRenewed) && !errors.Is(p.Err, session.ErrExpired) {
					*p = session.Peeked{TTL: time.Hour}
				}
			})
		},
		fails: []string{"Peek/Peek finds nothing where there is no record"}, andMore: true,
	},
	{
		name: "peeks at no marks", inject: func(s *broken) {
			s.peeks(func(_ string, p *session.Peeked) {
				if errors.Is(p.Err, session.ErrRenewed) {
					p.Err = session.ErrNotFound
				}
			})
		},
		fails: []string{"Peek/Peek tells a renewed session ID"},
	},
	{
		name: "peeks at what has expired", inject: func(s *broken) {
			s.peeks(func(_ string, p *session.Peeked) {
				if errors.Is(p.Err, session.ErrExpired) {
					p.Err = nil
				}
			})
		},
		fails: []string{"Peek/Peek does not find an expired record"},
	},
	{
		name: "peeks at a thousand", inject: func(s *broken) {
			s.peek = func(ctx context.Context, ids []string) ([]session.Peeked, error) {
				peeked, err := s.MemoryStore.Peek(ctx, ids[:min(len(ids), 1000)])
				return append(peeked, make([]session.Peeked, len(ids)-len(peeked))...), err
			}
		},
		fails: []string{"Peek/Peek answers for two thousand IDs at once"},
	},
	{
		name: "peeks after the deadline", inject: func(s *broken) {
			s.peek = func(_ context.Context, ids []string) ([]session.Peeked, error) {
				return s.MemoryStore.Peek(context.Background(), ids)
			}
		},
		fails: []string{"Peek/Peek with an ended context is an error"},
	},
}

// likeJSONB makes a store write JSON anew, as a jsonb column does, and refuse
// what that refuses.
func likeJSONB(s *broken) {
	s.create = func(ctx context.Context, id string, r session.Record) error {
		if has(r.Data, `\u0000`) || has(r.Data, `\ud800`) {
			return errors.New("unsupported Unicode escape sequence")
		}
		r.Data = []byte(normal(r.Data))
		return s.MemoryStore.Create(ctx, id, r)
	}
	s.update = func(ctx context.Context, id string, c session.Change) error {
		if has(c.New, `\u0000`) || has(c.New, `\ud800`) {
			return errors.New("unsupported Unicode escape sequence")
		}
		c.New = []byte(normal(c.New))
		return s.MemoryStore.Update(ctx, id, c)
	}
}

// normal returns data with sorted keys, the last of duplicates, and a space
// after each colon and comma outside of strings.
func normal(data []byte) string {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return string(data)
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return string(data)
	}
	return string(out)
}

// mapIDs makes a store use f of each session ID.
func mapIDs(f func(string) string) func(*broken) {
	return func(s *broken) {
		s.load = func(ctx context.Context, id string) (session.Record, error) {
			return s.MemoryStore.Load(ctx, f(id))
		}
		s.create = func(ctx context.Context, id string, r session.Record) error {
			return s.MemoryStore.Create(ctx, f(id), r)
		}
		s.update = func(ctx context.Context, id string, c session.Change) error {
			c.NewID = f(c.NewID)
			return s.MemoryStore.Update(ctx, f(id), c)
		}
		s.touch = func(ctx context.Context, id string, ttl time.Duration) error {
			return s.MemoryStore.Touch(ctx, f(id), ttl)
		}
		s.delete = func(ctx context.Context, id string) error { return s.MemoryStore.Delete(ctx, f(id)) }
		s.find = func(ctx context.Context, q session.Query) ([]session.Found, error) {
			q.Except = f(q.Except)
			found, err := s.MemoryStore.Find(ctx, q)
			for i := range found {
				found[i].ID = ""
			}
			return found, err
		}
		s.remove = func(ctx context.Context, q session.Query) (int64, error) {
			q.Except = f(q.Except)
			return s.MemoryStore.DeleteFound(ctx, q)
		}
		s.handle = func(id string) string { return s.MemoryStore.Handle(f(id)) }
		s.peek = func(ctx context.Context, ids []string) ([]session.Peeked, error) {
			for i := range ids {
				ids[i] = f(ids[i])
			}
			return s.MemoryStore.Peek(ctx, ids)
		}
	}
}

// findsWith makes a store find something else than it was asked for.
func findsWith(ask func(q *session.Query), answer func([]session.Found) []session.Found) func(*broken) {
	return func(s *broken) {
		s.find = func(ctx context.Context, q session.Query) ([]session.Found, error) {
			ask(&q)
			found, err := s.MemoryStore.Find(ctx, q)
			return answer(found), err
		}
	}
}

func deletesWith(ask func(q *session.Query)) func(*broken) {
	return func(s *broken) {
		s.remove = func(ctx context.Context, q session.Query) (int64, error) {
			ask(&q)
			return s.MemoryStore.DeleteFound(ctx, q)
		}
	}
}

func asAsked(*session.Query) {}

func asFound(found []session.Found) []session.Found { return found }
