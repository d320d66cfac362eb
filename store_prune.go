package session

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/pgrun"
)

// $1 is where to begin: an expiry in seconds since 1970 as the column counts
// them, minus infinity for the first of all. A row that was extended after it was
// found is left alone by the repeated condition; with IS TRUE, or a plan might walk
// all that has ever expired for it. No row lock is waited for.
const (
	sqlPrune = `WITH dead AS MATERIALIZED (
			SELECT sid, expire FROM %[1]s
			WHERE expire OPERATOR(pg_catalog.<) pg_catalog.now() AND expire OPERATOR(pg_catalog.>=) ` + sqlPruneFrom + `
			ORDER BY expire LIMIT 50` + sqlPruneLock + `),
		` + sqlPruneGone

	// The IDs of those that expired at one instant, a millisecond, which batches
	// cannot tell from each other.
	sqlPruneInstant = `SELECT sid::pg_catalog.text FROM %[1]s
		WHERE expire OPERATOR(pg_catalog.<) pg_catalog.now() AND expire OPERATOR(pg_catalog.>=) ` + sqlPruneFrom + `
			AND expire OPERATOR(pg_catalog.<) CASE WHEN $1::double precision OPERATOR(pg_catalog.=) '-infinity'::double precision THEN '4713-01-01 BC'::%[3]s
				ELSE ` + sqlPruneEpoch + ` OPERATOR(pg_catalog.+) interval '1 millisecond' END
		ORDER BY expire LIMIT 2000`

	// Those of these IDs, at most a batch.
	sqlPruneIDs = `WITH dead AS MATERIALIZED (
			SELECT t.sid, t.expire FROM pg_catalog.unnest((SELECT $1::pg_catalog.text[])) v(sid),
			LATERAL (SELECT s.sid, s.expire FROM %[1]s s WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) v.sid
				AND ` + sqlPruneStill + ` LIMIT 1 FOR UPDATE SKIP LOCKED) t),
		` + sqlPruneGone

	// The same two where others' locks can neither be seen nor passed over, since rows
	// are taken from several shards.
	sqlPruneLock      = ` FOR UPDATE SKIP LOCKED`
	sqlPruneIDsShards = `WITH dead AS MATERIALIZED (
			SELECT s.sid, s.expire FROM %[1]s s WHERE s.sid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND ` + sqlPruneStill + `),
		` + sqlPruneGone

	sqlPruneStill = `(s.expire OPERATOR(pg_catalog.<) pg_catalog.now()) IS TRUE`
	sqlPruneEpoch = `('epoch'::%[3]s OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $1::double precision))`
	sqlPruneFrom  = `CASE WHEN $1::double precision OPERATOR(pg_catalog.=) '-infinity'::double precision THEN '-infinity'::%[3]s ELSE ` + sqlPruneEpoch + ` END`
	sqlPruneGone  = `gone AS (DELETE FROM %[1]s s USING dead
			WHERE s.sid OPERATOR(pg_catalog.=) dead.sid AND ` + sqlPruneStill + ` RETURNING 1%[gone]s)%[pruned]s
		SELECT (SELECT pg_catalog.count(*) FROM dead), (SELECT pg_catalog.count(*) FROM gone),
			(SELECT extract(epoch FROM pg_catalog.max(expire))::double precision FROM dead)%[told]s`
)

const (
	pruneInstant = 2000 // as in sqlPruneInstant

	// prunePause is how long pruning rests after a batch, in batches' time.
	prunePause = 4

	// pruneRefused is after how many batches of which nothing was deleted, as
	// where a trigger refuses, a run ends. The next one goes on behind them.
	pruneRefused = 20

	// pruneSkipped is how far back a run begins after one that could not even
	// begin: a day more than the clocks of two time zones can differ by.
	pruneSkipped = 48 * time.Hour
)

// Prune implements [Pruner]. A run goes on where the last one of this store has
// ended, and now and then looks at what lies before that.
func (s *PostgresStore) Prune(ctx context.Context, within time.Duration) (int64, error) {
	at, all := s.pruned.begin()
	r := pruning{s: s, until: time.Now().Add(within / 2), at: at}
	err := r.run(ctx)
	switch {
	case !all || err == nil || r.deleted > 0:
		s.pruned.end(r.at)
	default:
		// Perhaps what others have deleted is too much to walk through, and what
		// has expired lately lies behind that.
		s.pruned.end(float64(time.Now().Add(-2*within - pruneSkipped).Unix()))
	}
	if err != nil || all || !r.ended || !s.pruned.looksBack(r.deleted) {
		return r.deleted, err
	}
	back := pruning{s: s, until: r.until, at: math.Inf(-1), to: at}
	err = back.run(ctx)
	if back.deleted > 0 {
		s.pruned.found()
	}
	return r.deleted + back.deleted, err
}

// pruning is one run, which deletes batch after batch.
type pruning struct {
	s     *PostgresStore
	until time.Time // then it hurries, or the backlog would outlive the interval
	to    float64   // it ends when it has come so far; 0 for never

	at      float64 // an expiry: all before it is done
	deleted int64
	refused int  // the last batches of which nothing was deleted
	ended   bool // there is no more
}

func (r *pruning) run(ctx context.Context) error {
	for ctx.Err() == nil && r.refused < pruneRefused && (r.to == 0 || r.at < r.to) {
		began := time.Now()
		b, err := r.batch(ctx, sqlPrune, r.at)
		switch {
		case err != nil:
			return err
		case b.found < pruneBatch:
			r.move(b.last)
			r.ended = true
			return nil
		case *b.last > after(r.at):
			r.move(b.last)
			r.rest(ctx, began)
		default: // a batch of one instant, and there may be more
			r.rest(ctx, began)
			if err := r.instant(ctx); err != nil {
				return err
			}
		}
	}
	r.ended = ctx.Err() == nil && r.refused < pruneRefused
	return nil
}

// instant deletes what expired at the instant that a batch has not come over, and
// goes on behind it. So of what cannot be deleted no batch finds the same again,
// and of what is deleted and still in the index it reads but a small part again.
func (r *pruning) instant(ctx context.Context) error {
	deleteIDs := sqlPruneIDs
	if r.s.table.Distributed {
		deleteIDs = sqlPruneIDsShards
	}
	for {
		ids, err := r.look(ctx)
		before := r.deleted
		for n := 0; n < len(ids) && err == nil; n += pruneBatch {
			if ctx.Err() != nil {
				return nil // the next run goes on here
			}
			began := time.Now()
			if _, err = r.batch(ctx, deleteIDs, ids[n:min(n+pruneBatch, len(ids))]); r.refused >= pruneRefused {
				break
			}
			r.rest(ctx, began)
		}
		if err != nil {
			return err
		}
		if len(ids) < pruneInstant || r.deleted == before {
			r.at = after(r.at)
			return nil
		}
	}
}

// after returns the expiry behind the instant of at.
func after(at float64) float64 {
	if math.IsInf(at, -1) {
		return -210866803200 // the first that a timestamp can have
	}
	return at + 0.001
}

// move goes on at the expiry at which a batch has ended. It was rounded, perhaps
// up, and nothing is to be skipped.
func (r *pruning) move(last *float64) {
	if last != nil {
		r.at = max(r.at, math.Nextafter(*last, math.Inf(-1)))
	}
}

// pruned is what became of one batch.
type pruned struct {
	found, deleted int64
	last           *float64 // the expiry that it ended at
	told           [][]byte // the records, if anybody wants to know
}

// batch deletes one batch; a context that ends does not cut it.
func (r *pruning) batch(ctx context.Context, sql string, arg any) (pruned, error) {
	_, told := whyOf(ctx, whyExpired)
	sql = r.s.pruneText(ending(sql, sqlGoneDead, sqlToldDead, told, r.s.opts.Outbox != ""))
	b, err := pruneOne(ctx, r.s, pgrun.Repeatable, func(ctx context.Context, c *pgx.Conn) (p pruned, err error) {
		return p, c.QueryRow(ctx, sql, r.s.planned(arg)...).Scan(intoPruned(told, &p)...)
	})
	if r.deleted += b.deleted; err == nil {
		r.s.tellRows(ctx, b.told, 0)
	}
	switch {
	case b.deleted > 0:
		r.refused = 0
	case b.found > 0:
		r.refused++
	}
	return b, err
}

func intoPruned(told bool, p *pruned) []any {
	if told {
		return []any{&p.found, &p.deleted, &p.last, &p.told}
	}
	return []any{&p.found, &p.deleted, &p.last}
}

// rest leaves the database to others for a while after a batch.
func (r *pruning) rest(ctx context.Context, began time.Time) {
	pause := prunePause * time.Since(began)
	if time.Now().After(r.until) {
		pause = 0
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// look returns the IDs of one instant, those of a number of batches.
func (r *pruning) look(ctx context.Context) ([]string, error) {
	at, sql := r.at, r.s.pruneText(sqlPruneInstant)
	return pruneOne(ctx, r.s, pgrun.Read, func(ctx context.Context, c *pgx.Conn) ([]string, error) {
		rows, err := c.Query(ctx, sql, r.s.planned(at)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	})
}

// pruneText completes a statement of pruning.
func (s *PostgresStore) pruneText(sql string) string {
	if s.table.Distributed {
		sql = strings.Replace(sql, sqlPruneLock, "", 1)
	}
	return strings.NewReplacer("%[1]s", s.table.Quoted(), "%[3]s", s.table.ExpireType, "%[pruned]s", s.sql.boxes.pruned).Replace(strings.Join(strings.Fields(sql), " "))
}

// pruneOne runs one statement of pruning, to its end whatever becomes of ctx.
func pruneOne[T any](ctx context.Context, s *PostgresStore, repeat pgrun.Repetition, f func(context.Context, *pgx.Conn) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultStoreTimeout)
	defer cancel()
	return pgrun.Run(ctx, s.runner, repeat, f)
}
