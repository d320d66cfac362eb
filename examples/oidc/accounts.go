package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// accountsSQL makes the application's own tables. A user is who has a subject at the
// provider; a name or an address can become somebody else's.
const accountsSQL = `
CREATE SCHEMA IF NOT EXISTS oidc_example;
CREATE TABLE IF NOT EXISTS oidc_example.accounts (
	id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	subject text NOT NULL UNIQUE,
	name    text NOT NULL
);
CREATE TABLE IF NOT EXISTS oidc_example.logouts (
	jti     text PRIMARY KEY,
	subject text NOT NULL,
	sid     text NOT NULL,
	issued  timestamptz NOT NULL,
	done    boolean NOT NULL DEFAULT false,
	noted   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS logouts_sid ON oidc_example.logouts (sid);
CREATE INDEX IF NOT EXISTS logouts_subject ON oidc_example.logouts (subject);
`

// accounts are the users of this application, and the provider's logouts of the last
// hour: longer than a logout token is good for, and than a login needs to come back.
type accounts struct{ pool *pgxpool.Pool }

func openAccounts(ctx context.Context, pool *pgxpool.Pool) (*accounts, error) {
	_, err := pool.Exec(ctx, accountsSQL)
	return &accounts{pool}, err
}

// of returns the account of a subject, which is made when it comes first.
func (a *accounts) of(ctx context.Context, subject, name string) (id int64, err error) {
	err = a.pool.QueryRow(ctx, `INSERT INTO oidc_example.accounts (subject, name) VALUES ($1, $2)
		ON CONFLICT (subject) DO UPDATE SET name = excluded.name RETURNING id`, subject, name).Scan(&id)
	return id, err
}

// known returns the account of a subject if there is one.
func (a *accounts) known(ctx context.Context, subject string) (id int64, ok bool, err error) {
	err = a.pool.QueryRow(ctx, `SELECT id FROM oidc_example.accounts WHERE subject = $1`, subject).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return id, err == nil, err
}

func (a *accounts) name(ctx context.Context, id int64) (name string, err error) {
	err = a.pool.QueryRow(ctx, `SELECT name FROM oidc_example.accounts WHERE id = $1`, id).Scan(&name)
	return name, err
}

// noteLogout writes a logout down, and says whether the same token has done its work
// already. One that failed may come again.
func (a *accounts) noteLogout(ctx context.Context, jti, subject, sid string, issued time.Time) (done bool, err error) {
	if _, err := a.pool.Exec(ctx, `DELETE FROM oidc_example.logouts WHERE noted < now() - interval '1 hour'`); err != nil {
		return false, err
	}
	err = a.pool.QueryRow(ctx, `INSERT INTO oidc_example.logouts (jti, subject, sid, issued) VALUES ($1, $2, $3, $4)
		ON CONFLICT (jti) DO UPDATE SET jti = excluded.jti RETURNING done`, jti, subject, sid, issued).Scan(&done)
	return done, err
}

func (a *accounts) logoutDone(ctx context.Context, jti string) error {
	_, err := a.pool.Exec(ctx, `UPDATE oidc_example.logouts SET done = true WHERE jti = $1`, jti)
	return err
}

// ended reports whether the provider has ended a login, or all of its user's, since
// its ID token was issued (both times are the provider's, in seconds) or since it began
// here: a code from before a logout may be exchanged after it, for a new ID token.
func (a *accounts) ended(ctx context.Context, subject, sid string, issued, began time.Time) (ended bool, err error) {
	err = a.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM oidc_example.logouts
		WHERE (issued >= $3 OR noted >= $4) AND (sid <> '' AND sid = $2 OR sid = '' AND subject = $1))`, subject, sid, issued, began).Scan(&ended)
	return ended, err
}
