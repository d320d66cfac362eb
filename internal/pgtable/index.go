package pgtable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/backoff"
	"github.com/pgsession/session/internal/pgrun"
)

const (
	// sqlValue is the value of a key as text, with the key for %[4]s and the
	// name of its hash for %[5]s. PostgreSQL reads no member of an object that
	// has \u0000, half a surrogate pair or a character that the database's
	// encoding lacks anywhere, so every escape but those of ASCII becomes \u001a
	// first: one such record must not stop all others from being found. A
	// backslash that is itself escaped begins no escape. The length keeps a long
	// value from being too long for the index.
	sqlValue = `left(COALESCE(` + sqlReadable + `->>%[5]s, ` + sqlReadable + `->>%[4]s), 255)`

	sqlReadable = `(CASE WHEN strpos(sess::text, E'\\u') = 0 THEN sess::%[2]s
		ELSE regexp_replace(sess::text, E'(?<!\\\\)((\\\\\\\\)*)\\\\u(0000|00[89a-fA-F].|0[1-9a-fA-F]..|[1-9a-fA-F]...)', E'\\1\\\\u001a', 'g')::%[2]s END)`
)

// Value returns the expression of a key's value, the same in every statement,
// for an index is only used for its own.
func (t *Table) Value(key string) string {
	return strings.NewReplacer("%[2]s", t.SessType, "%[4]s", literal(key), "%[5]s", literal(t.FindPrefix+key)).
		Replace(strings.Join(strings.Fields(sqlValue), " "))
}

// literal quotes a string for PostgreSQL, whatever standard_conforming_strings
// says.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(text) + "'"
}

const sqlIndex = `SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = $2::text`

// indexLock is held by the one program that makes indexes.
const indexLock = 7163384699731670

// MakeIndexes makes those of the keys' indexes that are missing, after Setup.
// Without the right to it finding is slow, and a warning says what to run.
func (t *Table) MakeIndexes(ctx context.Context, keys []string) error {
	conn, err := t.Runner.Pool().Acquire(ctx)
	if err != nil {
		return t.connectError(err)
	}
	defer conn.Release()
	locked := false
	for _, key := range keys {
		there, err := t.hasIndex(ctx, conn.Conn(), key)
		if err == nil && !there && !locked {
			locked = true
			var unlock func()
			if unlock, err = t.lockIndexes(ctx); err == nil {
				defer unlock()
				there, err = t.hasIndex(ctx, conn.Conn(), key)
			}
		}
		if err == nil && !there {
			err = t.makeIndex(ctx, conn.Conn(), key)
		}
		if err != nil {
			return fmt.Errorf("session: making the index for the key %q: %w", key, err)
		}
	}
	return nil
}

// lockIndexes waits until no other program makes indexes: two at once would
// wait for each other's transactions until PostgreSQL calls it a deadlock. It
// asks and sleeps instead of waiting in the server, where the one at work would
// wait for it. The connection is not the pool's, which may have but one.
func (t *Table) lockIndexes(ctx context.Context) (unlock func(), err error) {
	conn, err := t.connectPlain(ctx)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = conn.Close(context.WithoutCancel(ctx)) } // ends the transaction too
	if _, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
		unlock()
		return nil, err
	}
	for locked := false; !locked; {
		// By the simple protocol: the other one leaves a snapshot open, which
		// CREATE INDEX CONCURRENTLY would wait for.
		var res []*pgconn.Result
		if res, err = conn.PgConn().Exec(ctx, fmt.Sprintf("SELECT pg_try_advisory_xact_lock(%d)", int64(indexLock))).ReadAll(); err == nil {
			if locked = string(res[0].Rows[0][0]) == "t"; !locked {
				err = backoff.Pause(ctx, 6)
			}
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

func (t *Table) hasIndex(ctx context.Context, c *pgx.Conn, key string) (bool, error) {
	var valid bool
	name := t.indexName(key)
	err := c.QueryRow(ctx, sqlIndex, t.Schema, name).Scan(&valid)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil && !valid {
		t.Logger.Warn("session: an index is not valid: somebody is making it, or was cut off while making it",
			slog.String("index", name), slog.String("run", "REINDEX INDEX CONCURRENTLY "+pgx.Identifier{t.Schema, name}.Sanitize()))
	}
	return err == nil, err
}

func (t *Table) makeIndex(ctx context.Context, c *pgx.Conn, key string) error {
	name := t.indexName(key)
	sql := t.IndexSQL(key)
	if t.partitioned { // PostgreSQL cannot
		sql = strings.Replace(sql, " CONCURRENTLY", "", 1)
	}
	start := time.Now()
	_, err := c.PgConn().Exec(ctx, sql).ReadAll()
	switch {
	case pgrun.SQLState(err) != "": // no right to, a standby, statement_timeout: sessions work without
		t.Logger.Warn("session: no index on a key, and it could not be made: finding sessions by it reads the whole table",
			slog.String("key", key), slog.Any("error", err), slog.String("run", sql))
		return nil
	case err == nil:
		t.Logger.Info("session: index made", "index", name, "key", key, "tookMs", time.Since(start).Milliseconds())
	}
	return err
}

// IndexSQL returns the statement that makes the index of a key, unless it is there.
func (t *Table) IndexSQL(key string) string {
	return fmt.Sprintf("CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s ((%s))", pgx.Identifier{t.indexName(key)}.Sanitize(), t.Quoted(), t.Value(key))
}

// indexName returns a name that fits; of long ones a hash tells them apart.
func (t *Table) indexName(key string) string {
	name := "idx_" + t.Name + "_key_" + key
	if len(name) > MaxNameBytes {
		name = "idx_session_key_" + t.Hash(name)
	}
	return name
}
