package pgrun

import "time"

// HomeTimeout is how long a connection may take to come home.
const HomeTimeout = homeTimeout

// Margin is how long before the deadline a statement is cancelled.
func (r *Runner) Margin(left time.Duration) time.Duration { return r.margin(left) }

// Paid notes what a cancellation has cost.
func (r *Runner) Paid(cost time.Duration) { r.paid(cost) }

// Late returns how many writes are late.
func (r *Runner) Late() int { return r.lateNow() }

const (
	LookInterval = lookInterval
	SQLProcesses = sqlProcesses
)

// Processes is what a look asks.
var Processes = processes

// KeepAlive has the kernel look after a connection.
var KeepAlive = keepAlive

// Taken returns how many places for writes are taken.
func (r *Runner) Taken() int { return len(r.taken) }
