package row_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/pgsession/session/internal/row"
)

const recordCookie = `"cookie":{"originalMaxAge":60000,"expires":"2000-01-01T00:01:00.000Z","httpOnly":true,"path":"/"}`

func jsonString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// topLevel splits an object with encoding/json: the independent reading.
func topLevel(t *testing.T, object []byte) (names []string, values [][]byte) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(object))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		t.Fatalf("got no object: %v", err)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		names, values = append(names, name.(string)), append(values, value)
	}
	return names, values
}

// interpret reads everything that a manager reads from a record.
func interpret(r *row.Row) {
	_, _ = r.MaxAge()
	_, _ = r.Created()
	_ = r.Renewed()
	_, _ = r.Attributes()
	_, _ = r.Cookie()
	_, _ = r.SavedBy("program-1", r)
	_ = r.Keys()
}

// FuzzRecord holds that whatever the database has, reading it never panics, and
// that setting or deleting one key leaves valid JSON whose other members, in
// their order, have the very bytes they had.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{`+recordCookie+`,"a":1,"b":"x","a":2}`), "a", []byte(`3`))
	f.Add([]byte("{ \"cookie\" : {\"originalMaxAge\":\"6\",\"path\":\"\\/\"},\n \"\\u0061\" : \"\\ud800\" }"), "b", []byte(`{"c":[]}`))
	f.Add([]byte(jsonString(`{"cookie":{"expires":null},"n":-0.0e-1}`)), "n", []byte(nil))
	f.Add([]byte(`{"cookie":[{"}":"{"}],"__created":1e3,"":null}`), "cookie", []byte(`{}`))
	f.Fuzz(func(t *testing.T, raw []byte, name string, value []byte) {
		p, err := row.Parse(raw)
		if err != nil {
			if object := bytes.TrimLeft(raw, " \t\r\n"); json.Valid(raw) && object[0] == '{' {
				t.Fatalf("got %v for a JSON object", err)
			}
			return
		}
		interpret(&p)
		if !utf8.Valid(raw) || !utf8.ValidString(name) {
			return // encoding/json replaces what is no UTF-8; a database in UTF-8 has none
		}
		object := raw
		if !json.Valid(raw) {
			t.Fatal("got a record that is not valid JSON accepted")
		}
		if trimmed := bytes.TrimSpace(raw); trimmed[0] == '"' {
			var inner string
			if err := json.Unmarshal(trimmed, &inner); err != nil {
				t.Fatal(err)
			}
			object = []byte(inner)
		}
		names, values := topLevel(t, object)
		for i, n := range names {
			last := len(names) - 1 - slices.Index(reversed(names), n)
			if last == i && !bytes.Equal(p.Get(n), values[i]) {
				t.Fatalf("Get(%q): got %s, want %s", n, p.Get(n), values[i])
			}
		}
		if !slices.Contains(names, name) && p.Get(name) != nil {
			t.Fatalf("Get(%q): got %s, want nothing", name, p.Get(name))
		}
		if len(value) == 0 {
			value = nil // a deletion
		} else if !json.Valid(value) || !utf8.Valid(value) {
			return
		}
		p.Set(name, value)
		if got := p.Get(name); !bytes.Equal(got, value) {
			t.Fatalf("Get after Set: got %s, want %s", got, value)
		}
		out := p.Encode()
		if !json.Valid(out) {
			t.Fatalf("got %s, want valid JSON", out)
		}
		gotNames, gotValues := topLevel(t, out)
		want, got := others(names, values, name), others(gotNames, gotValues, name)
		if !slices.Equal(got, want) {
			t.Fatalf("untouched members: got %q, want %q", got, want)
		}
		if n := slices.Index(gotNames, name); (n >= 0) != (value != nil) {
			t.Fatalf("the member itself: got present %v, want %v", n >= 0, value != nil)
		}
	})
}

func reversed(s []string) []string {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// others lists the members beside name with their bytes.
func others(names []string, values [][]byte, name string) (all []string) {
	for i, n := range names {
		if n != name {
			all = append(all, fmt.Sprintf("%s:%s", n, values[i]))
		}
	}
	return all
}
