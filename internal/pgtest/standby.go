package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
)

// Standby copies a server of our own with pg_basebackup and starts the copy: a
// server on a port of its own that follows the first and only answers reads,
// until [Server.Promote]. It is closed like a temporary server; ctx bounds the
// copying only. Its settings are the first server's with those given here.
//
// With the settings synchronous_standby_names '*' and synchronous_commit
// remote_apply on the first, and no names on the standby, nothing that was
// committed is missing on the standby, whenever the first is killed.
//
// Programs that wait for a promotion name both in their connection string, with
// target_session_attrs=read-write.
func (s *Server) Standby(ctx context.Context, settings map[string]string) (*Server, error) {
	if s.own == nil {
		return nil, errNotOurs
	}
	primary := s.own
	dir, err := primary.as.serverDir("pgtest-")
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	watch, err := watchOver(dir, primary.as)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: %w", err), os.RemoveAll(dir))
	}
	l := &local{
		bin: primary.bin, dir: dir, data: filepath.Join(dir, "data"), password: primary.password,
		settings: map[string]string{}, as: primary.as, log: primary.log,
	}
	maps.Copy(l.settings, primary.settings)
	maps.Copy(l.settings, settings)
	end := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errors.Join(l.stop(ctx, "immediate"), os.RemoveAll(dir), watch.end())
	}
	if err := l.copyFrom(ctx, primary); err != nil {
		return nil, errors.Join(err, end())
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, end())
	}
	return l.server("standby", end), nil
}

// copyFrom makes the data directory a copy that follows primary.
func (l *local) copyFrom(ctx context.Context, primary *local) error {
	// The standby itself needs the password as well; a command line would show it.
	secret := filepath.Join(l.dir, "password")
	text := fmt.Sprintf("127.0.0.1:%d:*:postgres:%s\n", primary.port, primary.password)
	if err := errors.Join(os.WriteFile(secret, []byte(text), 0o600), l.as.own(secret)); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	out, err := l.run(ctx, "pg_basebackup", "--pgdata="+l.data, "--checkpoint=fast", "--no-sync", "--write-recovery-conf",
		"--dbname=host=127.0.0.1 port="+strconv.Itoa(primary.port)+" user=postgres passfile="+secret)
	if err != nil {
		return fmt.Errorf("pgtest: pg_basebackup: %w\n%s", err, out)
	}
	return nil
}

// Promote makes a standby a primary of its own, and returns when it is.
func (s *Server) Promote(ctx context.Context) error {
	if s.own == nil {
		return errNotOurs
	}
	out, err := s.own.run(ctx, "pg_ctl", "promote", "--wait", "--timeout=60", "--pgdata="+s.own.data)
	if err != nil {
		return fmt.Errorf("pgtest: the standby is not promoted: %w\n%s", err, out)
	}
	return nil
}
