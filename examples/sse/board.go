package main

import (
	"sync"
	"time"
)

// keep is how many messages the board has room for.
const keep = 50

// message is one on the board.
type message struct {
	ID   int64  `json:"id"` // grows, over restarts too
	User string `json:"user"`
	Text string `json:"text"`
}

// board has the last messages, in memory. It is safe for concurrent use.
type board struct {
	mu       sync.Mutex
	last     int64
	messages []message
	more     chan struct{} // closed at the next message
}

func newBoard() *board { return &board{more: make(chan struct{})} }

// add puts a message on the board and wakes all who wait for one.
func (b *board) add(user, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = max(b.last+1, time.Now().UnixMicro()) // JavaScript's numbers hold it
	b.messages = append(b.messages, message{b.last, user, text})
	b.messages = b.messages[max(0, len(b.messages)-keep):]
	close(b.more)
	b.more = make(chan struct{})
}

// after returns the messages after one, and a channel that is closed when there
// are more. A reader that is slow misses at most what no longer is on the board,
// and holds up nobody.
func (b *board) after(id int64) ([]message, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range b.messages {
		if m.ID > id {
			return append([]message(nil), b.messages[i:]...), b.more
		}
	}
	return nil, b.more
}
