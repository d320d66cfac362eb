package rig

import (
	"context"
	"time"
)

// Usage is what has been used so far, or between two times.
type Usage struct {
	Server  time.Duration // CPU time of the servers
	Store   time.Duration // … of their store
	Own     time.Duration // … of the load generator, and of what holds up the way to the stores
	Machine MachineTime
	WAL     int64 // bytes of write-ahead log, where the store is PostgreSQL
	At      time.Time
	Elapsed time.Duration // between two times
}

// Usage reads what servers of one variant have used.
func (s *Stage) Usage(ctx context.Context, servers ...*Server) (u Usage, err error) {
	for _, server := range servers {
		cpu, err := server.CPU()
		if err != nil {
			return u, err
		}
		u.Server += cpu
	}
	v := servers[0].Variant
	if u.Store, err = s.storeCPU(v); err != nil {
		return u, err
	}
	if u.Own, err = s.ownCPU(); err != nil {
		return u, err
	}
	if u.Machine, err = ReadMachineTime(); err != nil {
		return u, err
	}
	u.At = time.Now()
	if v.Store == InPostgres {
		u.WAL, err = s.Postgres.WAL(ctx)
	}
	return u, err
}

// Sub returns what has been used since.
func (u Usage) Sub(since Usage) Usage {
	return Usage{
		Server: u.Server - since.Server, Store: u.Store - since.Store, Own: u.Own - since.Own,
		Machine: MachineTime{Busy: u.Machine.Busy - since.Machine.Busy, Stolen: u.Machine.Stolen - since.Machine.Stolen},
		WAL:     u.WAL - since.WAL, At: u.At, Elapsed: u.At.Sub(since.At),
	}
}

// CPU is what a user pays for: servers and store.
func (u Usage) CPU() time.Duration { return u.Server + u.Store }

// Foreign returns which shares of the machine's time others have used: programs that
// have no part in this, and the hypervisor.
func (u Usage) Foreign(cores int) (others, stolen float64) {
	all := u.Elapsed.Seconds() * float64(max(1, cores))
	if all <= 0 {
		return 0, 0
	}
	ours := u.Server + u.Store + u.Own
	return max(0, (u.Machine.Busy-ours).Seconds()/all), max(0, u.Machine.Stolen.Seconds()/all)
}
