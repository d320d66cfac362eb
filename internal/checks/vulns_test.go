package main

import (
	"strings"
	"testing"
)

func TestVulns(t *testing.T) {
	const config = `{"config":{"protocol_version":"v1.0.0"}}`
	const osv = `{"osv":{"id":"GO-1","summary":"a hole"}}`
	frame := func(module, more string) string { return `{"module":"` + module + `","version":"v1.0.0"` + more + `}` }
	finding := func(trace ...string) string {
		return `{"finding":{"osv":"GO-1","fixed_version":"v1.0.1","trace":[` + strings.Join(trace, ",") + `]}}`
	}
	const imported, called = `,"package":"x"`, `,"package":"x","function":"F"`
	ours := frame("session", `,"package":"session","function":"Open","position":{"filename":"open.go","line":7}`)
	for _, test := range []struct {
		name, in, want, wantErr string
	}{
		{"nothing was found", config, "", ""},
		{"govulncheck said nothing", "", "", "govulncheck wrote nothing"},
		{"govulncheck broke off", config + `{"osv":`, "", "the output of govulncheck: unexpected EOF"},
		{"required", config + osv + finding(frame("x", "")), "required: x@v1.0.0 GO-1: a hole (mended in v1.0.1)\n", ""},
		{"imported", osv + finding(frame("x", "")) + finding(frame("x", imported)), "imported, not called: x@v1.0.0 GO-1: a hole (mended in v1.0.1)\n", ""},
		{
			"called", osv + finding(frame("x", called), ours) + finding(frame("x", imported)),
			"FAIL: called: x@v1.0.0 GO-1: a hole (mended in v1.0.1, called from open.go:7)\n", "1 vulnerabilities of dependencies are reached",
		},
		{
			"called, of the standard library", osv + finding(frame("stdlib", called), ours),
			"reached in this Go's standard library, with the release that mends it: GO-1 (v1.0.1)\n", "",
		},
		{"imported, of the standard library", osv + finding(frame("stdlib", imported)), "", ""},
		{
			"two modules", osv + finding(frame("x", imported)) + finding(frame("a", called), ours),
			"FAIL: called: a@v1.0.0 GO-1: a hole (mended in v1.0.1, called from open.go:7)\nimported, not called: x@v1.0.0 GO-1: a hole (mended in v1.0.1)\n",
			"1 vulnerabilities of dependencies are reached",
		},
	} {
		var out strings.Builder
		err := run([]string{"vulns"}, strings.NewReader(test.in), &out)
		gotErr := ""
		if err != nil {
			gotErr = err.Error()
		}
		if out.String() != test.want || gotErr != test.wantErr {
			t.Errorf("%s: got %q and %q, want %q and %q", test.name, out.String(), gotErr, test.want, test.wantErr)
		}
	}
}
