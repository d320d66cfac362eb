package pgtable

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
)

// sqlZone names the connection's TimeZone, says who has set it, and lists its
// offsets over the next two years: zones that agree in those are one.
var sqlZone = qualify(`SELECT pg_catalog.current_setting('TimeZone'),
		(SELECT source = ANY (ARRAY['client', 'session']) FROM pg_catalog.pg_settings WHERE name = 'TimeZone'),
		(SELECT pg_catalog.string_agg(extract(timezone FROM pg_catalog.to_timestamp(day * 86400))::text, ' ' ORDER BY day)
			FROM pg_catalog.floor(extract(epoch FROM pg_catalog.now()) / 86400) today, pg_catalog.generate_series(today::int4, today::int4 + 730, 10) day)`)

// checkZone notes, and warns, where this program's connections have another
// TimeZone than the database gives to programs that do not ask for one. In a
// column without time zone each would then take the other's expiries for hours
// off, and prune sessions that are alive. pgx takes a TimeZone from PGTZ and
// from the connection string; node-postgres takes it from neither.
func (t *Table) checkZone(ctx context.Context, conn *pgx.Conn) {
	if t.ExpireType != "timestamp without time zone" {
		return
	}
	var ours, theirs struct {
		name, offsets string
		asked         bool
	}
	if conn.QueryRow(ctx, sqlZone).Scan(&ours.name, &ours.asked, &ours.offsets) != nil || !ours.asked {
		return
	}
	plain, err := t.connectPlain(ctx)
	if err == nil {
		defer plain.Close(ctx)
		err = plain.QueryRow(ctx, sqlZone).Scan(&theirs.name, &theirs.asked, &theirs.offsets)
	}
	switch {
	case err != nil:
		t.Logger.Warn("session: this program sets the TimeZone of its connections, and it could not be compared with the database's own, which Express has", "timeZone", ours.name)
	case ours.offsets != theirs.offsets:
		t.ForeignZone = fmt.Errorf("session: this program sets TimeZone %s on its connections (by PGTZ, the connection string or AfterConnect), others of this user have %s: in a column without time zone each program takes the expiries of the other for hours off and deletes sessions that are alive. Unset it",
			ours.name, theirs.name)
		t.Logger.Warn("session: wrong TimeZone", slog.String("table", t.Schema+"."+t.Name), slog.Any("error", t.ForeignZone))
	}
}

// connectPlain connects as the pool does but without its TimeZone.
func (t *Table) connectPlain(ctx context.Context) (*pgx.Conn, error) {
	return t.dial(ctx, func(cfg *pgx.ConnConfig) {
		for name := range cfg.RuntimeParams {
			if strings.EqualFold(name, "timezone") { // node-postgres has "options" too
				delete(cfg.RuntimeParams, name)
			}
		}
	})
}
