package session

import (
	"sync"
	"time"
)

// far is how long the shortest load takes where the database is not near: by then
// most of a statement's time is the way to it.
const far = 600 * time.Microsecond

// wayLoads is after how many loads a way says whether it is far.
const wayLoads = 32

// way is how far away the database is. The shortest of some loads tells: the others
// have waited for something else as well, for a connection or a processor.
type way struct {
	changed func(far bool) // called with mu held

	mu       sync.Mutex
	loads    int
	shortest time.Duration
	far      bool
}

// took notes how long a load took that was answered. A nil way forgets it.
func (w *way) took(d time.Duration) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loads == 0 || d < w.shortest {
		w.shortest = d
	}
	if w.loads++; w.loads < wayLoads {
		return
	}
	w.loads = 0
	if isFar := w.shortest >= far; isFar != w.far {
		w.far = isFar
		w.changed(isFar)
	}
}
