// Package provider is what the programs docker and download share: how they hand
// over what they provide, and when they end. They live in a module of their own so
// that the libraries behind them reach nobody's go.sum.
package provider

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Offer is the line of JSON that a provider writes when it is ready.
type Offer struct {
	URL    string `json:"url,omitempty"`    // a running server
	BinDir string `json:"binDir,omitempty"` // server binaries
}

// Serve writes offer and returns when standard input is closed, which happens at
// the end of the program that reads it, however it ends.
func Serve(offer Offer) error {
	if err := json.NewEncoder(os.Stdout).Encode(offer); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// Exit ends a provider, with err as its last word.
func Exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
