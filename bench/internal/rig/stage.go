package rig

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Setup is what a stage is made of. The zero value is PostgreSQL alone, as it is
// usual here, on the disk.
type Setup struct {
	Module   string            // the benchmark's directory
	Packages []string          // of the module, to be built: "./server", "./peers/..."
	Pool     int               // connections of each server to its store
	Settings map[string]string // of PostgreSQL, after the usual ones
	Ground   Ground
}

// Stage is where servers run: databases of its own, and the servers' binaries.
type Stage struct {
	Launch
	Postgres *Postgres
	ground   Ground
	redis    map[string]*Redis  // by appendfsync, once a variant needed it
	detours  map[string]*detour // by the address that they lead to
	closers  Closers
}

// NewStage starts PostgreSQL and builds the packages. Close ends everything.
func NewStage(ctx context.Context, with Setup) (_ *Stage, err error) {
	s := &Stage{
		Launch: Launch{Module: with.Module, Pool: with.Pool, Secret: rand.Text() + rand.Text()},
		ground: with.Ground, redis: make(map[string]*Redis), detours: make(map[string]*detour),
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	Log("starting PostgreSQL")
	settings := make(map[string]string)
	for name, value := range with.Settings {
		settings[name] = value
	}
	if s.ground.NoFsync {
		settings["fsync"] = "off"
	}
	err = below(s.ground.Data, func() (err error) {
		s.Postgres, err = StartPostgres(ctx, settings)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.closers.Add(s.Postgres.Close)
	return s, s.build(ctx, with.Packages)
}

func (s *Stage) build(ctx context.Context, packages []string) error {
	if s.ground.Latency > 0 {
		packages = append([]string{"./delay"}, packages...)
	}
	if len(packages) == 0 {
		return nil
	}
	Log("building %s", strings.Join(packages, " "))
	dir, remove, err := Build(ctx, s.Module, packages...)
	if err != nil {
		return err
	}
	s.Binaries = dir
	s.closers.Add(remove)
	return nil
}

// Close ends everything that the stage has started.
func (s *Stage) Close() { s.closers.Close() }

// Connect connects to a database until the stage ends.
func (s *Stage) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	db, err := s.Postgres.Connect(ctx, database)
	if err == nil {
		s.OnClose(func() { _ = db.Close(context.Background()) })
	}
	return db, err
}

// OnClose adds what is to be done before what was there already ends.
func (s *Stage) OnClose(f func()) { s.closers.Add(f) }

// Enter makes the variant's database, starts what else it needs and then its
// server, and checks that it answers as it should.
func (s *Stage) Enter(ctx context.Context, v *Variant) (*Server, error) {
	store, err := s.store(ctx, v)
	if err != nil {
		return nil, err
	}
	if v.Program == ExpressServer {
		if err := s.InstallExpress(ctx); err != nil {
			return nil, err
		}
	}
	server, err := s.Start(ctx, v, store)
	if err != nil {
		return nil, err
	}
	s.closers.Add(server.Stop)
	if err := server.CheckContract(); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	return server, nil
}

// store makes the variant's store and returns where it is, for Start.
func (s *Stage) store(ctx context.Context, v *Variant) (string, error) {
	switch v.Store {
	case InPostgres:
		if err := s.Postgres.Create(ctx, v.Database(), ""); err != nil {
			return "", err
		}
		u, err := url.Parse(s.Postgres.URL(v.Database()))
		if err != nil {
			return "", err
		}
		u.Host, err = s.farther(ctx, u.Host)
		return u.String(), err
	case InRedis:
		if s.redis[v.Appendfsync] == nil {
			r, err := StartRedis(ctx, s.ground.Data, v.Appendfsync)
			if err != nil {
				return "", err
			}
			s.redis[v.Appendfsync] = r
			s.closers.Add(r.Close)
		}
		return s.farther(ctx, s.redis[v.Appendfsync].Addr)
	}
	return "", nil
}

// RedisVersion returns the version of those that were started, empty without one.
func (s *Stage) RedisVersion() string {
	for _, r := range s.redis {
		return r.Version
	}
	return ""
}

// storeCPU returns the CPU time so far of a variant's store, 0 where it is the
// server's memory. All variants in PostgreSQL share one server, those in Redis one
// for each appendfsync.
func (s *Stage) storeCPU(v *Variant) (time.Duration, error) {
	switch v.Store {
	case InPostgres:
		return s.Postgres.CPU()
	case InRedis:
		return s.redis[v.Appendfsync].CPU()
	}
	return 0, nil
}

// ownCPU returns the CPU time so far of the load generator and of what holds up the
// way to the stores.
func (s *Stage) ownCPU() (time.Duration, error) {
	total, err := ProcessCPU(os.Getpid())
	for _, d := range s.detours {
		cpu, e := ProcessCPU(d.cmd.Process.Pid)
		if e != nil {
			err = e
		}
		total += cpu
	}
	return total, err
}

// RoundTrip measures how long a statement that does nothing takes from here, the
// way to PostgreSQL included: the median of some.
func (s *Stage) RoundTrip(ctx context.Context) (time.Duration, error) {
	u, err := url.Parse(s.Postgres.server.ProgramURL())
	if err != nil {
		return 0, err
	}
	if u.Host, err = s.farther(ctx, u.Host); err != nil {
		return 0, err
	}
	db, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return 0, err
	}
	defer db.Close(context.WithoutCancel(ctx))
	return medianTime(func() error {
		_, err := db.Exec(ctx, "SELECT 1")
		return err
	})
}

// medianTime is how long f usually takes: the median of a hundred, after a few.
func medianTime(f func() error) (time.Duration, error) {
	const first, n = 10, 100
	var h Hist
	for i := range first + n {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		if i >= first {
			h.Add(time.Since(start))
		}
	}
	return h.Quantile(0.5), nil
}

// NodeVersion returns what node says, empty without one.
func NodeVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
