package fromscs

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"

	"github.com/pgsession/session"
)

// What the library logs at its start arrives in logrus and in zerolog, with level,
// message and attributes.
func TestLoggers(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*bytes.Buffer) slog.Handler{
		"logrus": func(b *bytes.Buffer) slog.Handler {
			log := logrus.New()
			log.SetOutput(b)
			log.SetFormatter(&logrus.JSONFormatter{FieldMap: logrus.FieldMap{logrus.FieldKeyMsg: "message"}})
			return forLogrus(log)
		},
		"zerolog": func(b *bytes.Buffer) slog.Handler {
			return forZerolog(zerolog.New(b).Level(zerolog.InfoLevel))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			logger := slog.New(open(&b)).With("instance", 7)
			logger.Debug("hidden", "n", 1)
			if _, err := session.New(session.NewMemoryStore(), session.Config{
				Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", Logger: logger, DisablePrune: true,
			}); err != nil {
				t.Fatal(err)
			}
			logger.Error("one error", "error", "text")
			found := map[string]map[string]any{}
			for line := range strings.Lines(b.String()) {
				entry := map[string]any{}
				if err := json.Unmarshal([]byte(line), &entry); err != nil {
					t.Fatal(err)
				}
				found[entry["message"].(string)] = entry
			}
			for message, level := range map[string]string{"session: ready": "info", "one error": "error"} {
				e := found[message]
				if e["level"] != level || e["instance"] != 7.0 {
					t.Errorf("%q: got level %v, instance %v, want %s, 7", message, e["level"], e["instance"], level)
				}
			}
			if got := found["session: ready"]["cookie"]; got != "session" {
				t.Errorf("attribute cookie: got %v, want session", got)
			}
			if found["one error"]["error"] != "text" {
				t.Errorf("attribute error: got %v, want text", found["one error"]["error"])
			}
			if _, ok := found["hidden"]; ok {
				t.Error("debug: got it, want it hidden by the level of the logger")
			}
		})
	}
}
