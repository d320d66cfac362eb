package interop_test

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

// TestInShort runs the two halves of "In short" in docs/moving-from-express.md, the
// Express one word for word, with the same environment: whoever logs in on one is
// logged in on the other, for as long, and each old secret is one on both.
func TestInShort(t *testing.T) {
	const variableTimeout, day = "SESSION_TIMEOUT", 24 * time.Hour
	first, second := "retired: "+secret, "older: "+secret
	first, second = strings.ReplaceAll(first, " ", "-"), strings.ReplaceAll(second, " ", "-")
	for _, tt := range []struct {
		name string
		env  map[string]string
		want time.Duration // until the cookie ends
	}{
		{"the secret alone", nil, day},
		{"empty", map[string]string{variableTimeout: "", "SESSION_SECRET_OLD": ""}, day},
		{"milliseconds", map[string]string{variableTimeout: "3600000"}, time.Hour},
		{"two old secrets", map[string]string{"SESSION_SECRET_OLD": first + " " + second}, day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"SESSION_SECRET": secret}
			maps.Copy(env, tt.env)
			db := newDatabase(t, "")
			ex := db.express(t, express{Snippet: inShort(t), Env: env})
			gg := db.golang(t, func(cfg *session.Config) { fromEnv(t, cfg, env) })
			for _, order := range [][2]*side{{ex, gg}, {gg, ex}} {
				var ada browser
				ada.must(t, order[0], "/login", object{"user": "ada"})
				if ada.cookie == "" {
					t.Fatalf("%s: got no cookie at a login", order[0].name)
				}
				if left := time.Until(ada.expires); left > tt.want+time.Minute || left < tt.want-time.Minute {
					t.Errorf("%s: got a cookie for %v, want %v", order[0].name, left, tt.want)
				}
				ada.wantData(t, order[1], `{"user": "ada"}`)
				id := ada.mustState(t, order[0]).ID
				for _, old := range []string{first, second} {
					signed := browser{cookie: sign(id, old)}
					if strings.Contains(env["SESSION_SECRET_OLD"], old) {
						signed.wantData(t, ex, `{"user": "ada"}`)
						signed.wantData(t, gg, `{"user": "ada"}`)
					} else {
						wantNone(t, signed.cookie, ex, gg)
					}
				}
				wantNone(t, sign(id, first+" "+second), ex, gg)
			}
		})
	}
}

// inShort returns the first block of JavaScript of the document.
func inShort(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/moving-from-express.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n## In short\n\n```js\n")
	snippet, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("the document has no JavaScript below \"In short\"")
	}
	return snippet
}

// fromEnv sets what the Go half takes from the environment.
func fromEnv(t *testing.T, cfg *session.Config, env map[string]string) {
	t.Helper()
	for _, name := range []string{"SESSION_SECRET", "SESSION_SECRET_OLD", "SESSION_TIMEOUT"} {
		t.Setenv(name, env[name]) // restored at the end, unset or not
		if _, ok := env[name]; !ok {
			_ = os.Unsetenv(name)
		}
	}
	got, err := session.ConfigFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Secret, cfg.OldSecrets, cfg.IdleTimeout = got.Secret, got.OldSecrets, got.IdleTimeout
	cfg.TrustProxy = true
}
