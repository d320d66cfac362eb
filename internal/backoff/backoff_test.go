package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session/internal/backoff"
)

func TestPauseGrowsToALimit(t *testing.T) {
	for _, tt := range []struct {
		try  int
		most time.Duration
	}{
		{0, time.Millisecond},
		{3, 8 * time.Millisecond},
		{6, 64 * time.Millisecond},
		{7, 64 * time.Millisecond},
		{1000, 64 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			different := map[time.Duration]bool{}
			for range 100 {
				start := time.Now()
				if err := backoff.Pause(t.Context(), tt.try); err != nil {
					t.Fatalf("try %d: got %v, want no error", tt.try, err)
				}
				took := time.Since(start)
				if took >= tt.most {
					t.Errorf("try %d: got %v, want less than %v", tt.try, took, tt.most)
				}
				different[took] = true
			}
			if len(different) < 50 {
				t.Errorf("try %d: got %d different pauses of 100, want nearly all", tt.try, len(different))
			}
		})
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	cause := errors.New("the cause")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		start := time.Now()
		err := backoff.Pause(ctx, 6)
		if !errors.Is(err, cause) || time.Since(start) > time.Millisecond {
			t.Errorf("got %v after %v, want the cause at once", err, time.Since(start))
		}
	})
}
