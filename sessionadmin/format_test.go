package sessionadmin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessionadmin"
)

// What nobody would see, or would see elsewhere, has a sign.
func TestPieces(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"plain", "ada lovelace", "ada lovelace"},
		{"spaces at the ends", " ada ", "[␣]ada[␣]"},
		{"nothing but spaces", "  ", "[␣][␣]"},
		{"two spaces inside", "a  b", "a  b"},
		{"the end of a line", "a\nb\n", "a[U+000A]b[U+000A]"},
		{"a space that does not break", "a\u00a0b", "a[U+00A0]b"},
		{"nothing wide", "a\u200bb", "a[U+200B]b"},
		{"the other direction", "a\u202eb", "a[U+202E]b"},
		{"NUL", "a\x00", "a[U+0000]"},
		{"no UTF-8", "a\xffb", "a[byte FF]b"},
		{"the sign for what is none", "a\ufffdb", "a\ufffdb"},
		{"Hebrew and an emoji", "שלום 👩", "שלום 👩"},
		{"long", strings.Repeat("é", 1000), strings.Repeat("é", 120) + "[… 2,000 bytes]"},
		{"cut inside of a letter", "x" + strings.Repeat("é", 1000), "x" + strings.Repeat("é", 119) + "[… 2,001 bytes]"},
		{"empty", "", ""},
	} {
		got := ""
		for _, p := range sessionadmin.Pieces(c.value) {
			got += p.Text
			if p.Sign != "" {
				got += "[" + p.Sign + "]"
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A value is what it is, up to its ends; spaces that were pasted around one are
// left out only where no session has them, and then the page says so.
func TestSearchSpaces(t *testing.T) {
	r := newRig(t, session.Config{}, sessionadmin.Options{})
	padded, paddedLive := r.login(" ada ")
	bare, bareLive := r.login("ada")
	const left = "The spaces around what was typed were left out"
	for _, c := range []struct{ typed, want string }{{" ada ", padded}, {"ada", bare}, {"ada  ", bare}} {
		a := r.get(address("userId", c.typed))
		a.want(t, 200, "<h1>1 session</h1>", c.want)
		if said := strings.Contains(a.body, left); said != (c.typed == "ada  ") {
			t.Errorf("%q: that spaces were left out is said: %t", c.typed, said)
		}
	}
	r.get(address("userId", " eve ")).want(t, 200, "No live session", "␣")
	r.get(address("userId", "   ")).want(t, 200, "No live session")
	r.get(address("", " "+bare+"\n")).want(t, 200, "<h1>1 session</h1>", bare)
	r.post(url.Values{"key": {"userId"}, "value": {url.QueryEscape(" ada ")}}).want(t, 303)
	if paddedLive() || !bareLive() {
		t.Errorf("live: got %t and %t, want that the one with the spaces has ended, and the other not", paddedLive(), bareLive())
	}
	r.post(url.Values{"key": {"userId"}, "value": {"%zz"}}).want(t, 400, "Nothing was ended")
}

// With hashed IDs the pages cannot read what an encrypted session is.
func TestClientUnknown(t *testing.T) {
	r := newRig(t, session.Config{TokenPrefix: "t_"}, sessionadmin.Options{})
	r.login("ada")
	w := httptest.NewRecorder()
	r.sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		s := session.From(req.Context())
		s.UseToken()
		userID.Set(s, "bob")
	})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	r.exec(`INSERT INTO schema_system.session VALUES ('sealed', '{"cookie":{},"userId":"eve","__sealed":"AAAA"}', now() + interval '1 h')`)
	for user, want := range map[string]string{"ada": ">a cookie<", "bob": ">a token<", "eve": `><span class="quiet">unknown<`} {
		r.get(address("userId", user)).want(t, 200, `<td data-label="Client holds"`+want)
	}
}

// What was pruned in the minute under way is in the list, as it is in the sum.
func TestPrunesOfThisMinute(t *testing.T) {
	var pruned atomic.Uint64
	h := sessionadmin.NewHistory(func() session.Stats { return session.Stats{Pruned: pruned.Load()} })
	pruned.Store(7)
	if got, _ := h.Prunes(4); fmt.Sprint(got) != "[7]" {
		t.Errorf("got %v, want [7]", got)
	}
}
