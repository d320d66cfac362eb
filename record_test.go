package session_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// The record is connect-pg-simple's row. What is in it and was not touched
// stays as it is, byte for byte.

const recordCookie = `"cookie":{"originalMaxAge":60000,"expires":"2000-01-01T00:01:00.000Z","httpOnly":true,"path":"/"}`

func TestRecordKeepsUntouchedBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		stored string
		do     func(*session.Session)
		want   string
	}{
		{"add a key", `{` + recordCookie + `,"a":1}`, setQ, `{` + recordCookie + `,"a":1,"q":"1"}`},
		{"replace a key where it stands", `{` + recordCookie + `,"q":"0","a":1}`, setQ, `{` + recordCookie + `,"q":"1","a":1}`},
		{"delete a key", `{` + recordCookie + `,"q":"0","a":1}`, deleteQ, `{` + recordCookie + `,"a":1}`},
		{"delete the last key", `{` + recordCookie + `,"q":"0"}`, deleteQ, `{` + recordCookie + `}`},
		{"delete and set: stays in its place or goes to the end", `{` + recordCookie + `,"q":"0","a":1}`, func(s *session.Session) { deleteQ(s); setQ(s) }, `{` + recordCookie + `,"q":"1","a":1}`},
		{"cookie in the middle", `{"10":1,` + recordCookie + `,"a":1}`, setQ, `{"10":1,` + recordCookie + `,"a":1,"q":"1"}`},
		{"cookie last", `{"a":1,` + recordCookie + `}`, setQ, `{"a":1,` + recordCookie + `,"q":"1"}`},
		{"white space inside members", `{` + recordCookie + `,"a" : { "b" :	[ 1 , 2 ] } }`, setQ, `{` + recordCookie + `,"a" : { "b" :	[ 1 , 2 ] },"q":"1"}`},
		{"line breaks", "{\n  " + recordCookie + ",\r\n\t\"a\":\n1\n}\n", setQ, "{" + recordCookie + ",\"a\":\n1,\"q\":\"1\"}"},
		{"white space around", " \n{" + recordCookie + "}\t ", setQ, `{` + recordCookie + `,"q":"1"}`},
		{"escapes", `{` + recordCookie + `,"\u0061":"\u00e9\u003c\/\ud83d\ude00"}`, setQ, `{` + recordCookie + `,"\u0061":"\u00e9\u003c\/\ud83d\ude00","q":"1"}`},
		{"NUL and lone surrogates", `{` + recordCookie + `,"nul":"a\u0000b","ls":"\ud800x"}`, setQ, `{` + recordCookie + `,"nul":"a\u0000b","ls":"\ud800x","q":"1"}`},
		{"characters that Go escapes", `{` + recordCookie + `,"h":"<b>&'` + "\u2028\u2029\u007f" + `"}`, setQ, `{` + recordCookie + `,"h":"<b>&'` + "\u2028\u2029\u007f" + `","q":"1"}`},
		{"numbers", `{` + recordCookie + `,"n":9007199254740993,"f":1.0,"e":1e3,"m":-0,"h":1e400,"x":0.10}`, setQ, `{` + recordCookie + `,"n":9007199254740993,"f":1.0,"e":1e3,"m":-0,"h":1e400,"x":0.10,"q":"1"}`},
		{"duplicate keys that nobody touched", `{` + recordCookie + `,"a":1,"a":2}`, setQ, `{` + recordCookie + `,"a":1,"a":2,"q":"1"}`},
		{"duplicates of the key that is set", `{` + recordCookie + `,"q":"x","a":1,"q":"y"}`, setQ, `{` + recordCookie + `,"a":1,"q":"1"}`},
		{"duplicates of the key that is deleted", `{` + recordCookie + `,"q":"x","a":1,"q":"y"}`, deleteQ, `{` + recordCookie + `,"a":1}`},
		{"a key in escapes is set", `{` + recordCookie + `,"\u0071":"x"}`, setQ, `{` + recordCookie + `,"\u0071":"1"}`},
		{"brackets and quotes in strings", `{` + recordCookie + `,"a":"}]\",{[\\","b":{"c":"}"}}`, setQ, `{` + recordCookie + `,"a":"}]\",{[\\","b":{"c":"}"},"q":"1"}`},
		{"a nested cookie", `{"a":{"cookie":{"originalMaxAge":1}},` + recordCookie + `}`, setQ, `{"a":{"cookie":{"originalMaxAge":1}},` + recordCookie + `,"q":"1"}`},
		{"names that Express reserves", `{` + recordCookie + `,"id":"x","__proto__":6,"toString":4}`, setQ, `{` + recordCookie + `,"id":"x","__proto__":6,"toString":4,"q":"1"}`},
		{"deep nesting", `{` + recordCookie + `,"d":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, setQ, `{` + recordCookie + `,"d":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `,"q":"1"}`},
		{"unknown members of the cookie", `{"cookie":{"originalMaxAge":60000,"foo" : "bar","data":1},"a":1}`, setQ, `{"cookie":{"originalMaxAge":60000,"foo" : "bar","data":1},"a":1,"q":"1"}`},
		{"same value", `{"a":1 , "q" : "1",` + recordCookie + `}`, setQ, `{"a":1 , "q" : "1",` + recordCookie + `}`},
		{"renewal alone", `{"a":1 , ` + recordCookie + ` }`, func(s *session.Session) { s.Renew() }, `{"a":1,` + recordCookie + `,"__renewed":946684800000}`},
		{"idle timeout: only the cookie changes", `{"a":1 ,"cookie": {"originalMaxAge":60000,"expires":null,"path" : "/x"}, "b":2}`, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, `{"a":1,"cookie":{"originalMaxAge":3600000,"expires":"2000-01-01T01:00:00.000Z","path" : "/x"},"b":2}`},
		{"a session in a JSON string", jsonString(`{` + recordCookie + `, "a" : "double"}`), setQ, `{` + recordCookie + `,"a" : "double","q":"1"}`},
		{"a session in a JSON string, read", jsonString(`{` + recordCookie + `, "a" : "double"}`), readUser, jsonString(`{` + recordCookie + `, "a" : "double"}`)},
		{"a session in a JSON string, escapes", jsonString(`{` + recordCookie + `,"a":"\ud800\u0000\""}`), setQ, `{` + recordCookie + `,"a":"\ud800\u0000\"","q":"1"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newHookedStore()
				b := seededRow(t, store, newManager(t, store, session.Config{}), c.stored, time.Minute)
				if resp := b.visit(readUser); resp.status != 200 {
					t.Errorf("read: got status %d, want 200", resp.status)
				}
				if got := onlyRecord(t, store); got != c.stored {
					t.Errorf("read: got %s, want it as it was", got)
				}
				if resp := b.visit(c.do); resp.status != 200 {
					t.Errorf("write: got status %d, want 200", resp.status)
				}
				if got := onlyRecord(t, store); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
			})
		})
	}
}

func setQ(s *session.Session)    { session.Key[string]("q").Set(s, "1") }
func deleteQ(s *session.Session) { session.Key[string]("q").Delete(s) }

func jsonString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func onlyRecord(t *testing.T, store *hookedStore) string {
	t.Helper()
	live := store.live(t)
	if len(live) != 1 {
		t.Fatalf("got %d records, want 1", len(live))
	}
	for _, row := range live {
		return row
	}
	return ""
}

// Rows that no healthy program writes: read never changes them; a write mends
// the cookie object so that Express can use the row, and keeps everything else.
func TestOddRows(t *testing.T) {
	const fresh = `"cookie":{"originalMaxAge":86400000,"expires":"2000-01-02T00:00:00.000Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"}`
	for _, c := range []struct {
		name   string
		stored string
		want   string // after Set of q; "" for any valid JSON
		log    string // if set: the row is no session, and stays as it is
	}{
		{"no cookie", `{"a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"cookie null", `{"cookie":null,"a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"cookie a string", `{"cookie":"x","a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"cookie a number", `{"cookie":5,"a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"cookie an array", `{"cookie":[],"a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"cookie empty", `{"cookie":{},"a":1}`, `{"cookie":{},"a":1,"q":"1"}`, ""},
		{"two cookies: the last counts", `{"cookie":5,` + recordCookie + `,"a":1}`, `{"cookie":5,` + recordCookie + `,"a":1,"q":"1"}`, ""},
		{"empty object", `{}`, `{` + fresh + `,"q":"1"}`, ""},

		{"null", `null`, "", "not a JSON object"},
		{"number", `5`, "", "not a JSON object"},
		{"false", `false`, "", "not a JSON object"},
		{"array", `[]`, "", "not a JSON object"},
		{"string that is no JSON", `"abc"`, "", "not a JSON object"},
		{"string with a number", `"5"`, "", "not a JSON object"},
		{"string in a string", jsonString(jsonString(`{"a":1}`)), "", "not a JSON object"},
		{"empty string", `""`, "", "not a JSON object"},
		{"no JSON at all", `{"not-for-eyes":`, "", "not valid JSON"},
		{"nothing", ``, "", "not valid JSON"},
		{"two objects", `{}{}`, "", "not valid JSON"},
		{"trailing comma", `{"a":1,}`, "", "not valid JSON"},

		{"expires garbage", `{"cookie":{"originalMaxAge":60000,"expires":"garbage"},"a":1}`, `{"cookie":{"originalMaxAge":60000,"expires":"garbage"},"a":1,"q":"1"}`, ""},
		{"expires past: the column decides", `{"cookie":{"originalMaxAge":60000,"expires":"1999-01-01T00:00:00.000Z"},"a":1}`, `{"cookie":{"originalMaxAge":60000,"expires":"1999-01-01T00:00:00.000Z"},"a":1,"q":"1"}`, ""},
		{"expires a number", `{"cookie":{"originalMaxAge":60000,"expires":1795436219168},"a":1}`, `{"cookie":{"originalMaxAge":60000,"expires":1795436219168},"a":1,"q":"1"}`, ""},
		{"expires, no originalMaxAge", `{"cookie":{"expires":"2030-01-01T00:00:00.000Z"},"a":1}`, `{"cookie":{"expires":"2030-01-01T00:00:00.000Z"},"a":1,"q":"1"}`, ""},
		{"originalMaxAge a string", `{"cookie":{"originalMaxAge":"60000","path":"/x"},"a":1}`, `{` + fresh + `,"a":1,"q":"1"}`, ""},
		{"originalMaxAge a fraction", `{"cookie":{"originalMaxAge":60000.5},"a":1}`, `{"cookie":{"originalMaxAge":60000.5},"a":1,"q":"1"}`, ""},
		{"originalMaxAge huge", `{"cookie":{"originalMaxAge":1e300},"a":1}`, "", ""},
		{"originalMaxAge beyond a float", `{"cookie":{"originalMaxAge":1e999},"a":1}`, "", ""},
		{"originalMaxAge negative", `{"cookie":{"originalMaxAge":-5000},"a":1}`, `{"cookie":{"originalMaxAge":-5000},"a":1,"q":"1"}`, ""},
		{"originalMaxAge most negative", `{"cookie":{"originalMaxAge":-1e999},"a":1}`, `{"cookie":{"originalMaxAge":-1e999},"a":1,"q":"1"}`, ""},
		{"originalMaxAge 0", `{"cookie":{"originalMaxAge":0,"expires":null},"a":1}`, `{"cookie":{"originalMaxAge":0,"expires":null},"a":1,"q":"1"}`, ""},
		{"originalMaxAge null", `{"cookie":{"originalMaxAge":null,"expires":null},"a":1}`, `{"cookie":{"originalMaxAge":null,"expires":null},"a":1,"q":"1"}`, ""},
		{"bad sameSite, its timeout kept", `{"cookie":{"originalMaxAge":60000,"sameSite":"weird"},"a":1}`, `{"cookie":{"originalMaxAge":60000,"expires":"2000-01-01T00:01:00.000Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":1,"q":"1"}`, ""},
		{"key in __proto__", `{` + recordCookie + `,"__proto__":{"admin":true},"a":1}`, `{` + recordCookie + `,"__proto__":{"admin":true},"a":1,"q":"1"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, store := &logRecorder{}, newHookedStore()
				m := newManager(t, store, session.Config{Logger: log.logger()})
				b := seededRow(t, store, m, c.stored, time.Minute)
				before := store.live(t)
				read := *b
				if resp := read.visit(readUser); resp.status != 200 {
					t.Errorf("read: got status %d, want 200", resp.status)
				}
				if got := onlyRecord(t, store); got != c.stored {
					t.Errorf("read: got %s, want it as it was", got)
				}
				none := c.log != ""
				resp := b.visit(func(s *session.Session) {
					if s.IsNew() != none {
						t.Errorf("IsNew: got %v, want %v", s.IsNew(), none)
					}
					a, ok := session.Key[int]("a").Get(s)
					if has := strings.Contains(c.stored, `"a":1`) && !none; ok != has || has && a != 1 {
						t.Errorf("Get: got %d, %v, want %v", a, ok, has)
					}
					setQ(s)
				})
				if resp.status != 200 {
					t.Errorf("write: got status %d, want 200", resp.status)
				}
				after := store.live(t)
				if none {
					// A session of its own for whoever comes with that cookie;
					// the row is not overwritten.
					for id, row := range before {
						if after[id] != row {
							t.Errorf("write: got the row overwritten, want it as it was")
						}
					}
					if len(after) != 2 || resp.sent() != "set" {
						t.Errorf("write: got %d records, cookie %s, want 2, set", len(after), resp.sent())
					}
				} else if got := onlyRecord(t, store); c.want != "" && got != c.want {
					t.Errorf("write: got  %s\nwant %s", got, c.want)
				} else if !json.Valid([]byte(got)) || !strings.Contains(got, `"q":"1"`) {
					t.Errorf("write: got %s, want JSON with q", got)
				}
				if !strings.Contains(log.String(), c.log) || c.log == "" && strings.Contains(log.String(), "level=ERROR") {
					t.Errorf("log: got something else than %q", c.log)
				}
				if strings.Contains(log.String(), "not-for-eyes") || strings.Contains(log.String(), "seed0") {
					t.Error("log: got data or an ID")
				}
			})
		})
	}
}

func TestHugeRecordIsRead(t *testing.T) {
	store := newHookedStore()
	b := seeded(t, store, newManager(t, store, session.Config{}), `,"big":"`+strings.Repeat("x", 10<<20)+`","user":"ada"`)
	if got := b.user(); got != "ada" {
		t.Errorf("got user %q, want ada", got)
	}
	wantResponse(t, "growing", b.visit(setQ), 500, "nothing")
	wantResponse(t, "shrinking", b.visit(func(s *session.Session) { session.Key[string]("big").Delete(s); setQ(s) }), 200, "nothing")
}

// A new record has the members of Express's, in Express's order; our creation
// time comes last.
func TestNewRecordIsExpresss(t *testing.T) {
	always := session.CookieConfig{Domain: "example.com", Path: "/app", Secure: session.SecureAlways, SameSite: http.SameSiteNoneMode, Partitioned: true}
	for _, c := range []struct {
		name string
		cfg  session.Config
		do   func(*session.Session)
		want string
	}{
		{"like secure: false, sameSite: lax, maxAge", session.Config{IdleTimeout: time.Minute}, func(s *session.Session) { keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":60000,"expires":"2000-01-01T00:01:00.217Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":"1","__created":946684800217}`},
		{"everything", session.Config{IdleTimeout: time.Minute, Cookie: always}, func(s *session.Session) { keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":60000,"partitioned":true,"expires":"2000-01-01T00:01:00.217Z","secure":true,"httpOnly":true,"domain":"example.com","path":"/app","sameSite":"none"},"a":"1","__created":946684800217}`},
		{"no SameSite", session.Config{Cookie: session.CookieConfig{SameSite: http.SameSiteDefaultMode}}, func(s *session.Session) { keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":86400000,"expires":"2000-01-02T00:00:00.217Z","secure":false,"httpOnly":true,"path":"/"},"a":"1","__created":946684800217}`},
		{"like maxAge null", session.Config{Cookie: session.CookieConfig{BrowserSession: true}}, func(s *session.Session) { keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":"1","__created":946684800217}`},
		{"own idle timeout", session.Config{}, func(s *session.Session) { s.SetIdleTimeout(time.Hour); keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":3600000,"expires":"2000-01-01T01:00:00.217Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":"1","__created":946684800217}`},
		{"absolute timeout first", session.Config{AbsoluteTimeout: time.Hour}, func(s *session.Session) { keyA.Set(s, "1") }, `{"cookie":{"originalMaxAge":86400000,"expires":"2000-01-01T01:00:00.217Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":"1","__created":946684800217}`},
		{"keys in the order they were set", session.Config{}, func(s *session.Session) { keyB.Set(s, "1"); keyA.Set(s, "<2>"); keyB.Set(s, "3"); countKey.Set(s, 4) }, `{"cookie":{"originalMaxAge":86400000,"expires":"2000-01-02T00:00:00.217Z","secure":false,"httpOnly":true,"path":"/","sameSite":"lax"},"a":"<2>","b":"3","count":4,"__created":946684800217}`},
	} {
		for _, f := range bothFormats {
			synctest.Test(t, func(t *testing.T) {
				pass(217*time.Millisecond + 999*time.Microsecond) // cut off, as Date does
				c.cfg.Cookie.Format = f.format
				store := newHookedStore()
				b := &browser{m: newManager(t, store, c.cfg)}
				b.visit(c.do)
				if got := onlyRecord(t, store); got != c.want {
					t.Errorf("%s, %s:\ngot  %s\nwant %s", c.name, f.name, got, c.want)
				}
			})
		}
	}
}

// Saves of a counter leave a record's length as it is and change few of its bytes,
// for that is what PostgreSQL logs: the tags of two programs, and of a program's
// first and its thousandth save, are equally long and stand beside the counter.
func TestCounterSavesAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no touch is due in it
		store := newHookedStore()
		ms := [2]*session.Manager{newManager(t, store, session.Config{}), newManager(t, store, session.Config{})}
		b := login(t, ms[0])
		b.visit(func(s *session.Session) {
			countKey.Set(s, 1000)
			session.Key[string]("facts").Set(s, strings.Repeat("x", 1000))
		})
		for _, m := range ms {
			b.with(m).visit(increment)
		}
		old := onlyRecord(t, store)
		for n := range 50 {
			m := ms[n/3%2] // the other one, and then the same again
			if n == 40 {
				other := login(t, m)
				for range 1500 {
					other.visit(increment)
				}
				other.visit((*session.Session).Destroy)
			}
			b.with(m).visit(increment)
			next := onlyRecord(t, store)
			if len(next) != len(old) {
				t.Fatalf("save %d: got %d bytes, want %d as before:\n%s\n%s", n, len(next), len(old), old, next)
			}
			from, end := 0, len(next)
			for from < end && next[from] == old[from] {
				from++
			}
			for end > from && next[end-1] == old[end-1] {
				end--
			}
			if got := end - from; got == 0 || got > 60 {
				t.Fatalf("save %d: got %d bytes changed, want some, 60 at most:\n%s\n%s", n, got, old, next)
			}
			old = next
		}
	})
}
