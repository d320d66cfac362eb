package batch_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

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

func newStage(slots, most int) *stage {
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
	for {
		select {
		case a := <-s.begun:
			s.running = append(s.running, a)
		default:
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
		s := newStage(1, 8)
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
// come, leave and end in any order, with answers, errors, panics and none.
func FuzzModel(f *testing.F) {
	f.Add(uint8(0), uint8(2), []byte{0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 1, 0, 0, 4, 1})
	f.Add(uint8(1), uint8(1), []byte{0, 0, 0, 0, 0, 1, 18, 34, 8, 2, 19, 35, 0, 1, 1, 4, 5, 1})
	f.Add(uint8(2), uint8(5), []byte{0, 0, 0, 0, 0, 0, 0, 5, 13, 13, 4, 10, 2, 0, 0, 3, 8, 11, 1})
	f.Fuzz(func(t *testing.T, slots, most uint8, script []byte) {
		script = script[:min(len(script), 100)]
		synctest.Test(t, func(t *testing.T) {
			m := &model{t: t, free: int(slots%4) + 1, most: int(most%6) + 1}
			m.stage = newStage(m.free, m.most)
			for _, step := range script {
				n := int(step / 5)
				switch step % 5 {
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
				}
				m.compare()
			}
			m.drain()
		})
	})
}

// model is what a Group should be doing.
type model struct {
	t          *testing.T
	stage      *stage
	free, most int
	waiting    []int
	running    [][]int
	callers    []*caller
	expected   []expected
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
	e := expected{own: m.free > 0}
	if e.own {
		m.free--
		m.running = append(m.running, []int{n})
	} else {
		m.waiting = append(m.waiting, n)
	}
	m.expected = append(m.expected, e)
	m.callers = append(m.callers, m.stage.call(m.t, n))
}

func (m *model) finish(i int, answer func(int) (string, error), panicked any) {
	if len(m.running) == 0 {
		return
	}
	i %= len(m.running)
	for _, member := range m.running[i] {
		if e := &m.expected[member]; !e.answered { // else it left
			e.answered, e.panicked = true, panicked
			if panicked == nil {
				e.value, e.err = answer(member)
			}
		}
	}
	m.running = slices.Delete(m.running, i, i+1)
	if k := min(m.most, len(m.waiting)); k > 0 {
		m.running = append(m.running, m.waiting[:k:k])
		m.waiting = m.waiting[k:]
	} else {
		m.free++
	}
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
	if !slices.EqualFunc(running, m.running, slices.Equal) {
		m.t.Fatalf("under way: got %v, want %v", running, m.running)
	}
	// Those who left wait until a slot passes them over.
	if got := m.stage.Waiting(); got < len(m.waiting) {
		m.t.Errorf("waiting: got %d, want %d at least", got, len(m.waiting))
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
}
