package measure

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

func askUnused(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	w, err := a.user(ctx)
	if err != nil {
		return "", err
	}
	var r reply
	c, err := a.db.count(ctx, func() error {
		r, err = w.peek(ctx, "/public")
		return err
	})
	if err != nil {
		return "", err
	}
	cell := c.String()
	if c.total() == 0 {
		cell = "none"
	}
	var headers []string
	for _, name := range []string{"Vary", "Set-Cookie"} {
		if r.header.Get(name) != "" {
			headers = append(headers, "`"+name+"`")
		}
	}
	if len(headers) > 0 {
		cell += "; " + strings.Join(headers, ", ")
	}
	return cell, nil
}

func askRead(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	w, err := a.user(ctx)
	if err != nil {
		return "", err
	}
	c, err := a.db.count(ctx, func() error { return w.must(ctx, "/read") })
	return c.String(), err
}

// askSliding counts the rows that reads write where each use extends the session:
// once right after it was written, and once two minutes later.
func askSliding(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.sliding(ctx, l)
	if err != nil {
		return "", err
	}
	w, err := a.user(ctx)
	if err != nil {
		return "", err
	}
	reads := func() error {
		for range 100 {
			if err := w.must(ctx, "/read"); err != nil {
				return err
			}
		}
		return nil
	}
	fresh, err := a.db.count(ctx, reads)
	if err != nil {
		return "", err
	}
	if err := a.db.exec(ctx, l.age); err != nil {
		return "", err
	}
	aged, err := a.db.count(ctx, reads)
	what := "the expiry only"
	if aged.full > 0 {
		what = "data and all"
	}
	if aged.rows == fresh.rows {
		return fmt.Sprintf("%d, %s", fresh.rows, what), err
	}
	return fmt.Sprintf("%d; %d if the last write is two minutes old, %s", fresh.rows, aged.rows, what), err
}

// askRenew counts what a login costs that changes the ID of a visitor's session.
func askRenew(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	w, err := a.visitor(ctx)
	if err != nil {
		return "", err
	}
	old := *w
	c, err := a.db.count(ctx, func() error { return w.must(ctx, "/login") })
	if err != nil {
		return "", err
	}
	r, err := w.peek(ctx, "/state")
	if err != nil {
		return "", err
	}
	before, err := old.peek(ctx, "/state")
	if err != nil {
		return "", err
	}
	cell := l.byHand + c.String()
	if w.cookie == old.cookie || before.has("a") {
		return cell + "; the old ID stays alive", nil
	}
	if !r.has("a") {
		return cell + "; data not kept", nil
	}
	return cell + "; data kept", nil
}

// askCache asks for a response that sets the cookie, and for one whose handler has
// marked it as public.
func askCache(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	var cells []string
	for _, path := range []string{"/visit", "/visit?public=1"} {
		r, err := (&browser{app: a}).peek(ctx, path)
		if err != nil {
			return "", err
		}
		if r.header.Get("Set-Cookie") == "" {
			return "", fmt.Errorf("%s: got no cookie, want one", path)
		}
		cell := "none"
		if lines := r.header.Values("Cache-Control"); len(lines) > 0 {
			cell = "`" + strings.Join(lines, ", ") + "`"
		}
		cells = append(cells, cell)
	}
	if cells[0] == cells[1] {
		return cells[0] + ", on a public page too", nil
	}
	return fmt.Sprintf("%s; on a public page %s", cells[0], cells[1]), nil
}

// askLate lets a handler set a value of an existing session after its first bytes
// have arrived.
func askLate(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	w, err := a.user(ctx)
	if err != nil {
		return "", err
	}
	h, err := w.hold(ctx, b.gates, "/late?x=")
	if err != nil {
		return "", err
	}
	late, err := h.finish()
	if err != nil {
		return "", err
	}
	r, err := w.peek(ctx, "/state")
	switch {
	case r.has("late"):
		return "saved", err
	case late.broken:
		return "lost, and the response cut off", err
	}
	return "lost, without an error", err
}

// askRotation replaces the first secret by the second, keeping the first for a while:
// one browser reads meanwhile, another also changes its session. Then the first is
// dropped.
func askRotation(ctx context.Context, b *bench, l *library) (string, error) {
	if l.noSecret {
		return "no secret: the cookie is a random token", nil
	}
	db, err := b.server.database(ctx)
	if err != nil {
		return "", err
	}
	var reader, writer *browser
	during := func(secrets []string, f func(*app) error) error {
		a, err := b.launchOn(ctx, l, db, appOptions{secrets: secrets})
		if err != nil {
			return err
		}
		defer a.close()
		for _, w := range []*browser{reader, writer} {
			if w != nil {
				w.app = a
			}
		}
		return f(a)
	}
	err = during([]string{secretA}, func(a *app) (err error) {
		if reader, err = a.user(ctx); err != nil {
			return err
		}
		writer, err = a.user(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	accepted := false
	err = during([]string{secretB, secretA}, func(*app) error {
		r, err := reader.get(ctx, "/read")
		if err != nil {
			return err
		}
		accepted = r.status == http.StatusOK
		_, err = writer.get(ctx, "/set?key=b")
		return err
	})
	if err != nil {
		return "", err
	}
	if !accepted {
		return "no", nil
	}
	var read, wrote bool
	err = during([]string{secretB}, func(*app) (err error) {
		if read, err = reader.loggedIn(ctx); err != nil {
			return err
		}
		wrote, err = writer.loggedIn(ctx)
		return err
	})
	switch {
	case read:
		return "old secret accepted, signed anew at the next use", err
	case wrote:
		return "old secret accepted, signed anew at the next change", err
	}
	return "old secret accepted, never signed anew", err
}

// askEncryption looks for a value in the rows, without a key and with the library's
// own encryption where it has that.
func askEncryption(ctx context.Context, b *bench, l *library) (string, error) {
	a, err := b.plain(ctx, l)
	if err != nil {
		return "", err
	}
	text, err := query[string](ctx, a.db, l.data)
	if err != nil || !readable(text, 3) {
		return "always", err
	}
	if l.noSealing != "" {
		return l.noSealing, nil
	}
	if a, err = b.launch(ctx, l, appOptions{encrypt: true}); err != nil {
		return "", err
	}
	defer a.close()
	text, err = query[string](ctx, a.db, l.data)
	if err != nil || !readable(text, 3) {
		return "optional", err
	}
	return "no", nil
}

// readable reports whether the marker is in text, which may be in base64, a few times
// over.
func readable(text string, depth int) bool {
	if strings.Contains(text, marker) {
		return true
	}
	if depth == 0 {
		return false
	}
	for _, part := range strings.Split(text, "|") {
		if inner, err := base64.URLEncoding.DecodeString(part); err == nil && readable(string(inner), depth-1) {
			return true
		}
	}
	return false
}

// shared asks whether a browser that has logged in to Express is logged in to an
// application on the library too, on the same database and with the same secret,
// and whether Express sees what is changed there.
func (b *bench) shared(ctx context.Context, libraries []*library) (Row, error) {
	row := Row{Name: "shared", Title: "shares sessions with Express"}
	express := libraries[len(libraries)-1]
	for _, l := range libraries {
		b.Log("shared: %s", l.name)
		cell, err := b.share(ctx, express, l)
		if err != nil {
			return row, fmt.Errorf("%s: %w", l.name, err)
		}
		row.Cells = append(row.Cells, cell)
	}
	return row, nil
}

func (b *bench) share(ctx context.Context, express, l *library) (string, error) {
	db, err := b.server.database(ctx)
	if err != nil {
		return "", err
	}
	theirs, err := b.launchOn(ctx, express, db, appOptions{})
	if err != nil {
		return "", err
	}
	defer theirs.close()
	w, err := theirs.user(ctx)
	if err != nil {
		return "", err
	}
	ours, err := b.launchOn(ctx, l, db, appOptions{express: true})
	if err != nil {
		return "", err
	}
	defer ours.close()
	here := &browser{app: ours, cookie: w.cookie}
	if in, err := here.loggedIn(ctx); err != nil || !in {
		return "no", err
	}
	if _, err := here.get(ctx, "/set?key=b"); err != nil {
		return "", err
	}
	r, err := w.peek(ctx, "/state")
	if !r.has("b") {
		return "reads them", err
	}
	return "yes", err
}
