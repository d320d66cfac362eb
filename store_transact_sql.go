package session

import (
	"strings"

	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtable"
)

const (
	// The record, locked, and which transaction it is. lock_timeout is the
	// caller's until the row is locked, and then what it was: a materialized CTE is
	// read where it stands in a join, bound before l, and the end comes last.
	sqlLock = `WITH was AS MATERIALIZED (SELECT pg_catalog.current_setting('lock_timeout') AS v),
		bound AS MATERIALIZED (SELECT was.v AS was, pg_catalog.set_config('lock_timeout', $2::pg_catalog.text, true) AS v FROM was),
		l AS MATERIALIZED (SELECT s.sess::pg_catalog.text AS sess, ` + sqlLeft + ` AS ttl FROM bound, %[1]s s
			WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive + ` LIMIT 1 FOR UPDATE OF s)
		SELECT l.sess, l.ttl, pg_catalog.set_config('lock_timeout', bound.was, true), ` + pgrun.SQLOrigin + ` FROM bound LEFT JOIN l ON true`

	sqlSee = `SELECT s.sess::pg_catalog.text, ` + sqlLeft + ` FROM %[1]s s
		WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text AND ` + sqlLive

	sqlOrigin = `SELECT ` + pgrun.SQLOrigin

	sqlHolds = `SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) 1 FROM %[1]s s
		WHERE s.sid::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text AND s.sess::pg_catalog.text OPERATOR(pg_catalog.=) $2::pg_catalog.text`
)

// inTx are the statements of a store for a transaction that others have begun.
//
// They count from their own beginning, not from the transaction's, for that may
// have been long ago. And lock_timeout stays what it was: it is the caller's.
type inTx struct {
	lock, see, holds, now string

	create, update, renew, touch, delete, deleteTold []string // the forms of each, asked one after the other

	shards distributed // of a renewal there
}

func (x *inTx) complete(s *statements, t *pgtable.Table) {
	inside := strings.NewReplacer(
		"pg_catalog.now()", "pg_catalog.statement_timestamp()",
		"pg_catalog.set_config('lock_timeout', $1::pg_catalog.text, true) AS v", "$1::pg_catalog.text AS v").Replace
	text := func(sql string) string {
		sql = strings.Join(strings.Fields(sql), " ")
		return inside(strings.NewReplacer("%[1]s", t.Quoted(), "%[3]s", t.ExpireType).Replace(sql))
	}
	x.lock, x.see, x.holds, x.now = text(sqlLock), text(sqlSee), text(sqlHolds), text(sqlNow)
	forms := func(w statement) (texts []string) {
		if t.Distributed && w.done.one != "" {
			texts = []string{inside(w.done.one)}
		}
		return append(texts, inside(w.full.one))
	}
	x.create, x.update, x.renew = forms(s.create), forms(s.update), forms(s.renew)
	x.touch, x.delete, x.deleteTold = forms(s.touch), forms(s.delete), forms(s.deleteTold)
	if t.Distributed {
		x.lock, x.see, x.holds = inside(s.shards.lock), inside(s.shards.see), ""
		x.shards = distributed{remove: inside(s.shards.remove), insert: inside(s.shards.insert)}
	}
}
