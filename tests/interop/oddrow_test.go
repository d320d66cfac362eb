package interop_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// oddRow is a row that no healthy program writes.
type oddRow struct {
	name string
	sess string
	// data is what Go reads; "" where there is no session in the row: it is
	// then refused with an error in the log, and left alone.
	data string
	// express is what Express reads once Go has set x to 1; "" for data and x.
	express string
	// row is a part of the cookie object after that.
	row string
}

var oddRows = []oddRow{
	// Not a session: Express answers 500, begins another one or deletes the row.
	{name: "JSON null", sess: `null`},
	{name: "JSON number 5", sess: `5`},
	{name: "JSON false", sess: `false`},
	{name: "JSON array", sess: `[]`},
	{name: "JSON string, not JSON", sess: `"abc"`},
	{name: "JSON string holding an array", sess: `"[1]"`},
	{name: "JSON string holding a JSON string", sess: `"\"{}\""`},
	{name: "JSON string, empty", sess: `""`},

	// No cookie object that Express could use: it answers 500 or never. Go reads
	// the data, and mends the row with the next save.
	{name: "JSON {}", sess: `{}`, data: `{}`, row: `"originalMaxAge":60000`},
	{name: "no cookie key", sess: `{"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "cookie null", sess: `{"cookie":null,"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "cookie string", sess: `{"cookie":"x","a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "cookie number", sess: `{"cookie":5,"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "cookie array", sess: `{"cookie":[],"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "originalMaxAge string", sess: `{"cookie":{"originalMaxAge":"60000","expires":"2026-11-23T12:16:59.168Z","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "originalMaxAge object", sess: `{"cookie":{"originalMaxAge":{},"path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":60000`},
	{name: "bad sameSite", sess: `{"cookie":{"originalMaxAge":45000,"expires":null,"sameSite":"weird","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":45000`},
	{name: "bad priority", sess: `{"cookie":{"originalMaxAge":45000,"expires":null,"priority":"urgent","path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":45000`},
	{name: "bad domain", sess: `{"cookie":{"originalMaxAge":45000,"expires":null,"domain":"a;b","path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":45000`},
	{name: "bad path", sess: `{"cookie":{"originalMaxAge":45000,"expires":null,"path":"/;x"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":45000`},

	// Odd, but a session to both.
	{name: "double encoded", sess: `"{\"cookie\":{\"originalMaxAge\":60000,\"expires\":\"2026-11-23T11:17:59.168Z\",\"httpOnly\":true,\"path\":\"/\"},\"a\":\"double\"}"`, data: `{"a":"double"}`},
	{name: "cookie {}", sess: `{"cookie":{},"a":1}`, data: `{"a":1}`, row: `"cookie":{`},
	{name: "expires garbage, originalMaxAge 60000", sess: `{"cookie":{"originalMaxAge":60000,"expires":"garbage","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires garbage, no originalMaxAge", sess: `{"cookie":{"expires":"garbage","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires past, column future", sess: `{"cookie":{"originalMaxAge":60000,"expires":"2020-11-23T10:16:59.168Z","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires future, no originalMaxAge", sess: `{"cookie":{"expires":"2036-11-23T12:16:59.168Z","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires future, originalMaxAge null", sess: `{"cookie":{"originalMaxAge":null,"expires":"2036-11-23T12:16:59.168Z","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires number", sess: `{"cookie":{"originalMaxAge":60000,"expires":1795436219168,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "expires with offset and microseconds", sess: `{"cookie":{"originalMaxAge":60000,"expires":"2030-01-01T00:00:00.123456+02:00","httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "originalMaxAge float", sess: `{"cookie":{"originalMaxAge":60000.5,"expires":null,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "originalMaxAge only", sess: `{"cookie":{"originalMaxAge":60000},"a":1}`, data: `{"a":1}`},
	{name: "originalMaxAge null, expires null", sess: `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`, row: `"originalMaxAge":null`},
	{name: "originalMaxAge negative", sess: `{"cookie":{"originalMaxAge":-5000,"expires":null,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "originalMaxAge 0", sess: `{"cookie":{"originalMaxAge":0,"expires":null,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "originalMaxAge huge", sess: `{"cookie":{"originalMaxAge":1e15,"expires":null,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`},
	{name: "unknown cookie keys", sess: `{"cookie":{"originalMaxAge":60000,"foo":"bar","maxAge":5,"data":1},"a":1}`, data: `{"a":1}`, row: `"foo":"bar"`},
	{name: "path differs", sess: `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/other"},"a":1}`, data: `{"a":1}`, row: `"path":"/other"`},
	{name: "secure true over http", sess: `{"cookie":{"originalMaxAge":60000,"expires":null,"secure":true,"httpOnly":true,"path":"/"},"a":1}`, data: `{"a":1}`, row: `"secure":true`},
	{name: "httpOnly false", sess: `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":false,"path":"/"},"a":1}`, data: `{"a":1}`, row: `"httpOnly":false`},
	{
		name:    "reserved keys",
		sess:    `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/"},"id":"x","req":1,"save":2,"touch":3,"toString":4,"constructor":5,"__proto__":6,"valueOf":7,"a":1}`,
		data:    `{"id":"x","req":1,"save":2,"touch":3,"toString":4,"constructor":5,"__proto__":6,"valueOf":7,"a":1}`,
		express: `{"a":1,"x":1}`,
	},
	{name: "cookie key last", sess: `{"a":1,"z":2,"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/"}}`, data: `{"a":1,"z":2}`},
	{name: "integer-like keys", sess: `{"cookie":{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"/"},"b":1,"10":2,"9":3,"-1":4,"01":5}`, data: `{"b":1,"10":2,"9":3,"-1":4,"01":5}`},
	{name: "duplicate keys", sess: `{"cookie":{"originalMaxAge":60000},"a":1,"a":2}`, data: `{"a":2}`},
	{name: "duplicate cookies", sess: `{"cookie":null,"cookie":{"originalMaxAge":60000},"a":2}`, data: `{"a":2}`},
	{name: "white space and escapes", sess: "{ \"cookie\" : {\"originalMaxAge\":60000,\"expires\":null,\"httpOnly\":true,\"path\":\"\\/\"},\n \"a\" : \"\\u00e9\\u003c\" }", data: `{"a":"é<"}`},
	{name: "forms of numbers", sess: `{"cookie":{"originalMaxAge":60000},"n":9007199254740993,"f":1.0,"e":1e3,"m":-0}`, data: `{"n":9007199254740993,"f":1.0,"e":1e3,"m":-0}`, express: `{"n":9007199254740992,"f":1,"e":1000,"m":0,"x":1}`},
	{name: "NUL and lone surrogate", sess: `{"cookie":{"originalMaxAge":60000},"nul":"a\u0000b","ls":"\ud800x"}`, data: `{"nul":"a\u0000b","ls":"\ud800x"}`},
	{name: "null and empty", sess: `{"cookie":{"originalMaxAge":60000},"n":null,"e":{},"l":[]}`, data: `{"n":null,"e":{},"l":[]}`},
	{name: "our member of a wrong type", sess: `{"cookie":{"originalMaxAge":60000},"__created":"yesterday","a":1}`, data: `{"a":1}`},
}

// TestOddRows shows what Go does with each odd row: it never crashes, hangs or
// loses the row, and what it saves Express can read.
func TestOddRows(t *testing.T) {
	db := newDatabase(t, "")
	gg := db.golang(t)
	ex := db.express(t, express{Rolling: true}) // each answer with a Set-Cookie
	for _, tt := range oddRows {
		t.Run(tt.name, func(t *testing.T) {
			id := db.insert(t, tt.sess)
			gg.log.take()
			w := browser{cookie: sign(id, secret)}
			if tt.data == "" {
				wantRefused(t, db, gg, id, tt.sess)
			} else {
				w.wantData(t, gg, tt.data)
				if got := db.mustRow(t, id).sess; got != tt.sess {
					t.Errorf("row after a read: got %s, want it unchanged", got)
				}
				w.must(t, gg, "/set", object{"key": "x", "value": 1})
				after := db.mustRow(t, id)
				if !strings.Contains(after.sess, tt.row) || !strings.HasPrefix(after.sess, "{") {
					t.Errorf("row after a change: got %s, want an object with %s", after.sess, tt.row)
				}
				want := tt.express
				if want == "" {
					want = strings.TrimSuffix(tt.data, "}") + `,"x":1}`
					want = strings.Replace(want, "{,", "{", 1)
				}
				w.wantData(t, ex, want)
			}
			count("4 odd rows, each read, changed, and read again by Express", 1)
		})
	}
}

// wantRefused says that a row without a session is no session, that its ID is
// not adopted, and that it is left alone, with an error in the log.
func wantRefused(t *testing.T, db *database, gg *side, id, sess string) {
	t.Helper()
	cookie := sign(id, secret)
	wantNone(t, cookie, gg)
	if log := gg.log.take(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "cannot be read") || strings.Contains(log, id) {
		t.Errorf("log: got %q, want an error that a record cannot be read, without the ID", strings.ReplaceAll(log, id, "<the ID>"))
	}
	w := browser{cookie: cookie}
	w.must(t, gg, "/set", object{"key": "x", "value": 1})
	if w.cookie == cookie || w.cookie == "" {
		t.Error("cookie after a change: got the same or none, want a new one")
	}
	w.wantData(t, gg, `{"x":1}`)
	if got := db.mustRow(t, id).sess; got != sess {
		t.Errorf("row after a change: got %s, want it left alone", got)
	}
}

// TestLargeRow says that Express's rows over Config.MaxBytes are read and
// touched, and may shrink but not grow.
func TestLargeRow(t *testing.T) {
	db := newDatabase(t, "")
	ex, gg := db.express(t, express{}), db.golang(t)
	var w browser
	w.must(t, ex, "/set", object{"key": "big", "value": strings.Repeat("x", 1<<20)})
	id := w.mustState(t, gg).ID
	before := db.mustRow(t, id)
	wantUntouched(t, db, gg, &w, id, before.sess)
	r, err := w.do(gg, "/set", object{"key": "x", "value": 1})
	if r.status != http.StatusInternalServerError {
		t.Errorf("growing: got status %d (%v), want 500", r.status, err)
	}
	if got := db.mustRow(t, id).sess; got != before.sess {
		t.Errorf("row after growing was refused: got %d bytes, want the same %d", len(got), len(before.sess))
	}
	w.must(t, gg, "/delete", object{"key": "big"})
	w.must(t, gg, "/set", object{"key": "x", "value": 1})
	w.wantData(t, ex, `{"x":1}`)
}

// TestOddIDs says that IDs which Express makes with a genid of its own work.
func TestOddIDs(t *testing.T) {
	db := newDatabase(t, "")
	ex, gg := db.express(t, express{}), db.golang(t)
	for i, id := range []string{"7", "a.b.c", "with space", "Zoë 😀", "quote\"';--", strings.Repeat("long", 100), "user:42|%2F+"} {
		db.exec(t, "INSERT INTO "+table+` VALUES ($1, '{"cookie":{"originalMaxAge":60000,"path":"/"},"a":1}', now() + interval '1 minute')`, id)
		w := browser{cookie: strings.ReplaceAll(sign(id, secret), "+", "%20")}
		w.wantData(t, gg, `{"a":1}`)
		w.must(t, gg, "/set", object{"key": "x", "value": i})
		r, err := w.do(ex, "/set", object{"key": "y", "value": i})
		if err != nil {
			t.Fatal(err, r.status)
		}
		w.wantData(t, gg, fmt.Sprintf(`{"a":1,"x":%d,"y":%d}`, i, i))
		w.must(t, gg, "/renew", object{})
		w.wantData(t, ex, fmt.Sprintf(`{"a":1,"x":%d,"y":%d}`, i, i))
		count("4 IDs of other shapes", 1)
	}
}
