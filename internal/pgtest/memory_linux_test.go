package pgtest_test

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/pgtest"
)

// A temporary server is where TMPDIR says; without it in memory, if there is room.
func TestTemporaryServersPlace(t *testing.T) {
	named, err := os.MkdirTemp("/var/tmp", "pgtest-place-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(named) })
	if err := os.Chmod(named, 0o755); err != nil { // for the account that runs servers
		t.Fatal(err)
	}
	for _, tmpdir := range []string{named, ""} {
		t.Run("TMPDIR="+tmpdir, func(t *testing.T) {
			t.Setenv("TMPDIR", tmpdir)
			want := cmp.Or(tmpdir, pgtest.MemoryDir(), os.TempDir())
			server := pgtest.Own(t, pgtest.Options{})
			if got := query[string](t, server.URL(), "SHOW data_directory"); !strings.HasPrefix(got, want+"/pgtest-") {
				t.Errorf("got the data in %s, want it in %s", got, want)
			}
		})
	}
}
