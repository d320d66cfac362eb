package rig

import (
	"context"
	"crypto/rand"
	"fmt"
	"os/exec"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Stage is where servers run: databases of its own, and the servers' binaries.
type Stage struct {
	Launch
	Postgres *Postgres
	Redis    *Redis // once a variant needed it
	closers  Closers
}

// NewStage starts PostgreSQL, with more settings than the usual, and builds these
// packages of the module. pool is the number of connections of each server to its
// database. Close ends everything.
func NewStage(ctx context.Context, module string, pool int, settings map[string]string, packages ...string) (_ *Stage, err error) {
	s := &Stage{Launch: Launch{Module: module, Pool: pool, Secret: rand.Text() + rand.Text()}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	Log("starting PostgreSQL")
	if s.Postgres, err = StartPostgres(ctx, settings); err != nil {
		return nil, err
	}
	s.closers.Add(s.Postgres.Close)
	if len(packages) == 0 {
		return s, nil
	}
	Log("building %s", strings.Join(packages, " "))
	dir, remove, err := Build(ctx, module, packages...)
	if err != nil {
		return nil, err
	}
	s.Binaries = dir
	s.closers.Add(remove)
	return s, nil
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
	database := ""
	switch v.Store {
	case InPostgres:
		if err := s.Postgres.Create(ctx, v.Database(), ""); err != nil {
			return nil, err
		}
		database = s.Postgres.URL(v.Database())
	case InRedis:
		if err := s.needRedis(ctx); err != nil {
			return nil, err
		}
	}
	if v.Program == ExpressServer {
		if err := s.InstallExpress(ctx); err != nil {
			return nil, err
		}
	}
	server, err := s.Start(ctx, v, database)
	if err != nil {
		return nil, err
	}
	s.closers.Add(server.Stop)
	if err := server.CheckContract(); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Name, err)
	}
	return server, nil
}

func (s *Stage) needRedis(ctx context.Context) (err error) {
	if s.Redis != nil {
		return nil
	}
	if s.Redis, err = StartRedis(ctx); err != nil {
		return err
	}
	s.closers.Add(s.Redis.Close)
	s.RedisAddr = s.Redis.Addr
	return nil
}

// NodeVersion returns what node says, empty without one.
func NodeVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
