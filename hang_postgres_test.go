package session_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgrun"
	"github.com/pgsession/session/internal/pgtest"
)

// Connections swallow what is sent on them, one after the other, all of one kind: a
// firewall has forgotten them. Others of that kind go on beside them, and those that
// hang end well when their connections are back.
func TestPostgresConnectionsThatHang(t *testing.T) {
	const others = 24
	data := []byte(`{"a":1}`)
	for _, kind := range []struct {
		name string
		hung int
		call func(ctx context.Context, s *session.PostgresStore, id string) error
	}{
		{"loads", 3, func(ctx context.Context, s *session.PostgresStore, id string) error {
			_, err := s.Load(ctx, id)
			return err
		}},
		{"creations", 3, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.Create(ctx, "new-"+id, session.Record{Data: data, TTL: time.Hour})
		}},
		{"saves", 3, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.Update(ctx, id, session.Change{Old: data, New: []byte(`{"a":2}`)})
		}},
		{"renewals", 2, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.Update(ctx, id, session.Change{Old: data, New: data, NewID: "new-" + id})
		}},
		{"limits", 1, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.LimitFound(ctx, session.Query{Key: "user", Values: []string{id}}, id)
		}},
		{"touches", 3, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.Touch(ctx, id, 2*time.Hour)
		}},
		{"touches in a hurry", 3, func(ctx context.Context, s *session.PostgresStore, id string) error {
			return s.Touch(pgrun.Impatient(ctx), id, 2*time.Hour)
		}},
		{"deletes", 3, func(ctx context.Context, s *session.PostgresStore, id string) error { return s.Delete(ctx, id) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			hung := kind.hung
			proxy := newCuttingProxy(t, pgtest.URL(t))
			pool := openPool(t, proxy.url, maxConns(16), noPing) // a ping could take an impatient one's time
			store := newStore(t, pool)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var ids []string
			for range hung + others {
				ids = append(ids, createRecord(t, store, string(data)))
			}
			warmUp(t, pool)
			var back sync.WaitGroup
			late := make(chan error, hung)
			var releases []func()
			for _, id := range ids[:hung] {
				h, release := proxy.hang(t, id)
				releases = append(releases, release)
				back.Go(func() { late <- kind.call(ctx, store, id) })
				for !h.hit.Load() && ctx.Err() == nil {
					<-time.After(time.Millisecond)
				}
			}
			together(others, func(i int) {
				if err := kind.call(ctx, store, ids[hung+i]); err != nil {
					t.Errorf("beside %d that hang: got %v, want no error", hung, err)
				}
			})
			if n := len(late); n != 0 {
				t.Errorf("%d of those that hang have come back, want none", n)
			}
			for _, release := range releases {
				release()
			}
			back.Wait()
			for range hung {
				if err := <-late; err != nil {
					t.Errorf("once its connection is back: got %v, want no error", err)
				}
			}
		})
	}
}
