package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Names of the record's own members, beside the application's keys.
const (
	memberCookie  = "cookie"    // Express's: lifetime and cookie attributes
	memberCreated = "__created" // ours: creation, in milliseconds since 1970
	memberRenewed = "__renewed" // ours: the last renewal, likewise
	prefixFind    = "__find_"   // ours: the keyed hash of an encrypted value
)

// memberSaves holds a tag of the last save by each program whose saves ran a
// function of Key.Update, the newest at the end, of at most keptSaves programs.
// It tells a save whose answer was lost from the like save of another program.
const (
	memberSaves  = "__saves"
	keptSaves    = 8
	programBytes = 6 // of a tag; the rest counts the program's saves
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
	memberCreated: true, memberRenewed: true, memberSaves: true, memberSealed: true, "": true,
}

// reserved reports whether an application cannot use a key.
func reserved(name string) bool {
	return reservedKeys[name] || strings.HasPrefix(name, prefixFind)
}

// document is a JSON object taken apart at its top level only. Members that
// are not replaced keep their bytes and their order when it is written again.
type document struct {
	raw     []byte // as stored; nil for a session without a record
	members []member
}

// member is a key, a colon and a value as they stand, or are to stand, in the
// record. Its bytes are never written to.
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

func (m *member) name() string {
	k := m.text[1 : m.keyEnd-1]
	if bytes.IndexByte(k, '\\') < 0 {
		return string(k)
	}
	var s string
	if json.Unmarshal(m.key(), &s) != nil {
		return "" // cannot be: the whole record was found valid
	}
	return s
}

// parseDocument takes a record apart. A JSON string that itself holds an
// object is opened first: Express reads such a row, so it is a session.
func parseDocument(raw []byte) (document, error) {
	inner := trimSpace(raw)
	if at(inner, 0) == '"' {
		var s string
		if json.Unmarshal(inner, &s) == nil {
			inner = trimSpace([]byte(s))
		}
	}
	members := parseMembers(inner)
	switch {
	case members != nil:
		return document{raw: raw, members: members}, nil
	case json.Valid(raw):
		return document{}, errNotObject
	}
	return document{}, errors.New("session: record is not valid JSON")
}

// parseMembers splits a JSON object. It returns nil if obj is none.
func parseMembers(obj []byte) []member {
	return appendMembers(make([]member, 0, 16), obj)
}

// appendMembers reads an object as RFC 8259 has it, as strictly as [json.Valid]
// does but in one pass with the splitting: half the cost of a read otherwise.
func appendMembers(members []member, obj []byte) []member {
	if at(obj, 0) != '{' {
		return nil
	}
	i := skipSpace(obj, 1)
	if at(obj, i) == '}' && i+1 == len(obj) {
		return members
	}
	for {
		keyEnd := skipString(obj, i)
		value := skipColon(obj, keyEnd)
		end := skipValue(obj, value, 1)
		if end > len(obj) {
			return nil
		}
		members = append(members, member{text: obj[i:end:end], keyEnd: keyEnd - i, valueAt: value - i})
		i = skipSpace(obj, end)
		switch at(obj, i) {
		case ',':
			i = skipSpace(obj, i+1)
		case '}':
			if i+1 != len(obj) {
				return nil
			}
			return members
		default:
			return nil
		}
	}
}

func trimSpace(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

const (
	// beyond is the index that the functions below return where the text is not
	// JSON. It is after every end, also when something is added to it.
	beyond = math.MaxInt / 2

	maxDepth = 10000 // as in encoding/json
)

// at returns the byte at i, 0 after the end, which is no part of JSON's syntax.
func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipColon returns the index of the value after the key that ends at i.
func skipColon(b []byte, i int) int {
	i = skipSpace(b, i)
	if at(b, i) != ':' {
		return beyond
	}
	return skipSpace(b, i+1)
}

// skipString returns the index after the string that begins at i.
func skipString(b []byte, i int) int {
	if at(b, i) != '"' {
		return beyond
	}
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return beyond
		case c == '\\':
			i++
			switch at(b, i) {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					i++
					if !isHex(at(b, i)) {
						return beyond
					}
				}
			default:
				return beyond
			}
		}
	}
	return beyond
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// skipValue returns the index after the value that begins at i, inside depth
// objects and arrays.
func skipValue(b []byte, i, depth int) int {
	switch at(b, i) {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i, depth+1)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

// skipNested returns the index after the object or array that begins at i.
func skipNested(b []byte, i, depth int) int {
	if depth > maxDepth {
		return beyond
	}
	object, end := b[i] == '{', b[i]+2 // the closing bracket, in ASCII
	i = skipSpace(b, i+1)
	if at(b, i) == end {
		return i + 1
	}
	for {
		if object {
			i = skipColon(b, skipString(b, i))
		}
		i = skipSpace(b, skipValue(b, i, depth))
		switch at(b, i) {
		case end:
			return i + 1
		case ',':
			i = skipSpace(b, i+1)
		default:
			return beyond
		}
	}
}

func skipWord(b []byte, i int, word string) int {
	if !bytes.HasPrefix(b[i:], []byte(word)) {
		return beyond
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if at(b, i) == '-' {
		i++
	}
	if at(b, i) == '0' {
		i++
	} else {
		i = skipDigits(b, i)
	}
	if at(b, i) == '.' {
		i = skipDigits(b, i+1)
	}
	if c := at(b, i); c == 'e' || c == 'E' {
		if i++; at(b, i) == '+' || at(b, i) == '-' {
			i++
		}
		i = skipDigits(b, i)
	}
	return i
}

// skipDigits wants one digit at least.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	if i == start {
		return beyond
	}
	return i
}

// get returns the value of name, nil if absent. Of duplicate keys the last
// counts, as in JavaScript.
func (d *document) get(name string) []byte {
	for i := len(d.members) - 1; i >= 0; i-- {
		if d.members[i].is(name) {
			return d.members[i].value()
		}
	}
	return nil
}

// names lists the application's keys in their order.
func (d *document) names() []string {
	names := make([]string, 0, len(d.members))
	seen := make(map[string]bool, len(d.members))
	for i := range d.members {
		if n := d.members[i].name(); !bookkeeping(n) && !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}

// bookkeeping reports whether a member is no key of the application.
func bookkeeping(name string) bool {
	return name == memberCookie || name == memberCreated || name == memberRenewed || name == memberSaves
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
			m = newMember(m.key(), value)
		}
		kept = append(kept, m)
	}
	d.members = kept
	if at >= 0 || value == nil {
		return
	}
	m := newMember(appendJSONString(nil, name), value)
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
		size += len(d.members[i].text) + 1
	}
	b := append(make([]byte, 0, size), '{')
	for i := range d.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, d.members[i].text...)
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
func (d *document) created() (time.Time, bool) { return d.time(memberCreated) }

// renewed returns when the session was last renewed, else when it was created,
// zero if neither is known.
func (d *document) renewed() time.Time {
	t, ok := d.time(memberRenewed)
	switch {
	case !ok:
		t, _ = d.created()
	case t.UnixMilli() <= 0:
		return time.Time{}
	}
	return t
}

func (d *document) time(name string) (time.Time, bool) {
	ms, err := strconv.ParseInt(string(d.get(name)), 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

func (d *document) setTime(name string, t time.Time) {
	d.set(name, strconv.AppendInt(nil, t.UnixMilli(), 10))
}

// saves returns the tags in the record.
func (d *document) saves() (tags []string) {
	_ = json.Unmarshal(d.get(memberSaves), &tags)
	return tags
}

// addSave puts a program's tag in the place of its last.
func (d *document) addSave(tag string) {
	tags := slices.DeleteFunc(d.saves(), func(old string) bool { return strings.HasPrefix(old, tag[:programBytes]) })
	tags = append(tags, tag)
	raw, err := encodeJSON(tags[max(0, len(tags)-keptSaves):])
	if err == nil { // always
		d.set(memberSaves, raw)
	}
}

// savedBy reports whether the save of a tag is in d. It is not known where the
// tags of more programs than are kept have come since the data was before.
func (d *document) savedBy(tag string, before *document) (yes, known bool) {
	tags, old := d.saves(), before.saves()
	if slices.Contains(tags, tag) {
		return true, true
	}
	return false, len(tags) < keptSaves || slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(old, t) })
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
	var few [12]member // no allocation: every request that uses its session asks
	c := document{members: appendMembers(few[:0], d.get(memberCookie))}
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
