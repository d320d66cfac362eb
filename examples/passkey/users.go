package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	errNoUser = errors.New("no such user")
	errTaken  = errors.New("user name or passkey is there already")
	errLast   = errors.New("it is the last passkey")
	errCopied = errors.New("the passkey counts backwards: there may be a copy of it")
)

//go:embed users.sql
var usersSQL string

// user is a row of passkey_example.users with its passkeys. It is a [webauthn.User].
type user struct {
	id       int64
	handle   []byte
	name     string
	email    string
	passkeys []passkey
}

// passkey is a row of passkey_example.passkeys.
type passkey struct {
	id                int64
	label             string
	createdAt, usedAt time.Time
	lockedAt          *time.Time
	credential        webauthn.Credential
}

func (u *user) WebAuthnID() []byte          { return u.handle }
func (u *user) WebAuthnName() string        { return u.name }
func (u *user) WebAuthnDisplayName() string { return u.name }

// WebAuthnCredentials are those that are not locked: no other can be used.
func (u *user) WebAuthnCredentials() (all []webauthn.Credential) {
	for _, p := range u.passkeys {
		if p.lockedAt == nil {
			all = append(all, p.credential)
		}
	}
	return all
}

// usable returns the passkey, nil if it is not the user's or is locked.
func (u *user) usable(id int64) *passkey {
	for _, p := range u.passkeys {
		if p.id == id && p.lockedAt == nil {
			return &p
		}
	}
	return nil
}

// users keeps the accounts.
type users struct{ pool *pgxpool.Pool }

func openUsers(ctx context.Context, pool *pgxpool.Pool) (*users, error) {
	if _, err := pool.Exec(ctx, usersSQL); err != nil {
		return nil, fmt.Errorf("create the tables of users: %w", err)
	}
	return &users{pool}, nil
}

func (us *users) byID(ctx context.Context, id int64) (*user, error) {
	return us.one(ctx, "id = $1", id)
}

func (us *users) byHandle(ctx context.Context, handle []byte) (*user, error) {
	return us.one(ctx, "handle = $1", handle)
}

// taken reports whether there is a user of this name.
func (us *users) taken(ctx context.Context, name string) (taken bool, err error) {
	err = us.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM passkey_example.users WHERE name = $1)", name).Scan(&taken)
	return taken, err
}

func (us *users) one(ctx context.Context, where string, arg any) (*user, error) {
	u := &user{}
	err := us.pool.QueryRow(ctx, "SELECT id, handle, name, email FROM passkey_example.users WHERE "+where, arg).
		Scan(&u.id, &u.handle, &u.name, &u.email)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoUser
	}
	if err != nil {
		return nil, err
	}
	rows, err := us.pool.Query(ctx, `SELECT id, label, created_at, used_at, locked_at,
		credential_id, public_key, sign_count, backup_eligible, backed_up, transports, aaguid
		FROM passkey_example.passkeys WHERE user_id = $1 ORDER BY id`, u.id)
	if err != nil {
		return nil, err
	}
	u.passkeys, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p passkey, err error) {
		c := &p.credential
		c.Flags.UserPresent, c.Flags.UserVerified = true, true // none is stored without
		err = row.Scan(&p.id, &p.label, &p.createdAt, &p.usedAt, &p.lockedAt, &c.ID, &c.PublicKey, &c.Authenticator.SignCount,
			&c.Flags.BackupEligible, &c.Flags.BackupState, &c.Transport, &c.Authenticator.AAGUID)
		return p, err
	})
	return u, err
}

// add stores a new user with the first passkey, whose id it returns. It returns
// errTaken where there is a user of this name.
func (us *users) add(ctx context.Context, u *user, label string, c *webauthn.Credential) (id int64, err error) {
	err = pgx.BeginFunc(ctx, us.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "INSERT INTO passkey_example.users (handle, name) VALUES ($1, $2) RETURNING id", u.handle, u.name).Scan(&u.id)
		if err != nil {
			return err
		}
		id, err = insertPasskey(ctx, tx, u.id, label, c)
		return err
	})
	return id, takenOr(err)
}

func (us *users) addPasskey(ctx context.Context, u *user, label string, c *webauthn.Credential) error {
	_, err := insertPasskey(ctx, us.pool, u.id, label, c)
	return takenOr(err)
}

func insertPasskey(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, user int64, label string, c *webauthn.Credential,
) (id int64, err error) {
	transports := c.Transport
	if transports == nil {
		transports = []protocol.AuthenticatorTransport{}
	}
	err = db.QueryRow(ctx, `INSERT INTO passkey_example.passkeys
		(user_id, label, credential_id, public_key, sign_count, backup_eligible, backed_up, transports, aaguid)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
		user, label, c.ID, c.PublicKey, c.Authenticator.SignCount, c.Flags.BackupEligible, c.Flags.BackupState, transports, c.Authenticator.AAGUID).Scan(&id)
	return id, err
}

func takenOr(err error) error {
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "23505" { // unique_violation
		return errTaken
	}
	return err
}

// used notes that a passkey was used: its counter, which the authenticator raises, and
// whether it is synced now. A counter that has not grown says that there are two of what
// should be one (WebAuthn Level 3, 6.1.1): the passkey is locked, errCopied. The
// database compares, so that of two uses at once it is not the later write that counts.
func (us *users) used(ctx context.Context, c *webauthn.Credential) (id int64, err error) {
	if !c.Authenticator.CloneWarning {
		err = us.pool.QueryRow(ctx, `UPDATE passkey_example.passkeys SET sign_count = $2, backed_up = $3, used_at = now()
			WHERE credential_id = $1 AND locked_at IS NULL AND (sign_count < $2 OR sign_count = 0 AND $2 = 0) RETURNING id`,
			c.ID, c.Authenticator.SignCount, c.Flags.BackupState).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return id, err
		}
	}
	err = us.pool.QueryRow(ctx, `UPDATE passkey_example.passkeys SET locked_at = coalesce(locked_at, now())
		WHERE credential_id = $1 RETURNING id`, c.ID).Scan(&id)
	switch {
	case errors.Is(err, pgx.ErrNoRows): // it was removed this moment
		return 0, errNoUser
	case err != nil:
		return 0, err
	}
	return id, errCopied
}

// removePasskey returns errLast rather than lock a user out, and errNoUser for a passkey
// that is not the user's. The lock lets two removals take turns.
func (us *users) removePasskey(ctx context.Context, user, id int64) error {
	return pgx.BeginFunc(ctx, us.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT FROM passkey_example.users WHERE id = $1 FOR UPDATE", user); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "DELETE FROM passkey_example.passkeys WHERE user_id = $1 AND id = $2", user, id)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errNoUser
		}
		var left bool
		err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM passkey_example.passkeys WHERE user_id = $1 AND locked_at IS NULL)", user).Scan(&left)
		if err == nil && !left {
			err = errLast
		}
		return err
	})
}

func (us *users) setEmail(ctx context.Context, id int64, email string) error {
	_, err := us.pool.Exec(ctx, "UPDATE passkey_example.users SET email = $2 WHERE id = $1", id, email)
	return err
}
