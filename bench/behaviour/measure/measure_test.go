package measure_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session/bench/behaviour/measure"
)

// TestRun runs the whole measurement with few trials. What this library does must
// hold; what its peers do is reported, but every cell must have a result.
func TestRun(t *testing.T) {
	table, err := measure.Run(t.Context(), measure.Options{Trials: 3, StoreTimeout: 5 * time.Second, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + table.Markdown())

	const ours = "session"
	for _, want := range []struct{ row, prefix, suffix string }{
		{row: "overlap", prefix: "both kept (3 of 3)"},
		{row: "logout, change", prefix: "stays out (3 of 3)", suffix: "; the slow one gets a 409"},
		{row: "logout, read", prefix: "stays out (3 of 3)"},
		{row: "login", prefix: "old ID dead (3 of 3)", suffix: "; browser stays logged in (3 of 3)"},
		{row: "down", prefix: "503 instead of the page", suffix: "; cookie kept"},
		{row: "down, save", prefix: "503 instead of the page"},
		{row: "down, unused", prefix: "200 and the page"},
		{row: "unused", prefix: "none"},
		{row: "read", prefix: "SELECT"},
		{row: "sliding", prefix: "0; 1 if the last write is two minutes old, the expiry only"},
		{row: "renew", prefix: "SELECT, UPDATE and INSERT in one", suffix: "; data kept"},
		{row: "cache", prefix: "`no-store`", suffix: ", on a public page too"},
		{row: "late", prefix: "saved"},
		{row: "rotation", prefix: "old secret accepted", suffix: ", signed anew at the next use"},
		{row: "encryption", prefix: "optional"},
		{row: "shared", prefix: "yes"},
	} {
		got := table.Cell(want.row, ours)
		rest, ok := strings.CutPrefix(got, want.prefix)
		switch {
		case !ok || !strings.HasSuffix(rest, want.suffix):
			t.Errorf("%s: got %q, want %q", want.row, got, want.prefix+want.suffix)
		case !strings.HasPrefix(want.row, "down") && rest != want.suffix: // an outage also says how long
			t.Errorf("%s: got %q, want %q", want.row, got, want.prefix+want.suffix)
		}
	}

	if got, want := len(table.Libraries), 4; got != want {
		t.Errorf("got %d libraries, want %d", got, want)
	}
	if got, want := len(table.Rows), 16; got != want {
		t.Errorf("got %d rows, want %d", got, want)
	}
	for _, row := range table.Rows {
		for _, library := range table.Libraries {
			if table.Cell(row.Name, library) == "" {
				t.Errorf("%s, %s: got no result, want one", row.Name, library)
			}
		}
	}
}

// A statement that begins with WITH is named by what it does.
func TestVerb(t *testing.T) {
	for _, tt := range []struct{ query, want string }{
		{"SELECT $1 FROM t", "SELECT"},
		{"\n\tdelete\nFROM t WHERE EXISTS (SELECT FROM u FOR UPDATE)", "DELETE"},
		{"INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = $1", "INSERT"},
		{"WITH v AS (SELECT $1) SELECT FROM t, v FOR NO KEY UPDATE", "SELECT"},
		{"WITH v AS MATERIALIZED (SELECT FROM t FOR UPDATE SKIP LOCKED), u AS (UPDATE t SET a = $1 FROM v RETURNING $2) SELECT FROM u", "UPDATE"},
		{"WITH v AS (SELECT FROM t) DELETE FROM t USING v", "DELETE"},
		{"with moved as ( update t SET a = $1 RETURNING $2)\n\tINSERT INTO t (a) SELECT $3 FROM moved", "UPDATE and INSERT in one"},
		{"WITH a AS (DELETE FROM t), b AS (DELETE FROM u) INSERT INTO t DEFAULT VALUES", "DELETE and INSERT in one"},
		{"CREATE TABLE t ()", "CREATE"},
		{"", "?"},
	} {
		if got := measure.Verb(tt.query); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.query, got, tt.want)
		}
	}
}
