package jsonobj_test

import (
	"strings"
	"testing"

	"github.com/pgsession/session/internal/jsonobj"
)

func scan(tb testing.TB, text string) jsonobj.Object {
	tb.Helper()
	o, ok := jsonobj.Scan([]byte(text))
	if !ok {
		tb.Fatalf("%s: got no object", text)
	}
	return o
}

// What is not replaced keeps its bytes and its place.
func TestObjectChanges(t *testing.T) {
	set := func(name, value string) func(*jsonobj.Object) {
		return func(o *jsonobj.Object) { o.Set(name, []byte(value)) }
	}
	remove := func(name string) func(*jsonobj.Object) {
		return func(o *jsonobj.Object) { o.Set(name, nil) }
	}
	first := func(name, value string) func(*jsonobj.Object) {
		return func(o *jsonobj.Object) { o.SetFirst(name, []byte(value)) }
	}
	for _, c := range []struct {
		name string
		text string
		do   func(*jsonobj.Object)
		want string
	}{
		{"nothing", `{ "a" : [ 1 ] , "b":2 }`, func(*jsonobj.Object) {}, `{"a" : [ 1 ],"b":2}`},
		{"a new one goes to the end", `{"a" : 1}`, set("b", "2"), `{"a" : 1,"b":2}`},
		{"into an empty object", `{}`, set("b", "2"), `{"b":2}`},
		{"replaced where it stands", `{"a":1,"b":2}`, set("a", `"x"`), `{"a":"x","b":2}`},
		{"the last duplicate stays", `{"a":1,"b":2,"a":3,"c":4}`, set("a", "5"), `{"b":2,"a":5,"c":4}`},
		{"its key's spelling stays", `{"\u0061":1}`, set("a", "2"), `{"\u0061":2}`},
		{"a key that needs escapes", `{}`, set("\"<\n", "1"), `{"\"<\n":1}`},
		{"all duplicates are removed", `{"a":1,"b":2,"a":3}`, remove("a"), `{"b":2}`},
		{"an absent one is removed", `{"b": 2}`, remove("a"), `{"b": 2}`},
		{"a new one goes first", `{"a":1}`, first("b", "2"), `{"b":2,"a":1}`},
		{"first, but it stands elsewhere", `{"a":1,"b":2}`, first("b", "3"), `{"a":1,"b":3}`},
		{"first removes as well", `{"a":1,"b":2}`, func(o *jsonobj.Object) { o.SetFirst("b", nil) }, `{"a":1}`},
		{"added beside its duplicate", `{"a":1}`, func(o *jsonobj.Object) { o.Add("a", []byte("2")) }, `{"a":1,"a":2}`},
		{"deleted by the beginning of their names", `{"ab1":1,"b":2,"\u0061b":3,"a":4}`, func(o *jsonobj.Object) { o.DeletePrefix("ab") }, `{"b":2,"a":4}`},
		{"moved before another", `{"a":1,"b":2,"c" : 3}`, func(o *jsonobj.Object) { o.Move("c", "a", false) }, `{"c" : 3,"a":1,"b":2}`},
		{"moved behind another", `{"a":1,"b":2,"c":3}`, func(o *jsonobj.Object) { o.Move("a", "b", true) }, `{"b":2,"a":1,"c":3}`},
		{"moved behind the last", `{"a":1,"b":2,"c":3}`, func(o *jsonobj.Object) { o.Move("a", "c", true) }, `{"b":2,"c":3,"a":1}`},
		{"moved to where it stands", `{"a":1,"b":2}`, func(o *jsonobj.Object) { o.Move("b", "a", true) }, `{"a":1,"b":2}`},
		{"moved beside an absent one", `{"a":1,"b":2}`, func(o *jsonobj.Object) { o.Move("b", "c", false) }, `{"a":1,"b":2}`},
		{"an absent one is moved", `{"a":1,"b":2}`, func(o *jsonobj.Object) { o.Move("c", "a", false) }, `{"a":1,"b":2}`},
		{"moved beside itself", `{"a":1,"b":2}`, func(o *jsonobj.Object) { o.Move("b", "b", false) }, `{"a":1,"b":2}`},
		{"split and joined", `{"a":1,"b":2,"c":3}`, func(o *jsonobj.Object) {
			b, others := o.Split(func(name string) bool { return name == "b" })
			b.Append(others)
			*o = b
		}, `{"b":2,"a":1,"c":3}`},
	} {
		text := []byte(c.text)
		o, ok := jsonobj.Scan(text)
		if !ok {
			t.Fatalf("%s: got no object", c.name)
		}
		c.do(&o)
		if got := string(o.Encode()); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if string(text) != c.text {
			t.Errorf("%s: what was scanned was written to", c.name)
		}
	}
}

func TestObjectBeside(t *testing.T) {
	o := scan(t, `{"a":1,"b":2,"c":3}`)
	for _, c := range []struct {
		a, b string
		want bool
	}{{"a", "b", true}, {"b", "a", true}, {"a", "c", false}, {"a", "a", false}, {"a", "d", false}, {"d", "a", false}} {
		if got := o.Beside(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: got %t, want %t", c.a, c.b, got, c.want)
		}
	}
}

func TestObjectCloneIsIndependent(t *testing.T) {
	o := scan(t, `{"a":1,"b":2}`)
	clone := o.Clone()
	clone.Set("a", []byte("9"))
	clone.Set("b", nil)
	clone.Set("c", []byte("3"))
	clone.Move("c", "a", false)
	clone.Move("a", "c", false)
	if got := string(o.Encode()); got != `{"a":1,"b":2}` {
		t.Errorf("the original after changes of the clone: got %s", got)
	}
	if got := string(clone.Encode()); got != `{"a":9,"c":3}` {
		t.Errorf("the clone: got %s", got)
	}
}

func TestObjectAllYieldsDuplicates(t *testing.T) {
	o := scan(t, `{"a":1,"\u0061":2,"b":3}`)
	var got []string
	for name, value := range o.All() {
		got = append(got, name+"="+string(value))
		if name == "b" {
			break
		}
	}
	if text := strings.Join(got, " "); text != "a=1 a=2 b=3" || o.Len() != 3 {
		t.Errorf("got %s, %d members, want a=1 a=2 b=3, 3", text, o.Len())
	}
}

func TestZeroObjectIsEmpty(t *testing.T) {
	var o jsonobj.Object
	if got := string(o.Encode()); got != "{}" || o.Get("a") != nil || o.Len() != 0 {
		t.Errorf("got %s, want {}", got)
	}
	o.Set("a", []byte("1"))
	if got := string(o.Encode()); got != `{"a":1}` {
		t.Errorf("after Set: got %s", got)
	}
}

// Every request that reads a session looks into its cookie object.
func TestLookupAllocatesNothing(t *testing.T) {
	obj := []byte(`{"originalMaxAge":60000,"partitioned":true,"priority":"high","expires":null,"secure":true,"httpOnly":true,"domain":"a","path":"/","sameSite":"lax"}`)
	if n := testing.AllocsPerRun(100, func() {
		if len(jsonobj.Lookup(obj, "originalMaxAge")) != 5 {
			t.Error("got another value")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
