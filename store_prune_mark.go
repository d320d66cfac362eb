package session

import (
	"math"
	"sync"
)

// pruneLookBack is how many runs at most go on from the mark before one looks
// at what lies before it.
const pruneLookBack = 16

// pruneBatch is how many rows a batch has, as in sqlPrune.
const pruneBatch = 50

// pruneMark is where pruning goes on: at the expiry at which the last batch
// ended. While an old snapshot keeps deleted rows in the index, a run from the
// beginning would read all of them first, and after some millions not end.
//
// What lies before the mark must not stay: rows that were locked, and those that
// somebody has given an earlier expiry. So a run that has found less than a batch
// looks there too, after each time that there was nothing half as often; and every
// sixteenth does anyway.
type pruneMark struct {
	mu   sync.Mutex
	at   float64
	set  bool
	runs int // since one has looked back
	rare int // runs that find little between two that look back
}

// begin returns where a run begins, and whether that is the beginning.
func (m *pruneMark) begin() (at float64, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.set {
		return math.Inf(-1), true
	}
	return m.at, false
}

// end notes where a run has ended.
func (m *pruneMark) end(at float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.set = at, true
}

// looksBack reports whether a run that has come to the end, and has deleted so
// much, is to look at what lies before its mark.
func (m *pruneMark) looksBack(deleted int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs++; m.runs < pruneLookBack && (deleted >= pruneBatch || m.runs <= m.rare) {
		return false
	}
	m.runs, m.rare = 0, min(max(1, 2*m.rare), pruneLookBack)
	return true
}

// found notes that there was something before the mark.
func (m *pruneMark) found() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rare = 0
}
