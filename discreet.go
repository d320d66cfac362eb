package session

import (
	"fmt"
	"io"
	"log/slog"
)

// What holds a secret, a session ID or data shows none of it to fmt or slog,
// whatever the verb: a printed struct is how they get into logs.

// Format shows no secret, whatever the verb. Where a Config is an unexported
// field of a struct fmt cannot call it, so do not print that.
func (Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Config") }

// LogValue shows no secret.
func (Config) LogValue() slog.Value { return slog.StringValue("session.Config") }

// Format shows no secret, whatever the verb.
func (*Manager) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Manager") }

// Format shows no data, whatever the verb.
func (r Record) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "session.Record(%d bytes, %v)", len(r.Data), r.TTL)
}

// LogValue shows no data.
func (r Record) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// Format shows neither session ID nor data, whatever the verb.
func (c Change) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "session.Change(%d to %d bytes, %v, renewal %t)", len(c.Old), len(c.New), c.TTL, c.NewID != "")
}

// LogValue shows neither session ID nor data.
func (c Change) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Format shows no value that sessions are found by, whatever the verb.
func (Filter) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Filter") }

// LogValue shows no value that sessions are found by.
func (Filter) LogValue() slog.Value { return slog.StringValue("session.Filter") }

// Format shows the handle and no data, whatever the verb.
func (i Info) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "session.Info(%s)", i.Handle) }

// LogValue shows the handle and no data.
func (i Info) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(i)) }

// Format shows neither session ID nor the values asked for, whatever the verb.
func (Query) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Query") }

// LogValue shows neither session ID nor the values asked for.
func (Query) LogValue() slog.Value { return slog.StringValue("session.Query") }

// Format shows the handle, and neither session ID nor data, whatever the verb.
func (r Found) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "session.Found(%s)", r.Handle) }

// LogValue shows the handle, and neither session ID nor data.
func (r Found) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(r)) }

// Format shows neither session IDs nor data, whatever the verb.
func (*MemoryStore) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.MemoryStore") }
