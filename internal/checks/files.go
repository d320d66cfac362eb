package main

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sourceFile is one source file of a package and what it uses of the others.
type sourceFile struct {
	name  string
	lines int
	uses  map[*sourceFile][]string // sorted names, by the file that declares them
}

// counted says which uses of names make an arrow between two files.
type counted int

const (
	allNames     counted = iota // the names of the package, of methods and of fields
	packageNames                // names of the package and of methods; no fields
)

// fileGraph type-checks the package at dir, without its tests, and returns its
// files, sorted by name, with the arrows between them.
//
// A file uses another if an identifier in it denotes something that the other
// declares: a constant, variable, type or function of the package, a method, or
// a field of a struct, keys of composite literals included. A field or method
// belongs to the file that declares it, be it in an interface, and not to the
// file of the type through which it is reached, and a promoted one names only
// itself, not the embedded fields on the way. What a file uses without naming
// it, like a type that is inferred or an interface that is satisfied, is no
// arrow. However often a file uses another, that is one arrow.
func fileGraph(dir string, what counted) ([]*sourceFile, error) {
	pkgs, err := list(dir, nil, "-deps", "-export", ".")
	if err != nil {
		return nil, err
	}
	root := pkgs[len(pkgs)-1] // -deps lists a package after what it needs
	fset := token.NewFileSet()
	byName := map[string]*sourceFile{}
	var parsed []*ast.File
	for _, name := range root.GoFiles {
		text, err := os.ReadFile(filepath.Join(root.Dir, name))
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, f)
		byName[name] = &sourceFile{name: name, lines: bytes.Count(text, []byte("\n")), uses: map[*sourceFile][]string{}}
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", exportData(pkgs))}
	pkg, err := conf.Check(root.ImportPath, fset, parsed, &info)
	if err != nil {
		return nil, err
	}
	for id, obj := range info.Uses {
		if obj.Pkg() != pkg || what == packageNames && isField(obj) {
			continue
		}
		from, to := byName[fset.Position(id.Pos()).Filename], byName[fset.Position(obj.Pos()).Filename]
		if from != to && !slices.Contains(from.uses[to], id.Name) {
			from.uses[to] = append(from.uses[to], id.Name)
		}
	}
	files := slices.Collect(maps.Values(byName))
	slices.SortFunc(files, compareFiles)
	for _, f := range files {
		for _, names := range f.uses {
			slices.Sort(names)
		}
	}
	return files, nil
}

func isField(obj types.Object) bool {
	v, ok := obj.(*types.Var)
	return ok && v.IsField()
}

func compareFiles(a, b *sourceFile) int { return strings.Compare(a.name, b.name) }

// used returns the files that f uses, sorted by name.
func (f *sourceFile) used() []*sourceFile {
	return slices.SortedFunc(maps.Keys(f.uses), compareFiles)
}

// arrows counts the pairs of files of which the first uses the second.
func arrows(files []*sourceFile) int {
	n := 0
	for _, f := range files {
		n += len(f.uses)
	}
	return n
}

// component is a largest set of files each of which needs all the others, by
// however many steps: none can be read, changed or tested alone.
type component []*sourceFile

func (c component) lines() int {
	n := 0
	for _, f := range c {
		n += f.lines
	}
	return n
}

// components returns the strongly connected components of files, those of the
// most files first and, among equals, of the most lines.
func components(files []*sourceFile) []component {
	reach := map[*sourceFile]map[*sourceFile]bool{}
	for _, f := range files {
		reach[f] = map[*sourceFile]bool{}
		f.reach(reach[f])
	}
	var all []component
	placed := map[*sourceFile]bool{}
	for _, f := range files {
		if placed[f] {
			continue
		}
		c := component{f}
		for _, g := range files {
			if g != f && reach[f][g] && reach[g][f] {
				c = append(c, g)
			}
		}
		for _, g := range c {
			placed[g] = true
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b component) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(b.lines(), a.lines()))
	})
	return all
}

// reach adds to seen what f uses, directly or not.
func (f *sourceFile) reach(seen map[*sourceFile]bool) {
	for g := range f.uses {
		if !seen[g] {
			seen[g] = true
			g.reach(seen)
		}
	}
}

// report writes the components of files with their lines, and each arrow with
// names that make it.
func report(w io.Writer, files []*sourceFile) {
	total := component(files).lines()
	fmt.Fprintf(w, "%d files, %d lines, %d arrows\n\n", len(files), total, arrows(files))
	in := map[*sourceFile]int{}
	for i, c := range components(files) {
		fmt.Fprintf(w, "component %d: %d files, %d lines\n", i+1, len(c), c.lines())
		for _, f := range c {
			in[f] = i
			fmt.Fprintf(w, "%8d %s\n", f.lines, f.name)
		}
	}
	fmt.Fprintf(w, "\narrows; = within a component\n")
	for _, f := range files {
		for _, g := range f.used() {
			arrow := "->"
			if in[f] == in[g] {
				arrow = "=>"
			}
			fmt.Fprintf(w, "%s %s %s: %s\n", f.name, arrow, g.name, strings.Join(f.uses[g], " "))
		}
	}
}
