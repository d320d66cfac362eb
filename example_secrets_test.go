package session_test

import (
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgsession/session"
)

// A program whose secrets are files reads them again on SIGHUP, as
// "kill -HUP" or an orchestrator sends it, and nobody is logged out.
func ExampleManager_SetSecrets() {
	dir, err := os.MkdirTemp("", "secrets")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write := func(name string, secrets ...string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
			log.Fatal(err)
		}
	}
	first, second := "the-first-one-7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", "the-second-one-4Ft8Qs2Zr6Lm9Xv1Kc5Bn7Wd3Hj0Pg"
	write("current", first)
	os.Setenv("SESSION_SECRET_FILE", filepath.Join(dir, "current"))
	defer os.Unsetenv("SESSION_SECRET_FILE")
	defer os.Unsetenv("SESSION_SECRET_OLD_FILE")

	cfg, err := session.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	sessions, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	reread, done := make(chan os.Signal, 1), make(chan error)
	signal.Notify(reread, syscall.SIGHUP)
	defer signal.Stop(reread)
	go func() {
		for range reread {
			cfg, err := session.ConfigFromEnv()
			if err == nil {
				err = sessions.SetSecrets(cfg.Secret, cfg.OldSecrets...)
			}
			done <- err // a program logs it: the secrets of before stay
		}
	}()

	visits := session.Key[int]("visits")
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/rotate" { // an operator, elsewhere
			write("current", second)
			write("old", first)
			os.Setenv("SESSION_SECRET_OLD_FILE", filepath.Join(dir, "old"))
			reread <- syscall.SIGHUP
			fmt.Fprint(w, "error: ", <-done)
			return
		}
		s := session.From(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprint(w, n)
	})
	browse(sessions.Handler(page), "/", "/", "/rotate", "/", "/")
	// Output:
	// / 200 1
	// / 200 2
	// /rotate 200 error: <nil>
	// / 200 3
	// / 200 4
}
