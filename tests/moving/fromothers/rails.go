package fromothers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/jackc/pgx/v5/pgxpool"
)

// rails is activerecord-session_store 2 with the serializer :json, and Devise for
// a model User whose passwords are bcrypt's.
type rails struct {
	pool *pgxpool.Pool
}

func (rails) id(cookie string) string {
	sum := sha256.Sum256([]byte(cookie))
	return "2::" + hex.EncodeToString(sum[:])
}

func (r rails) user(ctx context.Context, cookie string) (int64, error) {
	var data []byte
	err := r.pool.QueryRow(ctx, `SELECT coalesce((SELECT data FROM sessions
		WHERE session_id = $1 AND updated_at > (now() AT TIME ZONE 'UTC') - interval '30 days'), '')`, r.id(cookie)).Scan(&data)
	if err != nil {
		return 0, err
	}
	var session struct {
		Value struct {
			Warden [2]json.RawMessage `json:"warden.user.user.key"` // [[id], salt]
		} `json:"value"`
	}
	var id [1]int64
	var salt string
	if json.Unmarshal(data, &session) != nil || json.Unmarshal(session.Value.Warden[0], &id) != nil ||
		json.Unmarshal(session.Value.Warden[1], &salt) != nil || salt == "" {
		return 0, nil
	}
	var found int64
	err = r.pool.QueryRow(ctx, `SELECT coalesce((SELECT id FROM users
		WHERE id = $1 AND left(encrypted_password, 29) = $2), 0)`, id[0], salt).Scan(&found)
	return found, err // 0 after a change of the password
}

func (r rails) end(ctx context.Context, cookie string) error {
	_, err := r.pool.Exec(ctx, `UPDATE sessions
		SET updated_at = least(updated_at, (now() AT TIME ZONE 'UTC') - interval '30 days' + interval '1 minute')
		WHERE session_id = $1`, r.id(cookie))
	return err
}
