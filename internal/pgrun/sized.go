package pgrun

import (
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Sized returns the arguments of a statement on c with room made for its arrays of
// texts: pgx begins each statement with a buffer of 256 bytes and has it grow by a
// quarter at a time, so that the data of many sessions would be allocated five
// times over. It may change args.
func Sized(c *pgx.Conn, args []any) []any {
	const there = "github.com/pgsession/session: sized"
	for i, arg := range args {
		if texts, ok := arg.([]string); ok {
			args[i] = sized(texts)
		}
	}
	if pg := c.PgConn(); pg.CustomData()[there] == nil {
		pg.CustomData()[there] = true
		m := c.TypeMap() // the connection's own
		m.TryWrapEncodePlanFuncs = slices.Insert(slices.Clone(m.TryWrapEncodePlanFuncs), 0, wrapSized)
	}
	return args
}

// sized is an array of texts, which pgx encodes as it does a []string.
type sized []string

func wrapSized(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	texts, ok := value.(sized)
	return new(sizedPlan), []string(texts), ok
}

type sizedPlan struct{ next pgtype.EncodePlan }

// SetNext implements [pgtype.WrappedEncodePlanNextSetter].
func (p *sizedPlan) SetNext(next pgtype.EncodePlan) { p.next = next }

// Encode implements [pgtype.EncodePlan].
func (p *sizedPlan) Encode(value any, buf []byte) ([]byte, error) {
	texts := value.(sized)
	size := 20 // an array's own
	for _, s := range texts {
		size += 4 + len(s)
	}
	return p.next.Encode([]string(texts), slices.Grow(buf, size))
}
