// Package secret judges secrets and gives each a short name. The library does so
// when it starts and sessionctl's doctor does so for the same environment: what one
// of them says, the other says too. Nothing that it returns holds a piece of a secret.
package secret

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

// MinBytes is how long a secret should be.
const MinBytes = 32

// MinBits is how much randomness a secret should have, at a guess: the least that
// NIST SP 800-131A allows a key. A random one of 32 hexadecimal digits has more.
const MinBits = 112

// Verdict says how good a secret is.
type Verdict int

const (
	// Good may be kept.
	Good Verdict = iota
	// Doubtful is long and does not look random: words, perhaps.
	Doubtful
	// Short has less than MinBytes.
	Short
	// Public is none: one that is printed in tutorials, or follows from a few characters.
	Public
)

// famous are secrets out of tutorials and templates, and parts of placeholders,
// without anything but letters and digits.
var (
	famous = []string{
		"keyboardcat", "secret", "password", "shhhhh", "shhhhhhhh", "test", "development", "sessionsecret", "supersecret", "topsecret",
		"mysecret", "cat", "catdog", "s3cr3t", "ssshhhhh", "notsecret", "letmein", "admin", "qwerty", "secretkey", "mysecretkey",
		"thisisasecret", "thisismysecret", "donttellanyone", "somesecret", "anysecret", "asecret", "jwtsecret", "cookiesecret",
	}
	placeholders = []string{
		"keyboardcat", "changeme", "changethis", "replaceme", "replacethis", "yoursecret", "yourverysecret", "yoursession", "insertsecret", "putyour", "todoset",
		"correcthorsebattery", "supersecretkey", "verysecret", "examplesecret", "secrethere", "your256bitsecret", "your512bitsecret", "verylongsecret",
	}
)

// Judge says how easily a secret may be guessed, and why, as the rest of a sentence
// that begins with its name.
func Judge(s string) (v Verdict, why string) {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
	known := func(p string) bool { return strings.Contains(plain, p) }
	bits, surprising := guessBits(s)
	p := period(s)
	piece, _ := guessBits(s[:p])
	switch {
	case slices.Contains(famous, plain) || slices.ContainsFunc(placeholders, known):
		return Public, "is one that tutorials and templates use: anybody can make cookies with it"
	case p < len(s) && piece < MinBits:
		return Public, fmt.Sprintf("repeats a piece of %d bytes: anybody who guesses that can make cookies", p)
	case len(s) > 3 && surprising*4 <= len([]rune(s)):
		return Public, "is a run of characters, each of which follows from those before: anybody can make cookies with it"
	case len(s) < MinBytes:
		return Short, fmt.Sprintf("has %d bytes, and needs at least %d: it may be guessed from one cookie", len(s), MinBytes)
	case bits < MinBits:
		return Doubtful, fmt.Sprintf("has, at a guess, %.0f bits of randomness, and should have %d", bits, MinBits)
	}
	return Good, ""
}

// period returns the length of the shortest piece that s repeats, len(s) if it
// repeats none.
func period(s string) int {
	for n := 1; n <= len(s)/2; n++ {
		if s[n:] == s[:len(s)-n] {
			return n
		}
	}
	return len(s)
}

// wordBits is what a letter of a written language is worth, at a guess that is
// kind: in long texts it is about one bit.
const wordBits = 2

// hexBits is what hexadecimal digits look worth that are drawn at random, by the
// frequencies among a few dozen of them; each is worth four bits then.
const hexBits = 3.3

// guessBits estimates the randomness of a secret from its letters' frequencies,
// without those that a run like aaaa or 1234 foretells; surprising is how many are
// left. A text in words gets less: their letters are not chosen one by one.
func guessBits(s string) (bits float64, surprising int) {
	counts := map[rune]int{}
	var runes []rune
	digits, words := 0, 0
	for i, r := range []rune(s) {
		runes = append(runes, r)
		counts[r]++
		if unicode.IsDigit(r) {
			digits++
		}
		if i > 0 && !unicode.IsLetter(r) && !unicode.IsDigit(r) && unicode.IsLetter(runes[i-1]) {
			words++
		}
	}
	for i, r := range runes {
		if i < 2 || r-runes[i-1] != runes[i-1]-runes[i-2] || (r-runes[i-1])*(r-runes[i-1]) > 1 {
			surprising++
		}
	}
	entropy := 0.0
	for _, n := range counts {
		p := float64(n) / float64(len(runes))
		entropy -= p * math.Log2(p)
	}
	switch {
	case digits*20 < len(runes) && words >= 2 && mostlyLower(runes):
		entropy = min(entropy, wordBits)
	case entropy > hexBits && entropy < 4 && strings.Trim(s, "0123456789abcdef") == "":
		entropy = 4
	}
	return entropy * float64(surprising), surprising
}

func mostlyLower(runes []rune) bool {
	upper := 0
	for _, r := range runes {
		if unicode.IsUpper(r) {
			upper++
		}
	}
	return upper*5 < len(runes)
}

const (
	labelFingerprint = "pgsession secret fingerprint v1"

	// slowRounds make it slow to try guesses of a secret that is short enough for it.
	slowRounds = 100_000

	// fingerprintBytes let one pair of different secrets in 65,536 look alike, and
	// leave that part of all guesses possible to who knows a fingerprint.
	fingerprintBytes = 2
)

// Fingerprint names a secret by four hexadecimal digits, the same in every program
// that has it. It is PBKDF2-HMAC-SHA-256 under a label of its own, cut off, so that it
// is no part of any key. Who has a cookie can try guesses at the secret with that, and
// by all of a signature; a fingerprint tells less. A short secret is hashed slowly on
// top, for those who see no cookie and read logs.
func Fingerprint(s string) string {
	rounds := 1
	if len(s) < MinBytes {
		rounds = slowRounds
	}
	key, err := pbkdf2.Key(sha256.New, s, []byte(labelFingerprint), rounds, sha256.Size)
	if err != nil { // in FIPS 140-only mode, of a secret that is too short for it
		return "none"
	}
	return hex.EncodeToString(key[:fingerprintBytes])
}

// Fingerprints are those of several secrets, in their order.
func Fingerprints(secrets []string) []string {
	names := make([]string, len(secrets))
	for i, s := range secrets {
		names[i] = Fingerprint(s)
	}
	return names
}
