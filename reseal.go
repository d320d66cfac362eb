package session

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/row"
)

// sqlWalk finds the next live records after the ID $1. Only sealed data is
// sent: a table of large plain records is not read over the network.
const sqlWalk = `SELECT sid::pg_catalog.text, CASE WHEN pg_catalog.strpos(sess::pg_catalog.text, '"` + row.MemberSealed + `"') OPERATOR(pg_catalog.>) 0
		THEN sess::pg_catalog.text ELSE '' END
	FROM %[1]s WHERE ` + sqlFoundLive + ` AND sid OPERATOR(pg_catalog.>) $1::pg_catalog.text AND NOT ` + mark.SQL + ` ORDER BY sid LIMIT %[7]s`

const (
	walkBatch = "50"

	resealTries = 10 // of a record that requests change all the time
)

// ResealOptions are the options of [Manager.Reseal].
type ResealOptions struct {
	_ struct{}

	// DryRun counts and changes nothing.
	DryRun bool

	// Progress, unless nil, is called after each batch with the counts so far.
	Progress func(ResealCounts)
}

// ResealCounts says what [Manager.Reseal] has found and done.
type ResealCounts struct {
	Records  int64 // live records looked at; those below are among them
	Plain    int64 // not encrypted, left alone
	Current  int64 // sealed with the current secret already
	Resealed int64 // sealed with the current secret now, with an old one before
	Old      int64 // still sealed with an old secret: by DryRun, or changed by others too often
	Unopened int64 // sealed with a secret that is not configured, left alone
}

// Reseal seals anew, with [Config.Secret], every live record that only one of
// [Config.OldSecrets] opens, so that the old secret can be dropped before the last of
// its sessions has ended. Run it when every program has the new secret: one
// that still seals with the old one makes more of them.
//
// Keys, values and expiries stay as they are. A record that a request changes,
// renews or destroys meanwhile is left to that request. Plain records stay
// plain, and a record that no secret opens is counted and left alone.
//
// Reseal works through the table in small batches. When ctx ends it finishes the batch
// under way and returns ctx's error beside the counts; the next Reseal passes
// over what is done. It may run beside requests and other Reseals. It needs a
// [PostgresStore] without [PostgresOptions.HashIDs], for the key of a record
// comes from its ID.
func (m *Manager) Reseal(ctx context.Context, opts ResealOptions) (ResealCounts, error) {
	var n ResealCounts
	store, ok := m.store.(*PostgresStore)
	switch {
	case !ok:
		return n, &opError{"Reseal", errors.New("the store is no PostgresStore")}
	case store.opts.HashIDs:
		return n, &opError{"Reseal", errors.New("the table holds hashes of the session IDs, and nothing can be opened without the ID: a record is sealed anew when its session is next saved")}
	}
	for last := ""; ; {
		if err := context.Cause(ctx); err != nil {
			return n, &opError{"Reseal", err}
		}
		found, err := m.walk(ctx, store, last)
		if err != nil || len(found) == 0 {
			return n, err
		}
		for i := range found {
			if err := m.reseal(ctx, &found[i], opts.DryRun, &n); err != nil {
				return n, &opError{"Reseal", m.engine.countError(err)}
			}
		}
		last = found[len(found)-1].ID
		if opts.Progress != nil {
			opts.Progress(n)
		}
	}
}

// walk returns the records after the ID last, in the order of IDs.
func (m *Manager) walk(ctx context.Context, s *PostgresStore, last string) ([]Found, error) {
	ctx, cancel := m.engine.storeContext(ctx)
	defer cancel()
	sql := strings.NewReplacer("%[1]s", s.table.Quoted(), "%[7]s", walkBatch).Replace(strings.Join(strings.Fields(sqlWalk), " "))
	found, err := pgrun.Run(ctx, s.runner, pgrun.Read, func(ctx context.Context, c *pgx.Conn) ([]Found, error) {
		rows, err := c.Query(ctx, sql, s.planned(last)...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Found, err error) {
			return r, row.Scan(&r.ID, &r.Data)
		})
	})
	if err != nil {
		return nil, &opError{"Reseal", m.engine.countError(err)}
	}
	return found, nil
}

// reseal looks at one record, and counts it.
func (m *Manager) reseal(ctx context.Context, r *Found, dry bool, n *ResealCounts) error {
	n.Records++
	for try := 1; ; try++ {
		d, userKey, under := m.unseal(r.ID, r.Data)
		switch {
		case under != underOld:
			*under.count(n)++
			return nil
		case dry || try > resealTries:
			n.Old++
			return nil
		}
		again, err := m.replaceSeal(ctx, r, &d, userKey)
		switch {
		case errors.Is(err, ErrNotFound): // its session has ended or been renewed, and with that sealed anew
			n.Records--
			return nil
		case err != nil:
			return err
		case !again:
			n.Resealed++
			return nil
		}
	}
}

// replaceSeal seals a record with the current secret, and looks whether it is. If
// not (again), a request came first, or a trigger keeps the record as it was: r is
// then what the table holds.
func (m *Manager) replaceSeal(ctx context.Context, r *Found, d *row.Row, userKey string) (again bool, err error) {
	ctx, cancel := m.engine.storeContext(ctx)
	defer cancel()
	sealer := m.engine.sealer.Load().WithUserKey(userKey)
	data, err := sealer.Seal(r.ID, d)
	if err != nil {
		return false, err
	}
	err = m.store.Update(ctx, r.ID, Change{Old: r.Data, New: data})
	wrote := err == nil
	if !wrote && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUncertain) {
		return false, err
	}
	rec, err := m.store.Load(ctx, r.ID)
	r.Data = rec.Data
	if err != nil || !wrote {
		return true, err
	}
	_, _, under := m.unseal(r.ID, r.Data)
	return under != underCurrent, nil
}

// sealedUnder is what opens a record.
type sealedUnder int

const (
	underNone    sealedUnder = iota // it is plain
	underCurrent                    // the current secret
	underOld                        // an old one
	underUnknown                    // nothing
)

func (u sealedUnder) count(n *ResealCounts) *int64 {
	return [...]*int64{&n.Plain, &n.Current, &n.Old, &n.Unopened}[u]
}

// unseal opens the data of record id. userKey is the key whose value it can be
// found by: this Manager may have been made without Config.UserKey, and the
// searchable hash must not be lost by that.
func (m *Manager) unseal(id string, data []byte) (d row.Row, userKey string, under sealedUnder) {
	d, err := row.Parse(data)
	if err != nil || d.Get(row.MemberSealed) == nil {
		return d, "", underNone
	}
	sealer := m.engine.sealer.Load()
	userKey = sealer.UserKey(&d)
	current := sealer.Current()
	switch {
	case current.Open(id, &d) == nil:
		return d, userKey, underCurrent
	case sealer.Open(id, &d) == nil:
		return d, userKey, underOld
	}
	return d, userKey, underUnknown
}
