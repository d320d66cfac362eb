package fromothers

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// django is django.contrib.sessions with the backend db or cached_db, the
// JSONSerializer, and django.contrib.auth, from Django 3.1 on.
type django struct {
	pool      *pgxpool.Pool
	secretKey string // settings.SECRET_KEY
}

func (d django) user(ctx context.Context, cookie string) (int64, error) {
	var data string
	err := d.pool.QueryRow(ctx, `SELECT coalesce((SELECT session_data FROM django_session
		WHERE session_key = $1 AND expire_date > now()), '')`, cookie).Scan(&data)
	if err != nil {
		return 0, err
	}
	var session struct {
		User string `json:"_auth_user_id"`
		Hash string `json:"_auth_user_hash"`
	}
	if !d.open(data, &session) || session.User == "" {
		return 0, nil
	}
	id, err := strconv.ParseInt(session.User, 10, 64)
	if err != nil {
		return 0, err
	}
	var password string
	err = d.pool.QueryRow(ctx, `SELECT coalesce((SELECT password FROM auth_user
		WHERE id = $1 AND is_active), '')`, id).Scan(&password)
	if err != nil || password == "" {
		return 0, err
	}
	// A session from before a change of the password is worth nothing.
	want := d.mac("django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash", password)
	if !hmac.Equal([]byte(session.Hash), []byte(hex.EncodeToString(want))) {
		return 0, nil
	}
	return id, nil
}

func (d django) end(ctx context.Context, cookie string) error {
	_, err := d.pool.Exec(ctx, `UPDATE django_session
		SET expire_date = least(expire_date, now() + interval '1 minute') WHERE session_key = $1`, cookie)
	return err
}

// open verifies and decodes what django.core.signing.dumps has made:
// [.]data:timestamp:signature.
func (d django) open(signed string, into any) bool {
	i := strings.LastIndexByte(signed, ':')
	if i < 0 {
		return false
	}
	mac := d.mac("django.contrib.sessions.SessionStoresigner", signed[:i])
	if !hmac.Equal([]byte(signed[i+1:]), []byte(base64.RawURLEncoding.EncodeToString(mac))) {
		return false
	}
	text, _, _ := strings.Cut(signed[:i], ":")
	text, compressed := strings.CutPrefix(text, ".")
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return false
	}
	if compressed {
		z, err := zlib.NewReader(bytes.NewReader(data))
		if err != nil {
			return false
		}
		if data, err = io.ReadAll(z); err != nil {
			return false
		}
	}
	return json.Unmarshal(data, into) == nil
}

// mac is django.utils.crypto.salted_hmac with SHA-256.
func (d django) mac(salt, value string) []byte {
	key := sha256.Sum256([]byte(salt + d.secretKey))
	h := hmac.New(sha256.New, key[:])
	_, _ = io.WriteString(h, value)
	return h.Sum(nil)
}
