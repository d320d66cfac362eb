package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/mark"
	"github.com/pgsession/session/internal/row"
	"github.com/pgsession/session/internal/seal"
)

// lookedAt is how many encrypted sessions are opened to see whether they can be
// found by a key, of those that have its hash and of those that have not.
const lookedAt = 500

// secrets are those of the environment, the current first.
func secrets() ([]string, error) {
	cfg, err := session.ConfigFromEnv()
	if cfg.Secret == "" {
		return nil, err
	}
	return append([]string{cfg.Secret}, cfg.OldSecrets...), nil
}

// sealed is what the encrypted sessions say of a search by a key.
type sealed struct {
	hashed, unhashed int             // with the key's hash, and without; of each as many as were looked at
	unopened, opened int             // by the secrets
	hidden           int             // they hold the key, and no hash of it
	searchable       map[string]bool // the keys of which they have hashes
}

// sqlSealed reads live encrypted sessions that have a key's hash ($2), or have not.
const sqlSealed = `SELECT sid::pg_catalog.text, sess::pg_catalog.text FROM %[1]s WHERE expire OPERATOR(pg_catalog.>=) pg_catalog.now() AND NOT ` + mark.SQL + `
	AND pg_catalog.strpos(sess::pg_catalog.text, '"__sealed"') OPERATOR(pg_catalog.>) 0
	AND (pg_catalog.strpos(sess::pg_catalog.text, $1::pg_catalog.text) OPERATOR(pg_catalog.>) 0) OPERATOR(pg_catalog.=) $2::boolean LIMIT %[2]d`

// lookAtSealed opens some of the encrypted sessions.
func (d *database) lookAtSealed(ctx context.Context, key string) (s sealed, err error) {
	keys, err := secrets()
	if err != nil {
		keys = nil // they open nothing
	}
	sealer, err := seal.New(keys, "")
	if err != nil {
		return s, err
	}
	name, err := json.Marshal(row.PrefixFind + key)
	if err != nil {
		return s, err
	}
	s.searchable = map[string]bool{}
	for _, with := range []bool{true, false} {
		rows, err := d.pool.Query(ctx, fmt.Sprintf(sqlSealed, d.a.quoted(), lookedAt), string(name), with)
		if err != nil {
			return s, err
		}
		var id, data string
		_, err = pgx.ForEachRow(rows, []any{&id, &data}, func() error {
			s.look(&sealer, id, data, key, d.a.hashIDs)
			return nil
		})
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// look looks at one of them. With hashed IDs its own is not known, so it cannot be
// opened.
func (s *sealed) look(sealer *seal.Sealer, id, data, key string, hashed bool) {
	r, err := row.Parse([]byte(data))
	if err != nil {
		return // no session
	}
	found := false
	for name := range r.All() {
		if of, ok := strings.CutPrefix(name, row.PrefixFind); ok {
			s.searchable[of] = true
			found = found || of == key
		}
	}
	if found {
		s.hashed++
	} else {
		s.unhashed++
	}
	switch {
	case hashed:
	case sealer.Open(id, &r) != nil:
		s.unopened++
	default:
		s.opened++
		if !found && slices.Contains(r.Keys(), key) {
			s.hidden++
		}
	}
}

// mustFind is an error where encrypted sessions may have the key and cannot be
// found by it: they would stay alive, or seem not to be there.
func (d *database) mustFind(ctx context.Context, key string) (sealed, error) {
	if row.Reserved(key) {
		return sealed{}, nil // the library refuses it
	}
	s, err := d.lookAtSealed(ctx, key)
	if err != nil || s.hashed+s.unhashed == 0 {
		return s, err
	}
	if given, err := secrets(); len(given) == 0 {
		return s, errors.Join(errors.New("there are encrypted sessions, which are found by a keyed hash: set SESSION_SECRET and SESSION_SECRET_OLD as the programs have them"), err)
	}
	by := "the programs set none"
	if names := slices.Sorted(maps.Keys(s.searchable)); len(names) > 0 {
		by = "here it is " + strings.Join(names, ", ")
	}
	switch {
	case s.hidden > 0, d.a.hashIDs && s.hashed == 0:
		return s, fmt.Errorf("there are encrypted sessions, and they cannot be searched by the key %q: only by the programs' Config.UserKey (%s)", key, by)
	case s.unopened > 0 && s.opened == 0:
		return s, fmt.Errorf("%s. Nothing was done", s.locked())
	}
	return s, nil
}

// locked says that sessions could not be found.
func (s *sealed) locked() string {
	return fmt.Sprintf("%d of %d encrypted sessions that were looked at are opened by no secret given here, and cannot be found by a value: set SESSION_SECRET and SESSION_SECRET_OLD as the programs have them (and --hash-ids, if they hash IDs)",
		s.unopened, s.unopened+s.opened)
}

// doubt is an error where what was found may not be all, after it was listed or
// ended. found is how many.
func (d *database) doubt(s sealed, found int64) error {
	switch {
	case s.unopened > 0:
		return errors.New(s.locked() + ". Those that can be found are done")
	case d.a.hashIDs && s.hashed > 0 && found == 0:
		return errors.New("none was found, and there are encrypted sessions: with hashed IDs it cannot be told whether SESSION_SECRET and SESSION_SECRET_OLD are theirs")
	}
	return nil
}
