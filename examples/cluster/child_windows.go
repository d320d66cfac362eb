package main

import "syscall"

// apart keeps a child out of our process group, which is what Ctrl-C interrupts.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
