package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
)

// A field that holds what cannot be meant is refused by its name.
func TestProtocolConfigRefusesNonsense(t *testing.T) {
	duration := map[string]func(*session.Config) *time.Duration{
		"IdleTimeout":     func(c *session.Config) *time.Duration { return &c.IdleTimeout },
		"AbsoluteTimeout": func(c *session.Config) *time.Duration { return &c.AbsoluteTimeout },
		"PruneInterval":   func(c *session.Config) *time.Duration { return &c.PruneInterval },
		"StoreTimeout":    func(c *session.Config) *time.Duration { return &c.StoreTimeout },
	}
	type nonsense struct {
		field, what string
		set         func(*session.Config)
	}
	var all []nonsense
	for name, field := range duration {
		for _, d := range []time.Duration{-1, 1, time.Microsecond, time.Millisecond - 1, math.MinInt64} {
			all = append(all, nonsense{name, d.String(), func(c *session.Config) { *field(c) = d }})
		}
	}
	for _, n := range []int{-1, 1, 64, 255, math.MinInt} {
		all = append(all, nonsense{"MaxBytes", fmt.Sprint(n), func(c *session.Config) { c.MaxBytes = n }})
	}
	for _, secure := range []session.SecureMode{session.SecureAuto, session.SecureNever} {
		for _, name := range []string{"__Http-x", "__http-x", "__HTTP-x", "__Host-Http-x", "__Host-x", "__Secure-x", "__sEcUrE-x"} {
			all = append(all, nonsense{"Cookie.Name", fmt.Sprint(name, " ", secure), func(c *session.Config) { c.Cookie.Name, c.Cookie.Secure = name, secure }})
		}
	}
	for _, old := range [][]string{{""}, {testSecretOld, ""}, {"", testSecretOld}} {
		for _, format := range []session.CookieFormat{session.FormatExpress, session.FormatSecureCookie} {
			what := fmt.Sprint(len(old), " old secrets, an empty one, ", format)
			all = append(all, nonsense{"OldSecrets", what, func(c *session.Config) { c.OldSecrets, c.Cookie.Format = old, format }})
		}
	}
	all = append(all, nonsense{"Secret", "empty, express", func(c *session.Config) { c.Secret, c.Cookie.Format = "", session.FormatExpress }})
	for _, n := range all {
		t.Run(n.field+" "+n.what, func(t *testing.T) {
			cfg := session.Config{Secret: testSecret, DisablePrune: true}
			n.set(&cfg)
			m, err := session.New(session.NewMemoryStore(), cfg)
			if err == nil {
				_ = m.Close()
			}
			if err == nil || !strings.Contains(err.Error(), n.field) {
				t.Errorf("New: got %v, want an error that names %s", err, n.field)
			}
		})
	}
}

// The least that is accepted works.
func TestProtocolConfigAcceptsTheLeast(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		for _, format := range []session.CookieFormat{session.FormatSecureCookie, session.FormatExpress} {
			t.Run(fmt.Sprint("encrypt ", encrypt, ", ", format), func(t *testing.T) {
				m := newManager(t, session.NewMemoryStore(), session.Config{
					MaxBytes: 256, Encrypt: encrypt, Cookie: session.CookieConfig{Format: format, Name: "session"},
				})
				wantResponse(t, "a short key", (&browser{m: m}).visit(func(s *session.Session) { userKey.Set(s, "1") }), 200, "set")
			})
		}
	}
	for _, name := range []string{"__Http-x", "__Host-Http-x", "__Host-x", "__Secure-x"} {
		newManager(t, session.NewMemoryStore(), session.Config{Cookie: session.CookieConfig{Name: name, Secure: session.SecureAlways}})
	}
}

// A list of old secrets from an environment variable that is not set, or set to
// spaces, has no empty one.
func TestProtocolOldSecretsFromEnv(t *testing.T) {
	t.Setenv("SESSION_SECRET", testSecret)
	for _, old := range []string{"", " ", "  \t "} {
		t.Setenv("SESSION_SECRET_OLD", old)
		if cfg, err := session.ConfigFromEnv(); err != nil || len(cfg.OldSecrets) != 0 {
			t.Errorf("%q: got %d old secrets, %v, want none, no error", old, len(cfg.OldSecrets), err)
		}
	}
}

// A creation that is still to come bounds nothing: it counts as unknown and is
// replaced, so that the absolute timeout counts from then.
func TestProtocolCreationToCome(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Minute, time.Hour, 24 * 365 * 100 * time.Hour} {
		for _, encrypt := range []bool{false, true} {
			t.Run(fmt.Sprint(ahead, ", encrypt ", encrypt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newHookedStore()
					m := newManager(t, store, session.Config{AbsoluteTimeout: 2 * time.Hour, IdleTimeout: 90 * time.Minute, Encrypt: encrypt})
					b := login(t, m)
					made := fmt.Sprintf(`"__created":%d`, time.Now().UnixMilli())
					store.express(t, time.Hour, func(data string) string {
						if !strings.Contains(data, made) {
							t.Fatal("the record has no creation time as expected")
						}
						return strings.Replace(data, made, fmt.Sprintf(`"__created":%d`, time.Now().Add(ahead).UnixMilli()), 1)
					})
					for range 4 {
						pass(29 * time.Minute)
						b.wantUser(t, "ada")
					}
					pass(34 * time.Minute) // 2 h 30 min after the first sight of it
					b.wantUser(t, "")
					store.wantRecords(t, 0)
				})
			})
		}
	}
}

// What names no session leaves none out: that is an error, and nobody is logged out.
func TestProtocolExceptNobody(t *testing.T) {
	store := session.NewMemoryStore()
	m := newManager(t, store, session.Config{})
	other := newManager(t, session.NewMemoryStore(), session.Config{})
	b := login(t, m)
	var after, stranger *session.Session
	b.serve(func(_ http.ResponseWriter, r *http.Request) { after = session.From(r.Context()) })
	login(t, other).visit(func(s *session.Session) { readUser(s); stranger = s })
	down := newHookedStore()
	down.fail("Load")
	for name, f := range map[string]session.Filter{
		"Everyone, nil":                          session.Everyone().Except(nil),
		"Is, nil":                                userKey.Is("ada").Except(nil),
		"nil, then a handle":                     session.Everyone().Except(nil).Handle("x"),
		"another manager's":                      session.Everyone().Except(stranger),
		"never used, when its handler has ended": session.Everyone().Except(after),
		"an empty handle":                        session.Everyone().Handle(""),
		"nothing":                                {},
	} {
		if n, err := m.Revoke(t.Context(), f); n != 0 || err == nil {
			t.Errorf("Revoke, %s: got %d, %v, want 0, an error", name, n, err)
		}
		if all, err := m.Sessions(t.Context(), f); len(all) != 0 || err == nil {
			t.Errorf("Sessions, %s: got %d, %v, want 0, an error", name, len(all), err)
		}
		b.wantUser(t, "ada")
	}
}

// Except a session that cannot be loaded is an error, too.
func TestProtocolExceptInAnOutage(t *testing.T) {
	store := newHookedStore()
	m := newManager(t, store.whole(), session.Config{})
	b := login(t, m)
	store.on("Load", fails(errStoreDown))
	b.visit(func(s *session.Session) {
		if n, err := m.Revoke(context.Background(), session.Everyone().Except(s)); n != 0 || !errors.Is(err, errStoreDown) {
			t.Errorf("Revoke: got %d, %v, want 0, the store's error", n, err)
		}
	})
	store.on("Load", nil)
	b.wantUser(t, "ada")
}

// Nested managers of one cookie name would take each other's cookies for forged
// ones.
func TestProtocolNestedManagers(t *testing.T) {
	name := func(name string) session.Config {
		return session.Config{Secret: name + testSecret, Cookie: session.CookieConfig{Name: name}}
	}
	for _, tt := range []struct {
		name         string
		outer, inner session.Config
		panics       bool
	}{
		{"the default name twice", session.Config{}, session.Config{}, true},
		{"one name, two secrets", session.Config{}, session.Config{Secret: testSecretOld}, true},
		{"one name, two paths", session.Config{}, session.Config{Cookie: session.CookieConfig{Path: "/admin"}}, true},
		{"one name, two domains", session.Config{}, session.Config{Cookie: session.CookieConfig{Domain: "example.com"}}, true},
		{"one name, two formats", session.Config{}, session.Config{Cookie: session.CookieConfig{Format: session.FormatExpress, Name: "session"}}, true},
		{"two names", name("a"), name("b"), false},
		{"names in another case", name("a"), name("A"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer, inner := newManager(t, newHookedStore(), tt.outer), newManager(t, newHookedStore(), tt.inner)
			between := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), t, 1)))
				})
			}
			served := false
			last := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true })
			resp := survive(outer.Handler(between(inner.Handler(last))), request("GET", ""))
			if panicked := resp.err != nil; panicked != tt.panics || served == tt.panics {
				t.Errorf("got panic %v, served %t, want a panic %t", resp.err, served, tt.panics)
			}
			served = false
			if resp := survive(outer.Handler(between(outer.Handler(last))), request("GET", "")); resp.err != nil || !served {
				t.Errorf("the same manager twice: got panic %v, served %t, want it served", resp.err, served)
			}
		})
	}
}
