//go:build !linux

package rig

import (
	"context"
	"errors"
	"os/exec"
)

func endWithUs(*exec.Cmd) {}

func (l Load) run(context.Context) (*Result, error) {
	return nil, errors.New("the benchmark needs Linux: /proc and epoll")
}
