package rig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Occasion is when and on what something was measured. Every report begins with it.
type Occasion struct {
	When     time.Time `json:"when"`
	Machine  Machine   `json:"machine"`
	Go       string    `json:"go"`
	Postgres string    `json:"postgresql"`
}

// Now returns the occasion of a measurement that begins now, on a PostgreSQL of
// this version.
func Now(postgres string) Occasion {
	return Occasion{When: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(), Go: runtime.Version(), Postgres: postgres}
}

// Date writes the day.
func (o Occasion) Date() string { return o.When.Format("2 January 2006") }

// Reporter is a report: all that was measured, as encoding/json writes it.
type Reporter interface {
	Output() Output
}

// Output is what a report looks like to people.
type Output struct {
	Name     string // of the program: its figures go to NAME.json
	Command  string // that writes it; default ./NAME
	Markdown string // file that holds title and text; default NAME.md
	Title    string
	Text     string            // printed as well
	Charts   map[string]string // SVGs by the names of their files, without .svg; an empty one is none
	Parts    map[string]string // of the documentation, by the names of their places
}

// Save writes a report, and prints it.
func Save(where Place, r Reporter) error {
	out := r.Output()
	if err := writeJSON(filepath.Join(where.Out, out.Name+".json"), r); err != nil {
		return err
	}
	text := fmt.Sprintf("# %s\n\nWritten by `go run %s` in `bench`.\n\n%s", out.Title, cmp.Or(out.Command, "./"+out.Name), out.Text)
	files := map[string]string{cmp.Or(out.Markdown, out.Name+".md"): text}
	for name, svg := range out.Charts {
		if svg != "" {
			files[name+".svg"] = svg
		}
	}
	for name, content := range files {
		if err := writeFile(filepath.Join(where.Out, name), content); err != nil {
			return err
		}
	}
	Print(text)
	Log("written to %s", where.Out)
	if where.Docs == "" {
		return nil
	}
	return Insert(where.Docs, out.Parts)
}

// writeJSON writes v into a file, indented.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(path, string(b)+"\n")
}

// writeFile writes a file, its directories too.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// Insert replaces what stands in a document between <!-- bench:NAME --> and
// <!-- /bench:NAME -->, for each name. A name without a place in the document is an
// error, a document that is not there is none.
func Insert(path string, parts map[string]string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		Log("%s is not there: nothing inserted", path)
		return nil
	}
	if err != nil {
		return err
	}
	text := string(b)
	for name, part := range parts {
		open, closing := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
		before, rest, ok := strings.Cut(text, open)
		_, after, closed := strings.Cut(rest, closing)
		if !ok || !closed {
			return fmt.Errorf("%s has no place for %q: %s…%s", path, name, strings.TrimSpace(open), closing)
		}
		text = before + open + part + closing + after
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
