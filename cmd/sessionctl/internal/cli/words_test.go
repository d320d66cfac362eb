package cli_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

// widest is the number of letters of the longest line.
func widest(text string) (n int) {
	for line := range strings.Lines(text) {
		n = max(n, utf8.RuneCountInString(strings.TrimRight(line, "\r\n")))
	}
	return n
}

// Help fits a terminal of 80 columns, but for addresses that nobody can break.
func TestHelpFits(t *testing.T) {
	r := newRig(t)
	for _, command := range []string{"", "schema", "stats", "list", "destroy", "prune", "rotate", "version", "completion"} {
		res := r.run(strings.Fields(command+" --help")...).want(cli.ExitOK, "Usage:", "--database-url")
		for line := range strings.Lines(res.out) {
			if n := widest(line); n > 80 && !strings.Contains(line, "postgres://") && !strings.HasPrefix(line, `Use "sessionctl`) {
				t.Errorf("%s --help: got a line of %d letters, want 80 at most: %s", command, n, line)
			}
		}
	}
}

// A word that means nothing is an error wherever it stands.
func TestHelpOfNothing(t *testing.T) {
	r := newRig(t)
	r.run("help", "lst").want(cli.ExitUsage, "no such command", "did you mean list?")
	r.run("help", "list", "more").want(cli.ExitUsage, "no such command")
	r.run("completion", "tcsh").want(cli.ExitUsage, "bash, zsh, fish and powershell")
	r.run("help").want(cli.ExitOK, "Usage:", "destroy")
	r.run("help", "destroy").want(cli.ExitOK, "--all")
	r.run("completion").want(cli.ExitOK, "Usage:", "zsh")
}

// Where there is nothing, every command says so, and is done.
func TestNothingThere(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	res := r.run("list").want(cli.ExitOK, "no live session")
	if !strings.HasPrefix(res.out, "HANDLE") || strings.Count(res.out, "\n") != 1 {
		t.Errorf("list: got %q, want the head of the list and no line", res.out)
	}
	if res := r.run("list", "--json"); strings.TrimSpace(res.out) != "[]" || res.err != "" {
		t.Errorf("list --json: got %q and %q, want [] and nothing", res.out, res.err)
	}
	r.run("destroy", "--key", "userId", "--value", "42").want(cli.ExitOK, "no live session: none was ended")
	r.run("destroy", strings.Repeat("0", 32)).want(cli.ExitOK, "this handle names no live session")
	r.run("destroy", strings.Repeat("0", 32), strings.Repeat("1", 32)).want(cli.ExitOK, "2 of 2 handles name no live session")
	// Nobody is asked whether to end nothing.
	r.run("destroy", "--all").want(cli.ExitOK, "no live session: none was ended")
	r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
	r.run("rotate").want(cli.ExitOK, "no live session is encrypted")
	if res := r.run("stats").want(cli.ExitOK, "live sessions"); strings.Contains(res.out+res.err, "0 of 0") || widest(res.out) > 80 {
		t.Errorf("stats: got %q, want no 0 of 0 and 80 columns", res.out)
	}
	if res := r.run("rotate", "--json"); strings.Contains(res.err, "no live session") {
		t.Errorf("rotate --json: got %q beside the answer", res.err)
	}
}

// What the client holds, in both forms; unknown is not false.
func TestListClients(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(`INSERT INTO schema_system.session VALUES
		('an-id-of-thirty-two-characters-a', '{"cookie":{},"__token":true}', now() + interval '4 h'), ('an-id-of-thirty-two-characters-b', '{"cookie":{},"__bound":{"id":"x","key":"{}","at":1,"confirmed":1}}', now() + interval '3 h'),
		('an-id-of-thirty-two-characters-c', '{"cookie":{}}', now() + interval '2 h'), ('an-id-of-thirty-two-characters-d', '{"cookie":{},"__sealed":"AAAA"}', now() + interval '1 h')`)
	text := func(b *bool) string {
		if b == nil {
			return "null"
		}
		return map[bool]string{true: "true", false: "false"}[*b]
	}
	got := ""
	for _, l := range r.list() {
		got += text(l.Token) + " " + text(l.Bound) + "; "
	}
	if want := "true false; false true; false false; null null; "; got != want {
		t.Errorf("token and bound: got %s, want %s", got, want)
	}
	got = ""
	for line := range strings.Lines(r.run("list").want(cli.ExitOK, "CLIENT").out) {
		columns := strings.Split(strings.TrimSpace(line), "  ")
		got += strings.TrimSpace(columns[len(columns)-1]) + "; "
	}
	if want := "CLIENT; token; bound cookie; cookie; -; "; got != want {
		t.Errorf("got the column %s, want %s", got, want)
	}
	// A terminal of 80 columns breaks no line.
	shown, code := r.onTerminalOf(80, []string{"TERM=xterm"}, "list")
	if code != cli.ExitOK || widest(shown) > 80 || strings.Count(shown, "\n") != 12 || !strings.Contains(shown, "bound cookie") {
		t.Errorf("of 80 columns: got %d lines of %d letters at most, want three for each of four sessions, of 80", strings.Count(shown, "\n"), widest(shown))
	}
	if shown, _ := r.onTerminalOf(200, []string{"TERM=xterm"}, "list"); strings.Count(shown, "\n") != 5 {
		t.Errorf("of 200 columns: got %d lines, want a head and four", strings.Count(shown, "\n"))
	}
}

// Where PostgreSQL counts nothing, a zero would be untrue.
func TestStatsUncounted(t *testing.T) {
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec("ALTER DATABASE " + r.pool.Config().ConnConfig.Database + " SET track_counts = off")
	r.run("stats").want(cli.ExitOK, "not known: track_counts is off")
	if !parse[measured](r.run("stats", "--json").want(cli.ExitOK)).Uncounted {
		t.Error("--json: got false, want that nothing is counted")
	}
}
