// Package backoff makes those who got in each other's way try again at
// different moments.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pause waits a random moment, longer after more tries: under a millisecond
// after the first (try is 0), under 64 after the seventh and all later ones. It
// returns the cause of ctx's end as soon as ctx ends.
func Pause(ctx context.Context, try int) error {
	t := time.NewTimer(rand.N(time.Millisecond << min(try, 6))) // #nosec G404 -- no secret
	defer t.Stop()
	select {
	case <-t.C:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
