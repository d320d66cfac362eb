package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/rig"
)

// Ways to prune.
const (
	byLibrary = "this library's Prune"
	byDelete  = "one DELETE"
	byBatches = "batches of 1,000, no pause"
)

// Report is everything that was measured; prune.json holds it.
type Report struct {
	rig.Occasion
	Rows    int       `json:"rows"`
	Expired int       `json:"expired"`
	Rate    int       `json:"perSecond"`
	Results []*Result `json:"results"`
}

// Result is one way to prune, in all rounds.
type Result struct {
	Method  string  `json:"method"`
	Deleted int64   `json:"deleted"`
	Seconds float64 `json:"seconds"` // of pruning
	Slices  []Slice `json:"slices"`
}

// Slice is a time without pruning and, right after it, one with: what else goes on
// on the machine disturbs both.
type Slice struct {
	Without Latency `json:"without"`
	With    Latency `json:"with"`
}

// Latency is what the others saw, in milliseconds.
type Latency struct {
	Reads    int     `json:"reads"`
	ReadP50  float64 `json:"readP50"`
	ReadP99  float64 `json:"readP99"`
	ReadMax  float64 `json:"readMax"`
	Touches  int     `json:"touches"`
	TouchP50 float64 `json:"touchP50"`
	TouchP99 float64 `json:"touchP99"`
	TouchMax float64 `json:"touchMax"`
}

const (
	template = "bench_prune_template"
	database = "bench_prune"
	live     = "live-" // begins the session IDs that are read and touched
)

func measure(ctx context.Context, o options) (*Report, error) {
	// Cleaning up behind a deletion is part of what it costs.
	stage, err := rig.NewStage(ctx, rig.Setup{Settings: map[string]string{"autovacuum": "on"}})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	r := &Report{
		Occasion: rig.Now(stage.Postgres.Version),
		Rows:     o.rows, Expired: o.expired, Rate: o.rate,
	}
	rig.Log("filling a table with %d rows", o.rows)
	if err := fill(ctx, stage.Postgres, o); err != nil {
		return nil, err
	}
	for _, method := range o.methods {
		r.Results = append(r.Results, &Result{Method: method})
	}
	for round := range o.rounds {
		for _, result := range r.Results {
			rig.Log("round %d of %d: %s", round+1, o.rounds, result.Method)
			if err := one(ctx, stage.Postgres, o, result); err != nil {
				return nil, fmt.Errorf("%s: %w", result.Method, err)
			}
		}
	}
	return r, nil
}

// fill makes the template of every method's database.
func fill(ctx context.Context, pg *rig.Postgres, o options) error {
	if err := pg.Create(ctx, template, ""); err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, pg.URL(template))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	var texts []string
	for i := range 500 {
		texts = append(texts, text(fmt.Sprintf("user-%d", i)))
	}
	// The expiry is computed by the database: the column has no time zone.
	sql := []string{
		"CREATE UNLOGGED TABLE raw (sid varchar, sess json, seconds float8)",
		`INSERT INTO schema_system.session (sid, sess, expire) SELECT sid, sess, now() + make_interval(secs => seconds) FROM raw`,
		"DROP TABLE raw", "VACUUM ANALYZE schema_system.session",
	}
	if _, err := pool.Exec(ctx, sql[0]); err != nil {
		return err
	}
	i := 0
	_, err = pool.CopyFrom(ctx, pgx.Identifier{"raw"}, []string{"sid", "sess", "seconds"}, pgx.CopyFromFunc(func() ([]any, error) {
		if i == o.rows {
			return nil, nil
		}
		sid, seconds := row(i, o)
		i++
		return []any{sid, texts[i%len(texts)], seconds}, nil
	}))
	for _, statement := range sql[1:] {
		if err != nil {
			return err
		}
		_, err = pool.Exec(ctx, statement)
	}
	return err
}

// row returns the session ID of row i and the seconds it has left. The expired ones
// are spread over the table, as are those that are read and touched.
func row(i int, o options) (sid string, seconds float64) {
	sum := sha256.Sum256(fmt.Appendf(nil, "row %d", i))
	id := hex.EncodeToString(sum[:16])
	// Bresenham's line: exactly o.expired of o.rows.
	if (i+1)*o.expired/o.rows > i*o.expired/o.rows {
		return id, -float64(60 + rand.IntN(7*24*3600))
	}
	alive := i - i*o.expired/o.rows
	total := o.rows - o.expired
	if (alive+1)*o.active/total > alive*o.active/total {
		return fmt.Sprintf("%s%d", live, alive*o.active/total), 12 * 3600
	}
	return id, 12 * 3600
}

func text(uid string) string {
	return `{"cookie":{"originalMaxAge":86400000,"expires":"2030-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},` + string(app.JSON(uid)) + "}"
}

// one measures one way to prune, on a table of its own.
func one(ctx context.Context, pg *rig.Postgres, o options, r *Result) error {
	if err := pg.Create(ctx, database, template); err != nil {
		return err
	}
	defer func() {
		if err := pg.Drop(context.WithoutCancel(ctx), database); err != nil {
			rig.Log("%v", err)
		}
	}()
	cfg, err := pgxpool.ParseConfig(pg.URL(database))
	if err != nil {
		return err
	}
	cfg.MaxConns = int32(o.workers + 1)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	t := &traffic{options: o, store: store}
	if err := t.warm(ctx); err != nil {
		return err
	}
	for left := int64(o.expired); left > 0; {
		slice, deleted, seconds, err := t.slices(ctx, pool, r.Method)
		if err != nil {
			return err
		}
		if left -= deleted; deleted == 0 || left < 0 {
			return fmt.Errorf("%d expired rows left after a slice that deleted %d", left, deleted)
		}
		r.Slices, r.Deleted, r.Seconds = append(r.Slices, slice), r.Deleted+deleted, r.Seconds+seconds
	}
	return nil
}

// slices measures without pruning, then with it.
func (t *traffic) slices(ctx context.Context, pool *pgxpool.Pool, method string) (s Slice, deleted int64, seconds float64, err error) {
	s.Without, err = t.during(ctx, func(ctx context.Context) error {
		select {
		case <-time.After(t.slice):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	if err != nil {
		return s, 0, 0, err
	}
	s.With, err = t.during(ctx, func(ctx context.Context) (err error) {
		start := time.Now()
		deleted, err = prune(ctx, pool, t.store, method, t.slice)
		seconds = time.Since(start).Seconds()
		return err
	})
	return s, deleted, seconds, err
}

const sqlBatch = `DELETE FROM schema_system.session WHERE sid IN
	(SELECT sid FROM schema_system.session WHERE expire < now() LIMIT 1000)`

// prune deletes expired rows, for the time of a slice where the method can be
// stopped.
func prune(ctx context.Context, pool *pgxpool.Pool, store *session.PostgresStore, method string, slice time.Duration) (int64, error) {
	switch method {
	case byLibrary:
		ctx, cancel := context.WithTimeout(ctx, slice)
		defer cancel()
		return store.Prune(ctx, session.DefaultPruneInterval)
	case byDelete:
		tag, err := pool.Exec(ctx, "DELETE FROM schema_system.session WHERE expire < now()")
		return tag.RowsAffected(), err
	}
	var total int64
	for start := time.Now(); time.Since(start) < slice; {
		tag, err := pool.Exec(ctx, sqlBatch)
		total += tag.RowsAffected()
		if err != nil || tag.RowsAffected() == 0 {
			return total, err
		}
	}
	return total, nil
}

// traffic reads and touches live sessions at a steady pace: each call has its time,
// and its latency begins there, so that what comes late because something before it
// was slow is counted as late.
type traffic struct {
	options
	store *session.PostgresStore
}

func (t *traffic) id(i int) string { return fmt.Sprintf("%s%d", live, i) }

// warm touches every session once, as fast as it goes.
func (t *traffic) warm(ctx context.Context) error {
	errs := make([]error, t.workers)
	var wg sync.WaitGroup
	for w := range t.workers {
		wg.Go(func() {
			for i := w; i < t.active && errs[w] == nil; i += t.workers {
				errs[w] = t.store.Touch(ctx, t.id(i), 13*time.Hour)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// lane is one worker's figures.
type lane struct {
	reads, touches rig.Hist
	err            error
}

// during keeps the traffic up while f runs.
func (t *traffic) during(ctx context.Context, f func(context.Context) error) (Latency, error) {
	stop := make(chan struct{})
	lanes := make([]*lane, t.workers)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range lanes {
		lanes[w] = new(lane)
		wg.Go(func() { lanes[w].err = t.work(ctx, lanes[w], w, start, stop) })
	}
	err := f(ctx)
	close(stop)
	wg.Wait()
	var reads, touches rig.Hist
	for _, l := range lanes {
		reads.Merge(&l.reads)
		touches.Merge(&l.touches)
		err = errors.Join(err, l.err)
	}
	return Latency{
		Reads: int(reads.N()), Touches: int(touches.N()),
		ReadP50: rig.Milliseconds(reads.Quantile(0.5)), ReadP99: rig.Milliseconds(reads.Quantile(0.99)), ReadMax: rig.Milliseconds(reads.Max()),
		TouchP50: rig.Milliseconds(touches.Quantile(0.5)), TouchP99: rig.Milliseconds(touches.Quantile(0.99)), TouchMax: rig.Milliseconds(touches.Max()),
	}, err
}

func (t *traffic) work(ctx context.Context, l *lane, w int, start time.Time, stop <-chan struct{}) error {
	pace := time.Duration(t.workers) * time.Second / time.Duration(t.rate)
	due := start.Add(time.Duration(w) * pace / time.Duration(t.workers))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		case <-timer.C:
		}
		id := t.id(rand.IntN(t.active))
		if n%2 == 0 {
			if _, err := t.store.Load(ctx, id); err != nil {
				return fmt.Errorf("read: %w", err)
			}
			l.reads.Add(time.Since(due))
		} else {
			if err := t.store.Touch(ctx, id, 13*time.Hour); err != nil {
				return fmt.Errorf("touch: %w", err)
			}
			l.touches.Add(time.Since(due))
		}
		due = due.Add(pace)
		timer.Reset(max(0, time.Until(due)))
	}
}
