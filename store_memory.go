package session

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// MemoryStore is a [Store] that keeps its records in this program's memory.
// It is safe for concurrent use.
//
// It is for development and tests. Its records are lost when the program ends
// and no other program sees them, and nothing bounds it: a record takes memory
// until it is deleted, or has expired and [MemoryStore.Prune] finds it.
//
// It goes by [time.Now], so in a bubble of package testing/synctest its
// records expire by the bubble's clock.
type MemoryStore struct {
	mu      sync.Mutex
	records map[string]memoryRecord
}

var (
	_ Store          = (*MemoryStore)(nil)
	_ Pruner         = (*MemoryStore)(nil)
	_ Finder         = (*MemoryStore)(nil)
	_ Watcher        = (*MemoryStore)(nil)
	_ slog.LogValuer = (*MemoryStore)(nil)
)

// memoryRecord holds data that is never written to again, because Load hands
// it out.
type memoryRecord struct {
	data      []byte
	expiresAt time.Time
	renewedTo string // of a mark, which has no data: the ID it points to
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{records: make(map[string]memoryRecord)}
}

// Load implements [Store]. It returns the stored bytes themselves, not a copy.
func (s *MemoryStore) Load(ctx context.Context, id string) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r, ok := s.records[id]
	switch {
	case !ok || r.expiresAt.Before(now):
		return Record{}, ErrNotFound
	case r.renewedTo != "":
		return Record{TTL: r.expiresAt.Sub(now)}, ErrRenewed
	}
	return Record{Data: r.data, TTL: r.expiresAt.Sub(now)}, nil
}

// Create implements [Store]. It keeps a copy of the data.
func (s *MemoryStore) Create(ctx context.Context, id string, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data := bytes.Clone(r.Data)

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.records[id]; taken {
		return ErrExists
	}
	s.records[id] = memoryRecord{data: data, expiresAt: time.Now().Add(r.TTL)}
	return nil
}

// Update implements [Store]. It keeps a copy of the data, and it always knows
// whether a record is gone: then it returns [ErrNotFound], not [ErrConflict].
func (s *MemoryStore) Update(ctx context.Context, id string, c Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	data := bytes.Clone(c.New)

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r, ok := s.live(id, now)
	if !ok {
		return ErrNotFound
	}
	if !bytes.Equal(r.data, c.Old) {
		return ErrConflict
	}
	if c.NewID != "" {
		if _, taken := s.records[c.NewID]; taken {
			return ErrExists
		}
		s.records[id] = memoryRecord{expiresAt: now.Add(markLife), renewedTo: c.NewID}
		id = c.NewID
	}
	r.data = data
	if c.TTL > 0 {
		r.extend(now.Add(c.TTL), c.Shorten)
	}
	s.records[id] = r
	return nil
}

// Touch implements [Store].
func (s *MemoryStore) Touch(ctx context.Context, id string, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r, ok := s.live(id, now)
	if !ok {
		return ErrNotFound
	}
	r.extend(now.Add(ttl), false)
	s.records[id] = r
	return nil
}

// Delete implements [Store].
func (s *MemoryStore) Delete(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}

	s.mu.Lock()
	r, ok := s.records[id]
	if why, _ := whyOf(ctx, whyDestroyed); why == whyAbsolute && r.renewedTo != "" {
		s.mu.Unlock()
		return nil // what came of it has a beginning of its own
	}
	for r.renewedTo != "" { // no circle: a mark keeps its ID from being taken
		id = r.renewedTo
		r, ok = s.records[id]
	}
	delete(s.records, id)
	s.mu.Unlock()
	if _, told := whyOf(ctx, whyDestroyed); ok && told {
		tellEnded(ctx, []ended{r.ended(id, time.Now())}, 0)
	}
	return nil
}

// ended is what is said of a record that was deleted.
func (r *memoryRecord) ended(id string, now time.Time) ended {
	return ended{sid: id, id: id, data: r.data, live: !r.expiresAt.Before(now)}
}

// Prune implements [Pruner]. It deletes everything that has expired in a single
// batch, whatever within says, and nothing once ctx has ended. The store
// answers no other call meanwhile.
func (s *MemoryStore) Prune(ctx context.Context, within time.Duration) (int64, error) {
	if ctx.Err() != nil {
		return 0, nil
	}

	_, told := whyOf(ctx, whyExpired)
	var gone []ended
	s.mu.Lock()
	now := time.Now()
	var pruned int64
	for id, r := range s.records {
		if r.expiresAt.Before(now) {
			delete(s.records, id)
			pruned++
			if told && r.renewedTo == "" {
				gone = append(gone, r.ended(id, now))
			}
		}
	}
	s.mu.Unlock()
	tellEnded(ctx, gone, 0)
	return pruned, nil
}

// Find implements [Finder].
func (s *MemoryStore) Find(ctx context.Context, q Query) ([]Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var found []Found
	for id, r := range s.records {
		if !r.expiresAt.Before(now) && s.matches(id, r, &q) {
			found = append(found, Found{ID: id, Handle: s.Handle(id), Record: Record{Data: r.data, TTL: r.expiresAt.Sub(now)}})
		}
	}
	slices.SortFunc(found, func(a, b Found) int { return cmp.Compare(b.TTL, a.TTL) })
	return found[:min(len(found), max(q.Limit, 0))], nil
}

// DeleteFound implements [Finder].
func (s *MemoryStore) DeleteFound(ctx context.Context, q Query) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}

	_, told := whyOf(ctx, whyRevoked)
	var gone []ended
	s.mu.Lock()
	now := time.Now()
	var live int64
	for id, r := range s.records {
		if s.matches(id, r, &q) {
			delete(s.records, id)
			if !r.expiresAt.Before(now) {
				live++
			}
			if told {
				gone = append(gone, r.ended(id, now))
			}
		}
	}
	s.mu.Unlock()
	tellEnded(ctx, gone, 0)
	return live, nil
}

// Handle implements [Finder].
func (s *MemoryStore) Handle(id string) string { return handleOf(id) }

func (s *MemoryStore) matches(id string, r memoryRecord, q *Query) bool {
	if r.renewedTo != "" || id == q.Except && id != "" || q.Handle != "" && q.Handle != s.Handle(id) {
		return false
	}
	if q.Key == "" {
		return true
	}
	d, err := row.Parse(r.data)
	if err != nil {
		return false
	}
	raw := d.Get(row.PrefixFind + q.Key)
	if raw == nil {
		raw = d.Get(q.Key)
	}
	text, ok := jsonobj.Text(raw)
	return ok && slices.Contains(q.Values, text)
}

// Peek implements [Watcher].
func (s *MemoryStore) Peek(ctx context.Context, ids []string) ([]Peeked, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	peeked := make([]Peeked, len(ids))

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i, id := range ids {
		switch r, ok := s.records[id]; {
		case !ok:
			peeked[i].Err = ErrNotFound
		case r.renewedTo != "":
			peeked[i].Err = ErrRenewed
		case r.expiresAt.Before(now):
			peeked[i].Err = ErrExpired
		default:
			peeked[i].TTL = r.expiresAt.Sub(now)
		}
	}
	return peeked, nil
}

// LogValue implements [slog.LogValuer]: a MemoryStore logs as "memory".
func (s *MemoryStore) LogValue() slog.Value {
	return slog.StringValue("memory")
}

// Format shows neither session IDs nor data, whatever the verb.
func (*MemoryStore) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.MemoryStore") }

// live returns the record of id if it has not expired; a mark is none. The
// caller holds s.mu.
func (s *MemoryStore) live(id string, now time.Time) (memoryRecord, bool) {
	r, ok := s.records[id]
	if !ok || r.renewedTo != "" || r.expiresAt.Before(now) {
		return memoryRecord{}, false
	}
	return r, true
}

// extend moves the expiry to at; backwards only if shorten is set.
func (r *memoryRecord) extend(at time.Time, shorten bool) {
	if shorten || at.After(r.expiresAt) {
		r.expiresAt = at
	}
}
