// Command checks looks at the repository itself, for .ci and for people:
//
//	go run ./internal/checks files [-fields=false] [directory]
//		How the files of a package hang together: which use names of which,
//		and the sets of files that cannot be had without each other.
//	go run ./internal/checks api directory...
//		The exported API of packages, a declaration a line.
//	govulncheck -format json ./... | go run ./internal/checks vulns
//		The vulnerabilities that were found; it fails for those that the code
//		reaches and a newer version of a dependency mends.
//
// Its tests hold the module to its layout: who may import whom, how long a file
// of the root package may be, and how many of its files may need each other.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "checks:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("say which: files, api or vulns")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	fields := true
	if args[0] == "files" {
		flags.BoolVar(&fields, "fields", true, "count the use of a struct's field as a use of the file that declares it")
	}
	_ = flags.Parse(args[1:]) // ends the program if it fails
	switch args[0] {
	case "files":
		return printFiles(out, flags.Args(), fields)
	case "api":
		return printAPI(out, flags.Args())
	case "vulns":
		return printVulns(out, in)
	}
	return fmt.Errorf("no check is named %q; there are files, api and vulns", args[0])
}

func printFiles(out io.Writer, dirs []string, fields bool) error {
	if len(dirs) == 0 {
		dirs = []string{"."}
	}
	what := allNames
	if !fields {
		what = packageNames
	}
	for _, dir := range dirs {
		files, err := fileGraph(dir, what)
		if err != nil {
			return err
		}
		report(out, files)
	}
	return nil
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Export     string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

// list runs go list in dir with env added to the environment.
func list(dir string, env []string, args ...string) ([]listed, error) {
	args = append([]string{"list", "-json=ImportPath,Dir,Export,Standard,GoFiles,Imports,Deps,Module"}, args...)
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	return decodeAll[listed](bytes.NewReader(out))
}

// decodeAll returns the JSON values of r, one after another.
func decodeAll[T any](r io.Reader) ([]T, error) {
	var all []T
	for dec := json.NewDecoder(r); ; {
		var v T
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
}

// exportData opens the export data of pkgs for go/importer.
func exportData(pkgs []listed) func(path string) (io.ReadCloser, error) {
	exports := map[string]string{}
	for _, p := range pkgs {
		exports[p.ImportPath] = p.Export
	}
	return func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, errors.New("no export data of " + path)
		}
		return os.Open(exports[path])
	}
}
