package session

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// doubtLife is how long an ID is in doubt after an uncertain write: until its
	// statement has surely come to an end.
	doubtLife = time.Minute

	// mostDoubts bounds how many IDs are remembered. The oldest is forgotten.
	mostDoubts = 4096
)

// doubts are the IDs whose last write was uncertain, as the table holds them. It
// is safe for concurrent use, and its zero value is ready.
//
// With synchronous replication a commit waits for a standby before its answer. If
// that wait is cut short, by pg_cancel_backend or a fast shutdown, the row is
// changed here for everybody to see, and still may be lost with this server. So
// who looks at such a row does it in a transaction that has to wait for the
// standby as well: what it has seen is there.
type doubts struct {
	n  atomic.Int32 // len(of)
	mu sync.Mutex
	of map[string]time.Time
}

// has costs nothing while there are none.
func (d *doubts) has(id string) bool {
	if d.n.Load() == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.of[id]
	return ok
}

func (d *doubts) add(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of == nil {
		d.of = map[string]time.Time{}
	}
	d.of[id] = time.Now()
	if len(d.of) > mostDoubts {
		var oldest string
		for id, at := range d.of {
			if oldest == "" || at.Before(d.of[oldest]) {
				oldest = id
			}
		}
		delete(d.of, oldest)
	}
	d.n.Store(int32(len(d.of))) // #nosec G115 -- mostDoubts
}

// resolved forgets an ID whose state was confirmed by what began at a time, unless
// the write in doubt may still have been under way then.
func (d *doubts) resolved(id string, began time.Time) {
	if d.n.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.of[id]; ok && began.Sub(at) > doubtLife {
		delete(d.of, id)
		d.n.Store(int32(len(d.of))) // #nosec G115 -- mostDoubts
	}
}
