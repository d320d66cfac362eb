package sessiontest_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

func TestMemoryStore(t *testing.T) {
	sessiontest.TestStore(t, func(*testing.T) session.Store { return session.NewMemoryStore() })
}

// A store need not prune.
func TestStoreWithoutPruner(t *testing.T) {
	sessiontest.TestStore(t, func(*testing.T) session.Store {
		return struct{ session.Store }{session.NewMemoryStore()}
	})
}

// One store may serve all rules, with records of its own in it.
func TestStoreShared(t *testing.T) {
	s := session.NewMemoryStore()
	own := session.Record{Data: []byte(`{"own":true}`), TTL: time.Hour}
	if err := s.Create(t.Context(), "own", own); err != nil {
		t.Fatal(err)
	}
	t.Run("suite", func(t *testing.T) {
		sessiontest.TestStore(t, func(*testing.T) session.Store { return s })
	})
	if r, err := s.Load(t.Context(), "own"); err != nil || !bytes.Equal(r.Data, own.Data) {
		t.Errorf("the store's own record: got %s, %v, want %s, no error", r.Data, err, own.Data)
	}
}

// A store like a jsonb column passes, but only as SameJSON.
func TestSameJSON(t *testing.T) {
	sessiontest.TestStore(t, func(*testing.T) session.Store {
		s := newBroken()
		likeJSONB(s)
		return sessiontest.SameJSON{Store: s}
	})
}

// childEnv tells the test binary to let the broken stores fail.
const childEnv = "SESSIONTEST_BROKEN_STORES"

// TestBrokenStores fails, where it is not skipped: TestStoreFindsFaults runs it
// in a process of its own and reads which rules failed.
func TestBrokenStores(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("run by TestStoreFindsFaults")
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			sessiontest.TestStore(t, func(*testing.T) session.Store {
				s := newBroken()
				fault.inject(s)
				return s
			})
		})
	}
}

func TestStoreFindsFaults(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The stores mostly wait, so all may run at once.
	cmd := exec.CommandContext(t.Context(), exe,
		"-test.run=^TestBrokenStores$", "-test.v", "-test.parallel=100", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("the run of the broken stores: got %v, want exit status 1\n%s", err, out)
	}
	if bytes.Contains(out, []byte("DATA RACE")) || bytes.Contains(out, []byte("panic:")) {
		t.Fatalf("the broken stores should be wrong, but neither race nor panic\n%s", out)
	}

	failed, all := results(out)
	tested := make(map[string]bool)
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			got, want := failed[underscored(fault.name)], underscored(fault.fails...)
			for _, rule := range strings.Split(want, "\n") {
				tested[rule] = true
				if !slices.Contains(strings.Split(got, "\n"), rule) {
					t.Errorf("rule %s: got passed, want failed", rule)
				}
			}
			if may := underscored(fault.mayFail); may != "" && !strings.Contains(want, may) {
				lines := strings.Split(got, "\n")
				got = strings.Join(slices.DeleteFunc(lines, func(rule string) bool { return rule == may }), "\n")
			}
			if !fault.andMore && got != want {
				t.Errorf("failed rules: got\n%s\nwant\n%s", got, want)
			}
		})
	}
	for rule := range all {
		if !tested[rule] {
			t.Errorf("rule %s: no broken store for it", rule)
		}
	}
}

var resultLine = regexp.MustCompile(`(?m)^ +--- (PASS|FAIL|SKIP): TestBrokenStores/([^/\n]+)/(.+) \([0-9.]+s\)$`)

// results returns, for each store, the rules that failed, one a line and
// sorted, and the names of all rules. Groups of rules are left out, unless they
// failed by themselves.
func results(out []byte) (failed map[string]string, all map[string]bool) {
	failed, all = make(map[string]string), make(map[string]bool)
	rules := make(map[string][]string)
	for _, m := range resultLine.FindAllSubmatch(out, -1) {
		all[string(m[3])] = true
		if string(m[1]) == "FAIL" {
			rules[string(m[2])] = append(rules[string(m[2])], string(m[3]))
		}
	}
	isGroupIn := func(names []string) func(string) bool {
		return func(name string) bool {
			return slices.ContainsFunc(names, func(other string) bool { return strings.HasPrefix(other, name+"/") })
		}
	}
	for store, names := range rules {
		failed[store] = underscored(slices.DeleteFunc(slices.Clone(names), isGroupIn(names))...)
	}
	maps.DeleteFunc(all, func(name string, _ bool) bool {
		return isGroupIn(slices.Collect(maps.Keys(all)))(name)
	})
	return failed, all
}

// underscored writes names as package testing does, sorted, one a line.
func underscored(names ...string) string {
	names = slices.Sorted(slices.Values(names))
	return strings.ReplaceAll(strings.Join(names, "\n"), " ", "_")
}
