package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session/internal/row"
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

	sqlHandle = `left(encode(sha256(convert_to('` + labelHandle + `' || sid, 'UTF8')), 'hex'), 32)`

	// Materialized, or the planner might walk the index on expire instead of
	// the one on the key, for the sake of the order.
	sqlFind = `WITH found AS MATERIALIZED (SELECT sid, sess, expire FROM %[1]s WHERE expire >= now() AND %[6]s)
		SELECT sid::text, sess::text, extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8
		FROM found ORDER BY expire DESC LIMIT %[7]s`

	sqlFindAll = `SELECT sid::text, sess::text, extract(epoch FROM expire::timestamptz)::float8 - extract(epoch FROM now())::float8
		FROM %[1]s WHERE expire >= now() AND %[6]s ORDER BY expire DESC LIMIT %[7]s`

	// One statement, so that PostgreSQL follows a row that is renewed meanwhile.
	sqlDeleteFound = `WITH gone AS (DELETE FROM %[1]s WHERE %[6]s RETURNING expire >= now() AS live)
		SELECT count(*) FILTER (WHERE live) FROM gone`
)

// Find implements [Finder]. By a key that [PostgresOptions.IndexKeys] names it
// takes milliseconds; by any other it reads the whole table.
func (s *PostgresStore) Find(ctx context.Context, q Query) ([]Found, error) {
	sql := sqlFind
	if q.Key == "" {
		sql = sqlFindAll
	}
	sql, args := s.where(sql, &q)
	var found []Found
	err := s.run(ctx, repeatable, func(ctx context.Context, c *pgx.Conn) error {
		found = nil
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Found
			var left float64
			if err := rows.Scan(&r.ID, &r.Data, &left); err != nil {
				return err
			}
			r.Handle, r.TTL = handleOf(r.ID), fromSeconds(left)
			if s.opts.HashIDs {
				r.ID = ""
			}
			found = append(found, r)
		}
		return rows.Err()
	})
	return found, err
}

// DeleteFound implements [Finder].
func (s *PostgresStore) DeleteFound(ctx context.Context, q Query) (int64, error) {
	sql, args := s.where(sqlDeleteFound, &q)
	var live int64
	err := s.run(ctx, repeatable, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, sql, args...).Scan(&live)
	})
	return live, err
}

// Handle implements [Finder].
func (s *PostgresStore) Handle(id string) string { return handleOf(s.sid(id)) }

// sid returns what the table holds for a session ID.
func (s *PostgresStore) sid(id string) string {
	if !s.opts.HashIDs || id == "" {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// where completes a statement with the conditions of q.
func (s *PostgresStore) where(sql string, q *Query) (string, []any) {
	conditions := []string{"true"}
	var args []any
	condition := func(format string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, fmt.Sprintf(format, len(args)))
	}
	if q.Key != "" {
		condition(strings.ReplaceAll(s.value(q.Key), "%", "%%")+" = ANY($%d::text[])", q.Values)
	}
	if q.Handle != "" {
		condition(sqlHandle+" = $%d::text", q.Handle)
	}
	if q.Except != "" {
		condition("sid <> $%d::text", s.sid(q.Except))
	}
	return strings.NewReplacer("%[1]s", s.table(), "%[6]s", strings.Join(conditions, " AND "), "%[7]s", fmt.Sprint(max(q.Limit, 0))).
		Replace(strings.Join(strings.Fields(sql), " ")), args
}

// value returns the expression of a key's value, the same in every statement,
// for an index is only used for its own.
func (s *PostgresStore) value(key string) string {
	return strings.NewReplacer("%[2]s", s.sessType, "%[4]s", literal(key), "%[5]s", literal(row.PrefixFind+key)).
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

// makeIndexes makes the indexes of PostgresOptions.IndexKeys that are missing.
// Without the right to it finding is slow, and a warning says what to run.
func (s *PostgresStore) makeIndexes(ctx context.Context, kind string) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return s.connectError(err)
	}
	defer conn.Release()
	locked := false
	for _, key := range s.opts.IndexKeys {
		there, err := s.hasIndex(ctx, conn.Conn(), key)
		if err == nil && !there && !locked {
			locked = true
			var unlock func()
			if unlock, err = s.lockIndexes(ctx); err == nil {
				defer unlock()
				there, err = s.hasIndex(ctx, conn.Conn(), key)
			}
		}
		if err == nil && !there {
			err = s.makeIndex(ctx, conn.Conn(), key, kind == "p")
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
func (s *PostgresStore) lockIndexes(ctx context.Context) (unlock func(), err error) {
	conn, err := s.connectPlain(ctx)
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
				err = pause(ctx, 6)
			}
		}
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

func (s *PostgresStore) hasIndex(ctx context.Context, c *pgx.Conn, key string) (bool, error) {
	var valid bool
	name := s.indexName(key)
	err := c.QueryRow(ctx, sqlIndex, s.opts.Schema, name).Scan(&valid)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil && !valid {
		s.opts.Logger.Warn("session: an index is not valid: somebody is making it, or was cut off while making it",
			slog.String("index", name), slog.String("run", "REINDEX INDEX CONCURRENTLY "+pgx.Identifier{s.opts.Schema, name}.Sanitize()))
	}
	return err == nil, err
}

func (s *PostgresStore) makeIndex(ctx context.Context, c *pgx.Conn, key string, partitioned bool) error {
	name := s.indexName(key)
	sql := fmt.Sprintf("CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s ((%s))", pgx.Identifier{name}.Sanitize(), s.table(), s.value(key))
	if partitioned { // PostgreSQL cannot
		sql = strings.Replace(sql, " CONCURRENTLY", "", 1)
	}
	start := time.Now()
	_, err := c.PgConn().Exec(ctx, sql).ReadAll()
	switch {
	case sqlState(err) != "": // no right to, a standby, statement_timeout: sessions work without
		s.opts.Logger.Warn("session: no index on a key, and it could not be made: finding sessions by it reads the whole table",
			slog.String("key", key), slog.Any("error", err), slog.String("run", sql))
		return nil
	case err == nil:
		s.opts.Logger.Info("session: index made", "index", name, "key", key, "tookMs", time.Since(start).Milliseconds())
	}
	return err
}

// indexName returns a name that fits; of long ones a hash tells them apart.
func (s *PostgresStore) indexName(key string) string {
	name := "idx_" + s.opts.Table + "_key_" + key
	if len(name) > maxNameBytes {
		name = "idx_session_key_" + handleOf(name)
	}
	return name
}
