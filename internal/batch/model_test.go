package batch_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session/internal/batch"
)

// stage is a Group whose calls end when the test says, and as it says. After
// settle, running is what the group is doing, the eldest first.
type stage struct {
	*batch.Group[int, string]
	begun   chan *act
	running []*act
}

// act is a call under way.
type act struct {
	members []int
	shared  bool
	end     chan func(member int) (string, error)
}

func newStage(slots batch.Slots, most int) *stage {
	s := &stage{begun: make(chan *act, 1000)}
	play := func(members []int, shared bool) []batch.Answer[string] {
		a := &act{members: slices.Clone(members), shared: shared, end: make(chan func(int) (string, error))}
		s.begun <- a
		answer := <-a.end
		answers := make([]batch.Answer[string], len(members))
		for i, m := range members {
			answers[i].Value, answers[i].Err = answer(m)
		}
		return answers
	}
	s.Group = batch.New(slots, most,
		func(_ context.Context, member int) (string, error) {
			a := play([]int{member}, false)
			return a[0].Value, a[0].Err
		},
		func(_ context.Context, members []int) []batch.Answer[string] { return play(members, true) },
	)
	return s
}

// caller is somebody who has called Do.
type caller struct {
	leave    context.CancelFunc
	answers  int
	value    string
	err      error
	panicked any
}

func (s *stage) call(t *testing.T, member int) *caller {
	ctx, cancel := context.WithCancel(t.Context())
	c := &caller{leave: cancel}
	go func() {
		defer cancel()
		defer func() {
			c.panicked = recover()
			c.answers++
		}()
		c.value, c.err = s.Do(ctx, member)
	}()
	s.settle()
	return c
}

func (s *stage) settle() {
	synctest.Wait()
	before := len(s.running)
	for {
		select {
		case a := <-s.begun:
			s.running = append(s.running, a)
		default: // those that have begun in one instant, in their members' order
			slices.SortFunc(s.running[before:], func(a, b *act) int { return a.members[0] - b.members[0] })
			return
		}
	}
}

// finish ends the i-th call under way.
func (s *stage) finish(i int, answer func(int) (string, error)) {
	a := s.running[i]
	s.running = slices.Delete(s.running, i, i+1)
	a.end <- answer
	s.settle()
}

func own(member int) (string, error) { return fmt.Sprint("answer ", member), nil }

var errBad = errors.New("bad member")

// The ways in which a call can end.
func goodBut(bad int) func(int) (string, error) {
	return func(member int) (string, error) {
		if member == bad {
			return "", errBad
		}
		return own(member)
	}
}

func panics(int) (string, error) { panic("boom") }

func goexit(int) (string, error) { runtime.Goexit(); return "", nil }

// Work that ends its goroutine has no answer, which must not look like success.
func TestACallWithoutAnAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(batch.Slots{}, 8)
		s.call(t, 0)
		callers := []*caller{s.call(t, 1), s.call(t, 2)}
		s.finish(0, own)
		next := s.call(t, 3)
		s.finish(0, goexit)
		for i, c := range callers {
			if c.answers != 1 || c.err == nil {
				t.Errorf("call %d: got %d answers, %v, want one, an error", i+1, c.answers, c.err)
			}
		}
		if len(s.running) != 1 {
			t.Fatalf("under way: got %d calls, want the next", len(s.running))
		}
		s.finish(0, own)
		if next.value != "answer 3" || next.err != nil {
			t.Errorf("the next: got %q, %v, want its answer", next.value, next.err)
		}
	})
}

// FuzzModel compares a Group with a model of it after every step, while calls
// come, leave and end in any order, with answers, errors, panics and none, and
// time passes.
func FuzzModel(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint8(0), uint8(2), []byte{0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 1, 0, 0, 4, 1})
	f.Add(uint8(1), uint8(0), uint8(0), uint8(1), []byte{0, 0, 0, 0, 0, 1, 20, 34, 8, 2, 19, 35, 0, 1, 1, 4, 24, 1})
	f.Add(uint8(2), uint8(0), uint8(0), uint8(5), []byte{0, 0, 0, 0, 0, 0, 0, 24, 13, 13, 4, 10, 2, 0, 0, 3, 8, 12, 1})
	f.Add(uint8(0), uint8(2), uint8(3), uint8(2), []byte{0, 0, 0, 0, 23, 0, 0, 23, 0, 5, 1, 11, 0, 0, 7, 1, 1, 4, 17, 23, 0, 29, 0})
	f.Add(uint8(1), uint8(3), uint8(1), uint8(4), []byte{0, 0, 0, 5, 0, 0, 5, 0, 5, 0, 5, 0, 4, 10, 16, 5, 2, 8, 1, 1, 0, 0, 3, 0, 5})
	f.Fuzz(func(t *testing.T, usual, extra, patience, most uint8, script []byte) {
		script = script[:min(len(script), 100)]
		synctest.Test(t, func(t *testing.T) {
			m := &model{t: t, slots: batch.Slots{Usual: int(usual%4) + 1, Patience: time.Duration(patience%8) * time.Second}, most: int(most%6) + 1}
			m.slots.Most = m.slots.Usual + int(extra%4)
			m.stage = newStage(m.slots, m.most)
			for _, step := range script {
				n := int(step / 6)
				switch step % 6 {
				case 0:
					m.call()
				case 1:
					m.finish(n, own, nil)
				case 2:
					m.finish(n, goodBut(n), nil)
				case 3:
					m.finish(n, panics, "boom")
				case 4:
					m.leave(n)
				case 5:
					m.pass(n%4 + 1)
				}
				m.compare()
			}
			m.drain()
		})
	})
}

// model is what a Group should be doing.
type model struct {
	t        *testing.T
	stage    *stage
	slots    batch.Slots
	most     int
	waiting  []int
	running  []run // the eldest first
	callers  []*caller
	expected []expected
}

type run struct {
	members []int
	since   time.Time
}

// free reports whether another call may begin: while there are fewer than usual, and up
// to the most when these have had their time, five times as long for each more.
func (m *model) free() bool {
	more := len(m.running) - m.slots.Usual
	if more < 0 {
		return true
	}
	patience := m.slots.Patience
	for range more {
		patience *= 5
	}
	return patience > 0 && len(m.running) < m.slots.Most && time.Since(m.running[more].since) >= patience
}

// proceed begins what waits, as far as it may.
func (m *model) proceed() {
	for len(m.waiting) > 0 && m.free() {
		k := min(m.most, len(m.waiting))
		m.running = append(m.running, run{m.waiting[:k:k], time.Now()})
		m.waiting = m.waiting[k:]
	}
}

// pass lets seconds pass.
func (m *model) pass(seconds int) {
	for range seconds {
		<-time.After(time.Second)
		m.proceed()
		m.stage.settle()
	}
}

type expected struct {
	own      bool // does its work itself, so it cannot leave
	answered bool
	value    string
	err      error
	panicked any
}

func (m *model) call() {
	n := len(m.callers)
	e := expected{own: len(m.waiting) == 0 && m.free()}
	m.waiting = append(m.waiting, n)
	m.proceed()
	m.expected = append(m.expected, e)
	m.callers = append(m.callers, m.stage.call(m.t, n))
}

func (m *model) finish(i int, answer func(int) (string, error), panicked any) {
	if len(m.running) == 0 {
		return
	}
	i %= len(m.running)
	for _, member := range m.running[i].members {
		if e := &m.expected[member]; !e.answered { // else it left
			e.answered, e.panicked = true, panicked
			if panicked == nil {
				e.value, e.err = answer(member)
			}
		}
	}
	m.running = slices.Delete(m.running, i, i+1)
	m.proceed()
	m.stage.finish(i, answer)
}

func (m *model) leave(n int) {
	if len(m.callers) == 0 {
		return
	}
	n %= len(m.callers)
	m.waiting = slices.DeleteFunc(m.waiting, func(w int) bool { return w == n })
	if e := &m.expected[n]; !e.own && !e.answered {
		e.answered, e.err = true, context.Canceled
	}
	m.callers[n].leave()
	m.stage.settle()
}

func (m *model) compare() {
	m.t.Helper()
	var running [][]int
	for _, a := range m.stage.running {
		running = append(running, a.members)
		if a.shared != (len(a.members) > 1) {
			m.t.Errorf("call of %v: got shared %t", a.members, a.shared)
		}
	}
	var want [][]int
	for _, r := range m.running {
		want = append(want, r.members)
	}
	if !slices.EqualFunc(running, want, slices.Equal) {
		m.t.Fatalf("under way: got %v, want %v", running, want)
	}
	// Those who left wait until a slot passes them over.
	if got := m.stage.Waiting(); got < len(m.waiting) {
		m.t.Errorf("waiting: got %d, want %d at least", got, len(m.waiting))
	}
	if len(m.waiting) > 0 && len(m.running) < m.slots.Most && m.slots.Patience > 0 && !m.stage.Armed() {
		m.t.Error("no timer runs for those who wait")
	}
	for n, c := range m.callers {
		e := m.expected[n]
		want := 0
		if e.answered {
			want = 1
		}
		if c.answers != want || c.value != e.value || c.panicked != e.panicked || e.panicked == nil && !errors.Is(c.err, e.err) {
			m.t.Errorf("call %d: got %d answers, %q, %v, panic %v, want %d, %q, %v, panic %v",
				n, c.answers, c.value, c.err, c.panicked, want, e.value, e.err, e.panicked)
		}
	}
}

// drain closes the group while calls are under way and wait.
func (m *model) drain() {
	closed := make(chan struct{})
	go func() {
		m.stage.Close()
		close(closed)
	}()
	synctest.Wait()
	for len(m.running) > 0 {
		select {
		case <-closed:
			m.t.Fatal("Close: got an end while calls are under way")
		default:
		}
		m.finish(0, own, nil)
		m.compare()
	}
	<-closed
	if m.stage.Armed() {
		m.t.Error("a timer runs after Close")
	}
}
