package row_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/row"
)

func parse(tb testing.TB, text string) row.Row {
	tb.Helper()
	r, err := row.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return r
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{" {\"a\" : 1}\n", `{"a" : 1}`, ""},
		{jsonString(` {"a" : 1} `), `{"a" : 1}`, ""},
		{`{}`, `{}`, ""},
		{`null`, "", "not a JSON object"},
		{`"secret"`, "", "not a JSON object"},
		{jsonString(jsonString(`{}`)), "", "not a JSON object"},
		{`{"secret":1,}`, "", "not valid JSON"},
		{``, "", "not valid JSON"},
	} {
		r, err := row.Parse([]byte(c.text))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret") || r.Raw != nil {
				t.Errorf("%s: got %v, want %s and nothing of the record", c.text, err, c.err)
			}
			continue
		}
		if got := string(r.Encode()); err != nil || got != c.want || string(r.Raw) != c.text {
			t.Errorf("%s: got %s, %v, want %s and the raw text kept", c.text, got, err, c.want)
		}
	}
}

func TestReserved(t *testing.T) {
	for _, name := range append(row.ReservedNames(), row.PrefixFind, row.PrefixFind+"userId") {
		if !row.Reserved(name) {
			t.Errorf("%q: got it free", name)
		}
	}
	for _, name := range []string{"userId", "Cookie", "_", "__", "__created2", "find_"} {
		if row.Reserved(name) {
			t.Errorf("%q: got it reserved", name)
		}
	}
}

func TestKeys(t *testing.T) {
	r := parse(t, `{"b":1,"cookie":{},"a":1,"__created":1,"b":2,"__renewed":1,"__saves":[],"id":5}`)
	if got := r.Keys(); !slices.Equal(got, []string{"b", "a", "id"}) {
		t.Errorf("got %q, want b, a, id", got)
	}
}

func TestTimes(t *testing.T) {
	at := time.UnixMilli(946684800217)
	r := parse(t, `{"a":1}`)
	if created, ok := r.Created(); ok || !created.IsZero() || !r.Renewed().IsZero() {
		t.Errorf("without times: got %v, %t, %v", created, ok, r.Renewed())
	}
	r.SetCreated(at)
	if created, ok := r.Created(); !ok || !created.Equal(at) || !r.Renewed().Equal(at) {
		t.Errorf("created: got %v, %t, renewed %v, want both %v", created, ok, r.Renewed(), at)
	}
	r.SetRenewed(at.Add(time.Hour))
	if got := r.Renewed(); !got.Equal(at.Add(time.Hour)) {
		t.Errorf("renewed: got %v", got)
	}
	if got := string(r.Encode()); got != `{"a":1,"__created":946684800217,"__renewed":946688400217}` {
		t.Errorf("got %s", got)
	}

	// First sight is a creation, but no login.
	r = parse(t, `{"a":1}`)
	r.SetFirstSeen(at)
	if created, ok := r.Created(); !ok || !created.Equal(at) || !r.Renewed().IsZero() {
		t.Errorf("first seen: got created %v, renewed %v, want %v and zero", created, r.Renewed(), at)
	}
	r = parse(t, `{"__renewed":5}`)
	if r.SetFirstSeen(at); r.Renewed().UnixMilli() != 5 {
		t.Errorf("first seen after a renewal: got renewed %v, want it kept", r.Renewed())
	}
}

func TestSaveTags(t *testing.T) {
	before := parse(t, `{"a":1}`)
	tag := func(program, n int) string { return fmt.Sprintf("prog%02d%d", program, n) }
	r := before.Clone()
	add := func(r *row.Row, tag string) { r.AddSave(tag, &before, nil) }
	add(&r, tag(0, 1))
	add(&r, tag(1, 1))
	add(&r, tag(0, 2)) // takes the place of the first
	if got, want := string(r.Get("__saves")), `["prog011","prog002"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, c := range []struct {
		tag        string
		yes, known bool
	}{{tag(0, 2), true, true}, {tag(0, 1), false, true}, {tag(2, 1), false, true}} {
		if yes, known := r.SavedBy(c.tag, &before); yes != c.yes || known != c.known {
			t.Errorf("%s: got %t, %t, want %t, %t", c.tag, yes, known, c.yes, c.known)
		}
	}
	for program := range 8 {
		add(&r, tag(10+program, 1))
	}
	if yes, known := r.SavedBy(tag(0, 2), &before); yes || known {
		t.Errorf("after eight other programs: got %t, %t, want it unknown", yes, known)
	}
	after := r.Clone()
	add(&after, tag(20, 1))
	if yes, known := after.SavedBy(tag(0, 3), &r); yes || !known {
		t.Errorf("with tags from before: got %t, %t, want it known", yes, known)
	}
}

func TestMaxAge(t *testing.T) {
	for _, c := range []struct {
		cookie string
		want   time.Duration
		ok     bool
	}{
		{`{"originalMaxAge":60000}`, time.Minute, true},
		{`{"originalMaxAge":0.5}`, 500 * time.Microsecond, true},
		{`{"originalMaxAge":-5000}`, -5 * time.Second, true},
		{`{"originalMaxAge":1e300}`, row.MaxLifetime, true},
		{`{"originalMaxAge":-1e999}`, -row.MaxLifetime, true},
		{`{"originalMaxAge":null}`, 0, false},
		{`{"originalMaxAge":"60000"}`, 0, false},
		{`{}`, 0, false},
		{`5`, 0, false},
	} {
		r := parse(t, `{"cookie":`+c.cookie+`}`)
		if got, ok := r.MaxAge(); got != c.want || ok != c.ok {
			t.Errorf("%s: got %v, %t, want %v, %t", c.cookie, got, ok, c.want, c.ok)
		}
	}
}

// Every request that uses its session reads these.
func TestReadingAllocatesNothing(t *testing.T) {
	r := parse(t, `{`+recordCookie+`,"userId":42,"__created":946684800217}`)
	if n := testing.AllocsPerRun(100, func() {
		_, own := r.MaxAge()
		_, ok := r.Created()
		if !own || !ok || r.Get("userId") == nil {
			t.Error("got something absent")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestCookieObject(t *testing.T) {
	at := time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)
	c := row.NewCookie(cookie.Attributes{Domain: "example.com", Path: "/", SameSite: "Lax", Secure: true, Partitioned: true})
	r := parse(t, `{"a":1}`)
	r.SetLifetime(c, time.Minute, at)
	const members = `"secure":true,"httpOnly":true,"domain":"example.com","path":"/","sameSite":"lax"}`
	want := `{"cookie":{"originalMaxAge":60000,"partitioned":true,"expires":"2000-01-01T00:01:00.000Z",` + members + `,"a":1}`
	if got := string(r.Encode()); got != want {
		t.Errorf("first, as Express has it:\ngot  %s\nwant %s", got, want)
	}
	got, healthy := r.Cookie()
	a, err := r.Attributes()
	if !healthy || err != nil || a != (cookie.Attributes{Domain: "example.com", Path: "/", SameSite: "Lax", Secure: true, Partitioned: true}) {
		t.Errorf("read back: got healthy %t, %+v, %v", healthy, a, err)
	}
	r.SetExpires(got, at.Add(time.Hour))
	if got := string(r.Get("cookie")); !strings.Contains(got, `"expires":"2000-01-01T01:01:00.000Z"`) || !strings.Contains(got, `"originalMaxAge":60000`) {
		t.Errorf("SetExpires: got %s", got)
	}
	r.SetLifetime(got, 0, at)
	if got := string(r.Get("cookie")); !strings.Contains(got, `"expires":null`) || !strings.Contains(got, `"originalMaxAge":null`) {
		t.Errorf("until the browser ends: got %s", got)
	}
	for _, bad := range []string{`{}`, `{"cookie":5}`, `{"cookie":{"sameSite":"weird"}}`, `{"cookie":{"originalMaxAge":"5"}}`, `{"cookie":{"path":"/; Domain=x"}}`, `{"cookie":{"priority":"urgent"}}`, `{"cookie":{"domain":5}}`} {
		r := parse(t, bad)
		if _, healthy := r.Cookie(); healthy {
			t.Errorf("%s: got it healthy", bad)
		}
	}
}

func TestCloneIsIndependent(t *testing.T) {
	r := parse(t, `{"a":1}`)
	c := r.Clone()
	c.Set("a", []byte("2"))
	if string(r.Get("a")) != "1" || string(c.Raw) != `{"a":1}` {
		t.Errorf("got %s and raw %s, want the original as it was", r.Get("a"), c.Raw)
	}
	if string(c.Encode()) != `{"a":2}` {
		t.Errorf("the clone: got %s", c.Encode())
	}
}
