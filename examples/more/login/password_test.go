package main_test

import (
	"strings"
	"testing"
	"time"

	login "github.com/pgsession/session/examples/more/login"
)

func TestPasswordHash(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	hash, err := login.HashPassword(ctx, "correct horse café")
	must(t, err)
	again, err := login.HashPassword(ctx, "correct horse café")
	must(t, err)
	if hash == again || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Error("two hashes of one password: want argon2id, with a salt each")
	}
	// By the reference program: argon2 somesaltsomesalt -id -t 3 -k 4096 -p 2
	const foreign = "$argon2id$v=19$m=4096,t=3,p=2$c29tZXNhbHRzb21lc2FsdA$ksHiUOEA0KrDyksjLHfH2vEZFKXN6iijh6ZvJF4xNhU"
	for _, tt := range []struct {
		name, hash, password string
		want                 bool
	}{
		{"the password", hash, "correct horse café", true},
		{"with a combining accent", hash, "correct horse cafe\u0301", true},
		{"another", hash, "correct horse cafe", false},
		{"none", hash, "", false},
		{"other parameters", foreign, "correct horse battery", true},
		{"other parameters, another password", foreign, "correct horse batterx", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := login.IsPassword(ctx, tt.hash, tt.password)
			if got != tt.want || err != nil {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// A column that holds something else is an error, and opens to nobody.
func TestPasswordHashIsNone(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{
		"", "$", "plain text", "$2a$10$abcdefghijklmnopqrstuv", "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$AAAA",
		"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=19456,t=0,p=1$c29tZXNhbHQ$AAAA",
		"$argon2id$v=18$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + strings.Repeat("A", 43),
	} {
		if got, err := login.IsPassword(t.Context(), hash, ""); got || err == nil {
			t.Errorf("%q: got %v, %v, want an error", hash, got, err)
		}
	}
}

func TestDeviceLabel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ userAgent, want string }{
		{"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", "Edge on Windows"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", "Chrome on Windows"},
		{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", "Safari on Mac"},
		{"curl/8.5.0", "curl"},
		{"Something (Linux)", "A browser on Linux"},
		{"", "Unknown device"},
		{"<script>", "Unknown device"},
	} {
		if got := login.DeviceLabel(tt.userAgent); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.userAgent, got, tt.want)
		}
	}
}

func TestAgo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Minute, "just now"},
		{59 * time.Second, "just now"},
		{time.Minute, "1 minute ago"},
		{90 * time.Minute, "1 hour ago"},
		{23 * time.Hour, "23 hours ago"},
		{72 * time.Hour, "3 days ago"},
	} {
		if got := login.Ago(tt.d); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.d, got, tt.want)
		}
	}
}
