package mark_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session/internal/mark"
)

func TestMark(t *testing.T) {
	for _, target := range []string{"x", "a\x00\xff", `"'\`, "Zoë", strings.Repeat("y", 400), "0e1"} {
		m := mark.Of(target)
		if got, ok := mark.Target([]byte(m)); !mark.Is([]byte(m)) || got != target || !ok {
			t.Errorf("got %q, %v, want %q", got, ok, target)
		}
	}
	if got, want := mark.Of("AZ"), `"0e065090"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoMark(t *testing.T) {
	for _, data := range []string{"", "{}", `{"0e":1}`, "[]", "null", "0", "0.5", `"text"`, `"{\"cookie\":{}}"`, "0e065", ` "0e065"`} {
		if _, ok := mark.Target([]byte(data)); ok || mark.Is([]byte(data)) {
			t.Errorf("%s: got a mark, want none", data)
		}
	}
}

// What looks like a mark and says nothing leads nowhere.
func TestMarkOfOthers(t *testing.T) {
	for _, data := range []string{`"0e"`, `"0e5"`, `"0e65"`, `"0e256"`, `"0e0651"`, `"0e-65"`, `"0e+65"`, `"0e06x"`, `"0e"065"`, `"0e`} {
		if target, ok := mark.Target([]byte(data)); ok || !mark.Is([]byte(data)) {
			t.Errorf("%s: got target %q, %v, want a mark without one", data, target, ok)
		}
	}
}
