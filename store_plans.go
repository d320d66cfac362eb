package session

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// smallTable is up to how many pages PostgreSQL may rather read a whole table than
// use its index, with a good margin: the estimates say index from 10 pages on.
const smallTable = 32

const (
	// smallAgain is after how many rows in a row, all found in the first pages, a
	// table that was large is taken for a small one.
	smallAgain = 256

	// largeFor is how long a table is large at least: each time that it becomes so,
	// all statements are prepared anew.
	largeFor = time.Minute
)

// plans sees to it that no plan of a small table outlives it.
//
// PostgreSQL keeps the plan of a prepared statement. One that was made while the
// table had a page or two reads all of it, which is right then, and goes on doing
// so when the table has grown to gigabytes, until an ANALYZE. Statistics do not
// matter otherwise, for the size in pages is looked up whenever a plan is made. So
// statements are prepared only once a row was seen beyond the first pages; before,
// each is planned as it comes, which costs a small table 0.1 ms.
//
// A table that was emptied, by a TRUNCATE or by VACUUM after many logouts, is a
// small one again, and PostgreSQL has made its plans anew for it by the time that
// this is seen. So once it has grown those statements are not used any more: the
// texts of a later generation differ in a comment.
type plans struct {
	keep  bool // by the pool's configuration, statements are prepared
	large atomic.Bool

	low        atomic.Int32 // rows found in the first pages since one was beyond
	since      atomic.Int64 // when the table became large, in nanoseconds since 1970
	generation atomic.Int32
}

func (p *plans) init(pool *pgxpool.Pool) {
	p.keep = pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement
}

// found takes note of where a row was.
func (p *plans) found(at pgtype.TID) {
	switch {
	case !p.keep || !at.Valid:
	case at.BlockNumber >= smallTable:
		if p.low.Load() > 0 {
			p.low.Store(0)
		}
		if !p.large.Load() && p.large.CompareAndSwap(false, true) {
			p.since.Store(time.Now().UnixNano())
		}
	case p.large.Load() && p.low.Add(1) >= smallAgain:
		p.low.Store(0)
		if time.Since(time.Unix(0, p.since.Load())) >= largeFor && p.large.CompareAndSwap(true, false) {
			p.generation.Add(1)
		}
	}
}

// args are the arguments of a statement, and how to send it.
func (p *plans) args(first any, rest ...any) []any {
	args := make([]any, 0, len(rest)+2)
	if p.keep && !p.large.Load() {
		args = append(args, pgx.QueryExecModeCacheDescribe)
	} else if g := p.generation.Load(); g > 0 {
		args = append(args, generation(g))
	}
	return append(append(args, first), rest...)
}

// generation is a [pgx.QueryRewriter] that makes another text of each statement.
type generation int32

func (g generation) RewriteQuery(_ context.Context, _ *pgx.Conn, sql string, args []any) (string, []any, error) {
	return sql + " -- " + strconv.Itoa(int(g)), args, nil
}
