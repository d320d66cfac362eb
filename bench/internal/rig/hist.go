package rig

import (
	"math/bits"
	"time"
)

const (
	subBits = 7 // 128 steps in each power of two: within 0.8 %
	subs    = 1 << subBits
)

// Hist is a histogram of durations. The zero value is empty.
type Hist struct {
	counts [64 * subs]uint32
	n      uint64
	max    time.Duration
}

// Add adds one.
func (h *Hist) Add(d time.Duration) {
	h.counts[slot(d)]++
	h.n++
	h.max = max(h.max, d)
}

// N returns how many there are.
func (h *Hist) N() uint64 { return h.n }

// Max returns the longest.
func (h *Hist) Max() time.Duration { return h.max }

// Merge adds those of other.
func (h *Hist) Merge(other *Hist) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Quantile returns the duration that a share q of all do not exceed, 0 if there
// are none.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, c := range h.counts {
		if seen += uint64(c); seen > rank {
			return min(middle(i), h.max)
		}
	}
	return h.max
}

// slot and middle are each other's inverse, within a step.
func slot(d time.Duration) int {
	v := uint64(max(0, d))
	if v < subs {
		return int(v)
	}
	exp := bits.Len64(v) - 1 - subBits
	return (exp+1)*subs + int(v>>exp) - subs
}

func middle(i int) time.Duration {
	if i < subs {
		return time.Duration(i)
	}
	exp := i/subs - 1
	low := uint64(i%subs+subs) << exp
	return time.Duration(low + (uint64(1)<<exp)/2)
}
