package again_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/pgsession/session/cmd/sessionctl/internal/again"
)

func TestCommand(t *testing.T) {
	for _, tt := range []struct {
		where again.Where
		want  string
	}{
		{again.Where{Schema: "schema_system", Table: "session"}, "sessionctl prune"},
		{again.Where{Schema: "app", Table: "session"}, "sessionctl prune --schema app"},
		{again.Where{Schema: "schema_system", Table: "session", Outbox: "out box", OutboxUser: "userId"}, "sessionctl prune --outbox 'out box' --outbox-user userId"},
		{again.Where{Schema: "schema_system", Table: "visits", HashIDs: true}, "sessionctl prune --table visits --hash-ids"},
		{again.Where{Schema: `it's "mine"`, Table: "-x"}, `sessionctl prune --schema 'it'\''s "mine"' --table '-x'`},
	} {
		if got := tt.where.Command("prune"); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// A shell takes each for one word, and for that word.
func TestWord(t *testing.T) {
	for _, s := range []string{"plain", "", "it's", `a "b" $c \d`, "-x", "~", "a\nb", "*", "a;b", "#a"} {
		out, err := exec.Command("sh", "-c", "printf '%s|' "+again.Word(s)).Output()
		if err != nil || strings.TrimSuffix(string(out), "|") != s {
			t.Errorf("got %q, %v, want %q", out, err, s)
		}
	}
}
