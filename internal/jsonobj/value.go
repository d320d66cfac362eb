package jsonobj

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

// Marshal encodes v as JSON.stringify would, without Go's escapes of <, > and &.
// It is an error if the result is not UTF-8, as a [json.RawMessage] can be.
func Marshal(v any) ([]byte, error) {
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

// AppendString appends s as a JSON string to b.
func AppendString(b []byte, s string) []byte {
	enc, err := Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot be: strings always encode
	}
	return append(b, enc...)
}

// Equal reports whether two values are the same but for white space, the order
// of keys and the spelling of strings: a jsonb column writes a value otherwise
// than it was given. nil, which stands for an absent value, equals nil only.
func Equal(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if a == nil || b == nil {
		return false
	}
	x, okx := canonical(a)
	y, oky := canonical(b)
	return okx && oky && bytes.Equal(x, y)
}

func canonical(b []byte) ([]byte, bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	out, err := json.Marshal(v)
	return out, err == nil
}

// Text returns a string, number or boolean as text, as PostgreSQL's ->> does. ok
// is false for null, an object, an array and nothing at all.
func Text(value []byte) (text string, ok bool) {
	if len(value) == 0 || value[0] == '{' || value[0] == '[' || value[0] == 'n' {
		return "", false
	}
	if value[0] != '"' {
		return string(value), true
	}
	err := json.Unmarshal(value, &text)
	return text, err == nil
}

// LosesDigits reports whether a valid value has an integer over 2^53, the last
// to which JavaScript knows every one.
func LosesDigits(value []byte) bool {
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '"':
			i = skipString(value, i)
		case c >= '0' && c <= '9':
			start := i
			for i < len(value) && bytes.IndexByte([]byte("0123456789.eE+-"), value[i]) >= 0 {
				i++
			}
			text := value[start:i]
			if len(text) < 16 || bytes.ContainsAny(text, ".eE") {
				continue
			}
			if n, err := strconv.ParseUint(string(text), 10, 64); err != nil || n > 1<<53 {
				return true
			}
		default:
			i++
		}
	}
	return false
}
