//go:build race

package session_test

// racing says that the race detector is at work, which makes large data slow.
const racing = true
