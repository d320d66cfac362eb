package interop_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// nastyValues are written as they stand; random ones are made of such parts.
var nastyValues = []string{
	`null`, `true`, `""`, `{}`, `[]`, `[[]]`, `[{}]`, `{"":""}`,
	`"\u0000"`, `"a\u0000b\u0000"`, `"\ud800"`, `"x\udc00y"`, `"\ud83d\ude00"`, `"😀"`, `"\u2028\u2029"`, `"\u007f"`,
	`"<b>&amp;'</b>"`, `"\/\\\"\b\f\n\r\t"`, `"é"`, `"e\u0301"`, `"\ufeff"`, `"\uffff"`,
	`0`, `1`, `-1`, `0.1`, `1e21`, `1e-7`, `5e-324`, `1.7976931348623157e308`, `123456789.987654321`,
	`9007199254740991`, `9007199254740992`, `-9007199254740992`, `12345678901234567000`, `1e3`, `1.0`,
	`{"10":1,"9":2,"-1":3,"01":4,"1.5":5,"b":6,"4294967295":7}`,
	`{"__proto__":1,"constructor":2,"toString":{"__proto__":null}}`,
	`{"cookie":{"maxAge":1},"id":"inside is no matter"}`,
	`{"a":{"b":{"c":[1,{"d":[]}]}}}`,
}

// valueJSON makes a random JSON text. lone allows surrogates that are no pair,
// which a Go string cannot hold.
func valueJSON(r *rand.Rand, depth int, lone bool) string {
	n := 7
	if depth <= 0 {
		n = 5
	}
	switch r.IntN(n) {
	case 0:
		for {
			v := nastyValues[r.IntN(len(nastyValues))]
			if lone || !strings.Contains(v, `\ud800`) && !strings.Contains(v, `\udc00`) {
				return v
			}
		}
	case 1, 2:
		return stringJSON(r, lone)
	case 3:
		return strconv.FormatFloat(r.NormFloat64()*float64(uint64(1)<<r.IntN(63)), 'g', -1, 64)
	case 4:
		return strconv.FormatInt(r.Int64N(1<<53)-1<<52, 10)
	case 5:
		var items []string
		for range r.IntN(5) {
			items = append(items, valueJSON(r, depth-1, lone))
		}
		return "[" + strings.Join(items, ",") + "]"
	default:
		var items []string
		seen := map[string]bool{}
		for range r.IntN(5) {
			k := stringJSON(r, lone)
			if r.IntN(3) == 0 {
				k = strconv.Quote(strconv.Itoa(r.IntN(1 << r.IntN(34))))
			}
			if !seen[k] {
				seen[k] = true
				items = append(items, k+":"+valueJSON(r, depth-1, lone))
			}
		}
		return "{" + strings.Join(items, ",") + "}"
	}
}

func stringJSON(r *rand.Rand, lone bool) string {
	var b strings.Builder
	b.WriteByte('"')
	for range r.IntN(12) {
		switch r.IntN(8) {
		case 0:
			fmt.Fprintf(&b, `\u%04x`, r.IntN(0x20)) // controls, NUL among them
		case 1:
			if lone {
				fmt.Fprintf(&b, `\u%04x`, 0xd800+r.IntN(0x800))
			}
		case 2:
			b.WriteRune(rune(0x1f300 + r.IntN(0x200)))
		case 3:
			b.WriteRune([]rune("<>&'/é\u2028\u2029\u00a0\ufffd日")[r.IntN(11)])
		case 4:
			b.WriteString([]string{`\"`, `\\`, `\n`, `\/`}[r.IntN(4)])
		default:
			b.WriteByte("abc XYZ019"[r.IntN(10)])
		}
	}
	b.WriteByte('"')
	return b.String()
}

// TestValues writes random values on one side and reads them on the other. Node
// is the judge of what is equal. Rows that Go has merely read or touched keep
// every byte.
func TestValues(t *testing.T) {
	const sessions, perSession = 60, 20
	db := newDatabase(t, "")
	ex := db.express(t, express{})
	gg := db.golang(t)
	r := rand.New(rand.NewPCG(newSeed(t), 0))
	for i := range sessions {
		writer, reader := ex, gg
		if i%2 == 1 {
			writer, reader = gg, ex
		}
		plain := i%4 == 3 // through Go's own types
		var w browser
		var texts []string
		for j := range perSession {
			text := valueJSON(r, 4, !plain)
			switch {
			case i < 4 && j < 2: // very deep
				n := 200 + 100*j
				text = strings.Repeat(`[{"d":`, n) + text + strings.Repeat(`}]`, n)
			case i/4*perSession+j < len(nastyValues):
				if v := nastyValues[i/4*perSession+j]; !plain || !strings.Contains(v, `\ud800`) && !strings.Contains(v, `\udc00`) {
					text = v
				}
			}
			texts = append(texts, text)
			// Sent as it stands: no encoder of ours may mend it.
			body := json.RawMessage(fmt.Sprintf(`{"key":"v%d","plain":%v,"value":%s}`, j, plain, text))
			w.must(t, writer, "/set", body)
		}
		id := w.mustState(t, gg).ID
		before := db.mustRow(t, id)

		state := w.mustState(t, reader)
		var pairs [][2]string
		for j, text := range texts {
			pairs = append(pairs, [2]string{text, string(state.Data[fmt.Sprint("v", j)])})
		}
		var answer struct{ Unequal []int }
		program.call(t, "equal", object{"pairs": pairs}, &answer)
		for _, j := range answer.Unequal {
			t.Errorf("written by %s as %.300q, read by %s: got %.300q", writer.name, pairs[j][0], reader.name, pairs[j][1])
		}
		count("3 random JSON values, written on one side and read on the other", len(pairs))

		wantUntouched(t, db, gg, &w, id, before.sess)
	}
}

// wantUntouched reads a session by Go, without and with a touch, and wants its
// data to keep every byte.
func wantUntouched(t *testing.T, db *database, gg *side, w *browser, id, sess string) {
	t.Helper()
	w.must(t, gg, "/state", nil)
	if got := db.mustRow(t, id).sess; got != sess {
		t.Errorf("row after a read by Go: got %d bytes, want the same %d as before", len(got), len(sess))
	}
	db.exec(t, "UPDATE "+table+" SET expire = now() + interval '20 seconds' WHERE sid = $1", id)
	w.must(t, gg, "/state", nil)
	got := db.mustRow(t, id)
	if got.sess != sess {
		t.Errorf("row after a touch by Go: got %d bytes, want the same %d as before", len(got.sess), len(sess))
	}
	if got.left < 30 {
		t.Errorf("time left after a touch by Go: got %.0f s, want 60", got.left)
	}
	count("3 rows byte for byte the same after a read and after a touch by Go", 2)
}

// TestBytesOfOddRows says the same of rows that no program of ours would write,
// and that a change by Go leaves the bytes of other keys alone.
func TestBytesOfOddRows(t *testing.T) {
	const cookie = `{"originalMaxAge":60000,"expires":null,"httpOnly":true,"path":"\/"}`
	db := newDatabase(t, "")
	gg := db.golang(t)
	for _, members := range [][]string{
		{`"a" : 1.0`, `"b":1e3`, `"c": -0`},
		{`"big":9007199254740993`, `"huge":1e400`, `"tiny":1e-400`},
		{`"nul":"a\u0000b"`, `"ls":"\ud800x"`, `"esc":"\u00e9\u003c\/"`},
		{"\"tabs\"\t:\t[ 1 ,\n2 ]"},
		{`"a":1`, `"a":2`, `"\u0061":3`},
		{`"10":1`, `"9":2`, `"__proto__":{"x":1}`, `"":5`},
		{`"é\u0301":"😀"`, `"\ud83d\ude00":"\ud83d\ude00"`},
	} {
		sess := `{ ` + strings.Join(members, " , ") + ` ,"cookie" : ` + cookie + `}`
		id := db.insert(t, sess)
		w := browser{cookie: sign(id, secret)}
		wantUntouched(t, db, gg, &w, id, sess)
		w.must(t, gg, "/set", object{"key": "new", "value": 1})
		got := db.mustRow(t, id).sess
		for _, member := range members {
			if !strings.Contains(got, member) {
				t.Errorf("row after another key was set by Go: got %q, want the bytes %q kept", got, member)
			}
		}
	}
}

// TestBigIntegers says what becomes of integers over 2^53, and that Go warns
// about them once for each key.
func TestBigIntegers(t *testing.T) {
	db := newDatabase(t, "")
	ex, gg := db.express(t, express{}), db.golang(t)
	gg.log.take()
	var w browser
	for range 3 {
		w.must(t, gg, "/set", json.RawMessage(`{"key":"order","value":9007199254740993}`))
		w.must(t, gg, "/set", json.RawMessage(`{"key":"order","value":{"n":[1,-12345678901234567890]}}`))
	}
	w.must(t, gg, "/set", json.RawMessage(`{"key":"fine","value":[9007199254740992,"9007199254740993",1e300,123456789012345678.5]}`))
	log := gg.log.take()
	if got := strings.Count(log, "integer over 2^53"); got != 1 || !strings.Contains(log, "key=order") {
		t.Errorf("warnings about integers over 2^53: got %d in %q, want 1 that names the key", got, log)
	}
	w.must(t, gg, "/set", json.RawMessage(`{"key":"order","value":9007199254740993}`))
	w.must(t, ex, "/state", nil)
	if got := string(w.mustState(t, gg).Data["order"]); got != "9007199254740993" {
		t.Errorf("after a read by Express: got %s, want 9007199254740993", got)
	}
	w.must(t, ex, "/set", object{"key": "x", "value": 1})
	if got := string(w.mustState(t, gg).Data["order"]); got != "9007199254740992" {
		t.Errorf("after a change by Express: got %s, want 9007199254740992, as documented", got)
	}
}
