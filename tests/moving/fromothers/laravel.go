package fromothers

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1" // #nosec G505 -- Laravel's, in a MAC
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// laravel is the session driver database with encrypted cookies, the cipher
// AES-256-CBC and integer user IDs, from Laravel 8 on.
type laravel struct {
	pool     *pgxpool.Pool
	key      []byte        // APP_KEY: what stands after "base64:", decoded
	name     string        // the cookie's
	lifetime time.Duration // SESSION_LIFETIME, in minutes there
}

func (l laravel) user(ctx context.Context, cookie string) (int64, error) {
	var id int64
	err := l.pool.QueryRow(ctx, `SELECT coalesce((SELECT user_id FROM sessions
		WHERE id = $1 AND last_activity >= $2), 0)`, l.id(cookie), time.Now().Add(-l.lifetime).Unix()).Scan(&id)
	return id, err
}

func (l laravel) end(ctx context.Context, cookie string) error {
	_, err := l.pool.Exec(ctx, `UPDATE sessions SET last_activity = least(last_activity, $2)
		WHERE id = $1`, l.id(cookie), time.Now().Add(time.Minute-l.lifetime).Unix())
	return err
}

// id opens the cookie: base64 of a JSON object with an initialization vector, the
// ciphertext and a MAC of both. "" if it is not Laravel's.
func (l laravel) id(cookie string) string {
	text, err := url.PathUnescape(cookie)
	if err != nil {
		return ""
	}
	var sealed struct{ IV, Value, MAC string }
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(data, &sealed) != nil {
		return ""
	}
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte(sealed.IV + sealed.Value))
	if !hmac.Equal([]byte(sealed.MAC), []byte(hex.EncodeToString(mac.Sum(nil)))) {
		return ""
	}
	iv, _ := base64.StdEncoding.DecodeString(sealed.IV)
	value, _ := base64.StdEncoding.DecodeString(sealed.Value)
	block, err := aes.NewCipher(l.key)
	if err != nil || len(iv) != aes.BlockSize || len(value) == 0 || len(value)%aes.BlockSize != 0 {
		return ""
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(value, value)
	pad := int(value[len(value)-1])
	if pad > len(value) {
		return ""
	}
	// The value of another cookie of the same program is none of this one.
	prefix := hmac.New(sha1.New, l.key)
	prefix.Write([]byte(l.name + "v2"))
	id, ok := strings.CutPrefix(string(value[:len(value)-pad]), hex.EncodeToString(prefix.Sum(nil))+"|")
	if !ok {
		return ""
	}
	return id
}
