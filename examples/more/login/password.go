package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// minPassword is what NIST SP 800-63B-4, section 3.1.1.2, demands of a password
// that stands alone, in characters.
const minPassword = 15

// OWASP's least for argon2id: 19 MiB, two passes.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	saltBytes    = 16
	hashBytes    = 32
)

var errHash = errors.New("a stored password is no argon2id hash")

// hashing lets one hash run on each core, so that many logins at once wait for
// each other and do not take all memory.
var hashing = make(chan struct{}, runtime.GOMAXPROCS(0))

// nobody is the hash that a password is compared with where there is no such user:
// to find out by the time it takes who has an account is then not possible.
var nobody = encodeHash([]byte(rand.Text())[:saltBytes], make([]byte, hashBytes))

// hashPassword makes the text that users.password holds, with a salt of its own.
func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	key, err := derive(ctx, password, salt, argonTime, argonMemory, argonThreads)
	return encodeHash(salt, key), err
}

func encodeHash(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// isPassword compares a password with a hash, which says how it was made: the
// constants above may grow, and old hashes still work.
func isPassword(ctx context.Context, hash, password string) (bool, error) {
	var version int
	var memory, passes uint32
	var threads uint8
	var salt, want []byte
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[1] != "argon2id" {
		return false, errHash
	}
	_, err := fmt.Sscanf(part[2]+" "+part[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &threads)
	if err == nil {
		salt, err = base64.RawStdEncoding.DecodeString(part[4])
	}
	if err == nil {
		want, err = base64.RawStdEncoding.DecodeString(part[5])
	}
	if err != nil || version != argon2.Version || len(want) != hashBytes || passes < 1 || threads < 1 {
		return false, errHash
	}
	got, err := derive(ctx, password, salt, passes, memory, threads)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

// hashed counts the work of all hashes so far, in KiB that were passed over. That
// each answer costs the same work is what a test can see; how long it takes is
// the machine's affair.
var hashed atomic.Int64

func derive(ctx context.Context, password string, salt []byte, passes, memory uint32, threads uint8) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	hashed.Add(int64(passes) * int64(memory))
	// Keyboards differ in how they write the same é.
	return argon2.IDKey(norm.NFC.Bytes([]byte(password)), salt, passes, memory, threads, hashBytes), nil
}

// checkNewPassword says what is wrong with a password, in words for its owner.
func checkNewPassword(password string) string {
	switch {
	case !utf8.ValidString(password):
		return "This password has characters that we cannot read. Please type it again."
	case utf8.RuneCountInString(norm.NFC.String(password)) < minPassword:
		return fmt.Sprintf("Please choose a password of at least %d characters. Four or five words make a good one.", minPassword)
	}
	return ""
}
