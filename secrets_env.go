package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgsession/session/internal/secret"
)

// maxSecretFileBytes bounds a file of secrets: one that is longer is another file.
const maxSecretFileBytes = 64 << 10

// secretFromEnv returns what the variable says, or the file that the variable
// with _FILE at its end names: as containers are given secrets.
func secretFromEnv(name string) (string, error) {
	value, path := os.Getenv(name), os.Getenv(name+"_FILE")
	switch {
	case path == "":
		return value, nil
	case value != "":
		return "", fmt.Errorf("session: %s and %[1]s_FILE are both set: which is right? Unset one", name)
	}
	value, err := readSecretFile(path)
	if err != nil {
		return "", fmt.Errorf("session: %s_FILE=%q: %w", name, path, err)
	}
	return value, nil
}

// oldSecretsFromEnv returns those of SESSION_SECRET_OLD, or of its file: each is a line
// there. Where a line is several that are long enough each, it is not guessed what
// was meant.
func oldSecretsFromEnv() ([]string, error) {
	text, err := secretFromEnv("SESSION_SECRET_OLD")
	path := os.Getenv("SESSION_SECRET_OLD_FILE")
	if err != nil || path == "" {
		return strings.Fields(text), err
	}
	var old []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		words := strings.Fields(line)
		switch short := func(s string) bool { return len(s) < secret.MinBytes }; {
		case len(words) == 0:
		case len(words) > 1 && !slices.ContainsFunc(words, short):
			return nil, fmt.Errorf("session: SESSION_SECRET_OLD_FILE=%q: has a line of several secrets: write each on a line of its own", path)
		default:
			old = append(old, line)
		}
	}
	return old, nil
}

// readSecretFile returns what a file holds, without the ends of lines at its end.
// No error holds any of that. Everybody may read such a file in many a container,
// so that is no fault.
func readSecretFile(path string) (string, error) {
	info, err := os.Stat(path) // #nosec G703 -- the path is the operator's own; before it is opened: a pipe would wait for a writer
	switch {
	case err != nil:
		return "", pathless(err)
	case info.IsDir():
		return "", errors.New("is a directory: name the file in it")
	case !info.Mode().IsRegular():
		return "", errors.New("is no regular file")
	}
	f, err := os.Open(filepath.Clean(path)) // #nosec G304 G703 -- the operator names it
	if err != nil {
		return "", pathless(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFileBytes+1))
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case err != nil:
		return "", pathless(err)
	case len(b) > maxSecretFileBytes:
		return "", fmt.Errorf("has more than %d bytes: that is no file of secrets", maxSecretFileBytes)
	case strings.TrimSpace(text) == "":
		return "", errors.New("is empty")
	case strings.HasPrefix(text, "\xef\xbb\xbf"), strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		// As some editors do, and shells that write UTF-16. Nobody sees it, and no
		// other program that was given the secret has it.
		return "", errors.New("begins with a byte order mark: write it as UTF-8 without one")
	}
	return text, nil
}

// pathless leaves the path out, which is said already.
func pathless(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
