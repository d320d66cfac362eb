package session_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/pgsession/session"
)

func TestConfigFromEnvFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const hidden = "not-for-eyes "
	spaced := strings.Repeat(hidden, 3)
	for _, tt := range []struct {
		name                string
		secret, secretFile  string
		old, oldFile        string
		wantSecret, wantOld string
		errs                []string
		otherOnWindows      bool
	}{
		{name: "a file", secretFile: file("plain", testSecret), wantSecret: testSecret},
		{name: "the end of the line", secretFile: file("line", testSecret+"\n"), wantSecret: testSecret},
		{name: "the end of a line of Windows", secretFile: file("crlf", testSecret+"\r\n"), wantSecret: testSecret},
		{name: "spaces are the secret's", secretFile: file("spaces", " "+testSecret+" \n"), wantSecret: " " + testSecret + " "},
		{name: "several old ones", secretFile: file("plain", testSecret), oldFile: file("old", "one\n\r\nthree\r\n"), wantSecret: testSecret, wantOld: "one,three"},
		{name: "an old one with a space", secretFile: file("plain", testSecret), oldFile: file("cat", "keyboard cat\n"+testSecret+"\n"), wantSecret: testSecret, wantOld: "keyboard cat," + testSecret},
		{name: "several old ones in a line", secretFile: file("plain", testSecret), oldFile: file("oneline", strings.Repeat("x", 32)+" "+strings.Repeat("y", 32)), errs: []string{`oneline": has a line of several secrets`}},
		{name: "old ones of the variable", secretFile: file("plain", testSecret), old: "one two", wantSecret: testSecret, wantOld: "one,two"},
		{name: "an empty variable beside", secret: "", secretFile: file("plain", testSecret), wantSecret: testSecret},
		{name: "a variable of several lines stays", secret: testSecret + "\nmore\n", wantSecret: testSecret + "\nmore\n"},
		{name: "both", secret: hidden, secretFile: file("hidden", hidden), errs: []string{"SESSION_SECRET and SESSION_SECRET_FILE are both set"}},
		{name: "both old", secret: testSecret, old: hidden, oldFile: file("hiddenold", hidden), errs: []string{"SESSION_SECRET_OLD and SESSION_SECRET_OLD_FILE are both set"}},
		{name: "none there", secretFile: filepath.Join(dir, "none"), errs: []string{`none": no such file`}, otherOnWindows: true},
		{name: "empty", secretFile: file("empty", ""), errs: []string{`empty": is empty`}},
		{name: "blank", secretFile: file("blank", " \n\n"), errs: []string{`blank": is empty`}},
		{name: "a directory", secretFile: dir, errs: []string{"is a directory"}},
		{name: "no regular file", secretFile: os.DevNull, errs: []string{"is no regular file"}},
		{name: "a byte order mark", secretFile: file("bom", "\xef\xbb\xbf"+spaced), errs: []string{`bom": begins with a byte order mark`}},
		{name: "UTF-16", secretFile: file("utf16", "\xff\xfen\x00o\x00t\x00"), errs: []string{`utf16": begins with a byte order mark`}},
		{name: "a byte order mark of old ones", secretFile: file("plain", testSecret), oldFile: file("bom", "\xef\xbb\xbf"+hidden), errs: []string{`bom": begins with a byte order mark`}},
		{name: "several lines", secretFile: file("lines", spaced+"\n"+spaced), errs: []string{`lines": has several lines`}},
		{name: "too large", secretFile: file("large", strings.Repeat(hidden, 10_000)), errs: []string{"has more than 65536 bytes"}},
		{name: "as large as may be", secretFile: file("full", strings.Repeat("x", 64<<10)), wantSecret: strings.Repeat("x", 64<<10)},
		{name: "both faults at once", secretFile: file("empty", ""), oldFile: dir, errs: []string{"SESSION_SECRET_FILE", "SESSION_SECRET_OLD_FILE"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range map[string]string{
				"SESSION_SECRET": tt.secret, "SESSION_SECRET_FILE": tt.secretFile,
				"SESSION_SECRET_OLD": tt.old, "SESSION_SECRET_OLD_FILE": tt.oldFile,
			} {
				t.Setenv(name, value)
			}
			cfg, err := session.ConfigFromEnv()
			got := faults(err)
			if len(got) != len(tt.errs) {
				t.Fatalf("got %q, want %d faults", got, len(tt.errs))
			}
			for i, want := range tt.errs {
				if tt.otherOnWindows && runtime.GOOS == "windows" {
					want = "SESSION_SECRET_FILE"
				}
				if !strings.HasPrefix(got[i], "session: SESSION_SECRET") || !strings.Contains(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
				if strings.Contains(got[i], "not-for-eyes") {
					t.Error("the error shows a secret")
				}
			}
			if err == nil && (cfg.Secret != tt.wantSecret || strings.Join(cfg.OldSecrets, ",") != tt.wantOld) {
				t.Error("got other secrets than the files hold")
			}
		})
	}
}

// A new secret signs, seals and is searched by from the next request on, in every
// combination of format and encryption; the old one still verifies and opens.
func TestSetSecrets(t *testing.T) {
	for _, format := range bothFormats {
		for _, encrypt := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, encrypt %t", format.name, encrypt), func(t *testing.T) {
				store := session.NewMemoryStore()
				cfg := session.Config{Secret: testSecretOld, Encrypt: encrypt, UserKey: "user", DisablePrune: true, Cookie: session.CookieConfig{Format: format.format}}
				m := newManager(t, store, cfg)
				cfg.Secret = testSecret
				onlyNew := newManager(t, store, cfg)
				b := login(t, m)
				before := b.cookie

				if err := m.SetSecrets(testSecret, testSecretOld); err != nil {
					t.Fatalf("SetSecrets: got %v, want no error", err)
				}
				if got := b.user(); got != "ada" || b.cookie == before {
					t.Errorf("the next request: got user %q, a new cookie: %t, want ada and one", got, b.cookie != before)
				}
				if got, err := m.Sessions(t.Context(), userKey.Is("ada")); len(got) != 1 || err != nil {
					t.Errorf("found by the old hash: got %d, %v, want 1", len(got), err)
				}
				wantResponse(t, "a save", b.visit(func(s *session.Session) { countKey.Set(s, 1) }), 200, "nothing")
				if got := b.with(onlyNew).user(); got != "ada" {
					t.Errorf("a program that has only the new secret: got user %q, want ada", got)
				}
				if got, err := onlyNew.Sessions(t.Context(), userKey.Is("ada")); len(got) != 1 || err != nil {
					t.Errorf("found by the new hash alone: got %d, %v, want 1", len(got), err)
				}

				if err := m.SetSecrets(testSecret); err != nil {
					t.Fatalf("SetSecrets: got %v, want no error", err)
				}
				if got := (&browser{m: m, cookie: before}).user(); got != "" {
					t.Errorf("a cookie of the secret that was dropped: got user %q, want nobody", got)
				}
				if got := b.user(); got != "ada" {
					t.Errorf("after the old one was dropped: got user %q, want ada", got)
				}
			})
		}
	}
}

// Faults are those of New, all at once, and change nothing.
func TestSetSecretsRefuses(t *testing.T) {
	log := &logRecorder{}
	m := newManager(t, session.NewMemoryStore(), session.Config{Secret: testSecretOld, Logger: log.logger()})
	b := login(t, m)
	err := m.SetSecrets("not-for-eyes", "", testSecret)
	if got := faults(err); len(got) != 2 || !strings.Contains(got[0], "Secret (SESSION_SECRET) has 12 bytes") || !strings.Contains(got[1], "OldSecrets[0] (SESSION_SECRET_OLD) has 0 bytes") {
		t.Errorf("got %q, want the two faults", got)
	}
	if strings.Contains(fmt.Sprint(err), "not-for-eyes") {
		t.Error("the error shows a secret")
	}
	if got := b.user(); got != "ada" {
		t.Errorf("afterwards: got user %q, want ada", got)
	}
	before := b.cookie
	if b.user(); b.cookie != before {
		t.Error("afterwards: got a new cookie, want the secret unchanged")
	}
	express := newManager(t, session.NewMemoryStore(), session.Config{Secret: testSecret, Cookie: session.CookieConfig{Format: session.FormatExpress}, Logger: log.logger()})
	if err := express.SetSecrets("short", ""); err == nil {
		t.Error("an empty old secret in the Express format: got no error, want one")
	}
	if err := express.SetSecrets("a kitten on the keys"); err != nil || !strings.Contains(log.String(), "under 32 bytes") {
		t.Errorf("a short one in the Express format: got %v, want a warning", err)
	}
}

// Requests, searches and logins go on while the secret is changed back and forth,
// and nobody is logged out or gets an error.
func TestSetSecretsBesideRequests(t *testing.T) {
	m := newManager(t, session.NewMemoryStore(), session.Config{Encrypt: true, UserKey: "user", MaxPerUser: 999, DisablePrune: true})
	const browsers, rounds = 4, 200
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			secrets := []string{testSecret, testSecretOld}
			if err := m.SetSecrets(secrets[n%2], secrets[(n+1)%2]); err != nil {
				t.Errorf("SetSecrets: got %v, want no error", err)
			}
		}
	})
	together(browsers, func(int) {
		b := login(t, m)
		for range rounds {
			resp := b.visit(func(s *session.Session) { countKey.Update(s, func(n int) int { return n + 1 }) })
			if resp.status != 200 {
				t.Errorf("got status %d, want 200", resp.status)
			}
		}
		n := 0
		b.visit(func(s *session.Session) { n, _ = countKey.Get(s) })
		if n != rounds {
			t.Errorf("counted: got %d, want %d", n, rounds)
		}
	})
	close(stop)
	changing.Wait()
	if got, err := m.Sessions(t.Context(), userKey.Is("ada")); len(got) != browsers || err != nil {
		t.Errorf("found: got %d, %v, want %d", len(got), err, browsers)
	}
}

// What is no secret is refused, with the way out, wherever sessions are worth
// forging; among the old ones it is a warning, for an application that has users.
func TestPublicSecrets(t *testing.T) {
	for _, format := range []session.CookieFormat{session.FormatSecureCookie, session.FormatExpress} {
		for _, public := range []string{"your-256-bit-secret, your-256-bit-secret", strings.Repeat("0123456789", 4), "abcdefghijklmnopqrstuvwxyz0123456789"} {
			log := &logRecorder{}
			cfg := session.Config{Secret: public, Cookie: session.CookieConfig{Format: format}, DisablePrune: true, Logger: log.logger()}
			_, err := session.New(newHookedStore(), cfg)
			if err == nil {
				t.Fatalf("%v: got no error, want a refusal", format)
			}
			for _, want := range []string{"Config.Secret (SESSION_SECRET) ", "openssl rand -base64 48", "SESSION_SECRET_OLD"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: got %v, want %q in it", format, err, want)
				}
			}
			if strings.Contains(err.Error(), public[:10]) {
				t.Errorf("%v: the error shows a piece of the secret", format)
			}
			if m, err := session.New(session.NewMemoryStore(), cfg); err != nil {
				t.Errorf("%v, in development: got %v, want a warning", format, err)
			} else {
				_ = m.Close()
			}
			log.reset()
			store := newHookedStore()
			cfg.Secret, cfg.OldSecrets = testSecret, []string{public}
			m := newManager(t, store, cfg)
			got := log.from(slog.LevelWarn)
			if len(got) != 1 || !strings.Contains(got[0], "a secret is none") || !strings.Contains(got[0], "number 1 of SESSION_SECRET_OLD") || !strings.Contains(got[0], fingerprint(public)) {
				t.Errorf("%v, as an old one: logged %q, want a warning that names it", format, got)
			}
			if err := m.SetSecrets(public); err == nil || strings.Contains(err.Error(), public[:10]) {
				t.Errorf("%v: SetSecrets: got %v, want a refusal", format, err)
			}
		}
	}
}

// Who starts and who changes secrets says which one signs and which only verify.
func TestFingerprintsInTheLog(t *testing.T) {
	log := &logRecorder{}
	m := newManager(t, session.NewMemoryStore(), session.Config{Secret: testSecret, OldSecrets: []string{testSecretOld, testSecretOther}, Logger: log.logger()})
	want := fmt.Sprintf("secretFingerprint=%s oldFingerprints=[%s %s]", fingerprint(testSecret), fingerprint(testSecretOld), fingerprint(testSecretOther))
	if got := log.from(slog.LevelInfo); !strings.Contains(got[len(got)-1], "session: ready") || !strings.Contains(got[len(got)-1], want) {
		t.Errorf("logged %q, want session: ready with %q", got, want)
	}
	if err := m.SetSecrets(testSecretOther, testSecret); err != nil {
		t.Fatal(err)
	}
	want = fmt.Sprintf("secretFingerprint=%s oldFingerprints=[%s]", fingerprint(testSecretOther), fingerprint(testSecret))
	if got := log.from(slog.LevelInfo); !strings.Contains(got[len(got)-1], "session: secrets changed") || !strings.Contains(got[len(got)-1], want) {
		t.Errorf("logged %q, want session: secrets changed with %q", got, want)
	}
}
