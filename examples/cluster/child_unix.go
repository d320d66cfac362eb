//go:build !windows

package main

import "syscall"

// apart keeps a child out of our process group, which is what Ctrl-C interrupts.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
