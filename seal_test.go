package session_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
)

const secretNote = "a value nobody else may see"

const noteKey = session.Key[string]("note")

// sealRig is a browser of a manager whose store and log can be looked into.
type sealRig struct {
	*browser
	t     *testing.T
	store session.Store
	log   *logRecorder
}

func newSealRig(t *testing.T, store session.Store, cfg session.Config) *sealRig {
	t.Helper()
	log := &logRecorder{}
	cfg.DisablePrune = true
	cfg.Logger = log.logger()
	return &sealRig{&browser{m: newManager(t, store, cfg)}, t, store, log}
}

// do runs one request and returns its status and the session's ID.
func (rig *sealRig) do(f func(*session.Session)) (status int, id string) {
	status = rig.visit(func(s *session.Session) {
		f(s)
		if err := s.Save(context.Background()); err == nil {
			id = s.ID()
		}
	}).status
	return status, id
}

func (rig *sealRig) stored(id string) string {
	rig.t.Helper()
	rec, err := rig.store.Load(context.Background(), id)
	if err != nil {
		rig.t.Fatal("no record")
	}
	return string(rec.Data)
}

func (rig *sealRig) note() (status int, v string) {
	rig.t.Helper()
	status, _ = rig.do(func(s *session.Session) { v, _ = noteKey.Get(s) })
	return status, v
}

func TestEncryptHidesDataAndKeepsTheCookieReadable(t *testing.T) {
	rig := newSealRig(t, session.NewMemoryStore(), session.Config{Secret: testSecret, Encrypt: true})
	_, id := rig.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	stored := rig.stored(id)
	if strings.Contains(stored, secretNote) || strings.Contains(stored, `"note"`) {
		t.Error("the record shows the data")
	}
	if !strings.HasPrefix(stored, `{"cookie":{"originalMaxAge":86400000,`) {
		t.Error("the record does not begin with a readable cookie object")
	}
	if status, v := rig.note(); status != 200 || v != secretNote {
		t.Errorf("got %d and the value read back: %v, want 200 and true", status, v == secretNote)
	}
}

func TestEncryptSurvivesChangeRenewalAndMerge(t *testing.T) {
	rig := newSealRig(t, session.NewMemoryStore(), session.Config{Secret: testSecret, Encrypt: true})
	count := session.Key[int]("count")
	rig.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	_, before := rig.do(func(s *session.Session) { count.Set(s, 1) })
	_, after := rig.do(func(s *session.Session) { s.Renew() })
	if before == after {
		t.Error("Renew kept the ID")
	}
	rig.do(func(s *session.Session) {
		count.Get(s) // loaded; now another request gets there first
		rig.do(func(s *session.Session) { count.Update(s, func(n int) int { return n + 10 }) })
		count.Update(s, func(n int) int { return n + 100 })
	})
	var n int
	rig.do(func(s *session.Session) { n, _ = count.Get(s) })
	if _, v := rig.note(); v != secretNote || n != 111 {
		t.Errorf("got count %d, value kept: %v; want 111, true", n, v == secretNote)
	}
}

func TestEncryptRefusesDataOfAnotherRow(t *testing.T) {
	store := session.NewMemoryStore()
	cfg := session.Config{Secret: testSecret, Encrypt: true}
	ada, eve := newSealRig(t, store, cfg), newSealRig(t, store, cfg)
	_, adaID := ada.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	_, eveID := eve.do(func(s *session.Session) { noteKey.Set(s, "eve's own") })
	err := store.Update(t.Context(), eveID, session.Change{Old: []byte(eve.stored(eveID)), New: []byte(ada.stored(adaID))})
	if err != nil {
		t.Fatal(err)
	}
	pasted := eve.stored(eveID)
	status, v := eve.note()
	if status != http.StatusServiceUnavailable || v != "" {
		t.Errorf("got %d, a value: %v; want 503 and none", status, v != "")
	}
	if status, _ := eve.do(func(s *session.Session) { noteKey.Set(s, "overwritten") }); status != http.StatusServiceUnavailable {
		t.Errorf("write: got %d, want 503", status)
	}
	if eve.stored(eveID) != pasted {
		t.Error("the record was overwritten")
	}
	if log := eve.log.String(); !strings.Contains(log, "does not open") || strings.Contains(log, eveID) || strings.Contains(log, secretNote) {
		t.Error("the log should say that the record does not open, and neither ID nor data")
	}
}

func TestEncryptRefusesTamperedData(t *testing.T) {
	store := session.NewMemoryStore()
	rig := newSealRig(t, store, session.Config{Secret: testSecret, Encrypt: true})
	_, id := rig.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	good := rig.stored(id)
	at := strings.Index(good, `"__sealed":"`) + len(`"__sealed":"`)
	for _, bad := range []string{
		good[:at+20] + "AAAA" + good[at+24:],
		good[:at] + `"}`,
		good[:at] + `!"}`,
		good[:at-1] + `5}`,
		good[:at-1] + `null}`,
	} {
		current := rig.stored(id)
		if err := store.Update(t.Context(), id, session.Change{Old: []byte(current), New: []byte(bad)}); err != nil {
			t.Fatal(err)
		}
		if status, v := rig.note(); status != http.StatusServiceUnavailable || v != "" {
			t.Errorf("got %d, a value: %v; want 503 and none", status, v != "")
		}
	}
}

func TestEncryptRotation(t *testing.T) {
	store := session.NewMemoryStore()
	old := newSealRig(t, store, session.Config{Secret: testSecretOld, Encrypt: true})
	_, id := old.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	before := old.stored(id)

	both := newSealRig(t, store, session.Config{Secret: testSecret, OldSecrets: []string{testSecretOld}, Encrypt: true})
	both.cookie = old.cookie
	if status, v := both.note(); status != 200 || v != secretNote {
		t.Errorf("old secret: got %d, value read: %v; want 200, true", status, v == secretNote)
	}
	if old.stored(id) != before {
		t.Error("a mere read rewrote the record")
	}
	both.do(func(s *session.Session) { session.Key[int]("n").Set(s, 1) })

	current := newSealRig(t, store, session.Config{Secret: testSecret, Encrypt: true})
	current.cookie = both.cookie // signed anew with the current secret
	if status, v := current.note(); status != 200 || v != secretNote {
		t.Errorf("after the next save: got %d, value read: %v; want 200, true", status, v == secretNote)
	}
}

func TestEncryptReadsPlainRecordsAndSealsThemAtTheNextSave(t *testing.T) {
	store := session.NewMemoryStore()
	plain := newSealRig(t, store, session.Config{Secret: testSecret})
	_, id := plain.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	sealed := newSealRig(t, store, session.Config{Secret: testSecret, Encrypt: true})
	sealed.cookie = plain.cookie
	if _, v := sealed.note(); v != secretNote {
		t.Error("a plain record was not read")
	}
	if !strings.Contains(sealed.stored(id), secretNote) {
		t.Error("a mere read rewrote the record")
	}
	sealed.do(func(s *session.Session) { session.Key[int]("n").Set(s, 1) })
	if strings.Contains(sealed.stored(id), secretNote) {
		t.Error("the save left the data readable")
	}
	// And back: whoever turns it off still reads what was sealed.
	plain.do(func(s *session.Session) { session.Key[int]("n").Set(s, 2) })
	if !strings.Contains(plain.stored(id), secretNote) {
		t.Error("without Encrypt the save sealed the data")
	}
}

func TestEncryptResolvesAWriteWithoutAnswer(t *testing.T) {
	store := newHookedStore()
	rig := newSealRig(t, store, session.Config{Secret: testSecret, Encrypt: true})
	count := session.Key[int]("count")
	rig.do(func(s *session.Session) { count.Set(s, 1) })
	lost := 0 // answers
	store.on("Update", func(_ context.Context, _ *storeCall, do func() error) error {
		if err := do(); err != nil || lost > 0 {
			return err
		}
		lost++
		return errors.Join(session.ErrUncertain, io.ErrUnexpectedEOF)
	})
	if status, _ := rig.do(func(s *session.Session) { count.Update(s, func(n int) int { return n + 1 }) }); status != 200 {
		t.Errorf("got %d, want 200", status)
	}
	var n int
	rig.do(func(s *session.Session) { n, _ = count.Get(s) })
	if n != 2 || lost != 1 {
		t.Errorf("got %d, want 2", n)
	}
}

func TestEncryptFromEnvironment(t *testing.T) {
	t.Setenv("SESSION_SECRET", testSecret)
	for _, c := range []struct {
		value string
		want  bool
		bad   bool
	}{{"", false, false}, {"true", true, false}, {"1", true, false}, {"false", false, false}, {"yes please", false, true}} {
		t.Setenv("SESSION_ENCRYPT", c.value)
		cfg, err := session.ConfigFromEnv()
		if cfg.Encrypt != c.want || (err != nil) != c.bad {
			t.Errorf("SESSION_ENCRYPT=%q: got %v, %v", c.value, cfg.Encrypt, err)
		}
		if c.bad && !strings.Contains(err.Error(), "SESSION_ENCRYPT") {
			t.Errorf("got %v, want the variable's name", err)
		}
	}
}

func TestEncryptedRecordKeepsItsAbsoluteTimeout(t *testing.T) {
	rig := newSealRig(t, session.NewMemoryStore(), session.Config{Secret: testSecret, Encrypt: true, AbsoluteTimeout: time.Hour})
	_, id := rig.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
	if !strings.Contains(rig.stored(id), `"__created":`) {
		t.Error("the creation time is not readable beside the sealed data")
	}
	if _, v := rig.note(); v != secretNote {
		t.Error("not read back")
	}
}

// Go's FIPS 140-3 mode refuses what is not approved, with a panic or an error.
func TestEncryptInFIPSMode(t *testing.T) {
	const mark = "SESSION_TEST_FIPS"
	if os.Getenv(mark) != "" {
		if !fips140.Enabled() {
			t.Fatal("not in FIPS mode")
		}
		rig := newSealRig(t, session.NewMemoryStore(), session.Config{Secret: testSecret, OldSecrets: []string{testSecretOld}, Encrypt: true, UserKey: "note", MaxPerUser: 2})
		rig.do(func(s *session.Session) { noteKey.Set(s, secretNote) })
		rig.do(func(s *session.Session) { s.Renew() })
		if status, v := rig.note(); status != http.StatusOK || v != secretNote {
			t.Errorf("got status %d, want 200 and the value", status)
		}
		if n, err := rig.m.Revoke(t.Context(), noteKey.Is(secretNote)); n != 1 || err != nil {
			t.Errorf("Revoke: got %d, %v, want 1, no error", n, err)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestEncryptInFIPSMode$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1", "GODEBUG=fips140=only")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestEncryptInFIPSMode")) {
		t.Errorf("with GODEBUG=fips140=only: got %v\n%s", err, out)
	}
}
