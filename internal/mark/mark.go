// Package mark writes and reads marks: what a renewal leaves in a row under the
// old session ID, to say where the session went.
//
// A mark is a JSON string: the digits 0 and e, then three for each byte of the
// new ID. connect-pg-simple parses a string once more, and to JavaScript 0e123 is
// the number 0: Express sees no session and leaves row and expiry alone. An
// object would not do: express-session would take it for a session, extend it
// and write to it. Nor would the number itself: type jsonb takes none of that
// size, so that a column could not be changed to it.
package mark

import (
	"bytes"
	"strconv"
)

const (
	prefix = `"0e`
	digits = 3 // a byte
)

// SQL is the condition that a row of a session table is a mark; never null. It
// knows marks of IDs of up to 330 bytes, and this library's have 32, or 43 where
// hashed. What is larger is not even looked at: a touch must not fetch and
// decompress large data for this, and PostgreSQL evaluates conditions in any
// order, but CASE in its own. (A row of 280 bytes takes 0.1 to 0.9 µs more by it.)
// No name in it is looked up in the search path.
const SQL = `(CASE WHEN pg_catalog.pg_column_size(sess) OPERATOR(pg_catalog.<) 1000
	THEN pg_catalog."left"(sess::pg_catalog.text, 3) OPERATOR(pg_catalog.=) '"0e' ELSE false END)`

// Immutable is SQL for the conditions of statements in which no function may stand
// whose answer can change, as that of a value's size in the table can. It reads
// large data too.
const Immutable = `(pg_catalog."left"(sess::pg_catalog.text, 3) OPERATOR(pg_catalog.=) '"0e')`

// Of returns the mark of a record that has gone to target.
func Of(target string) string {
	b := make([]byte, 0, len(prefix)+digits*len(target)+1)
	b = append(b, prefix...)
	for i := range len(target) {
		c := target[i]
		b = append(b, '0'+c/100, '0'+c/10%10, '0'+c%10)
	}
	return string(append(b, '"'))
}

// Is reports whether data, as stored, is a mark.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(prefix)) }

// Target returns where the record of a mark has gone. ok is false if data is no
// mark, or one that says nothing, which this package did not write.
func Target(data []byte) (target string, ok bool) {
	text, ok := bytes.CutPrefix(bytes.TrimSuffix(data, []byte(`"`)), []byte(prefix))
	if !ok || len(text) == 0 || len(text)%digits != 0 {
		return "", false
	}
	b := make([]byte, 0, len(text)/digits)
	for ; len(text) > 0; text = text[digits:] {
		n, err := strconv.ParseUint(string(text[:digits]), 10, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(n))
	}
	return string(b), true
}
