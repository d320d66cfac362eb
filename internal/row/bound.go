package row

import (
	"encoding/json"
	"errors"
	"time"
)

// Bound is what a record says of the device that its session is bound to. Each
// step fills in one field more, and none is taken back but by another Bound.
type Bound struct {
	// ID names the binding to the browser. It survives renewals, and is another
	// one for each key that is asked for.
	ID string `json:"id"`

	// Offered is when a key was asked for, in milliseconds since 1970.
	Offered int64 `json:"offered"`

	// Key is the public key that the browser has registered, "" before.
	Key string `json:"key,omitempty"`

	// Confirmed is when a request first proved it, 0 before.
	Confirmed int64 `json:"confirmed,omitempty"`
}

// NewBound returns a Bound that asks for a key.
func NewBound(id string, now time.Time) Bound { return Bound{ID: id, Offered: now.UnixMilli()} }

// Encode returns the member as it is stored.
func (b Bound) Encode() []byte {
	raw, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and numbers
	}
	return raw
}

// OfferedAt returns when a key was asked for.
func (b Bound) OfferedAt() time.Time { return time.UnixMilli(b.Offered) }

// ConfirmedAt returns when the key was first proven, zero before.
func (b Bound) ConfirmedAt() time.Time {
	if b.Confirmed == 0 {
		return time.Time{}
	}
	return time.UnixMilli(b.Confirmed)
}

// errBound shows nothing of the record.
var errBound = errors.New("session: the record's device cannot be read")

// Bound returns what the record says of a device; ok is false if it says
// nothing. What cannot be read is an error: it must not pass for a session that
// anybody may use.
func (r *Row) Bound() (b Bound, ok bool, err error) {
	raw := r.Get(MemberBound)
	if raw == nil {
		return b, false, nil
	}
	if json.Unmarshal(raw, &b) != nil || b.ID == "" {
		return Bound{}, true, errBound
	}
	return b, true, nil
}

// Register notes the key of the binding id, unless the record has another binding
// or a key already. It reports whether it has changed the record.
func (r *Row) Register(id, key string) bool {
	b, ok, err := r.Bound()
	if !ok || err != nil || b.ID != id || b.Key != "" {
		return false
	}
	b.Key = key
	r.Set(MemberBound, b.Encode())
	return true
}

// Confirm notes that the key of the binding id was proven, unless that is known
// or the record has another binding. It reports whether it has changed the record.
func (r *Row) Confirm(id string, now time.Time) bool {
	b, ok, err := r.Bound()
	if !ok || err != nil || b.ID != id || b.Key == "" || b.Confirmed != 0 {
		return false
	}
	b.Confirmed = now.UnixMilli()
	r.Set(MemberBound, b.Encode())
	return true
}
