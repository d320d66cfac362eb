package jsonobj_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/pgsession/session/internal/jsonobj"
)

func TestMarshalIsJSONStringify(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string // "" for an error
	}{
		{"<b>&'é😀", `"<b>&'é😀"`},
		{map[string]int{"b": 1, "a": 2}, `{"a":2,"b":1}`},
		{json.RawMessage(`{"a":1.0}`), `{"a":1.0}`},
		{json.RawMessage("\"\xff\""), ""},
		{math.NaN(), ""},
		{func() {}, ""},
	} {
		got, err := jsonobj.Marshal(c.value)
		if string(got) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%T: got %s, %v, want %s", c.value, got, err, c.want)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[2]}`, `{"b": [2], "a": 1}`, true},
		{`"\u0061"`, `"a"`, true},
		{`1.0`, `1`, false}, // another spelling of a number is another value
		{`[1,2]`, `[2,1]`, false},
		{`{`, `{`, true},
		{`{`, `[`, false},
	} {
		if got := jsonobj.Equal([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("%s, %s: got %t, want %t", c.a, c.b, got, c.want)
		}
	}
	if jsonobj.Equal(nil, []byte("null")) || !jsonobj.Equal(nil, nil) {
		t.Error("an absent value: got it equal to null, or not to itself")
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		value, want string
		ok          bool
	}{
		{`"a\u0062"`, "ab", true},
		{`""`, "", true},
		{`42`, "42", true},
		{`-1.50`, "-1.50", true},
		{`true`, "true", true},
		{`null`, "", false},
		{`{}`, "", false},
		{`[1]`, "", false},
		{``, "", false},
	} {
		if got, ok := jsonobj.Text([]byte(c.value)); got != c.want || ok != c.ok {
			t.Errorf("%s: got %q, %t, want %q, %t", c.value, got, ok, c.want, c.ok)
		}
	}
}

func TestLosesDigits(t *testing.T) {
	for _, c := range []struct {
		value string
		want  bool
	}{
		{`9007199254740992`, false},
		{`9007199254740993`, true},
		{`-9007199254740993`, true},
		{`{"a":[1,9007199254740993]}`, true},
		{`"9007199254740993"`, false},
		{`"\"9007199254740993"`, false},
		{`9007199254740993.5`, false},
		{`99999999999999999999999`, true},
	} {
		if got := jsonobj.LosesDigits([]byte(c.value)); got != c.want {
			t.Errorf("%s: got %t, want %t", c.value, got, c.want)
		}
	}
}
