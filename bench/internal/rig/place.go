package rig

import (
	"os"
	"path/filepath"
)

// Place is where results go.
type Place struct {
	Out  string // directory
	Docs string // document whose tables are replaced; empty: none
}

// places fills the gaps: the repository's own places, or temporary ones with short,
// whose figures mean nothing.
func places(module, page string, given Place, short bool) (p Place, err error) {
	p = given
	switch {
	case p.Docs == "none", p.Docs == "" && short:
		p.Docs = ""
	case p.Docs == "":
		p.Docs = filepath.Join(filepath.Dir(module), "docs", page)
	}
	switch {
	case p.Out == "" && short:
		p.Out, err = os.MkdirTemp("", "bench-results-")
	case p.Out == "":
		p.Out = filepath.Join(module, "results")
	}
	if err != nil {
		return p, err
	}
	// Programs that this one starts work somewhere else.
	if p.Out, err = filepath.Abs(p.Out); err == nil && p.Docs != "" {
		p.Docs, err = filepath.Abs(p.Docs)
	}
	return p, err
}
