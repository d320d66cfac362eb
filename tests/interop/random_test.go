package interop_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
)

var (
	seed      = flag.Uint64("seed", 0, "seed of the random sequences and values; 0 takes a new one")
	sequences = flag.Int("sequences", 1000, "number of random sequences")
)

// newSeed returns the seed of this run and says how to repeat it.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with: go test -run '^%s$' -seed %d)", s, t.Name(), s)
	return s
}

// operation is one request of a sequence.
type operation struct {
	side int // 0 Express, 1 Go
	verb string
	key  string
	json string
	ms   int
}

func (o operation) String() string {
	s := [...]string{"Express", "Go"}[o.side] + " " + o.verb
	switch o.verb {
	case "set":
		s += fmt.Sprintf(" %q = %s", o.key, o.json)
	case "delete":
		s += fmt.Sprintf(" %q", o.key)
	case "maxage":
		s += fmt.Sprintf(" %d", o.ms)
	}
	return s
}

var (
	verbs = []string{"set", "set", "set", "set", "delete", "count", "count", "take", "flash", "login", "renew", "logout", "maxage", "read", "touch", "replay"}
	keys  = []string{"a", "10", "zwölf", "cart", `quote"and\slash`}
)

func randomOperation(r *rand.Rand) operation {
	o := operation{side: r.IntN(2), verb: verbs[r.IntN(len(verbs))], key: keys[r.IntN(len(keys))]}
	o.json = randomJSON(r, 2)
	o.ms = []int{30_000, minute, 600_000, 86_400_000}[r.IntN(4)]
	if o.verb == "flash" {
		o.verb, o.key = "set", "flash"
	}
	return o
}

// randomJSON makes a value that both sides write the same way in JSON, whatever
// they do with it. value_test.go has the others.
func randomJSON(r *rand.Rand, depth int) string {
	n := 6
	if depth > 0 {
		n = 8
	}
	switch r.IntN(n) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprint(r.IntN(2) == 0)
	case 2:
		return fmt.Sprint(r.IntN(2000) - 1000)
	case 3:
		return fmt.Sprint(float64(r.IntN(2000)) / 16)
	case 4, 5:
		return quoteJSON([]string{"", "x", "Zoë 😀", "<b>&amp;", "a\u0000b", "\u2028", `"\`}[r.IntN(7)])
	case 6:
		var items []string
		for range r.IntN(3) {
			items = append(items, randomJSON(r, depth-1))
		}
		return "[" + strings.Join(items, ",") + "]"
	default:
		var items []string
		for i := range r.IntN(3) {
			items = append(items, quoteJSON(fmt.Sprint("k", i))+":"+randomJSON(r, depth-1))
		}
		return "{" + strings.Join(items, ",") + "}"
	}
}

func quoteJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// model is what a session should be after a sequence so far.
type model struct {
	data map[string]string
	life int // its idle timeout, in milliseconds
}

func (m *model) apply(o operation) {
	switch o.verb {
	case "set":
		m.data[o.key] = o.json
	case "delete":
		delete(m.data, o.key)
	case "count":
		n := 0
		_ = json.Unmarshal([]byte(m.data["n"]), &n)
		m.data["n"] = fmt.Sprint(n + 1)
	case "take":
		delete(m.data, "flash")
	case "login":
		*m = model{data: map[string]string{"user": `"ada"`}, life: minute}
	case "logout":
		*m = model{data: map[string]string{}, life: minute}
	case "maxage":
		m.data["remember"] = fmt.Sprint(o.ms)
		m.life = o.ms
	}
}

// check compares a side's answer with the model.
func (m *model) check(data map[string]json.RawMessage) error {
	if len(data) != len(m.data) {
		return fmt.Errorf("got %d keys, want %d", len(data), len(m.data))
	}
	for k, want := range m.data {
		if got, ok := data[k]; !ok || !sameJSON(got, []byte(want)) {
			return fmt.Errorf("key %q: got %s, want %s", k, got, want)
		}
	}
	return nil
}

// pair is an Express and a Go side on one table.
type pair struct {
	db    *database
	sides [2]*side
}

// run plays a sequence in a new browser. After each operation both sides must
// report the same session, which is the model's, and cookies that were replaced
// must be dead.
func (p *pair) run(t *testing.T, ops []operation) error {
	var w browser
	m := model{data: map[string]string{}, life: minute}
	var old []string
	for i, o := range ops {
		before := w.cookie
		body := object{"key": o.key, "value": json.RawMessage(o.json), "user": "ada", "ms": o.ms}
		s := p.sides[o.side]
		var err error
		switch o.verb {
		case "read":
			_, err = w.do(s, "/state", nil)
		case "touch":
			if id := idOf(before); id != "" {
				p.db.exec(t, "UPDATE "+table+" SET expire = LEAST(expire, now() + interval '20 seconds') WHERE sid = $1", id)
			}
			_, err = w.do(s, "/state", nil)
		case "replay": // somebody uses a cookie that was replaced
			if len(old) > 0 {
				thief := browser{cookie: old[i%len(old)]}
				state, e := thief.state(s)
				if err = e; err == nil && state.ID != "" {
					err = fmt.Errorf("%s: got a session for a dead cookie, want none", s.name)
				}
			}
		default:
			_, err = w.do(s, "/"+o.verb, body)
		}
		if err != nil {
			return fmt.Errorf("after %d operations: %w", i+1, err)
		}
		m.apply(o)
		if before != "" && (w.cookie != before || o.verb == "logout") {
			old = append(old, before)
		}
		if err := p.agree(t, &w, &m); err != nil {
			return fmt.Errorf("after %d operations: %w", i+1, err)
		}
	}
	return nil
}

// agree asks both sides, in turn, and looks at the row.
func (p *pair) agree(t *testing.T, w *browser, m *model) error {
	var ids [2]string
	for _, i := range []int{1, 0} { // Go first: with saveUninitialized, Express begins a session at a look
		s := p.sides[i]
		state, err := w.state(s)
		if err != nil {
			return err
		}
		if err := m.check(state.Data); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		ids[i] = state.ID
	}
	if ids[0] != ids[1] {
		return fmt.Errorf("the sides report different sessions (Express: %v, Go: %v)", ids[0] != "", ids[1] != "")
	}
	if ids[0] == "" {
		if len(m.data) > 0 {
			return fmt.Errorf("got no session, want one")
		}
		return nil
	}
	r, err := p.db.row(t, ids[0])
	if err != nil {
		return err
	}
	if len(m.data) > 0 { // an empty one may have been left out by a renewal
		return checkLife(r, m.life)
	}
	return nil
}

// idOf reads the ID in a cookie.
func idOf(cookie string) string {
	value := strings.TrimPrefix(cookie, "s%3A")
	id, _, _ := strings.Cut(value, ".")
	return id
}

// shrink removes operations from a failing sequence as long as it still fails.
func shrink(ops []operation, fails func([]operation) bool) []operation {
	for size := len(ops) / 2; size > 0; {
		smaller := false
		for start := 0; start+size <= len(ops); {
			rest := append(append([]operation(nil), ops[:start]...), ops[start+size:]...)
			if fails(rest) {
				ops, smaller = rest, true
				continue
			}
			start++
		}
		if !smaller || size > len(ops) {
			size /= 2
		}
	}
	return ops
}

func describe(ops []operation) string {
	var b strings.Builder
	for i, o := range ops {
		fmt.Fprintf(&b, "\n  %2d %v", i+1, o)
	}
	return b.String()
}

// TestRandomSequences plays random sequences of requests on random sides.
func TestRandomSequences(t *testing.T) {
	db := newDatabase(t, "")
	var pairs []*pair
	for _, o := range []express{
		{},
		{Rolling: true},
		{Resave: true},
		{SaveUninitialized: true},
		{Rolling: true, Resave: true, SaveUninitialized: true},
		{Unset: "destroy"},
	} {
		pairs = append(pairs, &pair{db: db, sides: [2]*side{db.express(t, o), db.golang(t)}})
	}
	play(t, newSeed(t), *sequences, pairs, "2 random sequences")
}

// TestRandomSequencesBoth is the short version for each major, with rotated secrets,
// an absolute timeout and a database in summer time.
func TestRandomSequencesBoth(t *testing.T) {
	const old, current = "an old secret that both sides still accept", "the current secret of both sides, and long"
	s := newSeed(t)
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			db := newDatabase(t, "Europe/Berlin")
			play(t, s, 100, []*pair{{db: db, sides: [2]*side{
				db.express(t, express{
					Major: major, Secrets: []string{current, old}, Rolling: true,
					Cookie: object{"maxAge": minute, "sameSite": "strict", "secure": false, "path": "/"},
				}),
				db.golang(t, func(c *session.Config) {
					c.Secret, c.OldSecrets = current, []string{old}
					c.AbsoluteTimeout = time.Hour * 48
				}),
			}}}, fmt.Sprintf("2 random sequences, connect-pg-simple %d alone", major))
		})
	}
}

// play runs n sequences, several at once, and reports the first failure in its
// shortest form.
func play(t *testing.T, seed uint64, n int, pairs []*pair, what string) {
	t.Helper()
	jobs := make(chan int)
	var (
		wait   sync.WaitGroup
		failed sync.Once
		stop   = make(chan struct{})
		total  = make(chan int, n)
	)
	generate := func(i int) []operation {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		ops := make([]operation, 3+r.IntN(10))
		for j := range ops {
			ops[j] = randomOperation(r)
		}
		return ops
	}
	for range 6 {
		wait.Go(func() {
			for i := range jobs {
				p, ops := pairs[i%len(pairs)], generate(i)
				total <- len(ops)
				err := p.run(t, ops)
				if err == nil {
					continue
				}
				failed.Do(func() {
					close(stop)
					short := shrink(ops, func(ops []operation) bool { return p.run(t, ops) != nil })
					t.Errorf("sequence %d of seed %d: %v\nshortest, %d of %d operations, fails with: %v%s",
						i, seed, err, len(short), len(ops), p.run(t, short), describe(short))
				})
			}
		})
	}
feed:
	for i := range n {
		select {
		case jobs <- i:
		case <-stop:
			break feed
		}
	}
	close(jobs)
	wait.Wait()
	close(total)
	played := 0
	for ops := range total {
		count(what, 1)
		played += ops
	}
	count(what+": operations, each followed by a look from both sides", played)
}

// TestShrink says that a failing sequence ends as short as it can be.
func TestShrink(t *testing.T) {
	for i := range 50 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		ops := make([]operation, 20)
		for j := range ops {
			ops[j] = operation{verb: "read"}
		}
		a, b := r.IntN(10), 10+r.IntN(10)
		ops[a], ops[b] = operation{verb: "set", key: "a", json: "1"}, operation{verb: "renew"}
		got := shrink(ops, func(ops []operation) bool { // fails where a renew follows a set
			set := false
			for _, o := range ops {
				set = set || o.verb == "set"
				if set && o.verb == "renew" {
					return true
				}
			}
			return false
		})
		if len(got) != 2 || got[0].verb != "set" || got[1].verb != "renew" {
			t.Fatalf("shortest of set at %d, renew at %d: got %s, want set, renew", a, b, describe(got))
		}
	}
}
