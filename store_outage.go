package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/internal/pgrun"
)

// outages has a store's Runner notice when the database is down, and says so.
type outages struct {
	runner *pgrun.Runner
	log    *slog.Logger
	refuse func(reads bool, err error) // answers those who wait for a shared statement
}

// watchOutages refuses requests of runner while the database is down, from now on.
func watchOutages(runner *pgrun.Runner, log *slog.Logger, refuse func(reads bool, err error)) {
	o := &outages{runner, log, refuse}
	addresses := 1 + len(runner.Pool().Config().ConnConfig.Fallbacks)
	runner.Watch = outage.New(outage.Options{Addresses: addresses, Locked: runner.Locked, Down: o.down, Up: o.up})
	runner.Dead = runner.Watch.Read.Unanswered
}

// down is called when reads or writes get no answer any more.
func (o *outages) down(k *outage.Kind, r *outage.Refused, again bool) {
	if !again {
		o.log.LogAttrs(context.Background(), slog.LevelWarn, "session: the database is down: requests that need it are refused at once, but for one at a time, which tries",
			slog.String("kind", k.String()), slog.Duration("silent", r.For.Round(time.Millisecond)), slog.Any("error", r.Cause))
	}
	reads, writes := &o.runner.Watch.Read, &o.runner.Watch.Write
	o.refuse(k == reads, r)
	other := reads
	if k == reads {
		other = writes
	}
	if !other.HeardWithin(r.For) { // else the connections are good for something
		o.runner.Abandon(k)
	}
}

// up is called when all requests are let in again.
func (o *outages) up(k *outage.Kind, after time.Duration, refused uint64) {
	o.log.LogAttrs(context.Background(), slog.LevelInfo, "session: the database is back",
		slog.String("kind", k.String()), slog.Duration("after", after.Round(time.Millisecond)), slog.Uint64("refused", refused))
}
