package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	errNoUser = errors.New("no such user")
	errTaken  = errors.New("user name is taken")
)

//go:embed users.sql
var usersSQL string

// user is a row of login_example.users.
type user struct {
	id       int64
	name     string
	password string // its hash
	version  int    // of the password
	admin    bool   // may see and end everybody's sessions
}

// users keeps the accounts, and counts attempts to get into them.
type users struct{ pool *pgxpool.Pool }

func openUsers(ctx context.Context, pool *pgxpool.Pool) (*users, error) {
	if _, err := pool.Exec(ctx, usersSQL); err != nil {
		return nil, fmt.Errorf("create the table of users: %w", err)
	}
	return &users{pool}, nil
}

// add returns errTaken where there is a user of this name.
func (us *users) add(ctx context.Context, name, password string) (user, error) {
	u, err := us.one(ctx, `INSERT INTO login_example.users (name, password) VALUES ($1, $2)
		ON CONFLICT (name) DO NOTHING RETURNING id, name, password, version, admin`, name, password)
	if errors.Is(err, errNoUser) {
		return u, errTaken
	}
	return u, err
}

func (us *users) byName(ctx context.Context, name string) (user, error) {
	return us.one(ctx, "SELECT id, name, password, version, admin FROM login_example.users WHERE name = $1", name)
}

func (us *users) byID(ctx context.Context, id int64) (user, error) {
	return us.one(ctx, "SELECT id, name, password, version, admin FROM login_example.users WHERE id = $1", id)
}

func (us *users) setPassword(ctx context.Context, id int64, password string) (user, error) {
	return us.one(ctx, `UPDATE login_example.users SET password = $2, version = version + 1
		WHERE id = $1 RETURNING id, name, password, version, admin`, id, password)
}

func (us *users) remove(ctx context.Context, id int64) error {
	_, err := us.pool.Exec(ctx, "DELETE FROM login_example.users WHERE id = $1", id)
	return err
}

func (us *users) one(ctx context.Context, sql string, args ...any) (u user, err error) {
	err = us.pool.QueryRow(ctx, sql, args...).Scan(&u.id, &u.name, &u.password, &u.version, &u.admin)
	if errors.Is(err, pgx.ErrNoRows) {
		return u, errNoUser
	}
	return u, err
}

// attempt counts one for key and reports whether it is allowed: burst at once,
// then one every interval. It holds for all instances of the program together.
func (us *users) attempt(ctx context.Context, key string, burst int, interval time.Duration) (bool, error) {
	tag, err := us.pool.Exec(ctx, `INSERT INTO login_example.attempts AS a (key, free_at)
		VALUES ($1, now() + make_interval(secs => $2))
		ON CONFLICT (key) DO UPDATE SET free_at = GREATEST(a.free_at, now()) + make_interval(secs => $2)
		WHERE a.free_at <= now() + make_interval(secs => $3)`,
		key, interval.Seconds(), (time.Duration(burst-1) * interval).Seconds())
	return tag.RowsAffected() == 1, err
}

// forget removes the attempts for key, and those that count no longer.
func (us *users) forget(ctx context.Context, key string) error {
	_, err := us.pool.Exec(ctx, "DELETE FROM login_example.attempts WHERE key = $1 OR free_at < now()", key)
	return err
}
