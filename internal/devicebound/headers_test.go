package devicebound_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session/internal/devicebound"
)

func TestHeaders(t *testing.T) {
	for _, tt := range []struct{ name, got, want string }{
		{"registration", devicebound.FormatRegistration("/session/bind", "c"), `(ES256);path="/session/bind";challenge="c"`},
		{"challenge", devicebound.FormatChallenge("c", "i"), `"c";id="i"`},
		{
			"configuration", string(devicebound.Configuration("i", "/b", "s-bound", "Path=/; HttpOnly; Secure")),
			`{"session_identifier":"i","refresh_url":"/b","scope":{"include_site":false},"credentials":[{"type":"cookie","name":"s-bound","attributes":"Path=/; HttpOnly; Secure"}]}`,
		},
		{"end", string(devicebound.End("i")), `{"session_identifier":"i","continue":false}`},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestParseString(t *testing.T) {
	for _, tt := range []struct {
		value, want string
		ok          bool
	}{
		{"abc-_.", "abc-_.", true},
		{`"abc"`, "abc", true},
		{` "a b" `, "a b", true},
		{`"a\"\\b"`, `a"\b`, true},
		{"", "", false},
		{`"`, "", false},
		{`""`, "", false},
		{`"a`, "", false},
		{`"a\b"`, "", false},
		{`"a"b`, "", false},
		{`"a";x=1`, "", false},
		{"a, b", "", false},
		{"a;b", "", false},
		{"a\x00", "", false},
		{"\"\xc3\xa4\"", "", false},
		{strings.Repeat("a", 5000), "", false},
	} {
		if got, ok := devicebound.ParseString(tt.value); ok != tt.ok || ok && got != tt.want {
			t.Errorf("%.40q: got %q, %v, want %q, %v", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func TestSkipped(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  bool
	}{
		{[]string{`unreachable;session_identifier="i"`}, true},
		{[]string{`server_error;session_identifier="i"`}, true},
		{[]string{`quota_exceeded;session_identifier="i"`}, true},
		{[]string{`unreachable;session_identifier=i`}, true},
		{[]string{`unreachable; a; session_identifier="i"; b=1`}, true},
		{[]string{`unreachable;session_identifier="x", server_error;session_identifier="i"`}, true},
		{[]string{`unreachable;session_identifier="x"`, `unreachable;session_identifier="i"`}, true},
		{nil, false},
		{[]string{``}, false},
		{[]string{`unreachable`}, false},
		{[]string{`unreachable;session_identifier="x"`}, false},
		{[]string{`unreachable;session_identifier="i`}, false},
		{[]string{`unreachable;session_identifier="i" x`}, false},
		{[]string{`unreachable;session_identifier="i",`}, false},
		{[]string{`,unreachable;session_identifier="i"`}, false},
		{[]string{`something_else;session_identifier="i"`}, false},
		{[]string{`unreachable;session_identifier="i";session_identifier="x"`}, false}, // the last counts
		{[]string{`unreachable;=1`}, false},
		{[]string{`unreachable;a=`}, false},
		{[]string{`"unreachable";session_identifier="i"`}, false},
		{[]string{strings.Repeat(`unreachable;session_identifier="i",`, 200) + `unreachable`}, false},
	} {
		if got := devicebound.Skipped(tt.lines, "i"); got != tt.want {
			t.Errorf("%.60q: got %v, want %v", tt.lines, got, tt.want)
		}
	}
}

func TestIsIdentifier(t *testing.T) {
	for s, want := range map[string]bool{id: true, id + "i": false, id[1:]: false, "": false, id[1:] + "+": false, id[1:] + "\n": false} {
		if got := devicebound.IsIdentifier(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
}
