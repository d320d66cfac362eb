package settings

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

// Open takes the secrets from the environment, and the rest from one of the
// functions below: sessions, err := Open(ctx, pool, shop).
func Open(ctx context.Context, pool *pgxpool.Pool, settings func(session.Config) (session.Config, session.PostgresOptions)) (*session.Manager, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	cfg, options := settings(cfg)
	store, err := session.NewPostgresStore(ctx, pool, options)
	if err != nil {
		return nil, err
	}
	return session.New(store, cfg)
}
