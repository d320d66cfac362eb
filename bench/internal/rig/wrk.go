package rig

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed wrk.lua
var wrkScript string

// Wrk is a load by wrk, which others wrote: a check of what Load finds. It is of
// another kind: one thread that runs a script for each request, users at random, so
// that requests of one session overlap now and then. Of the answers only the status
// is looked at.
type Wrk struct {
	Addr    string
	Route   string
	Cookies []string // Cookie headers, one of which each request has; an empty one: none
	Conns   int
	Seconds int // wrk knows no shorter time
	Seed    int
}

// WrkResult is what wrk found; times in microseconds.
type WrkResult struct {
	Requests  int     `json:"requests"`
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
}

// Run drives the load. An answer of status 400 or more, or none, is an error.
func (w Wrk) Run(ctx context.Context) (*WrkResult, error) {
	dir, err := os.MkdirTemp("", "bench-wrk-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	script, cookies := filepath.Join(dir, "wrk.lua"), filepath.Join(dir, "cookies")
	if err := errors.Join(writeFile(script, wrkScript), writeFile(cookies, strings.Join(w.Cookies, "\n")+"\n")); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "wrk", "--threads", "1", "--connections", strconv.Itoa(w.Conns), "--duration", strconv.Itoa(w.Seconds)+"s",
		"--timeout", strconv.Itoa(int(stall/time.Second))+"s", "--script", script, "http://"+w.Addr+w.Route, "--", cookies, strconv.Itoa(w.Seed))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return wrkResult(string(out))
}

// wrkResult reads the line that the script prints.
func wrkResult(out string) (*WrkResult, error) {
	_, line, ok := strings.Cut(out, "\nresult ")
	if !ok {
		return nil, fmt.Errorf("wrk printed no result:\n%s", out)
	}
	line, _, _ = strings.Cut(line, "\n")
	var r struct {
		WrkResult
		Microseconds float64 `json:"microseconds"`
		Errors       int     `json:"errors"`
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return nil, fmt.Errorf("wrk printed %q: %w", line, err)
	}
	if r.Errors > 0 || r.Requests == 0 || r.Microseconds <= 0 {
		return nil, fmt.Errorf("wrk: %d requests, %d of them failed or answered with status 400 or more:\n%s", r.Requests, r.Errors, out)
	}
	r.PerSecond = float64(r.Requests) / (r.Microseconds / 1e6)
	return &r.WrkResult, nil
}
