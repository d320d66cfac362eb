package explore_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/explore"
	"github.com/pgsession/session/internal/row"
)

// world is one run: table, browser, actors, and what has happened so far. One
// actor moves at a time, so nothing of it needs a lock.
type world struct {
	lab     *lab
	t       *testing.T
	script  *explore.Script
	store   store
	stage   *explore.Stage
	actors  []*actor
	history *explore.History
	began   time.Time
	down    bool

	jar    [2]slot // the browser's cookies: of the host alone, and of the domain
	device device

	ids     []string          // by age
	names   map[string]string // of IDs
	lineage map[string]int    // by name
	tags    map[string]string // names of tags in records
	table   explore.Table
	rows    map[string]explore.Row // as last read, by name
	order   uint64                 // hash of all events but loads
	seats   sync.Map               // on the stage, of second goroutines by name
}

// store is a store that can revoke.
type store interface {
	session.Store
	session.Finder
}

// slot is a cookie of the browser.
type slot struct {
	value string
	explore.Jar
}

func newWorld(l *lab, t *testing.T, script *explore.Script) *world {
	w := &world{
		lab: l, t: t, script: script, store: session.NewMemoryStore(),
		stage: explore.NewStage(len(script.Actors)), began: time.Now(),
		history: &explore.History{Script: script, Idle: idleTimeout, Interval: session.DefaultTouchInterval, Heirs: map[int]int{}},
		names:   map[string]string{}, lineage: map[string]int{}, tags: map[string]string{}, rows: map[string]explore.Row{},
	}
	if script.Absolute {
		w.history.Absolute = absoluteTimeout
	}
	if l.outside != nil {
		w.store, w.stage = l.outside(), explore.NewStageOutside(len(script.Actors), w.queues)
	}
	l.store.Store, l.store.Finder, l.store.loses = w.store, w.store, script.Wrapped
	return w
}

// begin sets up table and browser, and brings the actors on the stage.
func (w *world) begin() {
	w.setUp()
	w.readTable()
	for i, calls := range w.script.Actors {
		w.actors = append(w.actors, &actor{w: w, number: i, calls: calls, begun: newGate(), loaded: newGate(), firstLoaded: newGate()})
	}
	for _, a := range w.actors {
		go a.live()
	}
	w.stage.PassTime(explore.Tick)
}

// setUp fills table and browser.
func (w *world) setUp() {
	s := w.lab.start(w.script)
	w.device = s.device
	w.device.key = w.lab.secure
	if s.id == "" {
		return
	}
	if w.script.Absolute {
		s.left = min(s.left, absoluteTimeout)
	}
	if err := w.store.Create(w.t.Context(), s.id, session.Record{Data: s.data, TTL: s.left}); err != nil {
		panic(err)
	}
	live := slot{s.cookie, explore.Jar{ID: w.name(s.id), Expires: s.left}}
	if w.script.Token || w.script.Exit && w.script.Setup != explore.Remember {
		live.Expires = untilExit
	}
	w.lineage[live.ID] = 1
	if w.script.Stray {
		w.jar = [2]slot{{w.lab.stray, explore.Jar{ID: w.name(idOf(w.lab.stray)), Expires: s.left}}, live}
	} else {
		w.jar[0] = live
	}
}

// finish looks at what is left, and sends one more request of the browser.
func (w *world) finish() {
	h := w.history
	h.Table, h.Jar = slices.Clone(w.table), w.jarNow()
	for i := range h.Table {
		h.Table[i].Raw = w.plain(h.Table[i].Raw)
	}
	if len(h.Hung) > 0 {
		return
	}
	m := w.lab.manager(w.script.Config, 0)
	if w.script.Bound {
		w.finishBound(m)
		return
	}
	out := &response{header: http.Header{}}
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, h.Next.User = keyUser.Get(session.From(r.Context()))
	})).ServeHTTP(out, request(context.Background(), w.cookiesNow()...))
	w.readTable()
	h.Next.Table, h.Next.ID, h.Next.Code = w.table, h.Jar.ID, out.code
	if h.Next.Code == 0 {
		h.Next.Code = http.StatusOK
	}
}

// record adds an event. Who came to life in another one's step waits for its own.
func (a *actor) record(e explore.Event) { a.recordAt(a.number, e) }

func (a *actor) recordAt(seat int, e explore.Event) {
	a.w.stage.Await(seat, string(e.Kind))
	e.Actor, e.Index = a.number, a.index
	a.w.add(e)
	a.w.stage.Sync()
}

func (w *world) add(e explore.Event) {
	e.At, e.Table, e.Jar = time.Since(w.began), w.table, w.counts(w.jar)
	w.history.Events = append(w.history.Events, e)
	if !w.lab.key {
		return
	}
	a := w.actors[e.Actor]
	a.seen = e.Mix(a.seen)
	if e.Op.Name == "Load" {
		a.seen = a.seen*31 + w.order // it matters between which writes, not loads
	} else {
		w.order = e.Mix(w.order)
	}
}

// state names the state of the run: what everybody has done and seen, in which
// order it was done, and where they are.
func (w *world) state() uint64 {
	hash := w.order
	for i, a := range w.actors {
		hash = explore.Mix(hash*31+a.seen, w.stage.Where(i))
	}
	for _, i := range w.stage.Ready() {
		hash = hash*31 + uint64(i)
	}
	return hash
}

// happened records a store operation.
func (w *world) happened(a *actor, seat int, op explore.Op, id, newID string, err error) {
	op.ID, op.NewID = w.name(id), w.name(newID)
	if op.Done {
		switch {
		case op.Name == "Create":
			w.lineage[op.ID] = w.newLineage()
		case op.NewID != "":
			w.lineage[op.NewID] = w.lineage[op.ID]
			if before, ok := w.table.Find(op.ID); ok && w.stored(newID).Created != before.Created {
				w.lineage[op.NewID] = w.newLineage()
				w.history.Heirs[w.lineage[op.ID]] = w.lineage[op.NewID]
			}
		}
		if op.Name != "Load" {
			w.readTable()
		}
	}
	op.Data = w.plain(op.Data)
	a.recordAt(seat, explore.Event{Kind: explore.Stores, Op: op, Err: text(err)})
}

// stored returns the record of an ID.
func (w *world) stored(id string) explore.Row {
	rec, err := w.store.Load(context.Background(), id)
	if err != nil {
		return explore.Row{}
	}
	return w.readRow(id, string(rec.Data))
}

func (w *world) newLineage() int {
	last := 0
	for _, n := range w.lineage {
		last = max(last, n)
	}
	return max(last, 1) + 1
}

// name returns the name of an ID.
func (w *world) name(id string) string {
	if id == "" {
		return ""
	}
	name, ok := w.names[id]
	if !ok {
		w.ids = append(w.ids, id)
		name = fmt.Sprintf("ID%d", len(w.ids))
		w.names[id] = name
	}
	return name
}

// readTable notes which records are live, as a request would load them.
func (w *world) readTable() {
	w.table = nil
	for _, id := range w.ids {
		rec, err := w.store.Load(context.Background(), id)
		if err != nil {
			continue
		}
		name := w.names[id]
		row, known := w.rows[name]
		if raw := string(rec.Data); !known || row.Raw != raw {
			row = w.readRow(id, raw)
		}
		row.ID, row.Lineage, row.Expires = name, w.lineage[name], time.Since(w.began)+rec.TTL
		w.rows[name] = row
		w.table = append(w.table, row)
	}
}

func (w *world) readRow(id, raw string) explore.Row {
	data, err := row.Parse([]byte(raw))
	if err == nil {
		err = w.lab.sealer.Open(id, &data)
	}
	if err != nil {
		panic(err)
	}
	x := string(data.Get("x"))
	r := explore.Row{Raw: raw, User: data.Get("user") != nil, HasX: x != "", X: strings.Trim(x, `"`)}
	r.Who, _ = strconv.Atoi(string(data.Get("user")))
	r.N, _ = strconv.Atoi(string(data.Get("n")))
	r.Own, _ = data.MaxAge()
	if created, ok := data.Created(); ok {
		r.Created = created.Sub(w.began)
	}
	return r
}

// plain gives the tags of Key.Update in a record names, for they hold what each
// program has drawn by lot. Of an encrypted one nothing is left.
func (w *world) plain(data string) string {
	if w.script.Encrypt || w.script.Bound { // whose names are drawn by lot too
		return ""
	}
	const member = `"__saves":["`
	at := strings.Index(data, member)
	if at < 0 {
		return data
	}
	rest := data[at+len(member):]
	end := strings.IndexByte(rest, ']')
	var b strings.Builder
	for tag := range strings.SplitSeq(strings.Trim(rest[:end], `"`), `","`) {
		if w.tags[tag] == "" {
			w.tags[tag] = fmt.Sprintf("tag%d ", len(w.tags)+1)
		}
		b.WriteString(w.tags[tag])
	}
	return data[:at+len(member)] + b.String() + rest[end:]
}

// held returns the browser's cookies that have not ended.
func (w *world) held() [2]slot {
	now := w.jar
	for i := range now {
		if time.Since(w.began) >= now[i].Expires {
			now[i] = slot{}
		}
	}
	return now
}

// counts returns the cookie that counts: the first whose record is live, else
// the last.
func (w *world) counts(jar [2]slot) (counts explore.Jar) {
	for _, c := range jar {
		if _, live := w.table.Find(counts.ID); !live && c.value != "" {
			counts = c.Jar
		} else if c.ID == counts.ID { // the same twice
			counts.Expires = max(counts.Expires, c.Expires)
		}
	}
	return counts
}

func (w *world) jarNow() explore.Jar { return w.counts(w.held()) }

// cookiesNow returns the cookies that the browser sends, the oldest first.
func (w *world) cookiesNow() (values []string) {
	for _, c := range w.held() {
		if c.value != "" {
			values = append(values, c.value)
		}
	}
	return values
}

// takeCookie is the browser's: it keeps or drops a cookie, and returns the name
// of its ID.
func (w *world) takeCookie(c setCookie) string {
	s := &w.jar[0]
	if c.domain {
		s = &w.jar[1]
	}
	*s = slot{value: c.value}
	if c.value != "" {
		s.Jar = explore.Jar{ID: w.name(idOf(c.value)), Expires: time.Since(w.began) + c.maxAge}
	}
	return s.ID
}

// plainHeader returns a header without what was drawn by lot.
func (w *world) plainHeader(h http.Header) map[string][]string {
	plain := h.Clone()
	for i, line := range plain["Set-Cookie"] {
		value, attributes, _ := strings.Cut(line, ";")
		name, value, _ := strings.Cut(value, "=")
		switch {
		case value == "":
		case name == "session":
			value = w.name(idOf(value))
		default:
			value = "a token"
		}
		plain["Set-Cookie"][i] = name + "=" + value + ";" + attributes
	}
	for i, token := range plain["Session-Token"] {
		plain["Session-Token"][i] = w.name(idOf(token))
	}
	if h.Get("Secure-Session-Registration") != "" {
		plain.Set("Secure-Session-Registration", "a challenge")
	}
	return plain
}
