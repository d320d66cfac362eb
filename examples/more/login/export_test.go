package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	DeviceLabel  = deviceLabel
	HashPassword = hashPassword
	IsPassword   = isPassword
)

// Hashed is the work of all hashes so far.
func Hashed() int64 { return hashed.Load() }

// Serve is the application, in this program, and what ends it.
func Serve(ctx context.Context, pool *pgxpool.Pool) (app http.Handler, end func() error, err error) {
	users, err := openUsers(ctx, pool)
	if err != nil {
		return nil, nil, err
	}
	sessions, err := openSessions(ctx, pool, false, false)
	if err != nil {
		return nil, nil, err
	}
	admin, err := openAdmin(pool, sessions)
	if err != nil {
		return nil, nil, err
	}
	end = func() error { return errors.Join(admin.Close(), sessions.Close()) }
	return newApp(users, sessions, admin, false), end, nil
}

// Ago is how long ago d is, in words.
func Ago(d time.Duration) string { return moment{time.Now().Add(-d)}.Ago() }
