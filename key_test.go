package session_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/row"
)

type cart struct {
	Items []string       `json:"items"`
	Count map[string]int `json:"count,omitempty"`
	Note  *string        `json:"note"`
}

// secretive has a MarshalJSON whose error holds what it should not.
type secretive struct{}

func (secretive) MarshalJSON() ([]byte, error) { return nil, errors.New("not-for-eyes") }

// seeded returns a browser whose session has these members beside its cookie
// object.
func seeded(t testing.TB, store *hookedStore, m *session.Manager, members string) *browser {
	t.Helper()
	return seededRow(t, store, m, `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/"}`+members+`}`, time.Minute)
}

func seededRow(t testing.TB, store *hookedStore, m *session.Manager, row string, ttl time.Duration) *browser {
	t.Helper()
	id := fmt.Sprintf("seed%028d", len(store.named()))
	store.remember(id)
	if err := store.Store.Create(t.Context(), id, session.Record{Data: []byte(row), TTL: ttl}); err != nil {
		t.Fatal(err)
	}
	store.took()
	value, err := m.SignCookie(id)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{m: m, cookie: "session=" + value}
}

// roundTrip stores a value and reads it back in another request.
func roundTrip[T any](name string, v T, stored string) func(*testing.T) {
	return func(t *testing.T) {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := &browser{m: m}
		key := session.Key[T]("key")
		b.visit(func(s *session.Session) {
			if _, ok := key.Get(s); ok {
				t.Errorf("%s: Get before Set: got a value, want none", name)
			}
			key.Set(s, v)
			if got, ok := key.Get(s); !ok || !reflect.DeepEqual(got, v) {
				t.Errorf("%s: Get after Set: got %v, %v, want %v, true", name, got, ok, v)
			}
		})
		for _, row := range store.live(t) {
			if got := string(members(t, row)["key"]); got != stored {
				t.Errorf("%s: stored: got %s, want %s", name, got, stored)
			}
		}
		b.visit(func(s *session.Session) {
			got, ok := key.Get(s)
			if !ok || !reflect.DeepEqual(got, v) {
				t.Errorf("%s: Get: got %v, %v, want %v, true", name, got, ok, v)
			}
			store.took()
			key.Set(s, v)                                // the same bytes again
			key.Update(s, func(v T) T { return v })      // and again
			session.Key[string]("absent").Delete(s)      // nothing there
			_, taken := session.Key[int]("none").Take(s) // nor there
			if taken {
				t.Errorf("%s: Take of an absent key: got a value", name)
			}
		})
		if calls := store.took(); calls != "Load" { // whether it still is so
			t.Errorf("%s: no change: got calls %q, want one look", name, calls)
		}
		b.visit(func(s *session.Session) {
			if got, ok := key.Take(s); !ok || !reflect.DeepEqual(got, v) {
				t.Errorf("%s: Take: got %v, %v, want %v, true", name, got, ok, v)
			}
			if _, ok := key.Take(s); ok {
				t.Errorf("%s: second Take: got a value, want none", name)
			}
			if _, ok := key.Get(s); ok {
				t.Errorf("%s: Get after Take: got a value, want none", name)
			}
		})
		b.visit(func(s *session.Session) {
			if _, ok := key.Get(s); ok || len(s.Keys()) != 0 {
				t.Errorf("%s: the next request: got a value, want none", name)
			}
			key.Set(s, v)
		})
		b.visit(func(s *session.Session) { key.Delete(s) })
		b.visit(func(s *session.Session) {
			if _, ok := key.Get(s); ok {
				t.Errorf("%s: after Delete: got a value, want none", name)
			}
		})
	}
}

func TestKeyTypes(t *testing.T) {
	note := "n"
	at := time.Date(2026, 11, 23, 10, 57, 15, 123456789, time.UTC)
	for name, test := range map[string]func(*testing.T){
		"string":             roundTrip("string", "ada", `"ada"`),
		"empty string":       roundTrip("empty string", "", `""`),
		"HTML characters":    roundTrip("HTML characters", `<b>&'</b>`, `"<b>&'</b>"`),
		"control characters": roundTrip("control characters", "a\x00\x1f\n\"\\", `"a\u0000\u001f\n\"\\"`),
		"beyond ASCII":       roundTrip("beyond ASCII", "Zoë 😀 кот", `"Zoë 😀 кот"`),
		"int":                roundTrip("int", -7, `-7`),
		"zero":               roundTrip("zero", 0, `0`),
		"int64":              roundTrip("int64", int64(math.MaxInt64), `9223372036854775807`),
		"uint64":             roundTrip("uint64", uint64(math.MaxUint64), `18446744073709551615`),
		"float64":            roundTrip("float64", 0.1, `0.1`),
		"bool":               roundTrip("bool", false, `false`),
		"struct":             roundTrip("struct", cart{Items: []string{"<a>", "b"}, Count: map[string]int{"b": 2, "a": 1}, Note: &note}, `{"items":["<a>","b"],"count":{"a":1,"b":2},"note":"n"}`),
		"slice":              roundTrip("slice", []int{1, 2, 3}, `[1,2,3]`),
		"empty slice":        roundTrip("empty slice", []int{}, `[]`),
		"nil slice":          roundTrip("nil slice", []int(nil), `null`),
		"bytes":              roundTrip("bytes", []byte{0, 255}, `"AP8="`),
		"array":              roundTrip("array", [2]string{"a", "b"}, `["a","b"]`),
		"map":                roundTrip("map", map[string]any{"b": 1.5, "a": nil}, `{"a":null,"b":1.5}`),
		"nil map":            roundTrip("nil map", map[string]int(nil), `null`),
		"pointer":            roundTrip("pointer", &note, `"n"`),
		"nil pointer":        roundTrip("nil pointer", (*string)(nil), `null`),
		"time":               roundTrip("time", at, `"2026-11-23T10:57:15.123456789Z"`),
		"duration":           roundTrip("duration", time.Hour, `3600000000000`),
		"raw":                roundTrip("raw", json.RawMessage(`{"a":[1,2.50]}`), `{"a":[1,2.50]}`),
		"raw null":           roundTrip("raw null", json.RawMessage(`null`), `null`),
		"any":                roundTrip[any]("any", map[string]any{"a": []any{1., "b", nil}}, `{"a":[1,"b",null]}`),
		"nil any":            roundTrip[any]("nil any", nil, `null`),
		"number":             roundTrip("number", json.Number("12345678901234567890.5"), `12345678901234567890.5`),
	} {
		t.Run(name, test)
	}
}

func TestKeyNull(t *testing.T) {
	store := newHookedStore()
	log := &logRecorder{}
	m := newManager(t, store, session.Config{Logger: log.logger()})
	b := seeded(t, store, m, `,"n":null`)
	check := func(name string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("null as %s: got present %v, want %v", name, got, want)
		}
	}
	b.visit(func(s *session.Session) {
		_, ok := session.Key[string]("n").Get(s)
		check("string", ok, false)
		_, ok = session.Key[int]("n").Get(s)
		check("int", ok, false)
		_, ok = session.Key[bool]("n").Get(s)
		check("bool", ok, false)
		_, ok = session.Key[cart]("n").Get(s)
		check("struct", ok, false)
		_, ok = session.Key[time.Time]("n").Get(s)
		check("time", ok, false)
		_, ok = session.Key[[2]int]("n").Get(s)
		check("array", ok, false)
		p, ok := session.Key[*int]("n").Get(s)
		check("pointer", ok && p == nil, true)
		v, ok := session.Key[any]("n").Get(s)
		check("any", ok && v == nil, true)
		mp, ok := session.Key[map[string]int]("n").Get(s)
		check("map", ok && mp == nil, true)
		sl, ok := session.Key[[]int]("n").Get(s)
		check("slice", ok && sl == nil, true)
		raw, ok := session.Key[json.RawMessage]("n").Get(s)
		check("raw", ok && string(raw) == "null", true)
		if got := s.Keys(); len(got) != 1 {
			t.Errorf("Keys: got %d, want 1", len(got))
		}
		session.Key[int]("n").Update(s, func(n int) int { return n + 1 }) // from zero
		if n, ok := session.Key[int]("n").Get(s); n != 1 || !ok {
			t.Errorf("Update of null: got %d, %v, want 1, true", n, ok)
		}
	})
	if strings.Contains(log.String(), "another type") {
		t.Error("log: got null reported as another type")
	}
}

func TestKeyMismatchIsLoggedOnceByName(t *testing.T) {
	log := &logRecorder{}
	store := newHookedStore()
	m := newManager(t, store, session.Config{Logger: log.logger()})
	b := seeded(t, store, m, `,"user":{"not-for-eyes":true},"count":"not-for-eyes","big":1e400`)
	for range 3 {
		resp := b.visit(func(s *session.Session) {
			if v, ok := userKey.Get(s); ok || v != "" {
				t.Error("object as string: got a value, want none")
			}
			if v, ok := countKey.Get(s); ok || v != 0 {
				t.Error("string as int: got a value, want none")
			}
			if _, ok := session.Key[float64]("big").Get(s); ok {
				t.Error("1e400 as float64: got a value, want none")
			}
			if err := s.Err(); err != nil {
				t.Errorf("Err: got %v, want none", err)
			}
		})
		wantResponse(t, "mismatch", resp, 200, "nothing")
	}
	for _, name := range []string{"user", "count", "big"} {
		if got := strings.Count(log.String(), "key="+name); got != 1 {
			t.Errorf("log: got %s %d times, want once", name, got)
		}
	}
	if strings.Contains(log.String(), "not-for-eyes") {
		t.Error("log: got a stored value")
	}
	if !strings.Contains(log.String(), "type=int") {
		t.Error("log: got no type")
	}
}

// A value that overflows its type in part must not be handed out half decoded.
func TestKeyMismatchGivesTheZeroValue(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := seeded(t, store, m, `,"cart":{"items":["a"],"count":{"x":"y"}}`)
	b.visit(func(s *session.Session) {
		if got, ok := session.Key[cart]("cart").Get(s); ok || got.Items != nil {
			t.Errorf("got %d items, %v, want none", len(got.Items), ok)
		}
		if got, ok := session.Key[cart]("cart").Take(s); ok || got.Items != nil {
			t.Errorf("Take: got %d items, %v, want none", len(got.Items), ok)
		}
	})
}

func TestKeyUpdateOfAnotherType(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{})
	b := seeded(t, store, m, `,"count":"not-for-eyes"`)
	resp := b.visit(func(s *session.Session) {
		countKey.Update(s, func(int) int { t.Error("got f called"); return 1 })
		err := s.Err()
		if !errors.Is(err, session.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "count") {
			t.Errorf("Err: got another error than ErrInvalid that names the key")
		}
		if strings.Contains(fmt.Sprint(err), "not-for-eyes") {
			t.Error("Err: got a stored value")
		}
	})
	wantResponse(t, "Update", resp, 500, "nothing")
	wantCalls(t, "Update", store, "Load")
}

func TestKeyInvalid(t *testing.T) {
	type change struct {
		name string
		do   func(*session.Session)
	}
	cases := []change{
		{"a function", func(s *session.Session) { session.Key[func()]("f").Set(s, func() {}) }},
		{"a channel in any", func(s *session.Session) { session.Key[any]("f").Set(s, make(chan int)) }},
		{"not a number", func(s *session.Session) { session.Key[float64]("f").Set(s, math.NaN()) }},
		{"infinity", func(s *session.Session) { session.Key[float64]("f").Set(s, math.Inf(1)) }},
		{"failing MarshalJSON", func(s *session.Session) { session.Key[secretive]("f").Set(s, secretive{}) }},
		{"raw that is no JSON", func(s *session.Session) { session.Key[json.RawMessage]("f").Set(s, json.RawMessage(`{`)) }},
		{"raw in invalid UTF-8", func(s *session.Session) { session.Key[json.RawMessage]("f").Set(s, json.RawMessage("\"\xff\"")) }},
		{"year 10000", func(s *session.Session) {
			session.Key[time.Time]("f").Set(s, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
		}},
		{"Update to a bad value", func(s *session.Session) {
			session.Key[float64]("f").Update(s, func(float64) float64 { return math.NaN() })
		}},
		{"name that is no UTF-8", func(s *session.Session) { session.Key[int]("\xff").Set(s, 1) }},
		{"too much data", func(s *session.Session) { keyA.Set(s, strings.Repeat("x", 64<<10)) }},
	}
	// Express's Session and its prototypes, and this package's own.
	reserved := []string{
		"", "cookie", "id", "req", "save", "touch", "reload", "destroy", "regenerate", "resetMaxAge",
		"constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf", "__proto__",
		"__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__created", "__renewed", "__saves", "__sealed", "__bound", "__token", "__find_userId",
	}
	if got, want := len(row.ReservedNames()), len(reserved)-1; got != want { // the last has a reserved beginning
		t.Errorf("reserved names: got %d, want %d of this test's", got, want)
	}
	for _, name := range reserved {
		cases = append(cases,
			change{fmt.Sprintf("Set of %q", name), func(s *session.Session) { session.Key[int](name).Set(s, 1) }},
			change{fmt.Sprintf("Update of %q", name), func(s *session.Session) { session.Key[int](name).Update(s, func(int) int { return 1 }) }},
			change{fmt.Sprintf("Delete of %q", name), func(s *session.Session) { session.Key[int](name).Delete(s) }},
		)
	}
	for _, c := range cases {
		for _, known := range []bool{false, true} {
			log, store := &logRecorder{}, newHookedStore()
			m := newManager(t, store, session.Config{Logger: log.logger()})
			b, calls := &browser{m: m}, ""
			if known {
				b, calls = login(t, m), "Load"
			}
			before := fmt.Sprint(store.live(t))
			store.took()
			var err error
			resp := b.visit(func(s *session.Session) {
				keyB.Set(s, "not saved either")
				c.do(s)
				keyB.Set(s, "nor this")
				if c.name != "too much data" {
					err = s.Err()
				} else {
					err = s.Save(t.Context())
				}
			})
			wantResponse(t, c.name, resp, 500, "nothing")
			wantCalls(t, c.name, store, calls)
			if !errors.Is(err, session.ErrInvalid) {
				t.Errorf("%s: got an error other than ErrInvalid", c.name)
			}
			if fmt.Sprint(store.live(t)) != before {
				t.Errorf("%s: got something saved, want nothing", c.name)
			}
			if strings.Contains(log.String()+fmt.Sprint(err), "not-for-eyes") {
				t.Errorf("%s: got a value in the error or the log", c.name)
			}
		}
	}
}

func TestKeyReservedNamesRead(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store, session.Config{AbsoluteTimeout: time.Hour})
	b := login(t, m)
	store.took()
	b.visit(func(s *session.Session) {
		for _, name := range []session.Key[any]{"cookie", "__created", "__sealed", "id", ""} {
			if _, ok := name.Get(s); ok {
				t.Errorf("Get of %q: got a value, want none", name)
			}
		}
		if _, ok := session.Key[any]("__created").Take(s); ok {
			t.Error("Take of __created: got a value, want none")
		}
		if got := s.Keys(); len(got) != 1 || got[0] != "user" {
			t.Errorf("Keys: got %q, want user only", got)
		}
	})
	wantCalls(t, "reads", store, "Load")
}

func TestMaxBytes(t *testing.T) {
	store := newHookedStore()
	small := newManager(t, store, session.Config{MaxBytes: 300})
	large := newManager(t, store, session.Config{MaxBytes: 100_000})
	fill := func(n int) func(*session.Session) {
		return func(s *session.Session) { keyA.Set(s, strings.Repeat("x", n)) }
	}
	b := login(t, small)
	size := func() (n int) {
		for _, row := range store.live(t) {
			n = len(row)
		}
		return n
	}
	empty := size() + len(`,"a":""`)
	wantResponse(t, "to the last byte", b.visit(fill(300-empty)), 200, "nothing")
	if size() != 300 {
		t.Errorf("got a record of %d bytes, want 300", size())
	}
	wantResponse(t, "one more", b.visit(fill(301-empty)), 500, "nothing")
	if size() != 300 {
		t.Errorf("got a record of %d bytes, want 300", size())
	}
	big := b.with(large)
	wantResponse(t, "larger limit", big.visit(fill(1000-empty)), 200, "nothing")
	wantResponse(t, "oversized, growing", b.visit(fill(1001-empty)), 500, "nothing")
	wantResponse(t, "oversized, the same size", b.visit(func(s *session.Session) { keyA.Set(s, strings.Repeat("y", 1000-empty)) }), 200, "nothing")
	wantResponse(t, "oversized, shrinking", b.visit(fill(900-empty)), 200, "nothing")
	wantResponse(t, "oversized, reading", b.visit(func(s *session.Session) { keyA.Get(s) }), 200, "nothing")
	wantResponse(t, "oversized, renewed", b.visit(func(s *session.Session) { s.Renew() }), 200, "set")
	wantResponse(t, "oversized, deleted", b.visit(func(s *session.Session) { keyA.Delete(s) }), 200, "nothing")
	if size() > 300 {
		t.Errorf("got a record of %d bytes, want at most 300", size())
	}
	fresh := &browser{m: small}
	wantResponse(t, "new, too large", fresh.visit(fill(300)), 500, "nothing")
}

// What the handler does to a value after Set, or to one that Get gave it, does
// not reach the session.
func TestKeyCopies(t *testing.T) {
	store := newHookedStore()
	b := &browser{m: newManager(t, store, session.Config{})}
	cart := session.Key[[]string]("cart")
	raw := session.Key[json.RawMessage]("raw")
	b.visit(func(s *session.Session) {
		items := []string{"a", "b"}
		cart.Set(s, items)
		items[0] = "changed"
		message := json.RawMessage(`[1]`)
		raw.Set(s, message)
		message[1] = '9'
	})
	b.visit(func(s *session.Session) {
		got, _ := cart.Get(s)
		if len(got) != 2 || got[0] != "a" {
			t.Errorf("Get: got %q, want the value as it was set", got)
		}
		got[0] = "changed"
		again, _ := cart.Get(s)
		if again[0] != "a" {
			t.Errorf("second Get: got %q, want the value as it was set", again)
		}
		message, _ := raw.Get(s)
		message[1] = '9'
	})
	b.visit(func(s *session.Session) {
		if message, _ := raw.Get(s); string(message) != `[1]` {
			t.Errorf("raw: got %s, want [1]", message)
		}
		if got, _ := cart.Get(s); got[0] != "a" {
			t.Errorf("cart: got %q, want the value as it was set", got)
		}
	})
}

// f may use the session, even change it: no lock is held while it runs.
func TestKeyUpdateMayUseTheSession(t *testing.T) {
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	runs := 0
	b.visit(func(s *session.Session) {
		countKey.Update(s, func(n int) int {
			runs++
			if user, _ := userKey.Get(s); user == "ada" {
				keyA.Set(s, "seen")
			}
			return n + 1
		})
	})
	b.visit(func(s *session.Session) {
		n, _ := countKey.Get(s)
		a, _ := keyA.Get(s)
		if n != 1 || a != "seen" || runs != 1 {
			t.Errorf("got %d, %q after %d runs, want 1, seen, 1", n, a, runs)
		}
	})
}

// The goroutines meet at a barrier, and each one yields inside f, so that the
// others have always read the same value.
func TestKeyUpdateByGoroutinesOfOneRequest(t *testing.T) {
	const n = 16
	store := newHookedStore()
	b := login(t, newManager(t, store, session.Config{}))
	store.took()
	b.visit(func(s *session.Session) {
		var inside, done sync.WaitGroup
		inside.Add(n)
		for range n {
			done.Go(func() {
				var once sync.Once
				countKey.Update(s, func(n int) int {
					once.Do(func() { inside.Done(); inside.Wait() })
					return n + 1
				})
			})
		}
		done.Wait()
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count in the request: got %d, want %d", got, n)
		}
	})
	wantCalls(t, "updates", store, "Load Update")
	b.visit(func(s *session.Session) {
		if got, _ := countKey.Get(s); got != n {
			t.Errorf("count: got %d, want %d", got, n)
		}
	})
}

func TestKeyChangesInARow(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(*session.Session)
		want  int // -1: absent
		calls string
	}{
		{"set, set back", func(s *session.Session) { countKey.Set(s, 2); countKey.Set(s, 1) }, 1, "Load Load"},
		{"delete, set back", func(s *session.Session) { countKey.Delete(s); countKey.Set(s, 1) }, 1, "Load Load"},
		{"take, set", func(s *session.Session) { countKey.Take(s); countKey.Set(s, 5) }, 5, "Load Update"},
		{"set, update", func(s *session.Session) { countKey.Set(s, 5); countKey.Update(s, double) }, 10, "Load Update"},
		{"update, set", func(s *session.Session) { countKey.Update(s, double); countKey.Set(s, 7) }, 7, "Load Update"},
		{"update, update", func(s *session.Session) { countKey.Update(s, double); countKey.Update(s, double) }, 4, "Load Update"},
		{"update, delete", func(s *session.Session) { countKey.Update(s, double); countKey.Delete(s) }, -1, "Load Update"},
		{"delete, update", func(s *session.Session) { countKey.Delete(s); countKey.Update(s, func(n int) int { return n + 3 }) }, 3, "Load Update"},
		{"delete, delete", func(s *session.Session) { countKey.Delete(s); countKey.Delete(s) }, -1, "Load Update"},
	} {
		store := newHookedStore()
		m := newManager(t, store, session.Config{})
		b := seeded(t, store, m, `,"count":1,"z":"last"`)
		b.visit(c.do)
		wantCalls(t, c.name, store, c.calls)
		b.visit(func(s *session.Session) {
			n, ok := countKey.Get(s)
			if ok != (c.want >= 0) || ok && n != c.want {
				t.Errorf("%s: got %d, %v, want %d", c.name, n, ok, c.want)
			}
			if z, _ := session.Key[string]("z").Get(s); z != "last" {
				t.Errorf("%s: another key: got %q, want last", c.name, z)
			}
		})
	}
}

func double(n int) int { return 2 * n }

func TestKeyMismatchUsesTheLogger(t *testing.T) {
	log := &logRecorder{}
	store := newHookedStore()
	m := newManager(t, store, session.Config{Logger: slog.New(slog.NewJSONHandler(log, nil))})
	b := seeded(t, store, m, `,"user":5`)
	b.visit(func(s *session.Session) { userKey.Take(s) })
	if !strings.Contains(log.String(), `"level":"WARN"`) || !strings.Contains(log.String(), `"key":"user"`) {
		t.Error("log: got no warning that names the key")
	}
}
