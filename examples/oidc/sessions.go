package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

// The keys by which the provider's logouts find sessions.
const (
	userID   = session.Key[int64]("userId")
	loginSID = session.Key[string]("loginSid") // the login at the provider: the sid of the ID token
)

func openSessions(ctx context.Context, pool *pgxpool.Pool) (*session.Manager, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{
		IndexKeys: []string{string(userID), string(loginSID)}, // a logout need not read the whole table
		HashIDs:   true,                                       // a stolen backup logs nobody in
	})
	if err != nil {
		return nil, err
	}
	cfg.UserKey = string(userID)
	cfg.AbsoluteTimeout = 12 * time.Hour
	return session.New(store, cfg)
}
