package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/pgsession/session/bench/internal/rig"
)

func expressLibrary(ctx context.Context) (*library, error) {
	dir, err := expressDir(ctx)
	if err != nil {
		return nil, err
	}
	if err := rig.InstallNodeModules(ctx, dir); err != nil {
		return nil, fmt.Errorf("%w (or leave Express out: -no-express)", err)
	}
	l := &library{
		name:      "express-session + connect-pg-simple",
		cookie:    "connect.sid",
		age:       "UPDATE schema_system.session SET expire = expire - interval '2 minutes'",
		data:      "SELECT string_agg(sess::text, '|') FROM schema_system.session",
		noSealing: "no",
	}
	l.start = func(ctx context.Context, db *database, o appOptions) (*app, error) {
		if err := db.exec(ctx, "CREATE SCHEMA IF NOT EXISTS schema_system"); err != nil {
			return nil, err
		}
		return l.run(db, o, dir)
	}
	return l, nil
}

// run starts app.js.
func (l *library) run(db *database, o appOptions, dir string) (*app, error) {
	secrets, err := json.Marshal(o.keys())
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node", "app.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DATABASE_URL="+db.url, "GATES="+o.gates.url, "NODE_ENV=production", "SECRETS="+string(secrets))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &app{lib: l, db: db, end: []func(){func() {
		_ = in.Close()
		_ = cmd.Wait()
	}}}
	var hello struct {
		Port     int
		Versions []string
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("app.js did not start: %w", err)
	}
	l.versions = hello.Versions
	a.url = fmt.Sprintf("http://127.0.0.1:%d", hello.Port)
	return a, nil
}

// expressDir finds app.js: beside this package.
func expressDir(ctx context.Context) (string, error) {
	module, err := rig.ModuleDir(ctx)
	return filepath.Join(module, "behaviour", "express"), err
}
