package session

import (
	"bytes"
	"context"
	"strings"

	"github.com/pgsession/session/internal/mark"
)

// Why a record is deleted: what has become of its session, and a reason.
const (
	whyDestroyed = "destroyed"
	whyDevice    = "destroyed device"
	whyRevoked   = "revoked"
	whyLimit     = "revoked limit"
	whyExpired   = "expired"
	whyAbsolute  = "expired absolute"
)

func splitWhy(why string) (kind, reason string) {
	kind, reason, _ = strings.Cut(why, " ")
	return kind, reason
}

// endings is how a store says what it has deleted: its context has one. So a store
// around the store need not know of it.
type endings struct {
	why  string
	hear func(why string, gone []ended, more int) // nil: nobody is told
}

// ended is a record that a store has deleted. Of one that has been deleted already
// nothing is said.
type ended struct {
	sid  string // as the store has it: the ID, or its hash
	id   string // "" where it is not known
	data []byte // nil where it was too large
	live bool
}

type endingsKey struct{}

func withEndings(ctx context.Context, e *endings) context.Context {
	return context.WithValue(ctx, endingsKey{}, e)
}

// whyOf returns why a store is asked to delete, and whether it is to say what.
func whyOf(ctx context.Context, otherwise string) (why string, told bool) {
	e, ok := ctx.Value(endingsKey{}).(*endings)
	if !ok {
		return otherwise, false
	}
	return e.why, e.hear != nil
}

// tellEnded says what a store has deleted, and of how many more it does not say.
// It is not called under a lock of the store's.
func tellEnded(ctx context.Context, gone []ended, more int) {
	e, ok := ctx.Value(endingsKey{}).(*endings)
	if ok && e.hear != nil && len(gone)+more > 0 {
		e.hear(e.why, gone, more)
	}
}

// A statement that deletes has places for more than that: %[gone]s for what it is to
// return of the rows, if anybody wants to know, and %[told]s to say it. An
// outbox has places of its own.
const (
	sqlGoneOfS   = `, s.sid, s.sess, ` + sqlLive + ` AS live`
	sqlGonePlain = `, sess`
	sqlGoneDead  = `, s.sid, s.sess, false AS live`

	// A row as told reads it: whether it was live, the ID, a character that no JSON text
	// has, and the data if that is not too large. As bytes: a database whose encoding
	// is SQL_ASCII holds any, and PostgreSQL gives none that are no text as text.
	sqlTold = `pg_catalog.convert_to(CASE WHEN live THEN '1' ELSE '0' END OPERATOR(pg_catalog.||) sid::pg_catalog.text OPERATOR(pg_catalog.||) E'\x01'
		OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.pg_column_size(sess) OPERATOR(pg_catalog.<=) 16384 THEN sess::pg_catalog.text ELSE '' END, ` + sqlAsItIs + `)`
	sqlAsItIs = `CASE WHEN pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII'::pg_catalog.name THEN 'SQL_ASCII'::pg_catalog.name ELSE 'UTF8'::pg_catalog.name END`

	sqlToldOne  = `, CASE WHEN u.n IS NOT NULL THEN (SELECT ` + sqlTold + ` FROM (SELECT u.sid, u.sess, u.live) AS x) END`
	sqlToldAll  = `, pg_catalog.count(*), ARRAY(SELECT ` + sqlTold + ` FROM gone LIMIT 1024)` // maxEvents
	sqlToldDead = `, ARRAY(SELECT ` + sqlTold + ` FROM gone WHERE NOT ` + mark.SQL + `)`
)

// ending fills in those places of a statement.
func ending(sql, gone, told string, isTold, boxed bool) string {
	if !isTold && !boxed {
		gone = ""
	}
	if !isTold {
		told = ""
	}
	return strings.NewReplacer("%[gone]s", gone, "%[told]s", told).Replace(sql)
}

// toldRow reads what sqlTold says. id is the session's ID where it is known.
func toldRow(b []byte, id string, hashed bool) (e ended, ok bool) {
	at := bytes.LastIndexByte(b, 1)
	if at < 1 {
		return e, false
	}
	e = ended{sid: string(b[1:at]), id: id, data: b[at+1:], live: b[0] == '1'}
	if e.id == "" && !hashed {
		e.id = e.sid
	}
	return e, true
}
