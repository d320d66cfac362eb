package jsonobj_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgsession/session/internal/jsonobj"
)

var scanned = []string{
	``, ` `, `{}`, ` {}`, `{} `, `{ }`, `{"a":1}`, "{\"a\" :\t1\r\n}", `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1 2}`, `{"a":1}}`,
	`{"a":1}{}`, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `[]`, `[{}]`, `"{}"`, `null`, `0`, `{a:1}`, `{'a':1}`, `{1:1}`,
	`{"a":0}`, `{"a":-0}`, `{"a":00}`, `{"a":01}`, `{"a":-}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1.5e}`, `{"a":1.5e+}`,
	`{"a":-12.50E-07}`, `{"a":1e400}`, `{"a":0x1}`, `{"a":1_0}`, `{"a":NaN}`, `{"a":1e5.5}`,
	`{"a":true,"b":false,"c":null}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul`, `{"a":True}`,
	`{"a":"b"}`, `{"a":"\"\\\/\b\f\n\r\t\u00eF"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"\u`, `{"a":"\ud800"}`,
	`{"a":"\u0000"}`, "{\"a\":\"\x00\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x7f\xff\"}", "{\"a\x01\":1}", `{"\u0061":1,"a":2}`, `{"":1,"":2}`,
	`{"a":[]}`, `{"a":[ ]}`, `{"a":[1, "]", {"b":[]}, []]}`, `{"a":[1,]}`, `{"a":[,]}`, `{"a":[1}`, `{"a":{"b":1]}`, `{"a":[1:2]}`,
	`{"a":{"b":"}"},"c":{}}`, `{"a":{"b"}}`, `{"a":{"b":}}`, `{"a":{,}}`, "{\"a\":1\x00}", "\ufeff{}", "{\u00a0}",
	`{"a":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}`,
	`{"a":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`,
	`{"a":` + strings.Repeat("[", 100),
}

func TestRecordScannerAgreesWithEncodingJSON(t *testing.T) {
	for _, text := range scanned {
		checkScan(t, []byte(text))
	}
	// Any byte at any place among plain ones, before another and without.
	for n := range 20 {
		for c := range 256 {
			text := strings.Repeat("a", n) + string([]byte{byte(c)}) + strings.Repeat("\x80", 19-n)
			for _, end := range []string{`"}`, "\x1f\"}", `\"}`, `\""}`, ``} {
				checkScan(t, []byte(`{"a":"`+text+end))
			}
		}
	}
}

func FuzzRecordScanner(f *testing.F) {
	for _, text := range scanned {
		if len(text) < 100 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(checkScan)
}

// checkScan wants the scanner to take apart what encoding/json takes for an
// object, with the same keys and the very bytes of the values, and nothing else.
func checkScan(t *testing.T, obj []byte) {
	o, ok := jsonobj.Scan(obj)
	if want := len(obj) > 0 && obj[0] == '{' && obj[len(obj)-1] == '}' && json.Valid(obj); ok != want {
		t.Fatalf("%.100q: got an object %t, want %t", obj, ok, want)
	}
	if !ok || !utf8.Valid(obj) { // encoding/json changes such keys
		return
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(obj, &want); err != nil {
		t.Fatalf("%.100q: encoding/json: %v", obj, err)
	}
	got := make(map[string][]byte)
	for name, value := range o.All() {
		got[name] = value // of duplicate keys the last counts
	}
	if len(got) != len(want) {
		t.Fatalf("%.100q: got %d keys, want %d", obj, len(got), len(want))
	}
	for name, value := range want {
		if !bytes.Equal(got[name], value) {
			t.Errorf("%.100q: value of %q: got %.100q, want %.100q", obj, name, got[name], value)
		}
		if !bytes.Equal(o.Get(name), value) || !bytes.Equal(jsonobj.Lookup(obj, name), value) {
			t.Errorf("%.100q: Get and Lookup of %q: got %.100q, %.100q, want %.100q", obj, name, o.Get(name), jsonobj.Lookup(obj, name), value)
		}
	}
}
