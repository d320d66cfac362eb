package main

import (
	"testing"

	"github.com/pgsession/session/bench/internal/rigtest"
)

// The shortest run: every figure is there. What is listed and revoked is checked
// by the run itself; speed is not judged.
func TestShortRun(t *testing.T) {
	r, err := measure(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	if r.IndexBytes == 0 || r.BuildMs <= 0 || r.TableBytes == 0 {
		t.Errorf("index: got %d bytes in %v ms, table %d bytes, want all", r.IndexBytes, r.BuildMs, r.TableBytes)
	}
	for name, f := range map[string]Figures{"without": r.Without, "with": r.With} {
		if f.ListP50 <= 0 || f.ListP99 < f.ListP50 || f.RevokeP50 <= 0 || f.SaveP50 <= 0 || f.SaveWAL <= 0 {
			t.Errorf("%s: got %+v, want every figure", name, f)
		}
	}
	if r.Without.HeapOnly == 0 || r.With.HeapOnly != 0 {
		t.Errorf("heap-only share: got %v without the index and %v with it, want some and none", r.Without.HeapOnly, r.With.HeapOnly)
	}
	rigtest.Files(t, r, "find.json", "find.md")
}
