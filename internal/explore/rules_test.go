package explore_test

import (
	"slices"
	"testing"

	"github.com/pgsession/session/internal/explore"
)

func TestScriptText(t *testing.T) {
	for seed := range uint64(500) {
		script, _ := scheduleOf(seed)
		script.Steps = []int{0, 1, 1, 0}
		script.Split = seed%2 == 0
		again, err := explore.Parse(script.Text([]string{"begins", "anything"}))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := again.String(), script.String(); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestScriptFaults(t *testing.T) {
	for _, text := range []string{
		"setup elsewhere", "B: get", "A: sing", "A: get\nC", "A: get\nfault: B 1 down", "A: get\nfault: A 1 tired", "config x", "A: get\n!",
	} {
		if _, err := explore.Parse(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// scheduleOf returns the schedule of a seed. In every third one the handler has a
// further goroutine, which changes the session while a save is under way, in
// every other third one handler goes on after its first byte. No further goroutine
// saves: one that waits for another's save wakes in the midst of that one's step, and
// both run at once then.
func scheduleOf(seed uint64) (script explore.Script, choose explore.Choose) {
	switch seed % 3 {
	case 0:
		script, choose = explore.RandomBeside(seed)
	case 1:
		script, choose = explore.RandomStream(seed)
	default:
		script, choose = explore.Random(seed)
	}
	for actor := range script.Beside {
		for i, call := range script.Actors[actor] {
			if call == explore.Save {
				script.Actors[actor][i] = explore.Get
			}
		}
	}
	return script, choose
}

// TestSameSeedSameRun runs schedules twice, each time with other IDs, and
// compares all that happened: status, headers, what calls returned, the calls of
// the store in order with what was written, and the rows at the end.
func TestSameSeedSameRun(t *testing.T) {
	first, second := newLab(t), newLab(t)
	first.full, second.full = true, true
	for seed := range uint64(300) {
		script, choose := scheduleOf(seed)
		a := first.run(&script, choose)
		again, choose := scheduleOf(seed)
		b := second.run(&again, choose)
		if a.Outcome() != b.Outcome() {
			t.Fatalf("schedule %d: got\n%s\nthen\n%s", seed, a.Outcome(), b.Outcome())
		}
		// By its steps alone it is the same run once more.
		replay := script.Clone()
		replay.Steps = a.Steps
		if c := first.run(&replay, nil); c.Outcome() != a.Outcome() {
			t.Fatalf("schedule %d: got\n%s\nreplayed\n%s", seed, a.Outcome(), c.Outcome())
		}
	}
}

// TestAllOrders counts the orders of two requests with one load and one write
// each, which can be counted by hand where the second waits for nobody.
func TestAllOrders(t *testing.T) {
	l := newLab(t)
	l.key = true
	prints := map[uint64]bool{}
	head := explore.Script{Setup: explore.Fresh, Actors: [][]explore.Call{{explore.Destroy}, {explore.Destroy}}}
	explore.All(l.run, &head, 1000, func(h *explore.History) bool {
		prints[h.Print()] = true
		return true
	})
	// Each begins and deletes: six orders. Nothing else tells them apart.
	if got, want := len(prints), 6; got != want {
		t.Errorf("got %d orders, want %d", got, want)
	}
}

// TestHang says that a request which never ends is reported and ends neither the
// test nor the next run.
func TestHang(t *testing.T) {
	l := newLab(t)
	script := explore.Script{
		Setup: explore.Fresh, Actors: [][]explore.Call{{explore.SetDark}, {explore.SetDark}},
		Fault: explore.Fault{Kind: explore.Never, Actor: 0, Nth: 2},
	}
	h := l.run(&script, nil)
	if got := explore.Breaches(h); !explore.Broken(got, "R8") {
		t.Errorf("got %v, want R8 broken, in\n%s", got, h)
	}
	if got, want := h.Hung, []int{0}; !slices.Equal(got, want) {
		t.Errorf("hung: got %v, want %v", got, want)
	}
	script.Fault = explore.Fault{}
	if got := explore.Breaches(l.run(&script, nil)); len(got) > 0 {
		t.Errorf("without the fault: got %v, want none", got)
	}
}

// TestWindow shows the window that no rule can close: a renewal and its response
// fit between another request's last store operation and its header. The two
// are one step everywhere else.
func TestWindow(t *testing.T) {
	l := newLab(t)
	l.key = true
	for _, split := range []bool{false, true} {
		head := explore.Script{Setup: explore.Aged, Split: split, Actors: [][]explore.Call{{explore.Get}, {explore.Renew}}}
		orders, broken := 0, 0
		explore.All(l.run, &head, 10000, func(h *explore.History) bool {
			orders++
			if got := explore.Breaches(h); explore.Broken(got, "R2") && explore.Broken(got, "R5") {
				broken++
			}
			return true
		})
		t.Logf("split %v: %d of %d orders send an ID that a renewal has ended", split, broken, orders)
		if (broken > 0) != split {
			t.Errorf("split %v: %d orders break R2 and R5", split, broken)
		}
	}
}

// TestFaults says what each fault does to a request that saves, and that the
// session's promises hold through it.
func TestFaults(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct {
		kind   explore.FaultKind
		code   int
		stored bool
	}{
		{explore.Refused, 503, false},
		{explore.Lost, 200, true},
		{explore.ReplyLost, 200, true},
		{explore.Late, 503, true},
		{explore.Down, 503, false},
	} {
		script := explore.Script{
			Setup: explore.Fresh, Actors: [][]explore.Call{{explore.SetDark}},
			Fault: explore.Fault{Kind: tt.kind, Actor: 0, Nth: 2},
		}
		h := l.run(&script, nil)
		code := 0
		for i := range h.Events {
			code = max(code, h.Events[i].Code)
		}
		if code != tt.code || (h.Table[0].X == "dark") != tt.stored {
			t.Errorf("%s: got %d and %q stored, want %d and %v, in\n%s", tt.kind, code, h.Table[0].X, tt.code, tt.stored, h)
		}
		if got := explore.Breaches(h); len(got) > 0 {
			t.Errorf("%s: breaks %v, in\n%s", tt.kind, got, h)
		}
	}
}
