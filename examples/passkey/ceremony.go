package main

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/pgsession/session"
)

const (
	ceremonyTimeout = 5 * time.Minute // from the challenge to the answer
	maxPending      = 8               // in one session: tabs that ask at once
)

// What a ceremony is for: the answer to one is none to another.
const (
	signingUp  = "sign up"
	loggingIn  = "log in"
	confirming = "confirm"
	adding     = "add"
)

// pending is what has begun in a session and was not answered yet, by challenge.
const pending = session.Key[map[string]ceremony]("ceremonies")

var errNoCeremony = errors.New("no such ceremony has begun in this session")

// ceremony is what the server keeps of a challenge until the answer comes.
type ceremony struct {
	For     string               `json:"for"`
	Data    webauthn.SessionData `json:"data"` // with the challenge and its end
	Name    string               `json:"name,omitempty"`
	Label   string               `json:"label,omitempty"`
	TakenBy string               `json:"takenBy,omitempty"`
}

// begin keeps a ceremony in the session, beside those of other tabs. Of many that
// nobody has finished the oldest go.
func begin(s *session.Session, c ceremony) {
	now := time.Now()
	pending.Update(s, func(all map[string]ceremony) map[string]ceremony {
		kept := map[string]ceremony{}
		oldest := slices.SortedFunc(maps.Values(all), func(a, b ceremony) int { return a.Data.Expires.Compare(b.Data.Expires) })
		for _, other := range oldest[max(0, len(oldest)-maxPending+1):] {
			if end := other.Data.Expires; end.IsZero() || end.After(now) { // none without Enforce
				kept[other.Data.Challenge] = other
			}
		}
		kept[c.Data.Challenge] = c
		return kept
	})
}

// take takes a ceremony out of the session, before its answer is looked at: whatever
// comes of that, nobody gets to try again. Of requests that bring the same answer at the
// same moment one gets it. (Key.Take is not for that: what it deletes is gone at the
// end of the request, and until then another can read it.)
func take(ctx context.Context, s *session.Session, purpose, challenge string) (c ceremony, err error) {
	if all, _ := pending.Get(s); all[challenge].For != purpose {
		return c, errNoCeremony // without a write, and without a session for whoever has none
	}
	me := rand.Text()
	all, err := pending.UpdateNow(ctx, s, func(all map[string]ceremony) map[string]ceremony {
		if c, ok := all[challenge]; ok && c.TakenBy == "" {
			c.TakenBy = me
			all[challenge] = c
		}
		return all
	})
	if err != nil {
		return c, err
	}
	if all[challenge].TakenBy != me {
		return c, errNoCeremony
	}
	pending.Update(s, func(all map[string]ceremony) map[string]ceremony {
		delete(all, challenge)
		return all
	})
	return all[challenge], nil
}
