// Package rigtest is what the tests of the benchmark's programs have in common.
package rigtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgsession/session/bench/internal/rig"
)

// Module returns the directory of the benchmark's module.
func Module(t *testing.T) string {
	t.Helper()
	module, err := rig.ModuleDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// Files saves a report and fails the test unless these files are there.
func Files(t *testing.T, r rig.Reporter, names ...string) {
	t.Helper()
	where := rig.Place{Out: t.TempDir()}
	if err := rig.Save(where, r); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(where.Out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: got %v, want a file", name, err)
		}
	}
}
