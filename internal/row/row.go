// Package row says what a stored record means: connect-pg-simple's row, a JSON
// object with Express's cookie object and the application's keys.
//
// Nothing here knows a clock, a store or a request. Reading never fails on an
// odd row: what cannot be read is reported as absent, and durations are bounded
// so that sums of them cannot overflow. Writing changes the members it names and
// leaves all others byte for byte as they are.
package row

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgsession/session/internal/jsonobj"
)

// Names of the record's own members, beside the application's keys.
const (
	// MemberSealed holds the application's keys of an encrypted record.
	MemberSealed = "__sealed"

	// PrefixFind and a key's name are the member with the keyed hash of that
	// key's encrypted value.
	PrefixFind = "__find_"

	// MemberCreated and MemberRenewed are when the session began and was last
	// renewed, in milliseconds since 1970.
	MemberCreated = "__created"
	MemberRenewed = "__renewed"

	// MemberBound is the key of the browser's device, see [Bound]. With the
	// application's keys it is inside of an encrypted record.
	MemberBound = "__bound"

	// MemberToken says that the session's client holds a token, and no cookie. With
	// the application's keys it is inside of an encrypted record.
	MemberToken = "__token"

	memberCookie = "cookie"  // Express's: lifetime and cookie attributes
	memberSaves  = "__saves" // ours: see AddSave
)

const (
	// ProgramBytes is how many bytes of a save's tag name the program; the rest
	// counts the program's saves.
	ProgramBytes = 6

	// keptSaves is the number of programs whose last tag a record holds.
	keptSaves = 8
)

// MaxLifetime bounds every duration read from a record, so that sums of
// durations cannot overflow.
const MaxLifetime = 100 * 365 * 24 * time.Hour

// Errors of [Parse].
var (
	errNotObject = errors.New("session: record is not a JSON object")
	errNotJSON   = errors.New("session: record is not valid JSON")
)

// reserved are the names that an application cannot use as keys: Express drops
// them from a session because its Session object has members of these names,
// and the last line is ours.
var reserved = map[string]bool{
	memberCookie: true, "id": true, "req": true,
	"save": true, "touch": true, "reload": true, "destroy": true, "regenerate": true, "resetMaxAge": true,
	"constructor": true, "hasOwnProperty": true, "isPrototypeOf": true, "propertyIsEnumerable": true,
	"toLocaleString": true, "toString": true, "valueOf": true, "__proto__": true,
	"__defineGetter__": true, "__defineSetter__": true, "__lookupGetter__": true, "__lookupSetter__": true,
	MemberCreated: true, MemberRenewed: true, memberSaves: true, MemberSealed: true, MemberBound: true, MemberToken: true, "": true,
}

// Reserved reports whether an application cannot use name as a key.
func Reserved(name string) bool {
	return reserved[name] || strings.HasPrefix(name, PrefixFind)
}

// ReservedNames lists the reserved names in alphabetical order, without those
// that begin with [PrefixFind].
func ReservedNames() []string { return slices.Sorted(maps.Keys(reserved)) }

// Bookkeeping reports whether a member is no key of the application: the cookie
// object, or one of ours that stays readable in an encrypted record.
func Bookkeeping(name string) bool {
	return name == memberCookie || name == MemberCreated || name == MemberRenewed || name == memberSaves
}

// Hidden reports whether a member is none that an application may see.
func Hidden(name string) bool {
	return Bookkeeping(name) || name == MemberBound || name == MemberToken
}

// Row is a record taken apart. The zero Row is that of a session without one.
// It is not safe for concurrent changes; copies made with [Row.Clone] are
// independent.
type Row struct {
	jsonobj.Object

	// Raw is the record as stored, nil for a session without one. Changing the
	// Object does not change it.
	Raw []byte
}

// Parse takes a record apart and keeps raw, which must not be changed any more.
// A JSON string that itself holds an object is opened first: Express reads such
// a row, so it is a session. The error says whether raw is some other JSON or
// none at all, and shows nothing of it.
func Parse(raw []byte) (Row, error) {
	inner := trimSpace(raw)
	if len(inner) > 0 && inner[0] == '"' {
		var s string
		if json.Unmarshal(inner, &s) == nil {
			inner = trimSpace([]byte(s))
		}
	}
	o, ok := jsonobj.Scan(inner)
	switch {
	case ok:
		return Row{Object: o, Raw: raw}, nil
	case json.Valid(raw):
		return Row{}, errNotObject
	}
	return Row{}, errNotJSON
}

// trimSpace removes what is white space in JSON.
func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// Clone returns a Row that can be changed without changing r.
func (r *Row) Clone() Row { return Row{Object: r.Object.Clone(), Raw: r.Raw} }

// Keys lists the application's keys in their order, each once.
func (r *Row) Keys() []string {
	keys := make([]string, 0, r.Len())
	seen := make(map[string]bool, r.Len())
	for name := range r.All() {
		if !Hidden(name) && !seen[name] {
			seen[name] = true
			keys = append(keys, name)
		}
	}
	return keys
}

// Created returns when the session was created, by the clock of the program
// that created it; ok is false where that is not known, as in Express's rows.
func (r *Row) Created() (at time.Time, ok bool) { return r.time(MemberCreated) }

// Renewed returns when the session was last renewed, else when it was created,
// zero if neither is known.
func (r *Row) Renewed() time.Time {
	t, ok := r.time(MemberRenewed)
	switch {
	case !ok:
		t, _ = r.Created()
	case t.UnixMilli() <= 0:
		return time.Time{}
	}
	return t
}

// Token reports whether the session's client holds a token.
func (r *Row) Token() bool { return string(r.Get(MemberToken)) == "true" }

// SetToken says that the session's client holds a token.
func (r *Row) SetToken() { r.Set(MemberToken, []byte("true")) }

// SetCreated writes the creation time.
func (r *Row) SetCreated(at time.Time) { r.setTime(MemberCreated, at) }

// SetFirstSeen writes a creation time into a record that has none: the time at
// which it was first seen. First sight is no login, so a record without a
// renewal says from then on that the last one is not known.
func (r *Row) SetFirstSeen(at time.Time) {
	r.SetCreated(at)
	if _, ok := r.time(MemberRenewed); !ok {
		r.Set(MemberRenewed, []byte("0"))
	}
}

// SetRenewed writes the time of the last renewal.
func (r *Row) SetRenewed(at time.Time) { r.setTime(MemberRenewed, at) }

// time reads a time of ours. A number of more than 18 digits, which nobody has
// written, is none: no arithmetic with a time is to overflow, here or in SQL.
func (r *Row) time(name string) (time.Time, bool) {
	ms, err := strconv.ParseInt(string(r.Get(name)), 10, 64)
	if err != nil || ms >= 1e18 || ms <= -1e18 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

func (r *Row) setTime(name string, t time.Time) {
	r.Set(name, strconv.AppendInt(nil, t.UnixMilli(), 10))
}

// AddSave writes the tag of a save that ran functions of Key.Update, by which
// [Row.SavedBy] tells it from the like save of another program. The tag begins
// with [ProgramBytes] bytes that name the program and takes the place of that
// program's last; of the programs that came before, the eight newest are kept.
//
// r is what is to be stored, before what is stored, and keys are those that the
// functions have changed: the tags stand beside one of them. PostgreSQL logs of an
// update what lies between the first and the last byte that differ, so tags at the
// other end of the record would have the log hold all of it at every save.
func (r *Row) AddSave(tag string, before *Row, keys []string) {
	tags := slices.DeleteFunc(r.saves(), func(old string) bool { return strings.HasPrefix(old, tag[:ProgramBytes]) })
	tags = append(tags, tag)
	raw, err := jsonobj.Marshal(tags[max(0, len(tags)-keptSaves):])
	if err != nil {
		return // never
	}
	r.Set(memberSaves, raw)
	r.placeSaves(before, keys)
}

// placeSaves moves the tags beside a key that was changed. To move them takes no
// longer a stretch than to leave them, for it reaches to where they were either
// way, and the next saves of that key are short. Where they stand beside such a key
// already they stay, on whichever side.
func (r *Row) placeSaves(before *Row, keys []string) {
	var key string
	var value []byte
	for _, k := range keys {
		if r.Beside(memberSaves, k) {
			return
		}
		if v := r.Get(k); v != nil {
			key, value = k, v
		}
	}
	if value == nil {
		return // all of them are deleted
	}
	old := before.Get(key)
	// What does not differ between the tags' own change, at their end, and the
	// value's: before the value its name and its beginning, after it its end and
	// the tags' name with the program's.
	ahead := len(`"],"":`) + len(key) + commonPrefix(value, old)
	behind := commonSuffix(value, old) + len(`,"__saves":["`) + ProgramBytes
	r.Move(memberSaves, key, ahead > behind)
}

func commonPrefix(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func commonSuffix(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// SavedBy reports whether the save of a tag is in r. It is not known where the
// tags of more programs than are kept have come since the record was before.
func (r *Row) SavedBy(tag string, before *Row) (yes, known bool) {
	tags, old := r.saves(), before.saves()
	if slices.Contains(tags, tag) {
		return true, true
	}
	return false, len(tags) < keptSaves || slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(old, t) })
}

func (r *Row) saves() (tags []string) {
	_ = json.Unmarshal(r.Get(memberSaves), &tags)
	return tags
}

// duration reads a JSON number of milliseconds. ok is false for anything else.
func duration(raw []byte) (d time.Duration, ok bool) {
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	ms, err := strconv.ParseFloat(string(raw), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	limit := float64(MaxLifetime / time.Millisecond)
	return time.Duration(math.Max(-limit, math.Min(limit, ms)) * float64(time.Millisecond)), true
}
