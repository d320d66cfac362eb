package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Store keeps records. [PostgresStore] and [MemoryStore] are stores; others
// must pass the suite of package sessiontest.
//
// Every method is called by many goroutines at once. Only durations cross the
// interface: the store's own clock decides what has expired, and a record is
// live while its expiry is not before that clock's now. A store keeps none of
// the bytes it is given, never starts goroutines of its own, and lets neither a
// session ID nor stored data into the text of its errors.
//
// The context carries the deadline of the whole operation. A store must come
// back by then.
type Store interface {
	// Load returns the live record of id, or [ErrNotFound]. If id has a mark, it
	// returns [ErrRenewed] and a Record of nothing but the mark's time left.
	Load(ctx context.Context, id string) (Record, error)

	// Create stores a new record. It returns [ErrExists], and leaves what is
	// there alone, if id has a record or a mark, even an expired one. It may
	// return [ErrUncertain].
	Create(ctx context.Context, id string, r Record) error

	// Update replaces the data of the live record of id by c.New if it is
	// still exactly c.Old, and applies c.TTL and c.NewID in the same step.
	// It returns [ErrConflict] if the data differs or the record is gone,
	// [ErrNotFound] if the store knows that the record is gone, [ErrExists]
	// if c.NewID has a record or a mark already, and [ErrUncertain] if no answer
	// came. In the first three cases nothing was written.
	//
	// With c.NewID it leaves, in the same step, a mark under id for 15 minutes,
	// which says where the record went. A mark is no record: to Update it is
	// gone.
	Update(ctx context.Context, id string, c Change) error

	// Touch moves the expiry of the live record of id to ttl from now and
	// leaves its data alone. It never moves an expiry backwards. It returns
	// [ErrNotFound] if the record is gone, also where a mark is, which it never
	// moves.
	Touch(ctx context.Context, id string, ttl time.Duration) error

	// Delete removes the record of id, wherever it went: it follows marks, over
	// any number of renewals and also into one that happens in the same moment.
	// It leaves the marks, so that one that was cut off can be repeated. An
	// absent record is no error.
	Delete(ctx context.Context, id string) error
}

// Record is what a store keeps for a session ID.
type Record struct {
	_ struct{}

	// Data is a JSON object: the cookie object that Express needs, then the
	// application's keys. [Store.Load] returns the stored bytes, which the
	// caller must not change.
	Data []byte

	// TTL is the time left until the record expires.
	TTL time.Duration
}

// Format shows no data, whatever the verb.
func (r Record) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "session.Record(%d bytes, %v)", len(r.Data), r.TTL)
}

// LogValue shows no data.
func (r Record) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// Change is one atomic change of a record, for [Store.Update].
type Change struct {
	_ struct{}

	// Old is the data as it was loaded, New the data to store.
	Old, New []byte

	// TTL is the new time left; zero or less leaves the expiry alone. It moves
	// the expiry forward only, unless Shorten is set.
	TTL time.Duration

	// Shorten lets TTL move the expiry backwards as well. It is set when the
	// session's idle timeout was changed, and when the record has more time left
	// than that allows.
	Shorten bool

	// NewID, unless empty, becomes the record's ID in the same step: a renewal,
	// which leaves a mark under the old ID.
	NewID string
}

// Format shows neither session ID nor data, whatever the verb.
func (c Change) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "session.Change(%d to %d bytes, %v, renewal %t)", len(c.Old), len(c.New), c.TTL, c.NewID != "")
}

// LogValue shows neither session ID nor data.
func (c Change) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// markLife is how long a renewal's mark says where the record went: longer than
// any request that began before it can be expected to take.
const markLife = 15 * time.Minute

// Pruner is implemented by stores that can delete expired records. The manager
// calls it every [Config.PruneInterval].
type Pruner interface {
	// Prune deletes records and marks that have expired, in batches small enough to
	// leave other statements alone, and returns how many it deleted, also
	// beside an error. It hurries when it would need longer than within. When
	// ctx ends it finishes the batch under way and returns what it has done
	// with a nil error.
	Prune(ctx context.Context, within time.Duration) (int64, error)
}

// Finder is implemented by stores that can find sessions by the value of a key.
// No method of it finds, counts or deletes a mark ([Store]).
// Without it [Manager.Sessions], [Manager.Revoke], [Manager.Edit] and
// [Config.MaxPerUser] do not work.
type Finder interface {
	// Find returns the live records that q names, the latest expiry first.
	Find(ctx context.Context, q Query) ([]Found, error)

	// DeleteFound deletes all records that q names, whatever q.Limit says,
	// expired ones included, and returns how many were live. A record that is
	// changed or renewed meanwhile does not escape if q names it by a value.
	DeleteFound(ctx context.Context, q Query) (int64, error)

	// Handle returns the handle of the record of id: a hash from which the ID
	// cannot be told. It does no I/O.
	Handle(id string) string
}

// Query names records, for a [Finder]. A record must meet every condition that
// is set; without any it is all of them.
type Query struct {
	_ struct{}

	// Key and Values ask for the records in whose data the key has one of
	// these values, as text. A member called "__find_" and the key's name, if
	// there is one, counts instead: the hash of an encrypted value.
	Key    string
	Values []string

	// Handle asks for the record of this handle.
	Handle string

	// Except is the ID of a record to leave out.
	Except string

	// Limit bounds the number of records that Find returns.
	Limit int
}

// Format shows neither session ID nor the values asked for, whatever the verb.
func (Query) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Query") }

// LogValue shows neither session ID nor the values asked for.
func (Query) LogValue() slog.Value { return slog.StringValue("session.Query") }

// Found is a record that a [Finder] has found.
type Found struct {
	Record

	// ID is the record's ID, empty where the store does not know it.
	ID string

	// Handle is the record's handle.
	Handle string
}

// Format shows the handle, and neither session ID nor data, whatever the verb.
func (r Found) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "session.Found(%s)", r.Handle) }

// LogValue shows the handle, and neither session ID nor data.
func (r Found) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// handleOf hashes an ID, or what a store keeps in its place.
func handleOf(sid string) string {
	sum := sha256.Sum256([]byte(labelHandle + sid))
	return hex.EncodeToString(sum[:16])
}

const labelHandle = "pgsession handle v1:"
