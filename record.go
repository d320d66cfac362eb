package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Names of the record's own members, beside the application's keys.
const (
	memberCookie  = "cookie"    // Express's: lifetime and cookie attributes
	memberCreated = "__created" // ours: creation, in milliseconds since 1970
)

// maxLifetime bounds every duration read from a record, so that sums of
// durations cannot overflow.
const maxLifetime = 100 * 365 * 24 * time.Hour

var errNotObject = errors.New("session: record is not a JSON object")

// reservedKeys are the names that an application cannot use as keys: Express
// drops them from a session because its Session object has members of these
// names, and the last line is ours.
var reservedKeys = map[string]bool{
	memberCookie: true, "id": true, "req": true,
	"save": true, "touch": true, "reload": true, "destroy": true, "regenerate": true, "resetMaxAge": true,
	"constructor": true, "hasOwnProperty": true, "isPrototypeOf": true, "propertyIsEnumerable": true,
	"toLocaleString": true, "toString": true, "valueOf": true, "__proto__": true,
	"__defineGetter__": true, "__defineSetter__": true, "__lookupGetter__": true, "__lookupSetter__": true,
	memberCreated: true, memberSealed: true, "": true,
}

// document is a JSON object taken apart at its top level only. Members that
// are not replaced keep their bytes and their order when it is written again.
type document struct {
	raw     []byte // as stored; nil for a session without a record
	members []member
}

type member struct {
	text  []byte // key, colon and value as they stand in the record; nil once replaced
	key   []byte // the key as JSON, with its quotes
	value []byte // the value as JSON
}

// is reports whether the member's key is name.
func (m *member) is(name string) bool {
	k := m.key[1 : len(m.key)-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return string(k) == name
	}
	return m.name() == name
}

func (m *member) name() string {
	k := m.key[1 : len(m.key)-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return string(k)
	}
	var s string
	if json.Unmarshal(m.key, &s) != nil {
		return "" // cannot be: the whole record was found valid
	}
	return s
}

// parseDocument takes a record apart. A JSON string that itself holds an
// object is opened first: Express reads such a row, so it is a session.
func parseDocument(raw []byte) (document, error) {
	if !json.Valid(raw) {
		return document{}, errors.New("session: record is not valid JSON")
	}
	inner := trimSpace(raw)
	if inner[0] == '"' {
		var s string
		if json.Unmarshal(inner, &s) != nil || !json.Valid([]byte(s)) {
			return document{}, errNotObject
		}
		inner = trimSpace([]byte(s))
	}
	if inner[0] != '{' {
		return document{}, errNotObject
	}
	return document{raw: raw, members: parseMembers(inner)}, nil
}

// parseMembers splits an object that is known to be valid JSON.
func parseMembers(obj []byte) []member {
	members := make([]member, 0, 16)
	i := skipSpace(obj, 1)
	for obj[i] != '}' {
		start := i
		i = skipString(obj, i)
		key := obj[start:i]
		i = skipSpace(obj, i)
		i = skipSpace(obj, i+1) // the colon
		value := i
		i = skipValue(obj, i)
		members = append(members, member{text: obj[start:i:i], key: key, value: obj[value:i:i]})
		i = skipSpace(obj, i)
		if obj[i] == ',' {
			i = skipSpace(obj, i+1)
		}
	}
	return members
}

func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

// skipString returns the index after the string that begins at i.
func skipString(b []byte, i int) int {
	for {
		i++
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// skipValue returns the index after the value that begins at i.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; {
			switch b[i] {
			case '"':
				i = skipString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
				if depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for i < len(b) {
		switch b[i] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return i
		}
		i++
	}
	return i
}

// get returns the value of name, nil if absent. Of duplicate keys the last
// counts, as in JavaScript.
func (d *document) get(name string) []byte {
	for i := len(d.members) - 1; i >= 0; i-- {
		if d.members[i].is(name) {
			return d.members[i].value
		}
	}
	return nil
}

// names lists the application's keys in their order.
func (d *document) names() []string {
	names := make([]string, 0, len(d.members))
	seen := make(map[string]bool, len(d.members))
	for i := range d.members {
		if n := d.members[i].name(); n != memberCookie && n != memberCreated && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}

// clone returns a document whose members can be changed without changing d.
func (d *document) clone() document {
	return document{raw: d.raw, members: append(make([]member, 0, len(d.members)+2), d.members...)}
}

// set replaces the value of name where it stands, or adds it at the end, the
// cookie at the beginning. A nil value removes it.
func (d *document) set(name string, value []byte) {
	at := -1
	kept := d.members[:0]
	for _, m := range d.members {
		if m.is(name) {
			if value == nil {
				continue
			}
			if at >= 0 {
				kept = append(kept[:at], kept[at+1:]...) // an earlier duplicate
			}
			at = len(kept)
			m.text, m.value = nil, value
		}
		kept = append(kept, m)
	}
	d.members = kept
	if at >= 0 || value == nil {
		return
	}
	m := member{key: appendJSONString(nil, name), value: value}
	if name == memberCookie {
		d.members = append([]member{m}, d.members...)
		return
	}
	d.members = append(d.members, m)
}

// encode writes the object. Untouched members come out byte for byte.
func (d *document) encode() []byte {
	size := 2
	for i := range d.members {
		m := &d.members[i]
		size += 2 + max(len(m.text), len(m.key)+len(m.value))
	}
	b := append(make([]byte, 0, size), '{')
	for i := range d.members {
		if i > 0 {
			b = append(b, ',')
		}
		m := &d.members[i]
		if m.text != nil {
			b = append(b, m.text...)
			continue
		}
		b = append(append(append(b, m.key...), ':'), m.value...)
	}
	return append(b, '}')
}

// sameJSON reports whether two stored values are equal. A jsonb column writes a
// value with other white space and order than it was given.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if a == nil || b == nil {
		return false
	}
	x, okx := canonicalJSON(a)
	y, oky := canonicalJSON(b)
	return okx && oky && bytes.Equal(x, y)
}

func canonicalJSON(b []byte) ([]byte, bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	out, err := json.Marshal(v)
	return out, err == nil
}

// encodeJSON encodes an application's value as JSON.stringify would, without
// Go's escapes of <, > and &.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	out := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if !utf8.Valid(out) {
		return nil, errors.New("not valid UTF-8")
	}
	return out, nil
}

func appendJSONString(b []byte, s string) []byte {
	enc, err := encodeJSON(s)
	if err != nil {
		return append(b, `""`...) // cannot be: strings always encode
	}
	return append(b, enc...)
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
	limit := float64(maxLifetime / time.Millisecond)
	return time.Duration(math.Max(-limit, math.Min(limit, ms)) * float64(time.Millisecond)), true
}

// created returns when the session was created, by the clock of the program
// that created it.
func (d *document) created() (time.Time, bool) {
	ms, err := strconv.ParseInt(string(d.get(memberCreated)), 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

func (d *document) setCreated(t time.Time) {
	d.set(memberCreated, strconv.AppendInt(nil, t.UnixMilli(), 10))
}

// cookie returns the record's cookie object, taken apart; ok is false if the
// record has none, which no healthy one lacks.
func (d *document) cookie() (c document, ok bool) {
	raw := d.get(memberCookie)
	if len(raw) == 0 || raw[0] != '{' {
		return document{}, false
	}
	return document{members: parseMembers(raw)}, true
}

// maxAge returns the session's own idle timeout: cookie.originalMaxAge, in
// milliseconds, as Express keeps it. ok is false where the record has none,
// which in Express is a session that ends with the browser.
func (d *document) maxAge() (time.Duration, bool) {
	c, ok := d.cookie()
	if !ok {
		return 0, false
	}
	return duration(c.get("originalMaxAge"))
}

// setLifetime writes the idle timeout and the expiry into the cookie object.
// maxAge 0 writes Express's null: a session that ends with the browser.
func (d *document) setLifetime(c document, maxAge time.Duration, expires time.Time) {
	if maxAge <= 0 {
		c.set("originalMaxAge", []byte("null"))
		c.set("expires", []byte("null"))
	} else {
		c.set("originalMaxAge", strconv.AppendInt(nil, maxAge.Milliseconds(), 10))
		c.setExpires(expires)
	}
	d.set(memberCookie, c.encode())
}

func (d *document) setExpires(t time.Time) {
	d.set("expires", t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`))
}
