package pgtable

import (
	"context"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
)

// fewConns is a pool in which a few handlers that hold a connection keep every
// session waiting.
const fewConns = 4

// warnPool logs what is unwise about the pool, before anybody waits for it.
func (t *Table) warnPool() {
	cfg := t.Runner.Pool().Config()
	if d := cfg.ConnConfig.ConnectTimeout; d <= 0 || d > dialTimeout {
		t.Logger.Warn("session: the pool's ConnConfig.ConnectTimeout is not set, or long: after an outage in which packets are swallowed connections hang for so long. Set connect_timeout=2 in the connection string",
			slog.Duration("connectTimeout", d))
	}
	if cfg.MaxConns < fewConns {
		t.Logger.Warn("session: the pool has few connections: a handler that holds one while it writes its page can make all sessions wait. Set pool_max_conns to 8 or more in the connection string",
			slog.Int("maxConns", int(cfg.MaxConns)))
	}
}

// warn logs what works but may hurt.
func (t *Table) warn(ctx context.Context, c *pgx.Conn, info *tableInfo) {
	log := t.Logger
	table := slog.String("table", t.Schema+"."+t.Name)
	if info.summerTime && t.ExpireType == "timestamp without time zone" {
		log.Warn("session: the connection's TimeZone observes daylight saving and expire has no time zone: for an hour a year sessions live an hour longer. Express must use the same TimeZone. Better, where every program can: ALTER ROLE … SET timezone = 'UTC', while nobody is logged in",
			table, slog.String("timeZone", info.timeZone))
	}
	if !info.indexed {
		concurrently, name := "CONCURRENTLY ", t.freeName(ctx, c, t.fit("idx_"+t.Name+"_expire", "idx_session_expire_"))
		if info.kind == "p" { // PostgreSQL cannot
			concurrently = ""
		}
		log.Warn("session: no index on expire, so pruning reads the whole table", table,
			slog.String("run", "CREATE INDEX "+concurrently+pgx.Identifier{name}.Sanitize()+" ON "+t.Quoted()+" (expire)"))
	}
	if info.persistence == "u" {
		log.Warn("session: the table is UNLOGGED: a crash of the database logs everybody out", table, slog.String("run", "ALTER TABLE "+t.Quoted()+" SET LOGGED"))
	}
	t.warnGuards(info)
	t.warnRows(ctx, c, info)
	t.warnServer(info)
}

// warnRows logs values that no session has.
func (t *Table) warnRows(ctx context.Context, c *pgx.Conn, info *tableInfo) {
	table := slog.String("table", t.Schema+"."+t.Name)
	if p := info.columns["expire"].typmod; p >= 0 && p < 3 {
		t.Logger.Warn("session: expire keeps no milliseconds: sessions end up to half a second early or late", table,
			slog.String("run", "ALTER TABLE "+t.Quoted()+" ALTER COLUMN expire TYPE "+strings.Replace(t.ExpireType, "timestamp", "timestamp(6)", 1)))
	}
	var null []string
	for _, name := range []string{"sid", "sess", "expire"} {
		if !info.columns[name].notNull {
			null = append(null, name+" IS NULL")
		}
	}
	if len(null) == 0 {
		return
	}
	// A look at the first rows, and along the index, where there is one.
	sql := "SELECT EXISTS (SELECT FROM (SELECT sid, sess, expire FROM " + t.Quoted() + " LIMIT 1000) s WHERE " + strings.Join(null, " OR ") + ")"
	if info.indexed && !info.columns["expire"].notNull {
		sql += " OR EXISTS (SELECT FROM " + t.Quoted() + " WHERE expire IS NULL)"
	}
	var there bool
	if c.QueryRow(ctx, sql).Scan(&there) == nil && there {
		t.Logger.Warn("session: rows without sid, sess or expire are no sessions and are never pruned", table,
			slog.String("run", "DELETE FROM "+t.Quoted()+" WHERE "+strings.Join(null, " OR ")))
	}
}

// warnServer logs settings that hurt.
func (t *Table) warnServer(info *tableInfo) {
	switch {
	case info.standby:
		t.Logger.Warn("session: the server is a standby: sessions can be read and not written until it is promoted. Is it the right one?")
	case info.readOnly:
		t.Logger.Warn("session: transactions of this user are read-only: sessions can be read and not written",
			slog.String("run", "ALTER ROLE "+pgx.Identifier{info.user}.Sanitize()+" IN DATABASE "+pgx.Identifier{info.database}.Sanitize()+" SET default_transaction_read_only = off"))
	}
	if info.clientEncoding != "UTF8" && info.serverEncoding != "SQL_ASCII" {
		t.Logger.Warn("session: the connections' client_encoding is not UTF8: other programs read this one's data wrongly where it is not ASCII. Set client_encoding=UTF8 in the connection string",
			slog.String("clientEncoding", info.clientEncoding), slog.String("serverEncoding", info.serverEncoding))
	}
}

// warnPooler logs that a pooler answers which may mix up what pgx has prepared: the
// process ID that it gave at login is its own invention, and it does not keep
// statements under names of its own. Whether it is in session mode, where all is
// well, cannot be asked for.
func (t *Table) warnPooler(c *pgx.Conn, info *tableInfo) {
	if c.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && info.pooled && info.prepared {
		t.Logger.Warn("session: a pooler is between here and PostgreSQL. Unless its mode is session, set DefaultQueryExecMode of the pool's ConnConfig to pgx.QueryExecModeCacheDescribe")
	}
}
