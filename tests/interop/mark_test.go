package interop_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestMarks says that to Express the row that a renewal by Go leaves under the
// old ID is no session, and that nothing that it does with that ID changes the
// row or its expiry.
func TestMarks(t *testing.T) {
	for _, typ := range []string{"json", "jsonb"} {
		for _, major := range majors {
			t.Run(fmt.Sprintf("%s, connect-pg-simple %d", typ, major), func(t *testing.T) {
				db := newDatabase(t, "")
				db.exec(t, "ALTER TABLE "+table+" ALTER COLUMN sess TYPE "+typ)
				gg := db.golang(t)
				for _, o := range []express{
					{},
					{Rolling: true},
					{Resave: true},
					{Rolling: true, Resave: true, SaveUninitialized: true},
					{Unset: "destroy", Resave: true},
					{DisableTouch: true},
				} {
					o.Major = major
					wantMarkLeftAlone(t, db, gg, db.express(t, o))
				}
			})
		}
	}
}

func wantMarkLeftAlone(t *testing.T, db *database, gg, ex *side) {
	t.Helper()
	var w browser
	w.must(t, gg, "/set", object{"key": "a", "value": "kept"})
	old, id := w.cookie, w.mustState(t, gg).ID
	w.must(t, gg, "/renew", object{})
	mark := db.mustRow(t, id)
	if !strings.HasPrefix(mark.sess, `"0e`) || mark.left < 800 || mark.left > 901 {
		t.Fatalf("row under the old ID: got %.2s… for %.0f s, want a mark for 900", mark.sess, mark.left)
	}
	for _, visit := range []struct {
		path string
		body any
	}{
		{"/state", nil},
		{"/set", object{"key": "x", "value": 1}},
		{"/count", object{}},
		{"/delete", object{"key": "a"}},
		{"/take", object{}},
		{"/login", object{"user": "ada"}},
		{"/renew", object{}},
		{"/maxage", object{"ms": 10 * minute}},
		{"/null", object{}},
		{"/logout", object{}},
	} {
		b := browser{cookie: old}
		b.must(t, ex, visit.path, visit.body)
		if b.cookie == old && b.last != "" {
			t.Errorf("%s %s: got the old cookie again, want a new one or none", ex.name, visit.path)
		}
		if b.cookie != old && b.cookie != "" {
			if state := b.mustState(t, ex); state.ID == id || state.Data["a"] != nil {
				t.Errorf("%s %s: got the renewed session's ID or data, want a session of its own", ex.name, visit.path)
			}
		}
		if got, err := db.row(t, id); err != nil || got.sess != mark.sess || got.expire != mark.expire {
			t.Errorf("%s %s: the mark: got another row or none (%v), want it left alone", ex.name, visit.path, err)
		}
		count("5 marks of renewed IDs, left alone by Express", 1)
	}
	wantNone(t, old, ex, gg)
	w.wantData(t, ex, `{"a":"kept"}`)

	// What Express does after the renewal, the mark knows nothing of; Go's next
	// renewal and logout do.
	w.must(t, ex, "/count", object{})
	w.must(t, gg, "/renew", object{})
	w.wantData(t, ex, `{"a":"kept","n":1}`)
	last := w.cookie
	w.must(t, gg, "/logout", object{})
	wantNone(t, last, ex, gg)
}
