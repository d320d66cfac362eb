package upgrade_test

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// block is some SQL of a step, and what the comment in its first line says.
type block struct {
	step       int
	server     string // old or new
	app        bool   // as the programs' role, not as a superuser
	outbox     bool   // only where there is one
	until      bool   // again until it says true
	onward     bool   // its answer is run on the new server
	statements []string
}

var (
	section  = regexp.MustCompile(`(?s)\n## A major upgrade\n(.*?)\n## `)
	stepHead = regexp.MustCompile(`(?m)^(\d+)\. `)
	fenced   = regexp.MustCompile("(?s)\n   ```sql\n   -- (old|new)(, [^\n]*)?\n(.*?)\n   ```")
	undoing  = regexp.MustCompile("(?s)\n```sql\n-- old, in the database postgres\n(.*?)\n```")
	ends     = regexp.MustCompile(`;\s*(\n|$)`)
)

// lastStep is the number of the last one.
const lastStep = 11

// readBlocks reads what docs/operations.md tells operators to run, and what takes it
// back.
func readBlocks(t *testing.T) (all []block, undo []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := section.FindSubmatch(page)
	if found == nil {
		t.Fatal("docs/operations.md has no section on major upgrades")
	}
	text := string(found[1])
	heads := stepHead.FindAllStringSubmatchIndex(text, -1)
	if len(heads) != lastStep {
		t.Fatalf("steps in docs/operations.md: got %d, want %d", len(heads), lastStep)
	}
	for i, head := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		number, _ := strconv.Atoi(text[head[2]:head[3]])
		if number != i+1 {
			t.Fatalf("step %d of docs/operations.md has the number %d", i+1, number)
		}
		for _, b := range fenced.FindAllStringSubmatch(text[head[0]:end], -1) {
			all = append(all, parseBlock(t, number, b[1], b[2], b[3]))
		}
	}
	back := undoing.FindStringSubmatch(text)
	if n := strings.Count(text, "```sql"); back == nil || n != len(all)+1 {
		t.Fatalf("pieces of SQL that say on which server: got %d and what takes it back (%t), want all %d", len(all), back != nil, n)
	}
	return all, split(back[1])
}

func parseBlock(t *testing.T, step int, server, notes, sql string) block {
	t.Helper()
	b := block{step: step, server: server}
	for note := range strings.SplitSeq(strings.TrimPrefix(strings.ReplaceAll(notes, "; ", ", "), ", "), ", ") {
		switch note {
		case "", "on the new":
		case "as the programs' role":
			b.app = true
		case "its answer":
			b.onward = true
		case "with an outbox":
			b.outbox = true
		case "until it says t":
			b.until = true
		default:
			t.Fatalf("step %d: the note %q is not understood", step, note)
		}
	}
	b.statements = split(sql)
	return b
}

func split(sql string) (all []string) {
	for _, s := range ends.Split(sql, -1) {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// run runs a step's SQL. What operators put in the place of old.example.net, we do.
func (m *move) run(step int) {
	m.t.Helper()
	for _, b := range m.blocks {
		if b.step == step && (m.outbox || !b.outbox) {
			m.runBlock(b)
		}
	}
}

func (m *move) runBlock(b block) {
	m.t.Helper()
	s := map[string]*server{"old": m.old, "new": m.new}[b.server]
	conn := connect(m.t, map[bool]string{true: s.appURL, false: s.adminURL}[b.app])
	defer conn.Close(m.t.Context())
	for _, sql := range b.statements {
		sql = strings.ReplaceAll(sql, "host=old.example.net", "host=127.0.0.1 port="+m.old.port)
		switch {
		case b.until:
			until(m.t, sql, func() bool { return get[bool](m.t, conn, sql) })
		case b.onward:
			m.new.do(get[string](m.t, conn, sql))
		case strings.Contains(sql, "pg_terminate_backend"):
			m.terminate(conn, sql)
		default:
			execute(m.t, conn, sql)
		}
	}
}

// runUndo takes step 7 back, in another database.
func (m *move) runUndo() {
	m.t.Helper()
	conn := connect(m.t, strings.Replace(m.old.adminURL, "/app?", "/postgres?", 1))
	for _, sql := range m.undo {
		execute(m.t, conn, sql)
	}
}

// terminate counts those that are ended. False are those that had gone by then.
func (m *move) terminate(conn *pgx.Conn, sql string) {
	m.t.Helper()
	rows, err := conn.Query(m.t.Context(), sql)
	if err != nil {
		m.t.Fatal(err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		m.t.Fatal(err)
	}
	m.terminated += len(ended)
}

func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !come(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func execute(t *testing.T, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func get[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}
