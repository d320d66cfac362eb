package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAPI says which declarations a caller may rely on, and how each is written.
func TestAPI(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/shop\n\ngo 1.25\n",
		"shop.go": `package shop

import "io"

const Limit, hidden = 3, 4

var Out io.Writer

func Buy[T any](first T, more ...func(n int) error) (left int, err error) { return hidden, nil }

type Basket struct {
	Owner string
	inner
	OnBuy func(name string) bool
	note  []byte
}

type inner struct{ Depth, width int }

func (inner) Promoted()          {}
func (b *Basket) Add(what string) {}
func (b Basket) Len() int         { return b.width + len(b.note) }
func (b Basket) secret()          { b.secret() }

type Plain struct{ x int }

func (p Plain) X() int { return p.x }

type Store interface {
	Load(id string) error
	io.Closer
}

type Sealed interface{ seal() }

type Number interface{ ~int | ~uint }

type Names = []string

type Key[T any] string

func (k Key[T]) Get() (v T, ok bool) { return v, false }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	want := []string{
		"const Limit untyped int = 3",
		"func Buy[T any](T, ...func(int) error) (int, error)",
		"method (*Basket) Add(string)",
		"method (Basket) Len() int",
		"method (Basket) Promoted()",
		"method (Key[T any]) Get() (T, bool)",
		"method (Plain) X() int",
		"type Basket struct",
		"type Basket struct, Depth int",
		"type Basket struct, OnBuy func(string) bool",
		"type Basket struct, Owner string",
		"type Key[T any] string",
		"type Names = []string",
		"type Number interface{~int | ~uint}",
		"type Plain struct (comparable)",
		"type Sealed interface {  }, unexported methods",
		"type Store interface { Close, Load }",
		"type Store interface, Close() error",
		"type Store interface, Load(string) error",
		"var Out io.Writer",
	}
	var out strings.Builder
	if err := run([]string{"api", dir}, nil, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.TrimPrefix(strings.TrimSpace(line), "package shop, "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
