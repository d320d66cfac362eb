package doctor

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

const (
	secretBytes = 32
	secretBits  = 128
)

// famous are secrets out of tutorials and templates, and parts of placeholders,
// without anything but letters and digits.
var (
	famous = []string{
		"keyboardcat", "secret", "password", "shhhhh", "shhhhhhhh", "test", "development", "sessionsecret", "supersecret", "topsecret",
		"mysecret", "cat", "catdog", "s3cr3t", "ssshhhhh", "notsecret", "letmein", "admin", "qwerty", "secretkey", "mysecretkey",
	}
	placeholders = []string{
		"keyboardcat", "changeme", "changethis", "replaceme", "yoursecret", "yourverysecret", "yoursession", "insertsecret", "putyour", "todoset",
		"correcthorsebattery", "supersecretkey", "verysecret", "examplesecret", "secrethere",
	}
)

const (
	makeOne   = `make one with "openssl rand -base64 48"`
	keepOld   = makeOne + `, and keep this one in SESSION_SECRET_OLD until its sessions have ended (docs/operations.md has the steps)`
	forgetOld = makeOne + `, and do not keep this one in SESSION_SECRET_OLD: it would go on opening forged cookies. Everybody has to log in again`
	dropOld   = `drop it: it goes on opening forged cookies`
)

func (e *exam) secret(context.Context) error {
	if e.Secret == "" {
		e.find("secret", Hint, "SESSION_SECRET is not set here: not checked").
			advise("run this again with the program's SESSION_SECRET")
		return nil
	}
	for i, s := range append([]string{e.Secret}, e.OldSecrets...) {
		name := "SESSION_SECRET"
		if i > 0 {
			name = fmt.Sprintf("number %d of SESSION_SECRET_OLD", i)
		}
		level, fault, advice := judgeSecret(s)
		if i > 0 {
			advice = dropOld
		}
		if level != OK {
			e.find("secret", level, name+" "+fault).advise(advice)
		}
	}
	switch {
	case slices.Contains(e.OldSecrets, e.Secret):
		e.find("secret", Hint, "SESSION_SECRET is in SESSION_SECRET_OLD as well").advise("leave it out there")
	case !slices.ContainsFunc(e.report.Findings, func(f Finding) bool { return f.Check == "secret" }):
		e.ok("secret", fmt.Sprintf("%d bytes, at a guess over %d bits of randomness; %d old ones", len(e.Secret), secretBits, len(e.OldSecrets)))
	}
	return nil
}

// judgeSecret says how easily a secret may be guessed, and what to do. What it
// says holds nothing of the secret.
func judgeSecret(s string) (level Level, what, advice string) {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
	known := func(p string) bool { return strings.Contains(plain, p) }
	bits := guessBits(s)
	switch {
	case slices.Contains(famous, plain) || slices.ContainsFunc(placeholders, known):
		return Error, "is one that tutorials and templates use: anybody can make cookies with it", forgetOld
	case period(s) < len(s):
		return Error, fmt.Sprintf("repeats a piece of %d bytes: anybody who guesses that can make cookies", period(s)), forgetOld
	case len(s) < secretBytes:
		return Error, fmt.Sprintf("has %d bytes, and needs at least %d: it may be guessed from one cookie", len(s), secretBytes), keepOld
	case bits < secretBits:
		return Warning, fmt.Sprintf("has, at a guess, %.0f bits of randomness, and should have %d", bits, secretBits), keepOld
	}
	return OK, "", ""
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

// guessBits estimates the randomness of a secret from its letters' frequencies,
// without those that a run like aaaa or 1234 foretells. A text in words gets
// less: their letters are not chosen one by one.
func guessBits(s string) float64 {
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
	surprising := 0
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
	if digits*20 < len(runes) && words >= 2 && mostlyLower(runes) {
		entropy = min(entropy, wordBits)
	}
	return entropy * float64(surprising)
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
