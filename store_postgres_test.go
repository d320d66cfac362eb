package session_test

import (
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

func TestPostgresStore(t *testing.T) {
	sessiontest.TestStore(t, func(t *testing.T) session.Store {
		store, err := session.NewPostgresStore(t.Context(), pgtest.Pool(t), session.PostgresOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return store
	})
}
