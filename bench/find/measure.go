package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/rig"
)

// Report is everything that was measured; find.json holds it.
type Report struct {
	rig.Occasion
	Rows       int     `json:"rows"`
	PerUser    int     `json:"perUser"`
	TableBytes int64   `json:"tableBytes"`
	IndexBytes int64   `json:"indexBytes"`
	BuildMs    float64 `json:"buildMs"` // of the index
	Without    Figures `json:"without"`
	With       Figures `json:"with"`
}

// Figures are in milliseconds, but for the bytes and the share.
type Figures struct {
	ListP50   float64 `json:"listP50"`
	ListP99   float64 `json:"listP99"`
	RevokeP50 float64 `json:"revokeP50"`
	RevokeP99 float64 `json:"revokeP99"`
	SaveP50   float64 `json:"saveP50"`
	SaveWAL   float64 `json:"saveWAL"`  // bytes a save
	HeapOnly  float64 `json:"heapOnly"` // share of the saves
}

const (
	database = "bench_find"
	secret   = "the secret of this measurement, nowhere else used"

	user  = session.Key[int]("userId")
	count = session.Key[int]("count")

	sqlFill = `INSERT INTO schema_system.session
		SELECT 'session-' || n, json_build_object('cookie', json_build_object('originalMaxAge', 86400000, 'path', '/'),
			'userId', n / %d, 'note', (SELECT string_agg(md5((n * 30 + i)::text), '') FROM generate_series(1, 25) i), 'count', 0),
			now() + interval '12 hours' + n * interval '1 millisecond'
		FROM generate_series(0, %d) n`
)

type bench struct {
	options
	pg      *rig.Postgres
	pool    *pgxpool.Pool
	store   *session.PostgresStore
	manager *session.Manager
	users   int
}

func measure(ctx context.Context, o options) (*Report, error) {
	stage, err := rig.NewStage(ctx, rig.Setup{})
	if err != nil {
		return nil, err
	}
	defer stage.Close()
	b := &bench{options: o, pg: stage.Postgres, users: o.rows / o.perUser}
	if err := b.pg.Create(ctx, database, ""); err != nil {
		return nil, err
	}
	if b.pool, err = pgxpool.New(ctx, b.pg.URL(database)); err != nil {
		return nil, err
	}
	defer b.pool.Close()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	rig.Log("filling a table with %d rows", o.rows)
	for _, sql := range []string{fmt.Sprintf(sqlFill, o.perUser, o.rows-1), "VACUUM ANALYZE schema_system.session"} {
		if _, err := b.pool.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	r := &Report{
		Occasion: rig.Now(b.pg.Version),
		Rows:     o.rows, PerUser: o.perUser,
	}
	rig.Log("without an index")
	if r.Without, err = b.figures(ctx, o.scans); err != nil {
		return nil, err
	}
	rig.Log("making the index")
	start := time.Now()
	if err := b.open(ctx, "userId"); err != nil {
		return nil, err
	}
	r.BuildMs = rig.Milliseconds(time.Since(start))
	rig.Log("with it")
	if r.With, err = b.figures(ctx, o.lookups); err != nil {
		return nil, err
	}
	err = b.pool.QueryRow(ctx, `SELECT pg_table_size('schema_system.session'), pg_relation_size('schema_system."idx_session_key_userId"')`).
		Scan(&r.TableBytes, &r.IndexBytes)
	return r, err
}

func (b *bench) open(ctx context.Context, keys ...string) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	b.store, err = session.NewPostgresStore(ctx, b.pool, session.PostgresOptions{IndexKeys: keys, Logger: quiet})
	if err != nil {
		return err
	}
	b.manager, err = session.New(b.store, session.Config{Secret: secret, DisablePrune: true, StoreTimeout: time.Minute, Logger: quiet})
	return err
}

// figures measures n lists and revocations, and saves. Nobody is revoked twice.
func (b *bench) figures(ctx context.Context, n int) (f Figures, err error) {
	var lists, revocations rig.Hist
	for range n {
		// Of the first half, so that the other is there to be saved.
		id := rand.N(b.users / 2)
		start := time.Now()
		found, err := b.manager.Sessions(ctx, user.Is(id))
		if err != nil {
			return f, err
		}
		lists.Add(time.Since(start))
		if len(found) != b.perUser && len(found) != 0 { // already revoked
			return f, fmt.Errorf("user %d has %d sessions, not %d", id, len(found), b.perUser)
		}
		start = time.Now()
		revoked, err := b.manager.Revoke(ctx, user.Is(id))
		if err != nil {
			return f, err
		}
		revocations.Add(time.Since(start))
		if int(revoked) != len(found) {
			return f, fmt.Errorf("%d of %d sessions revoked", revoked, len(found))
		}
	}
	f.ListP50, f.ListP99 = rig.Milliseconds(lists.Quantile(0.5)), rig.Milliseconds(lists.Quantile(0.99))
	f.RevokeP50, f.RevokeP99 = rig.Milliseconds(revocations.Quantile(0.5)), rig.Milliseconds(revocations.Quantile(0.99))
	return f, b.save(ctx, &f)
}

// save changes sessions, one after the other, none of them twice.
func (b *bench) save(ctx context.Context, f *Figures) error {
	conn, err := b.pg.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "VACUUM schema_system.session"); err != nil { // room for heap-only updates
		return err
	}
	wal, err := b.pg.WAL(ctx)
	if err != nil {
		return err
	}
	var saves rig.Hist
	half := b.rows / 2
	for i := range b.saves {
		id := fmt.Sprintf("session-%d", half+i*(half/b.saves)+rand.N(max(1, half/b.saves)))
		rec, err := b.store.Load(ctx, id)
		if err != nil {
			return err
		}
		change := session.Change{Old: rec.Data, New: []byte(strings.Replace(string(rec.Data), `"count" : `, `"count" : 1`, 1))}
		start := time.Now()
		if err := b.store.Update(ctx, id, change); err != nil {
			return err
		}
		saves.Add(time.Since(start))
	}
	f.SaveP50 = rig.Milliseconds(saves.Quantile(0.5))
	after, err := b.pg.WAL(ctx)
	if err != nil {
		return err
	}
	f.SaveWAL = float64(after-wal) / float64(b.saves)
	updates, err := b.pg.Updates(ctx, wal, after)
	f.HeapOnly, _ = updates.Share()
	return err
}

func (r *Report) part() string {
	t := rig.Table{Head: []string{"index on the key", "list p50 ms", "p99", "revoke p50 ms", "p99", "save p50 ms", "log a save, bytes", "heap-only saves"}}
	for _, row := range []struct {
		name string
		f    Figures
	}{{"none", r.Without}, {"`IndexKeys`", r.With}} {
		t.Add(row.name, rig.Fixed(row.f.ListP50, 2), rig.Fixed(row.f.ListP99, 2), rig.Fixed(row.f.RevokeP50, 2), rig.Fixed(row.f.RevokeP99, 2),
			rig.Fixed(row.f.SaveP50, 2), rig.Int(row.f.SaveWAL), rig.Fixed(100*row.f.HeapOnly, 0)+" %")
	}
	return fmt.Sprintf("%s sessions of 1 KB, %d of each user; the table has %d MB, the index %d MB, made in %s s beside everything else. PostgreSQL %s, %s.\n\n",
		rig.Int(float64(r.Rows)), r.PerUser, r.TableBytes>>20, r.IndexBytes>>20, rig.Fixed(r.BuildMs/1000, 1), r.Postgres, r.Date()) + t.String()
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "find", Title: "Finding and ending a user's sessions", Text: r.part(),
		Parts: map[string]string{"find": r.part()},
	}
}
