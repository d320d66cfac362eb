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
	"unicode/utf8"
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
		"averylogphrasebiggerthanthirtytwochars",
		"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7", "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
	}
	placeholders = []string{
		"keyboardcat", "changeme", "changethis", "replaceme", "replacethis", "yoursecret", "yourverysecret", "yoursession", "insertsecret", "putyour", "todoset",
		"256bitslong", "32byteslong", "32byteslength", "32characterslong", "atleast32", "atleast256", "minimumlengthof32", "thirty2character", "thirtytwocharacter",
		"qwertyuiop", "asdfghjkl", "zxcvbnm",
		"correcthorsebattery", "supersecretkey", "verysecret", "examplesecret", "secrethere", "your256bitsecret", "your512bitsecret", "verylongsecret",
	}
)

// Judge says how easily a secret may be guessed, and why, as the rest of a sentence
// that begins with its name.
func Judge(s string) (v Verdict, why string) {
	plain, other, breaks := plainText(s)
	known := func(p string) bool {
		at := strings.Index(plain, p)
		if at < 0 {
			return false
		}
		rest, _ := guessBits(plain[:at] + plain[at+len(p):])
		return rest < MinBits || breaks[at] && breaks[at+len(p)] // not from within the words of a long phrase
	}
	bits, surprising := guessBits(s)
	dressed, _ := guessBits(other)
	p := period(s)
	piece, _ := guessBits(s[:p])
	switch {
	case slices.Contains(famous, plain) && dressed < MinBits || slices.ContainsFunc(placeholders, known):
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

// plainText returns the letters and digits of s in lower case, what else there is, and
// before which bytes of plain, or at its end, no word goes on. "test" dressed in 28
// random bytes is no word of a tutorial.
func plainText(s string) (plain, other string, breaks []bool) {
	var b, rest strings.Builder
	ends := true
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		letter := unicode.IsLetter(r)
		if letter || unicode.IsDigit(r) {
			n := b.Len()
			b.WriteRune(unicode.ToLower(r))
			breaks = append(breaks, ends || !letter)
			breaks = append(breaks, make([]bool, b.Len()-n-1)...)
		} else {
			rest.WriteString(s[:size])
		}
		ends, s = !letter, s[size:]
	}
	return b.String(), rest.String(), append(breaks, true)
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

// hexBits is what hexadecimal digits look worth, at least, that are drawn at random,
// by the frequencies among a few dozen of them; each is worth four bits then.
const hexBits = 3.0

// written are pairs of letters that a third of English consists of, and a sixteenth
// of what is drawn at random.
const written = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne ea ra ce"

// guessBits estimates the randomness of a secret from its letters' frequencies,
// without those that a run like aaaa or 1234 foretells; surprising is how many are
// left. A text in words gets less: their letters are not chosen one by one.
func guessBits(s string) (bits float64, surprising int) {
	runes := []rune(s)
	if !utf8.ValidString(s) { // bytes
		runes = runes[:0]
		for i := range len(s) {
			runes = append(runes, rune(s[i]))
		}
	}
	counts := map[rune]int{}
	for i, r := range runes {
		counts[r]++
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
	case utf8.ValidString(s) && inWords(runes):
		entropy = min(entropy, wordBits)
	case entropy > hexBits && entropy < 4 && (strings.Trim(s, "0123456789abcdef") == "" || strings.Trim(s, "0123456789ABCDEF") == ""):
		entropy = 4
	}
	return entropy * float64(surprising), surprising
}

// inWords reports whether a text consists of words: with spaces or the like between
// them, or by the pairs of letters that English has. Words begin with their capitals,
// and what is drawn at random has them anywhere.
func inWords(runes []rune) bool {
	c := count(runes)
	capitals := c.upper == c.letters
	spaced := c.digits*20 < len(runes) && c.words >= 2 && (c.common*8 >= c.pairs || c.foreign)
	together := c.letters*4 > 3*len(runes) && c.pairs >= 28 && c.common*10 > 3*c.pairs
	return spaced && (c.upper*5 < c.letters && c.inside <= 1 || capitals) || together && (c.upper*3 <= c.letters || capitals)
}

// counts are of a text's characters.
type counts struct {
	digits, letters, upper int
	words                  int  // ends of words before what is no digit
	pairs, common          int  // of letters beside each other, and those of English words
	inside                 int  // capitals after a small letter
	foreign                bool // letters that no encoding of random bytes has
}

func count(runes []rune) (c counts) {
	for i, r := range runes {
		letter := unicode.IsLetter(r)
		switch {
		case letter:
			c.letters++
			c.foreign = c.foreign || r > unicode.MaxASCII
		case unicode.IsDigit(r):
			c.digits++
		}
		if unicode.IsUpper(r) {
			c.upper++
		}
		if i == 0 || !unicode.IsLetter(runes[i-1]) {
			continue
		}
		switch {
		case letter:
			c.pairs++
			switch {
			case unicode.IsUpper(r) && unicode.IsLower(runes[i-1]):
				c.inside++
			case strings.Contains(written, strings.ToLower(string(runes[i-1:i+1]))):
				c.common++
			}
		case !unicode.IsDigit(r):
			c.words++
		}
	}
	return c
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
