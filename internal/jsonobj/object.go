// Package jsonobj takes JSON objects apart at their top level and puts them
// together again.
//
// It accepts what RFC 8259 and [encoding/json] accept, no more and no less, in
// one pass. What is not replaced keeps its bytes and its place: white space
// inside values, escapes, the digits of numbers, duplicate keys. No value is
// decoded unless somebody asks, and the bytes that an object was scanned from
// are never written to, so they may be shared.
package jsonobj

import (
	"bytes"
	"encoding/json"
	"iter"
	"slices"
	"strings"
)

// Object is a JSON object taken apart. The zero Object is empty. It is not safe
// for concurrent changes; copies made with [Object.Clone] are independent.
type Object struct {
	members []member
}

// member is a key, a colon and a value as they stand, or are to stand, in the
// object. Its bytes are never written to.
type member struct {
	text    []byte
	keyEnd  int // text[:keyEnd] is the key with its quotes
	valueAt int // text[valueAt:] is the value
}

func newMember(key, value []byte) member {
	text := make([]byte, 0, len(key)+1+len(value))
	text = append(append(append(text, key...), ':'), value...)
	return member{text: text, keyEnd: len(key), valueAt: len(key) + 1}
}

func (m *member) key() []byte   { return m.text[:m.keyEnd] }
func (m *member) value() []byte { return m.text[m.valueAt:] }

// is reports whether the member's key is name.
func (m *member) is(name string) bool {
	k := m.text[1 : m.keyEnd-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return string(k) == name
	}
	return m.name() == name
}

// begins reports whether the member's key begins with prefix.
func (m *member) begins(prefix string) bool {
	k := m.text[1 : m.keyEnd-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix
	}
	return strings.HasPrefix(m.name(), prefix)
}

func (m *member) name() string {
	k := m.text[1 : m.keyEnd-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return string(k)
	}
	var s string
	if json.Unmarshal(m.key(), &s) != nil {
		return "" // cannot be: the whole object was found valid
	}
	return s
}

// Scan takes obj apart, which must begin with its opening brace and end with
// the closing one. ok is false for anything that is not a valid JSON object.
// The Object keeps obj, which must not be changed any more.
func Scan(obj []byte) (o Object, ok bool) {
	// Room for as many as a record of that length usually has.
	o.members = appendMembers(make([]member, 0, min(6+len(obj)/64, 64)), obj)
	return o, o.members != nil
}

// Lookup returns the value of name in obj as [Object.Get] does, nil also where
// obj is no JSON object. With a dozen members or fewer it allocates nothing.
func Lookup(obj []byte, name string) []byte {
	var few [12]member
	o := Object{members: appendMembers(few[:0], obj)}
	return o.Get(name)
}

// Get returns the value of name as it is written, nil if absent. Of duplicate
// keys the last counts, as in JavaScript. The bytes must not be changed.
func (o *Object) Get(name string) []byte {
	if i := o.index(name); i >= 0 {
		return o.members[i].value()
	}
	return nil
}

// All yields the members in their order, duplicates included.
func (o *Object) All() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := range o.members {
			if !yield(o.members[i].name(), o.members[i].value()) {
				return
			}
		}
	}
}

// Len returns the number of members, duplicates included.
func (o *Object) Len() int { return len(o.members) }

// Clone returns an object that can be changed without changing o. It has room
// for two more members.
func (o *Object) Clone() Object {
	return Object{members: append(make([]member, 0, len(o.members)+2), o.members...)}
}

// Set replaces the value of name where it stands, where its last duplicate
// stands if there are several, or adds it at the end. A nil value removes it.
// value must be valid JSON, which is not checked; it is copied.
func (o *Object) Set(name string, value []byte) {
	if !o.replace(name, value) {
		o.Add(name, value)
	}
}

// SetFirst is like Set, but adds a new member at the beginning.
func (o *Object) SetFirst(name string, value []byte) {
	if !o.replace(name, value) {
		o.members = append([]member{newMember(AppendString(nil, name), value)}, o.members...)
	}
}

// replace sets or removes a member that is there. done is false if it is still
// to be added.
func (o *Object) replace(name string, value []byte) (done bool) {
	at := -1
	kept := o.members[:0]
	for _, m := range o.members {
		if m.is(name) {
			if value == nil {
				continue
			}
			if at >= 0 {
				kept = append(kept[:at], kept[at+1:]...) // an earlier duplicate
			}
			at = len(kept)
			m = newMember(m.key(), value)
		}
		kept = append(kept, m)
	}
	o.members = kept
	return at >= 0 || value == nil
}

// Beside reports whether the members a and b stand next to each other, in either
// order.
func (o *Object) Beside(a, b string) bool {
	i, j := o.index(a), o.index(b)
	return i >= 0 && j >= 0 && (i-j == 1 || j-i == 1)
}

// Move puts the member name directly before the member beside, or directly after
// it. Where one of the two is absent nothing moves.
func (o *Object) Move(name, beside string, after bool) {
	i := o.index(name)
	if i < 0 || name == beside || o.index(beside) < 0 {
		return
	}
	m := o.members[i]
	o.members = slices.Delete(o.members, i, i+1)
	at := o.index(beside)
	if after {
		at++
	}
	o.members = slices.Insert(o.members, at, m)
}

// index returns where the member that counts stands, -1 if there is none.
func (o *Object) index(name string) int {
	for i := len(o.members) - 1; i >= 0; i-- {
		if o.members[i].is(name) {
			return i
		}
	}
	return -1
}

// Add adds a member at the end without looking whether its name is there
// already. value must be valid JSON; it is copied.
func (o *Object) Add(name string, value []byte) {
	o.members = append(o.members, newMember(AppendString(nil, name), value))
}

// Append adds the members of other at the end of o.
func (o *Object) Append(other Object) { o.members = append(o.members, other.members...) }

// DeletePrefix removes the members whose names begin with prefix.
func (o *Object) DeletePrefix(prefix string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool { return m.begins(prefix) })
}

// Split returns the members for whose names in returns true and the others, in
// their order, as objects of their own.
func (o *Object) Split(in func(name string) bool) (yes, no Object) {
	for _, m := range o.members {
		if in(m.name()) {
			yes.members = append(yes.members, m)
		} else {
			no.members = append(no.members, m)
		}
	}
	return yes, no
}

// Encode writes the object without white space between its members. Those that
// were not replaced come out byte for byte.
func (o *Object) Encode() []byte {
	size := 2
	for i := range o.members {
		size += len(o.members[i].text) + 1
	}
	b := append(make([]byte, 0, size), '{')
	for i := range o.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, o.members[i].text...)
	}
	return append(b, '}')
}
