package sessiontest

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgsession/session"
)

// find shares a key of its own among its rules, for the store may have other
// records.
func find(f *fixture) {
	finder, ok := f.store.(session.Finder)
	if !ok {
		f.Skip("the store has no Find method")
	}
	g := &findFixture{fixture: f, finder: finder, key: "k" + rand.Text()}
	g.text, g.number = g.with(`"42"`), g.with(`42`)
	g.hashed = f.create(fmt.Sprintf(`{"__find_%s":"42",%[1]q:"7"}`, g.key), time.Hour)
	g.other = g.with(`"43"`)
	g.yes = g.with(`true`)
	f.create(fmt.Sprintf(`{"nested":{%q:"42"}}`, g.key), time.Hour)
	f.create(`{}`, time.Hour)
	expired := f.create(fmt.Sprintf(`{%q:"42"}`, g.key), short)
	f.awaitExpiry(expired)

	f.sub("Find returns the live records whose key has one of the values", g.findValues)
	f.sub("Find returns the records as Load does", g.findRecords)
	f.sub("Find returns the latest expiry first and at most the limit", g.findOrder)
	f.sub("A handle names one record and tells nothing of its session ID", g.findHandle)
	f.sub("Find and DeleteFound leave out the excepted record", g.findExcept)
	f.sub("An odd record keeps no other from being found", g.findOdd)
	f.sub("Find and DeleteFound know no marks", g.findMarks)
	f.sub("DeleteFound deletes what it was asked to and counts the live ones", g.deleteFound)
}

type findFixture struct {
	*fixture
	finder session.Finder
	key    string

	text, number, hashed, other, yes string // session IDs, by their values
}

func (g *findFixture) with(value string) string {
	g.Helper()
	return g.create(fmt.Sprintf(`{%q:%s}`, g.key, value), time.Hour)
}

func (g *findFixture) query(values ...string) session.Query {
	return session.Query{Key: g.key, Values: values, Limit: 100}
}

func (g *findFixture) find(f *fixture, q session.Query) []session.Found {
	f.Helper()
	found, err := g.finder.Find(f.ctx, q)
	if err != nil {
		f.Errorf("Find: got %v, want no error", err)
	}
	return found
}

// want checks that exactly the records of ids are found.
func (g *findFixture) want(f *fixture, what string, q session.Query, ids ...string) {
	f.Helper()
	got, want := []string{}, []string{}
	for _, r := range g.find(f, q) {
		got = append(got, r.Handle)
	}
	for _, id := range ids {
		want = append(want, g.finder.Handle(id))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.Errorf("%s: got %d records, want exactly these %d", what, len(got), len(want))
	}
}

func (g *findFixture) findValues(f *fixture) {
	g.want(f, "a string, a number and a hash", g.query("42"), g.text, g.number, g.hashed)
	g.want(f, "one of two", g.query("43", "true"), g.other, g.yes)
	g.want(f, "a value that a hash stands for", g.query("7"))
	g.want(f, "no record's value", g.query("4"))
	g.want(f, "another key", session.Query{Key: g.key + "x", Values: []string{"42"}, Limit: 100})
}

func (g *findFixture) findRecords(f *fixture) {
	for _, r := range g.find(f, g.query("43")) {
		f.wantData(r.Data, string(f.load(g.other)))
		f.wantTTL(r.TTL, time.Hour)
		if r.ID != "" && r.ID != g.other {
			f.Errorf("ID: got another record's, want this one's or none")
		}
	}
}

func (g *findFixture) findOrder(f *fixture) {
	first := f.create(fmt.Sprintf(`{%q:"order"}`, g.key), 3*time.Hour)
	f.create(fmt.Sprintf(`{%q:"order"}`, g.key), time.Hour)
	second := f.create(fmt.Sprintf(`{%q:"order"}`, g.key), 2*time.Hour)
	q := g.query("order")
	q.Limit = 2
	found := g.find(f, q)
	if len(found) != 2 || found[0].Handle != g.finder.Handle(first) || found[1].Handle != g.finder.Handle(second) {
		f.Errorf("got %d records, want the 2 that expire last, the very last first", len(found))
	}
}

func (g *findFixture) findHandle(f *fixture) {
	q := g.query("42")
	q.Handle = g.finder.Handle(g.number)
	g.want(f, "by handle and value", q, g.number)
	g.want(f, "by handle alone", session.Query{Handle: q.Handle, Limit: 100}, g.number)
	q.Handle = g.finder.Handle(g.other)
	g.want(f, "a handle of another value's record", q)
	for _, id := range []string{g.text, g.number, g.other} {
		if h := g.finder.Handle(id); h == "" || strings.Contains(h, id) || strings.Contains(id, h) {
			f.Error("Handle: got nothing, or something of the session ID")
		}
	}
}

func (g *findFixture) findExcept(f *fixture) {
	q := g.query("42")
	q.Except = g.text
	g.want(f, "Find", q, g.number, g.hashed)
	spared, gone := f.create(fmt.Sprintf(`{%q:"except"}`, g.key), time.Hour), f.create(fmt.Sprintf(`{%q:"except"}`, g.key), time.Hour)
	q = g.query("except")
	q.Except = spared
	if n, err := g.finder.DeleteFound(f.ctx, q); n != 1 || err != nil {
		f.Errorf("DeleteFound: got %d, %v, want 1, no error", n, err)
	}
	f.load(spared)
	f.wantGone(gone)
}

func (g *findFixture) findOdd(f *fixture) {
	odd := []string{`[]`, `"text"`}
	if !f.sameJSON {
		odd = append(odd, `{"a":"\u0000"}`, `{"a":"\\u0000"}`, `{"a":"\ud800"}`)
	}
	for _, data := range odd {
		f.create(data, time.Hour)
	}
	ids := []string{f.create(fmt.Sprintf(`{%q:"odd"}`, g.key), time.Hour)}
	if !f.sameJSON {
		ids = append(ids, f.create(fmt.Sprintf(`{"a":"\u0000\ud800",%q:"odd"}`, g.key), time.Hour))
	}
	g.want(f, "beside odd records", g.query("odd"), ids...)
}

func (g *findFixture) findMarks(f *fixture) {
	chain := f.chain(fmt.Sprintf(`{%q:"renewed"}`, g.key), 2)
	g.want(f, "by value", g.query("renewed"), chain[2])
	for _, id := range chain[:2] {
		for _, q := range []session.Query{g.query("renewed"), {Limit: 100}} {
			q.Handle = g.finder.Handle(id)
			g.want(f, "by the handle of a renewed ID", q)
			if n, err := g.finder.DeleteFound(f.ctx, q); n != 0 || err != nil {
				f.Errorf("DeleteFound by the handle of a renewed ID: got %d, %v, want 0, no error", n, err)
			}
			f.wantMark(id)
		}
	}
	f.load(chain[2])
	if n, err := g.finder.DeleteFound(f.ctx, g.query("renewed")); n != 1 || err != nil {
		f.Errorf("DeleteFound by value: got %d, %v, want 1, no error", n, err)
	}
	f.wantGone(chain[2])
	f.wantMark(chain[0])
}

func (g *findFixture) deleteFound(f *fixture) {
	q := g.query("43", "true")
	q.Handle, q.Limit = g.finder.Handle(g.other), 0
	if n, err := g.finder.DeleteFound(f.ctx, q); n != 1 || err != nil {
		f.Errorf("by handle and values: got %d, %v, want 1, no error", n, err)
	}
	f.wantGone(g.other)
	f.load(g.yes)
	q = g.query("42")
	q.Limit = 1 // of Find only
	if n, err := g.finder.DeleteFound(f.ctx, q); n != 3 || err != nil {
		f.Errorf("by value: got %d, %v, want the 3 that are live, no error", n, err)
	}
	for _, id := range []string{g.text, g.number, g.hashed} {
		f.wantGone(id)
	}
	f.load(g.yes)
	if n, err := g.finder.DeleteFound(f.ctx, q); n != 0 || err != nil {
		f.Errorf("again: got %d, %v, want 0, no error", n, err)
	}
}
