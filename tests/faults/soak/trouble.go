package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"
)

// troublePause is the time between two troubles, on average.
const troublePause = 1500 * time.Millisecond

// troubles counts what was done.
type troubles struct {
	kills, stops               atomic.Int64 // of processes
	backendKills, terminations atomic.Int64
	restarts                   atomic.Int64 // of the database

	// Ends of sessions: revocations, expiries, and sessions found alive after
	// their expiry.
	revoked, expired, undead atomic.Int64
}

// trouble breaks things one after the other. done is called when everything was
// broken once; until then the soak goes on.
func (s *soak) trouble(ctx context.Context, rng *rand.Rand, done func()) {
	deck := []func(context.Context, *rand.Rand) error{
		s.killProcess, s.killProcess, s.killProcess, s.stopProcess, s.stopProcess,
		s.killBackend, s.terminate, s.terminate, s.terminate, s.restartDatabase,
	}
	for {
		for _, i := range rng.Perm(len(deck)) {
			if !pause(ctx, about(rng, troublePause)) {
				return
			}
			// What is broken is mended even when the soak ends.
			if err := deck[i](context.WithoutCancel(ctx), rng); err != nil {
				s.problem("%v", err)
			}
		}
		done()
	}
}

// about returns d, give or take half of it.
func about(rng *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(rng.Int64N(int64(d)))
}

func (s *soak) mortal(rng *rand.Rand) *process {
	for {
		if p := s.processes[rng.IntN(len(s.processes))]; !p.steady {
			return p
		}
	}
}

func (s *soak) killProcess(ctx context.Context, rng *rand.Rand) error {
	p := s.mortal(rng)
	s.o.logger.Debug("kill -9", "process", p.settings.Name)
	p.kill()
	s.kills.Add(1)
	return p.start(ctx)
}

func (s *soak) stopProcess(ctx context.Context, rng *rand.Rand) error {
	p := s.mortal(rng)
	s.o.logger.Debug("SIGTERM", "process", p.settings.Name)
	p.stop()
	s.stops.Add(1)
	return p.start(ctx)
}

// killBackend kills one backend, and the postmaster then ends all others.
func (s *soak) killBackend(ctx context.Context, _ *rand.Rand) error {
	var pid int
	err := s.ask(ctx, &pid, `SELECT COALESCE(min(pid), 0) FROM (SELECT pid FROM pg_stat_activity
		WHERE application_name LIKE $1 ORDER BY random() LIMIT 1) found`, applicationName+"%")
	if err != nil || pid == 0 {
		return err
	}
	s.o.logger.Debug("kill -9 of a backend")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill -9 of a backend: %w", err)
	}
	s.backendKills.Add(1)
	return nil
}

// terminate lets PostgreSQL end one connection of a process, or all.
func (s *soak) terminate(ctx context.Context, rng *rand.Rand) error {
	p := s.processes[rng.IntN(len(s.processes))]
	most := 1
	if rng.IntN(2) == 0 {
		most = int(p.settings.Connections)
	}
	s.o.logger.Debug("pg_terminate_backend", "process", p.settings.Name, "connections", most)
	var ended int
	err := s.ask(ctx, &ended, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
		WHERE application_name = $1 LIMIT $2) found`, applicationName+p.settings.Name, most)
	s.terminations.Add(int64(ended))
	return err
}

func (s *soak) restartDatabase(ctx context.Context, rng *rand.Rand) error {
	mode := []string{"fast", "immediate"}[rng.IntN(2)]
	s.o.logger.Debug("restart of the database", "mode", mode)
	if err := s.server.Restart(ctx, mode); err != nil {
		return err
	}
	s.restarts.Add(1)
	return nil
}

// endLate ends what a request that was not answered may have left behind: a statement
// that is still to come, on a connection whose program was killed or has given it up.
// What such a statement has not done when endLate returns it never does.
func (s *soak) endLate(ctx context.Context) error {
	var now time.Time
	if err := s.ask(ctx, &now, "SELECT clock_timestamp()"); err != nil {
		return err
	}
	for left := 1; left > 0; {
		if err := s.ask(ctx, &left, sqlEndLate, applicationName+"%", now); err != nil {
			return err
		}
		if left > 0 && !pause(ctx, again) {
			return ctx.Err()
		}
	}
	return nil
}

const sqlEndLate = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
	WHERE datname = current_database() AND application_name LIKE $1 AND backend_start <= $2`

// ask reads a value from the database, when that is there again.
func (s *soak) ask(ctx context.Context, value any, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	for {
		err := s.pool.QueryRow(ctx, sql, args...).Scan(value)
		if err == nil || !pause(ctx, again) {
			return err
		}
	}
}
