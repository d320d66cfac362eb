package seal_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgsession/session/internal/row"
	"github.com/pgsession/session/internal/seal"
)

const (
	secret    = "seal-test-secret-0123456789abcdef-current"
	secretOld = "seal-test-secret-0123456789abcdef-earlier"
	plain     = `{"cookie":{"path":"/"},"note":"a value nobody else may see","userId":4217093355182,"__created":5}`
)

var id = strings.Repeat("i", 32)

func sealer(t *testing.T, userKey string, secrets ...string) seal.Sealer {
	t.Helper()
	s, err := seal.New(secrets, userKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealed(t *testing.T, s seal.Sealer) []byte {
	t.Helper()
	r, err := row.Parse([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Seal(id, &r)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Encode()) != plain {
		t.Error("Seal changed the row it was given")
	}
	return out
}

// open returns what a record opens to.
func open(t *testing.T, s seal.Sealer, id string, data []byte) (string, error) {
	t.Helper()
	r, err := row.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Open(id, &r)
	return string(r.Encode()), err
}

func TestSealAndOpen(t *testing.T) {
	s := sealer(t, "userId", secret)
	data := sealed(t, s)
	if got := string(data); strings.Contains(got, `"note"`) || strings.Contains(got, "nobody") || strings.Contains(got, "4217093355182") {
		t.Error("the sealed record shows data")
	}
	if got := string(data); !strings.HasPrefix(got, `{"cookie":{"path":"/"},"__created":5,"__sealed":"`) {
		t.Error("the sealed record has no readable cookie and creation time at its beginning")
	}
	if again := sealed(t, s); string(again) == string(data) {
		t.Error("sealed twice: got the same bytes")
	}
	const want = `{"cookie":{"path":"/"},"__created":5,"note":"a value nobody else may see","userId":4217093355182}`
	if got, err := open(t, s, id, data); err != nil || got != want {
		t.Errorf("got %v, opened as it was: %t", err, got == want)
	}
	if got, err := open(t, s, id, []byte(plain)); err != nil || got != plain {
		t.Errorf("a plain record: got %v, left alone: %t", err, got == plain)
	}
}

// Data that does not open is an error and stays as it is.
func TestOpenRefuses(t *testing.T) {
	s := sealer(t, "", secret)
	data := string(sealed(t, s))
	at := strings.Index(data, `"__sealed":"`) + len(`"__sealed":"`)
	for _, c := range []struct{ name, id, data string }{
		{"another row", strings.Repeat("j", 32), data},
		{"bytes changed", id, data[:at+20] + "AAAA" + data[at+24:]},
		{"cut off", id, data[:at+8] + `"}`},
		{"empty", id, data[:at] + `"}`},
		{"no base64", id, data[:at] + `!"}`},
		{"a number", id, data[:at-1] + `5}`},
		{"null", id, data[:at-1] + `null}`},
	} {
		if got, err := open(t, s, c.id, []byte(c.data)); !errors.Is(err, seal.ErrUnopened) || got != c.data {
			t.Errorf("%s: got %v, left alone: %t, want ErrUnopened", c.name, err, got == c.data)
		}
	}
}

func TestSecrets(t *testing.T) {
	old, both := sealer(t, "", secretOld), sealer(t, "", secret, secretOld)
	data := sealed(t, old)
	if _, err := open(t, both, id, data); err != nil {
		t.Errorf("with the old secret beside: got %v", err)
	}
	if _, err := open(t, both.Current(), id, data); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("with the current one alone: got %v, want ErrUnopened", err)
	}
	if _, err := open(t, sealer(t, "", secret), id, sealed(t, both)); err != nil {
		t.Errorf("sealed with both: got %v, want it under the current secret", err)
	}
}

// A user's records can be found by a hash, under every secret that is there.
func TestFindValues(t *testing.T) {
	found := func(data []byte) string {
		r, err := row.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Trim(string(r.Get(row.PrefixFind+"userId")), `"`)
	}
	both := sealer(t, "userId", secret, secretOld)
	values, err := both.FindValues("userId", "4217093355182")
	if err != nil || len(values) != 3 || values[0] != "4217093355182" {
		t.Fatalf("got %d values, %v, want the value itself and two hashes", len(values), err)
	}
	for _, s := range []seal.Sealer{both, sealer(t, "userId", secretOld), sealer(t, "", secret).WithUserKey("userId")} {
		if hash := found(sealed(t, s)); hash == "" || !slices.Contains(values, hash) {
			t.Error("the hash in the record is none of the values asked for")
		}
	}
	if other, _ := both.FindValues("userId", "43"); slices.Contains(values, other[1]) {
		t.Error("another value: got the same hash")
	}
	if other, _ := both.FindValues("id", "4217093355182"); slices.Contains(values, other[1]) {
		t.Error("another key: got the same hash")
	}
	if found(sealed(t, sealer(t, "", secret))) != "" {
		t.Error("without a user key: got a hash")
	}

	// Whoever seals it anew keeps what it is found by.
	r, err := row.Parse(sealed(t, both))
	if err != nil {
		t.Fatal(err)
	}
	none := sealer(t, "", secret)
	if got := none.UserKey(&r); got != "userId" {
		t.Errorf("UserKey of the record: got %q, want userId", got)
	}
	if got := both.UserKey(&row.Row{}); got != "userId" {
		t.Errorf("UserKey of the Sealer: got %q, want userId", got)
	}
}

// What the first version of the format made of {"user":"ada"} must open for ever.
func TestOpensTheFirstFormat(t *testing.T) {
	s := sealer(t, "", "semantics-test-secret-0123456789-current")
	const box = "o90DFt366r3FJUn1qkGO53fng2OxSYGVp4zBhZIsWsjNv15Jw3pnon4U"
	if got, err := open(t, s, id, []byte(`{"cookie":{},"__sealed":"`+box+`"}`)); err != nil || got != `{"cookie":{},"user":"ada"}` {
		t.Errorf("got %v, opened: %t", err, err == nil)
	}
}
