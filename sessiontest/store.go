package sessiontest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// TestStore tests that a store keeps the rules of [session.Store] and, if the
// store has their methods, of [session.Pruner], [session.Finder] and
// [session.Watcher]. Each rule is a subtest whose name is the rule. All together wait about a tenth of a second for records to
// expire, longer only if the store rounds expiries up.
//
// newStore is called once for each rule. It may return a new store each time
// or always the same, also one with other records in it: TestStore uses random
// session IDs of its own and deletes what it created. Nothing but TestStore
// may prune the store meanwhile, and TestStore prunes it. What newStore opens
// it can close with t.Cleanup.
//
// A store that keeps the meaning of the data but not its bytes is returned as
// a [SameJSON].
//
//	func TestMyStore(t *testing.T) {
//		sessiontest.TestStore(t, func(t *testing.T) session.Store {
//			return mystore.New(…)
//		})
//	}
func TestStore(t *testing.T, newStore func(*testing.T) session.Store) {
	for _, r := range rules {
		t.Run(r.rule, func(t *testing.T) { r.test(newFixture(t, newStore(t))) })
	}
}

// SameJSON marks a store for [TestStore] that may give back other bytes than
// it was given as long as they mean the same JSON value, as a column of
// PostgreSQL's type jsonb does: other white space, another order of keys, the
// last of duplicate keys alone, a number written in another way, but never
// another number. Such a store may refuse the escapes \u0000 and of lone
// surrogates, and an Update may compare values instead of bytes. Every other
// rule holds.
type SameJSON struct{ session.Store }

const (
	// patience is what a rule may take altogether. It is the deadline that
	// each call of the store gets.
	patience = 30 * time.Second

	// prompt is how soon a call with an ended context must come back.
	prompt = 3 * time.Second

	// short is the time to live of a record that is to expire in the test.
	// No rule needs such a record to be live.
	short = 50 * time.Millisecond

	// expiryPatience is how long after its expiry, at most, a record may still be
	// live, so that a store may round expiries up to whole seconds.
	expiryPatience = 2 * time.Second

	// tolerance is how far a reported time to live may be off.
	tolerance = time.Second
)

// fixture is one rule's view of a store.
type fixture struct {
	*testing.T
	ctx      context.Context
	store    session.Store
	sameJSON bool
	began    time.Time

	// cleanup outlives ctx, which ends before the cleanup functions run.
	cleanup context.Context
	own     *owned
}

// owned are the session IDs of a test whose records are deleted at its end.
type owned struct {
	mu  sync.Mutex
	ids []string
}

func newFixture(t *testing.T, store session.Store) *fixture {
	s, sameJSON := store.(SameJSON)
	if sameJSON {
		store = s.Store
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &fixture{
		T: t, ctx: ctx, store: store, sameJSON: sameJSON, began: time.Now(),
		cleanup: context.WithoutCancel(t.Context()), own: new(owned),
	}
}

// sub tests one of several rules that share f's records.
func (f *fixture) sub(rule string, test func(*fixture)) {
	f.Run(rule, func(t *testing.T) {
		g := *f
		g.T, g.own = t, new(owned)
		test(&g)
	})
}

// id returns a new session ID, whose record is deleted at the end.
func (f *fixture) id() string { return f.owned(rand.Text()) }

// owned has the record of id deleted at the end.
func (f *fixture) owned(id string) string {
	f.own.mu.Lock()
	defer f.own.mu.Unlock()
	if len(f.own.ids) == 0 {
		f.Cleanup(f.deleteOwned)
	}
	f.own.ids = append(f.own.ids, id)
	return id
}

// deleteOwned deletes several at a time: of a renewed session ID a store may have to wait
// for the next one.
func (f *fixture) deleteOwned() {
	const atOnce = 8
	together(atOnce, func(i int) {
		for ; i < len(f.own.ids); i += atOnce {
			ctx, cancel := context.WithTimeout(f.cleanup, prompt)
			_ = f.store.Delete(ctx, f.own.ids[i])
			cancel()
		}
	})
}

// create creates a record and returns its session ID.
func (f *fixture) create(data string, ttl time.Duration) string {
	f.Helper()
	id := f.id()
	f.createAs(id, data, ttl)
	return id
}

func (f *fixture) createAs(id, data string, ttl time.Duration) {
	f.Helper()
	if err := f.store.Create(f.ctx, id, session.Record{Data: []byte(data), TTL: ttl}); err != nil {
		f.Fatalf("Create: got %v, want no error", err)
	}
}

// load returns the data of a record as the store has it.
func (f *fixture) load(id string) []byte {
	f.Helper()
	r, err := f.store.Load(f.ctx, id)
	if err != nil {
		f.Fatalf("Load: got %v, want no error", err)
	}
	return r.Data
}

// change returns the change of the record of id as it is now to data.
func (f *fixture) change(id, data string) session.Change {
	f.Helper()
	return session.Change{Old: f.load(id), New: []byte(data)}
}

func (f *fixture) update(id string, c session.Change) {
	f.Helper()
	if err := f.store.Update(f.ctx, id, c); err != nil {
		f.Fatalf("Update: got %v, want no error", err)
	}
}

func (f *fixture) touch(id string, ttl time.Duration) {
	f.Helper()
	if err := f.store.Touch(f.ctx, id, ttl); err != nil {
		f.Fatalf("Touch: got %v, want no error", err)
	}
}

// want checks that err is one of the wanted errors.
func (f *fixture) want(what string, err error, wanted ...error) {
	f.Helper()
	for _, w := range wanted {
		if errors.Is(err, w) {
			return
		}
	}
	f.Errorf("%s: got error %v, want %v", what, err, wanted)
}

// wantRecord checks that id has a live record of this data and time to live.
func (f *fixture) wantRecord(id, data string, ttl time.Duration) {
	f.Helper()
	r, err := f.store.Load(f.ctx, id)
	if err != nil {
		f.Errorf("Load: got %v, want no error", err)
		return
	}
	f.wantData(r.Data, data)
	f.wantTTL(r.TTL, ttl)
}

func (f *fixture) wantData(got []byte, want string) {
	f.Helper()
	if string(got) == want || f.sameJSON && meanSame(got, []byte(want)) {
		return
	}
	f.Errorf("data: got %s, want %s", excerpt(got), excerpt([]byte(want)))
}

// wantTTL checks a time to live that was set to want since f began.
func (f *fixture) wantTTL(got, want time.Duration) {
	f.Helper()
	if got > want+tolerance || got < want-tolerance-time.Since(f.began) {
		f.Errorf("time left: got %v, want %v", got, want)
	}
}

// wantGone checks that id has no live record.
func (f *fixture) wantGone(id string) {
	f.Helper()
	_, err := f.store.Load(f.ctx, id)
	f.want("Load", err, session.ErrNotFound)
}

// awaitExpiry waits until Load finds none of these records any more. It is not
// an error if Load still finds one in the end: that is a rule's to say.
func (f *fixture) awaitExpiry(ids ...string) {
	f.Helper()
	deadline := time.After(short + expiryPatience)
	for _, id := range ids {
		for {
			_, err := f.store.Load(f.ctx, id)
			if errors.Is(err, session.ErrNotFound) {
				break
			}
			if err != nil {
				f.Fatalf("Load: got %v, want no error or ErrNotFound", err)
			}
			select {
			case <-deadline:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// promptly runs call, which was given an ended context, and returns its error.
func (f *fixture) promptly(what string, call func() error) error {
	f.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(prompt):
		f.Fatalf("%s with an ended context: not back after %v", what, prompt)
		return nil
	}
}

// together runs f(0) to f(n-1) at once and waits for them: each goroutine stands
// at a gate that opens when all have come.
func together(n int, f func(i int)) {
	var at, done sync.WaitGroup
	gate := make(chan struct{})
	at.Add(n)
	for i := range n {
		done.Go(func() {
			at.Done()
			<-gate
			f(i)
		})
	}
	at.Wait()
	close(gate)
	done.Wait()
}

// excerpt shortens data for a message.
func excerpt(data []byte) []byte {
	const most = 200
	if len(data) <= most {
		return data
	}
	return append(bytes.Clone(data[:most]), "…"...)
}

// meanSame tells whether a and b are the same JSON value.
func meanSame(a, b []byte) bool {
	va, errA := meaning(a)
	vb, errB := meaning(b)
	return errA == nil && errB == nil && reflect.DeepEqual(va, vb)
}

// meaning decodes JSON with every number exact and in one way of writing.
func meaning(data []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return exact(v), nil
}

// number is a JSON number in one way of writing.
type number string

func exact(v any) any {
	switch v := v.(type) {
	case json.Number:
		if r, ok := new(big.Rat).SetString(v.String()); ok {
			return number(r.RatString())
		}
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = exact(v[k])
		}
	}
	return v
}
