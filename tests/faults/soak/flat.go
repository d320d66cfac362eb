package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// quantity is something that must not grow.
type quantity struct {
	name   string
	unit   string
	scale  float64 // of the unit
	factor float64 // the last third's median is at most factor times the first's,
	slack  float64 // and this much more
}

var (
	heap        = quantity{"heap", "MiB", 1 << 20, 1.25, 1}
	rss         = quantity{"resident memory", "MiB", 1 << 20, 1.25, 12}
	goroutines  = quantity{"goroutines", "", 1, 1.25, 10}
	connections = quantity{"connections", "", 1, 1, 4}
)

// series is a quantity over time.
type series struct {
	quantity
	of     string
	values []float64
}

// limit returns what the last third's median may be.
func (q *quantity) limit(first float64) float64 { return first*q.factor + q.slack*q.scale }

// enough is how many samples a third must have at least.
const enough = 5

// thirds returns the medians of the first and the last third of the samples, without
// the first tenth, in which everything gets warm. They are counted, not timed: a
// machine that has other things to do takes them at times of its own.
func (s *series) thirds() (first, last float64, err error) {
	warm := s.values[len(s.values)/10:]
	third := len(warm) / 3
	if third < enough {
		return 0, 0, fmt.Errorf("%s of %s: got %d samples in each third, want at least %d", s.name, s.of, third, enough)
	}
	return median(warm[:third]), median(warm[len(warm)-third:]), nil
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

// grown returns an error if the quantity has grown.
func (s *series) grown() error {
	first, last, err := s.thirds()
	if err == nil && last > s.limit(first) {
		err = fmt.Errorf("%s of %s: got %s in the last third and %s in the first, want at most %s", s.name, s.of,
			s.format(last), s.format(first), s.format(s.limit(first)))
	}
	return err
}

func (q *quantity) format(v float64) string {
	if q.unit == "" {
		return fmt.Sprintf("%.0f", v/q.scale)
	}
	return fmt.Sprintf("%.1f %s", v/q.scale, q.unit)
}

// meter takes samples.
type meter struct {
	mu     sync.Mutex
	all    []*series
	pruned map[int]uint64 // by each process of the operating system
}

func (m *meter) add(q quantity, of string, value float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.all, func(s *series) bool { return s.quantity == q && s.of == of })
	if i < 0 {
		i = len(m.all)
		m.all = append(m.all, &series{quantity: q, of: of})
	}
	m.all[i].values = append(m.all[i].values, value)
}

// measure takes a sample now and then. What is down just now is left out.
func (s *soak) measure(ctx context.Context) {
	tick := time.NewTicker(min(max(s.o.duration/200, 400*time.Millisecond), 2*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.sample(ctx)
	}
}

// sample takes one, to its end even when the soak ends.
func (s *soak) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aliveTimeout)
	defer cancel()
	for _, p := range s.processes {
		l := p.life.Load()
		if l == nil {
			continue
		}
		v, err := l.vitals(ctx, s.observer)
		if err != nil {
			continue
		}
		s.meter.notePruned(l.cmd.Process.Pid, v.Pruned)
		if p.steady {
			of := "process " + p.settings.Name
			s.meter.add(heap, of, v.Heap)
			s.meter.add(rss, of, v.RSS)
			s.meter.add(goroutines, of, float64(v.Goroutines))
		}
	}
	var n int
	if s.pool.QueryRow(ctx, sqlConnections, applicationName+"%").Scan(&n) == nil {
		s.meter.add(connections, "all processes", float64(n))
	}
}

const sqlConnections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1"

func (m *meter) notePruned(pid int, n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruned[pid] = max(m.pruned[pid], n)
}

// enough reports whether there are so many series, each long enough to be judged.
func (m *meter) enough(series int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.all {
		if _, _, err := s.thirds(); err != nil {
			return false
		}
	}
	return len(m.all) == series
}

// prunedRows returns how many rows the processes have pruned, as far as they
// could tell before their ends.
func (m *meter) prunedRows() (n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.pruned {
		n += one
	}
	return n
}
