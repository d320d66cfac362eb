package main

import (
	"errors"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"slices"
	"strings"
)

// printAPI writes the exported API of the packages in dirs, sorted.
func printAPI(out io.Writer, dirs []string) error {
	if len(dirs) == 0 {
		return errors.New("api: say of which directories")
	}
	var lines []string
	for _, dir := range dirs {
		pkgs, err := list(dir, nil, "-deps", "-export", ".")
		if err != nil {
			return err
		}
		path := pkgs[len(pkgs)-1].ImportPath // -deps lists a package after what it needs
		pkg, err := importer.ForCompiler(token.NewFileSet(), "gc", exportData(pkgs)).Import(path)
		if err != nil {
			return err
		}
		lines = append(lines, api(pkg)...)
	}
	slices.Sort(lines)
	_, err := io.WriteString(out, strings.Join(lines, "\n")+"\n")
	return err
}

// apiPackage writes the lines of one package.
type apiPackage struct {
	pkg   *types.Package
	lines []string
}

// api returns what a program that imports pkg may rely on, a declaration a line,
// in no order: constants with their values, variables, functions, types, their
// exported fields, and their methods, promoted ones included. Names of
// parameters are left out, since no caller can depend on them.
func api(pkg *types.Package) []string {
	a := &apiPackage{pkg: pkg}
	for _, name := range pkg.Scope().Names() {
		if !token.IsExported(name) {
			continue
		}
		switch obj := pkg.Scope().Lookup(name).(type) {
		case *types.Const:
			a.add("const %s %s = %s", name, a.typeText(obj.Type()), obj.Val().ExactString())
		case *types.Var:
			a.add("var %s %s", name, a.typeText(obj.Type()))
		case *types.Func:
			a.add("func %s%s", name, a.signature(obj.Type().(*types.Signature)))
		case *types.TypeName:
			a.typeName(obj)
		}
	}
	return a.lines
}

func (a *apiPackage) add(format string, args ...any) {
	a.lines = append(a.lines, "package "+a.pkg.Name()+", "+fmt.Sprintf(format, args...))
}

func (a *apiPackage) typeName(obj *types.TypeName) {
	name := obj.Name()
	named, ok := obj.Type().(*types.Named)
	if obj.IsAlias() || !ok {
		a.add("type %s = %s", name, a.typeText(types.Unalias(obj.Type())))
		return
	}
	params := a.typeParams(named.TypeParams())
	switch under := named.Underlying().(type) {
	case *types.Struct:
		a.add("type %s%s struct%s", name, params, equality(under))
		a.fields(name, under)
	case *types.Interface:
		a.interfaceType(name+params, under)
		return
	default:
		a.add("type %s%s %s", name, params, a.typeText(under))
	}
	values := types.NewMethodSet(named)
	for sel := range types.NewMethodSet(types.NewPointer(named)).Methods() {
		if !sel.Obj().Exported() {
			continue
		}
		recv := a.typeText(named)
		if values.Lookup(a.pkg, sel.Obj().Name()) == nil {
			recv = "*" + recv
		}
		a.add("method (%s) %s%s", recv, sel.Obj().Name(), a.signature(sel.Type().(*types.Signature)))
	}
}

// equality says whether == may be used, which a field that is added can end.
func equality(t types.Type) string {
	if types.Comparable(t) {
		return " (comparable)"
	}
	return ""
}

// fields adds the exported fields of a struct, also those of unexported structs
// embedded in it, which can be reached just the same.
func (a *apiPackage) fields(name string, t *types.Struct) {
	for f := range t.Fields() {
		embedded := ""
		if f.Embedded() {
			embedded = "embedded "
		}
		if f.Exported() {
			a.add("type %s struct, %s %s%s", name, f.Name(), embedded, a.typeText(f.Type()))
			continue
		}
		typ := f.Type()
		if p, ok := typ.Underlying().(*types.Pointer); ok {
			typ = p.Elem()
		}
		if inner, ok := typ.Underlying().(*types.Struct); ok && f.Embedded() {
			a.fields(name, inner)
		}
	}
}

// interfaceType adds an interface with its methods in its first line, which so
// changes when one is added: that breaks whoever implements it.
func (a *apiPackage) interfaceType(name string, t *types.Interface) {
	var names []string
	closed := ""
	for m := range t.Methods() {
		if !m.Exported() {
			closed = ", unexported methods"
			continue
		}
		names = append(names, m.Name())
		a.add("type %s interface, %s%s", name, m.Name(), a.signature(m.Type().(*types.Signature)))
	}
	if !t.IsMethodSet() {
		a.add("type %s %s", name, a.typeText(t))
		return
	}
	a.add("type %s interface { %s }%s", name, strings.Join(names, ", "), closed)
}

func (a *apiPackage) typeParams(list *types.TypeParamList) string {
	var params []string
	for p := range list.TypeParams() {
		params = append(params, p.Obj().Name()+" "+a.typeText(p.Constraint()))
	}
	if params == nil {
		return ""
	}
	return "[" + strings.Join(params, ", ") + "]"
}

// signature returns parameters and results without their names.
func (a *apiPackage) signature(s *types.Signature) string {
	return a.typeParams(s.TypeParams()) + strings.TrimPrefix(a.typeText(s), "func")
}

// typeText returns a type with the whole paths of other packages: a new major
// version of a dependency has another path, and other types.
func (a *apiPackage) typeText(t types.Type) string {
	return types.TypeString(unnamed(t), func(p *types.Package) string {
		if p == a.pkg {
			return ""
		}
		return p.Path()
	})
}

// unnamed returns a type in which functions have no names of parameters and
// results, down to the elements of slices, maps and pointers.
func unnamed(t types.Type) types.Type {
	switch t := t.(type) {
	case *types.Slice:
		return types.NewSlice(unnamed(t.Elem()))
	case *types.Map:
		return types.NewMap(t.Key(), unnamed(t.Elem()))
	case *types.Pointer:
		return types.NewPointer(unnamed(t.Elem()))
	case *types.Signature:
		return unnamedFunc(t)
	}
	return t
}

func unnamedFunc(s *types.Signature) *types.Signature {
	bare := func(t *types.Tuple) *types.Tuple {
		var vars []*types.Var
		for v := range t.Variables() {
			vars = append(vars, types.NewParam(token.NoPos, nil, "", unnamed(v.Type())))
		}
		return types.NewTuple(vars...)
	}
	return types.NewSignatureType(nil, nil, nil, bare(s.Params()), bare(s.Results()), s.Variadic())
}
