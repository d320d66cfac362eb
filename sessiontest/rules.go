package sessiontest

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/pgsession/session"
)

// rules are what TestStore tests, in the order of the interface.
var rules = []struct {
	rule string
	test func(*fixture)
}{
	{"Load returns the bytes that Create stored", loadCreated},
	{"Load returns the bytes that Update stored", loadUpdated},
	{"Load returns large data whole", loadLarge},
	{"Load returns the time left", loadTTL},
	{"Load of an absent record returns ErrNotFound", loadAbsent},
	{"Load's data stays as it is when the record changes", loadedStays},
	{"Create and Update keep no hold of their caller's bytes", bytesAreCopied},
	{"Session IDs are the same only byte for byte", idsByteForByte},

	{"Create never overwrites a record", createTaken},

	{"Update replaces the data", updateReplaces},
	{"Update of changed data returns ErrConflict and writes nothing", updateConflict},
	{"Update compares bytes and not meaning", updateComparesBytes},
	{"Update without a TTL leaves the expiry alone", updateKeepsExpiry},
	{"Update moves the expiry forward", updateForward},
	{"Update moves the expiry backwards only with Shorten", updateShorten},
	{"Update of an absent record returns ErrNotFound or ErrConflict", updateAbsent},

	{"A renewal moves the record to the new session ID", renewalMoves},
	{"A renewal changes data and expiry in the same step", renewalChanges},
	{"A renewal of changed data returns ErrConflict and writes nothing", renewalConflict},
	{"A renewal never overwrites a record", renewalTaken},
	{"A renewed session ID stays gone", renewedStaysGone},

	{"A renewal leaves a mark for a quarter of an hour", markLeft},
	{"Touch never moves a mark", markTouched},
	{"Update of a mark writes nothing", markUpdated},
	{"Create and renewals never overwrite a mark", markKeepsID},

	{"Touch moves the expiry forward", touchForward},
	{"Touch never moves the expiry backwards", touchNeverBackwards},
	{"Touch leaves the data alone", touchKeepsData},
	{"Touch of an absent record returns ErrNotFound", touchAbsent},

	{"Delete removes the record and no other", deleteRemoves},
	{"Delete of an absent record is no error", deleteAbsent},
	{"A deleted record stays gone", deletedStaysGone},
	{"Delete follows marks to the record", deleteFollows},
	{"Delete leaves marks", deleteLeavesMarks},

	{"Expiry", expiry},

	{"An ended context is an error that says nothing of the record", endedContext},
	{"An error shows neither session ID nor data", errorsAreDiscreet},

	{"Of Creates of one session ID exactly one wins", createsRace},
	{"Of Updates from the same data exactly one wins", updatesRace},
	{"Of renewals of one record exactly one wins", renewalsRace},
	{"Of renewals onto one session ID exactly one wins", renewalsOntoOneRace},
	{"Increments by Load and Update all land", incrementsRace},
	{"A Touch undoes no Update", touchesRace},
	{"A Delete beats Updates and Touches under way", deleteRace},
	{"A Delete beats renewals under way", chainRace},

	{"Prune", prune},
	{"Find", find},
	{"Peek", watch},
}

// texts are data that a store must keep byte for byte. A store for [SameJSON]
// may refuse the odd ones.
var texts = []struct {
	name, data string
	odd        bool
}{
	{"empty object", `{}`, false},
	{"as Express writes it", `{"cookie":{"originalMaxAge":60000,"expires":"2026-11-23T10:57:15.415Z","httpOnly":true,"path":"/"},"userId":"42"}`, false},
	{"unicode", "{\"名前\":\"Zoë 😀 e\u0301 \u2028\u2029\u007f\"}", false},
	{"HTML", `{"a":"<b>&amp;'</b>"}`, false},
	{"escapes", `{"\u0061\"":"\/ \u00e9 \u2028 \\ \" \b\f\n\r\t \ud83d\ude00"}`, false},
	{"NUL", `{"a":"\u0000"}`, true},
	{"lone surrogate", `{"a":"\ud800"}`, true},
	{"duplicate keys", `{"a":1,"b":2,"a":3}`, false},
	{"order of keys", `{"z":1,"10":2,"a":3,"2":4,"":5}`, false},
	{"white space", " {\r\n\t\"a\" : [ 1 , 2 ] } \n", false},
	{"numbers", `{"a":9007199254740993,"b":1e400,"c":-0,"d":1.10,"e":1E+2,"f":12345678901234567890.123456789}`, false},
	{"names of JavaScript", `{"__proto__":{"constructor":null},"toString":true}`, false},
	{"quotes and placeholders", `{"a":"'; DROP TABLE session; -- $1 ? %s {}"}`, false},
}

func loadCreated(f *fixture) {
	for _, text := range texts {
		if text.odd && f.sameJSON {
			continue
		}
		id := f.id()
		if err := f.store.Create(f.ctx, id, session.Record{Data: []byte(text.data), TTL: time.Hour}); err != nil {
			f.Errorf("%s: Create: got %v, want no error", text.name, err)
			continue
		}
		f.wantRecord(id, text.data, time.Hour)
	}
}

func loadUpdated(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	for _, text := range texts {
		if text.odd && f.sameJSON {
			continue
		}
		if err := f.store.Update(f.ctx, id, f.change(id, text.data)); err != nil {
			f.Errorf("%s: Update: got %v, want no error", text.name, err)
			continue
		}
		f.wantRecord(id, text.data, time.Hour)
	}
}

func loadLarge(f *fixture) {
	large := func(fill string) string {
		return `{"large":"` + strings.Repeat(fill, 1<<20/len(fill)) + `"}`
	}
	ascii, accents := large("0123456789abcdef"), large("é")
	id := f.create(ascii, time.Hour)
	f.wantRecord(id, ascii, time.Hour)
	f.update(id, f.change(id, accents))
	f.wantRecord(id, accents, time.Hour)
}

func loadTTL(f *fixture) {
	for _, ttl := range []time.Duration{time.Minute, time.Hour, 400 * 24 * time.Hour} {
		f.wantRecord(f.create(`{}`, ttl), `{}`, ttl)
	}
}

func loadAbsent(f *fixture) {
	f.wantGone(f.id())
}

func loadedStays(f *fixture) {
	id := f.create(`{"a":"first"}`, time.Hour)
	loaded := f.load(id)
	before := bytes.Clone(loaded)
	f.update(id, session.Change{Old: loaded, New: []byte(`{"a":"other"}`)})
	f.touch(id, 2*time.Hour)
	if err := f.store.Delete(f.ctx, id); err != nil {
		f.Errorf("Delete: got %v, want no error", err)
	}
	if !bytes.Equal(loaded, before) {
		f.Errorf("data loaded before: got %s, want %s", loaded, before)
	}
}

func bytesAreCopied(f *fixture) {
	id := f.id()
	created := []byte(`{"a":"created"}`)
	if err := f.store.Create(f.ctx, id, session.Record{Data: created, TTL: time.Hour}); err != nil {
		f.Fatalf("Create: got %v, want no error", err)
	}
	copy(created, "overwritten")
	f.wantRecord(id, `{"a":"created"}`, time.Hour)

	c := session.Change{Old: bytes.Clone(f.load(id)), New: []byte(`{"a":"updated"}`)}
	f.update(id, c)
	copy(c.Old, "overwritten")
	copy(c.New, "overwritten")
	f.wantRecord(id, `{"a":"updated"}`, time.Hour)
}

func idsByteForByte(f *fixture) {
	base := f.id()
	var ids []string
	for _, end := range []string{
		"", "x", "X", " ", ".", ".x", "-", "_", "%", "*", "?", "'", `"`, `\`, `\\`, ";", ",", "=", "$1", "(", "{}", "\t",
		"é", "e\u0301", "É", "ß", "ss", "日本語", "😀", "\u200b", "\ufeff", "/../x", "%2e",
		strings.Repeat("y", 200), strings.Repeat("y", 201), strings.Repeat("é", 200),
	} {
		ids = append(ids, f.owned(base+end))
	}
	ids = append(ids, f.owned(" "+base), f.owned(strings.ToLower(base)))

	data := func(i, version int) string { return fmt.Sprintf(`{"id":%d,"version":%d}`, i, version) }
	for i, id := range ids {
		f.createAs(id, data(i, 1), time.Hour)
	}
	for i, id := range ids {
		f.wantRecord(id, data(i, 1), time.Hour)
		f.update(id, f.change(id, data(i, 2)))
		f.touch(id, 2*time.Hour)
	}
	for i, id := range ids {
		f.wantRecord(id, data(i, 2), 2*time.Hour)
		c := f.change(id, data(i, 3))
		c.NewID = f.owned("renewed " + id)
		f.update(id, c)
	}
	for i, id := range ids {
		f.wantRecord("renewed "+id, data(i, 3), 2*time.Hour)
		if err := f.store.Delete(f.ctx, "renewed "+id); err != nil {
			f.Errorf("Delete: got %v, want no error", err)
		}
		f.wantGone("renewed " + id)
	}
}

func createTaken(f *fixture) {
	id := f.create(`{"a":"first"}`, time.Hour)
	err := f.store.Create(f.ctx, id, session.Record{Data: []byte(`{"a":"second"}`), TTL: 2 * time.Hour})
	f.want("Create", err, session.ErrExists)
	f.wantRecord(id, `{"a":"first"}`, time.Hour)
}

func updateReplaces(f *fixture) {
	id := f.create(`{"a":"first"}`, time.Hour)
	for _, data := range []string{`{"a":"second"}`, `{}`, `{"a":"third"}`, `{"a":"third"}`} {
		f.update(id, f.change(id, data))
		f.wantRecord(id, data, time.Hour)
	}
}

func updateConflict(f *fixture) {
	id := f.create(`{"a":"first"}`, time.Hour)
	first := f.load(id)
	f.update(id, session.Change{Old: first, New: []byte(`{"a":"second"}`)})
	for _, old := range []string{string(first), `{}`, `{"a":"Second"}`, `{"a":"second","b":0}`, `null`} {
		err := f.store.Update(f.ctx, id, session.Change{
			Old: []byte(old), New: []byte(`{"a":"third"}`), TTL: 2 * time.Hour,
		})
		f.want("Update from "+old, err, session.ErrConflict)
		f.wantRecord(id, `{"a":"second"}`, time.Hour)

		err = f.store.Update(f.ctx, id, session.Change{
			Old: []byte(old), New: []byte(`{"a":"third"}`), TTL: time.Minute, Shorten: true,
		})
		f.want("Update with Shorten from "+old, err, session.ErrConflict)
		f.wantRecord(id, `{"a":"second"}`, time.Hour)
	}
}

func updateComparesBytes(f *fixture) {
	if f.sameJSON {
		f.Skip("the store is SameJSON")
	}
	id := f.create(`{"a":1,"b":"é"}`, time.Hour)
	for _, old := range []string{
		`{"a":1,"b":"é"} `, `{"a": 1,"b":"é"}`, `{"b":"é","a":1}`, `{"a":1.0,"b":"é"}`,
		`{"a":1,"b":"\u00e9"}`, "{\"a\":1,\"b\":\"e\u0301\"}", `{"a":1,"b":"É"}`,
	} {
		err := f.store.Update(f.ctx, id, session.Change{Old: []byte(old), New: []byte(`{"a":2}`)})
		f.want("Update from "+old, err, session.ErrConflict)
		f.wantRecord(id, `{"a":1,"b":"é"}`, time.Hour)
	}
}

func updateKeepsExpiry(f *fixture) {
	id := f.create(`{"a":0}`, time.Hour)
	for i, c := range []session.Change{{}, {TTL: -time.Hour}, {Shorten: true}, {TTL: -time.Hour, Shorten: true}} {
		data := fmt.Sprintf(`{"a":%d}`, i+1)
		c.Old, c.New = f.load(id), []byte(data)
		f.update(id, c)
		f.wantRecord(id, data, time.Hour)
	}
}

func updateForward(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	c := f.change(id, `{"a":2}`)
	c.TTL = 2 * time.Hour
	f.update(id, c)
	f.wantRecord(id, `{"a":2}`, 2*time.Hour)

	c = f.change(id, `{"a":2}`) // the same data again
	c.TTL = 3 * time.Hour
	f.update(id, c)
	f.wantRecord(id, `{"a":2}`, 3*time.Hour)
}

func updateShorten(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	c := f.change(id, `{"a":2}`)
	c.TTL = time.Minute
	f.update(id, c)
	f.wantRecord(id, `{"a":2}`, time.Hour)

	c = f.change(id, `{"a":3}`)
	c.TTL, c.Shorten = time.Minute, true
	f.update(id, c)
	f.wantRecord(id, `{"a":3}`, time.Minute)

	c = f.change(id, `{"a":4}`)
	c.TTL, c.Shorten = 2*time.Hour, true
	f.update(id, c)
	f.wantRecord(id, `{"a":4}`, 2*time.Hour)
}

func updateAbsent(f *fixture) {
	for _, old := range []string{`{"a":1}`, `{}`, ""} {
		id, newID := f.id(), f.id()
		c := session.Change{Old: []byte(old), New: []byte(`{"a":2}`), TTL: time.Hour}
		f.want("Update", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
		f.wantGone(id)

		c.NewID = newID
		f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
		f.wantGone(id)
		f.wantGone(newID)
	}
}

func renewalMoves(f *fixture) {
	id, newID := f.create(`{"a":1}`, time.Hour), f.id()
	c := f.change(id, `{"a":1}`)
	c.NewID = newID
	f.update(id, c)
	f.wantGone(id)
	f.wantRecord(newID, `{"a":1}`, time.Hour)
}

func renewalChanges(f *fixture) {
	for _, tc := range []struct {
		ttl     time.Duration
		shorten bool
		want    time.Duration
	}{
		{0, false, time.Hour},
		{2 * time.Hour, false, 2 * time.Hour},
		{time.Minute, false, time.Hour},
		{time.Minute, true, time.Minute},
	} {
		id, newID := f.create(`{"a":1}`, time.Hour), f.id()
		c := f.change(id, `{"a":2}`)
		c.NewID, c.TTL, c.Shorten = newID, tc.ttl, tc.shorten
		f.update(id, c)
		f.wantGone(id)
		f.wantRecord(newID, `{"a":2}`, tc.want)
	}
}

func renewalConflict(f *fixture) {
	id, newID := f.create(`{"a":"first"}`, time.Hour), f.id()
	c := f.change(id, `{"a":"second"}`)
	f.update(id, c)
	c.New, c.NewID, c.TTL = []byte(`{"a":"third"}`), newID, 2*time.Hour
	f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrConflict)
	f.wantGone(newID)
	f.wantRecord(id, `{"a":"second"}`, time.Hour)
}

func renewalTaken(f *fixture) {
	id := f.create(`{"a":"mine"}`, time.Hour)
	taken := f.create(`{"a":"other"}`, time.Minute)
	c := f.change(id, `{"a":"new"}`)
	c.NewID, c.TTL = taken, 2*time.Hour
	f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrExists)
	f.wantRecord(id, `{"a":"mine"}`, time.Hour)
	f.wantRecord(taken, `{"a":"other"}`, time.Minute)
}

func renewedStaysGone(f *fixture) {
	id, newID, newerID := f.create(`{"a":1}`, time.Hour), f.id(), f.id()
	c := f.change(id, `{"a":1}`)
	c.NewID = newID
	f.update(id, c)
	f.wantStaysGone(id, c.Old, newerID)
	f.wantRecord(newID, `{"a":1}`, time.Hour)
}

// wantStaysGone checks that nothing that a slow request still does brings the
// record of id, whose data was old, back. newID is a free session ID.
func (f *fixture) wantStaysGone(id string, old []byte, newID string) {
	f.Helper()
	c := session.Change{Old: old, New: []byte(`{"a":"late"}`), TTL: time.Hour}
	f.want("Update", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
	f.wantGone(id)

	c.New = old
	f.want("Update to the same data", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
	f.wantGone(id)

	f.want("Touch", f.store.Touch(f.ctx, id, time.Hour), session.ErrNotFound)
	f.wantGone(id)

	c.NewID = newID
	f.want("renewal", f.store.Update(f.ctx, id, c), session.ErrNotFound, session.ErrConflict)
	f.wantGone(id)
	f.wantGone(newID)
}

func touchForward(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	f.touch(id, 2*time.Hour)
	f.wantRecord(id, `{"a":1}`, 2*time.Hour)
}

func touchNeverBackwards(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	for _, ttl := range []time.Duration{time.Minute, time.Millisecond} {
		f.touch(id, ttl)
		f.wantRecord(id, `{"a":1}`, time.Hour)
	}
}

func touchKeepsData(f *fixture) {
	for _, text := range texts {
		if text.odd && f.sameJSON {
			continue
		}
		id := f.create(text.data, time.Hour)
		before := f.change(id, `{"a":1}`)
		f.touch(id, 2*time.Hour)
		f.wantData(f.load(id), text.data)
		// A save that was under way when another request touched the record
		// must not become a conflict.
		f.update(id, before)
	}
}

func touchAbsent(f *fixture) {
	id := f.id()
	f.want("Touch", f.store.Touch(f.ctx, id, time.Hour), session.ErrNotFound)
	f.wantGone(id)
}

func deleteRemoves(f *fixture) {
	id, other := f.create(`{"a":1}`, time.Hour), f.create(`{"a":1}`, time.Hour)
	if err := f.store.Delete(f.ctx, id); err != nil {
		f.Errorf("Delete: got %v, want no error", err)
	}
	f.wantGone(id)
	f.wantRecord(other, `{"a":1}`, time.Hour)
}

func deleteAbsent(f *fixture) {
	id := f.create(`{"a":1}`, time.Hour)
	for _, what := range []string{"first", "second", "third"} {
		if err := f.store.Delete(f.ctx, id); err != nil {
			f.Errorf("%s Delete: got %v, want no error", what, err)
		}
	}
	if err := f.store.Delete(f.ctx, f.id()); err != nil {
		f.Errorf("Delete of what never was: got %v, want no error", err)
	}
}

func deletedStaysGone(f *fixture) {
	id, newID := f.create(`{"a":1}`, time.Hour), f.id()
	old := f.load(id)
	if err := f.store.Delete(f.ctx, id); err != nil {
		f.Errorf("Delete: got %v, want no error", err)
	}
	f.wantStaysGone(id, old, newID)
}
