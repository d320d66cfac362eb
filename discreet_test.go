package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgsession/session"
)

// output is everything that a program with this library might print, and what
// must not be in it: every session ID, cookie value, secret, password and stored
// value that was in play (CVE-2023-20866).
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	tokens map[string]string // and what each is
}

// add notes what must not be shown.
func (o *output) add(kind string, tokens ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tokens == nil {
		o.tokens = make(map[string]string)
	}
	for _, token := range tokens {
		if len(token) >= leakedBytes {
			o.tokens[token] = kind
		}
	}
}

// Write makes an output an io.Writer, for logs.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// show prints values in every way, and errors with all that they wrap.
func (o *output) show(values ...any) {
	for _, v := range values {
		fmt.Fprintf(o, "%v\n%+v\n%#v\n%s\n%q\n%x\n%d\n", v, v, v, v, v, v, v)
		switch e := v.(type) {
		case interface{ Unwrap() error }:
			o.show(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				o.show(err)
			}
		}
		var pe *pgconn.PgError
		if err, ok := v.(error); ok && errors.As(err, &pe) {
			fmt.Fprintf(o, "%+v\n", *pe) // as an error tracker does
		}
	}
}

// Handle makes an output an slog.Handler, which prints records as text, as JSON
// and attribute by attribute.
func (o *output) Handle(ctx context.Context, r slog.Record) error {
	level := &slog.HandlerOptions{Level: slog.LevelDebug}
	r.Attrs(func(a slog.Attr) bool { o.attribute(a); return true })
	return errors.Join(slog.NewTextHandler(o, level).Handle(ctx, r), slog.NewJSONHandler(o, level).Handle(ctx, r))
}

func (o *output) attribute(a slog.Attr) {
	if a.Value.Kind() != slog.KindGroup {
		o.show(a.Value.Any(), a.Value.Resolve().Any())
		return
	}
	for _, member := range a.Value.Group() {
		o.attribute(member)
	}
}

func (o *output) Enabled(context.Context, slog.Level) bool { return true }
func (o *output) WithAttrs([]slog.Attr) slog.Handler       { return o }
func (o *output) WithGroup(string) slog.Handler            { return o }

// since returns what was printed after the first n bytes.
func (o *output) since(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text.Bytes()[n:])
}

// leakedBytes of a token in a row are a leak: logs that cut an ID short show it
// all the same.
const leakedBytes = 10

// leaks returns the kinds of what the text shows: as it stands, in part, or in
// the ways in which fmt prints bytes.
func (o *output) leaks(text string) (kinds []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	found := make(map[string]bool)
	parts := make(map[string]string)
	for token, kind := range o.tokens {
		for i := 0; i+leakedBytes <= len(token); i++ {
			parts[token[i:i+leakedBytes]] = kind
		}
		decimal := strings.Trim(fmt.Sprint([]byte(token)), "[]")
		syntax := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", []byte(token)), "[]byte{"), "}")
		for _, form := range []string{hex.EncodeToString([]byte(token)), decimal, syntax} {
			if strings.Contains(text, form) {
				found[kind+", as bytes"] = true
			}
		}
	}
	for i := 0; i+leakedBytes <= len(text); i++ {
		if kind, ok := parts[text[i:i+leakedBytes]]; ok {
			found[kind] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// The search finds what it is for.
func TestLeaksAreFound(t *testing.T) {
	id := rand.Text()
	for _, tt := range []struct {
		name, text string
		want       int
	}{
		{"nothing", "session: not saved error=" + rand.Text(), 0},
		{"as it stands", "session " + id + " not saved", 1},
		{"cut short", id[:leakedBytes] + "…", 1},
		{"the end", "…" + id[len(id)-leakedBytes:], 1},
		{"quoted", fmt.Sprintf("%q", "a\n"+id), 1},
		{"bytes", fmt.Sprint([]byte("{" + id + "}")), 1},
		{"bytes in Go's syntax", fmt.Sprintf("%#v", []byte("{"+id+"}")), 1},
		{"hexadecimal", fmt.Sprintf("%x", "{"+id+"}"), 1},
	} {
		var o output
		o.add("session ID", id)
		if got := o.leaks(tt.text); len(got) != tt.want {
			t.Errorf("%s: got %q, want %d", tt.name, got, tt.want)
		}
	}
}

// Whatever goes wrong, no session ID, cookie value, secret, password or stored
// value is in a log at any level, in an error or what it wraps, in an error
// page, in expvar, or in a printed value of an exported type.
func TestNothingSecretIsShown(t *testing.T) {
	for _, kind := range []struct {
		name    string
		format  session.CookieFormat
		encrypt bool
	}{
		{"SecureCookie", session.FormatSecureCookie, false},
		{"SecureCookie, encrypted", session.FormatSecureCookie, true},
		{"Express", session.FormatExpress, false},
	} {
		t.Run(kind.name, func(t *testing.T) {
			rig := newDiscreetProgram(t, kind.format, kind.encrypt)
			for _, f := range faultsThatSpeak {
				if f.format >= 0 && f.format != kind.format || f.sealed >= 0 && (f.sealed == 1) != kind.encrypt {
					continue
				}
				rig.exec("DROP SCHEMA schema_system CASCADE; DROP FUNCTION IF EXISTS public.f()")
				rig.openStore(rig.admin) // makes the table
				start := len(rig.o.since(0))
				cookie, _ := rig.login()
				f.fault(rig, cookie)
				said := rig.o.since(start)
				if !strings.Contains(said, f.want) {
					t.Errorf("%s: got nothing printed with %q", f.name, f.want)
				}
				if leaks := rig.o.leaks(said); len(leaks) > 0 {
					t.Errorf("%s: got printed: %q", f.name, leaks)
				}
			}
			rig.showTypes()
			if leaks := rig.o.leaks(rig.o.since(0)); len(leaks) > 0 {
				t.Errorf("all in all: got printed: %q", leaks)
			}
			kinds := make(map[string]int)
			for _, kind := range rig.o.tokens {
				kinds[kind]++
			}
			for _, kind := range []string{"session ID", "cookie", "secret", "old secret", "password", "stored value"} {
				if kinds[kind] == 0 {
					t.Errorf("in play: got no %s to look for", kind)
				}
			}
		})
	}
}

// showTypes prints a value of every exported type, with as much in it as there
// can be.
func (rig *discreetProgram) showTypes() {
	rig.t.Helper()
	id, data := rig.secret("session ID"), []byte(`{"note":"`+rig.value()+`"}`)
	rec := session.Record{Data: data, TTL: time.Hour}
	memory := session.NewMemoryStore()
	if err := memory.Create(rig.t.Context(), id, rec); err != nil {
		rig.t.Fatal(err)
	}
	values := map[string]any{
		"Config":            session.Config{Secret: rig.secret("secret"), OldSecrets: []string{rig.secret("old secret")}},
		"CookieConfig":      session.CookieConfig{Name: "s"},
		"DeviceBoundConfig": session.DeviceBoundConfig{Path: "/p"},
		"Key":               privateKey,
		"Manager":           rig.m,
		"MemoryStore":       memory,
		"PostgresStore":     rig.store,
		"PostgresOptions":   session.PostgresOptions{},
		"Record":            rec,
		"Change":            session.Change{Old: data, New: data, NewID: id},
		"Session":           nil, // shown in every request
		"Filter":            privateKey.Is(rig.value()),
		"Info":              rig.info(id, data),
		"Query":             session.Query{Key: "note", Values: []string{rig.value()}, Except: id},
		"Found":             session.Found{Record: rec, ID: id},
		"Event":             nil, // each is shown
		"Peeked":            session.Peeked{Err: session.ErrExpired},
	}
	for _, name := range exportedTypes(rig.t) {
		v, ok := values[name]
		if !ok {
			rig.t.Errorf("type %s: got no value of it here, want one that holds what must not be shown", name)
		}
		rig.o.show(v, []any{v}, struct{ V any }{v}, map[string]any{"v": v})
		slog.New(rig.o).Debug("look", "value", v, slog.Group("group", "value", v))
	}
	rig.o.show(rig.m.Stats())
	stats := expvar.Func(func() any { return rig.m.Stats() })
	fmt.Fprintln(rig.o, stats.String())
	if !json.Valid([]byte(stats.String())) {
		rig.t.Error("expvar: got something else than JSON")
	}
}

// info returns a listed session.
func (rig *discreetProgram) info(id string, data []byte) session.Info {
	rig.t.Helper()
	store := session.NewMemoryStore()
	if err := store.Create(rig.t.Context(), id, session.Record{Data: data, TTL: time.Hour}); err != nil {
		rig.t.Fatal(err)
	}
	infos, err := newManager(rig.t, store, session.Config{}).Sessions(rig.t.Context(), session.Everyone())
	if err != nil || len(infos) != 1 {
		rig.t.Fatalf("Sessions: got %d, %v, want 1", len(infos), err)
	}
	return infos[0]
}

// exportedTypes lists the types of the package that can hold text.
func exportedTypes(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if !holdsNothing(spec.Type) {
					names = append(names, spec.Name.Name)
				}
			}
			_, inside := n.(*ast.FuncDecl)
			return !inside
		})
	}
	return names
}

var numbers = regexp.MustCompile(`^(bool|u?int\d*|float64|time\.\w+|struct\{\})$`)

// holdsNothing reports whether a type is an interface, or of numbers and
// functions only.
func holdsNothing(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.InterfaceType, *ast.FuncType:
		return true
	case *ast.StructType:
		for _, f := range t.Fields.List {
			if !holdsNothing(f.Type) {
				return false
			}
		}
		return true
	}
	return numbers.MatchString(types.ExprString(t))
}
