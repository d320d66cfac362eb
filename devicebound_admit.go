package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/gate"
)

// deviceState is what a request knows of its session and the browser's device.
type deviceState struct {
	offered  string // the binding that Bind has asked for
	unproven bool   // there is a record, and the browser may not use it
	proven   bool   // the request has brought the bound cookie of its record

	confirm *deviceStep // due where that is not noted in the record yet
}

// Two answers to a request that has not proven its key and may yet do so. To the
// handler both are an [ErrUnproven].
var (
	errAgain  = fmt.Errorf("%w: its bound cookie is dropped, and the browser is to come again", ErrUnproven)
	errReload = fmt.Errorf("%w: the page is to load itself again", ErrUnproven)
)

// admit decides whether the browser may use the record that a request has loaded. It
// asks no store: the record has the binding, and the request has the bound cookie or
// not. Where it may not, err says what becomes of the request; [ErrNotFound] is that
// there is no session, whose cookie is left alone. loading is the error of the load,
// which stays. A nil device admits everybody.
func (d *device) admit(ctx context.Context, r *http.Request, rec *loaded, began time.Time, loading error) (s deviceState, err error) {
	if d == nil || loading != nil {
		return s, loading
	}
	b, ok, err := rec.Bound()
	if !ok {
		return s, nil
	}
	now := time.Now()
	brought := d.brought(r, b.ID, now)
	confirmed := b.ConfirmedAt()
	switch {
	case err != nil: // it must not pass for a session that is not bound
		d.engine.log.LogAttrs(ctx, slog.LevelError, "session: a record's device cannot be read, its session is treated as absent", slog.Any("error", err))
	case b.Key != "" && brought == goodCookie:
		s.proven = true
		if confirmed.IsZero() {
			s.confirm = &deviceStep{id: b.ID}
		}
		return s, nil
	case confirmed.IsZero(): // no key counts yet
		if d.require == 0 || now.Sub(b.OfferedAt()) < d.require {
			return s, nil
		}
	case confirmed.Sub(now) < clockSlack && began.Before(confirmed.Add(devicebound.Grace)):
		// It may have left the browser before the key counted: the pictures of the
		// page after a login, beside the registration.
		return s, nil
	}
	s.unproven = true
	return s, d.refuse(r, b.ID, brought)
}

// refuse says what becomes of a request that has not proven the key of its session.
// Each case but the last makes the browser come with other cookies or headers, so
// that none repeats.
func (d *device) refuse(r *http.Request, id string, brought broughtCookie) error {
	d.engine.stats.unproven.Add(1)
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case brought == badCookie:
		// A browser looks whether the cookie is there, never whether it is right.
		// Without it, it proves its key before it follows.
		return errAgain
	case r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && (site == "cross-site" || site == "same-site"):
		// A link on another site is not held back for a proof. What the page
		// itself asks for is. Anything but a GET would be lost.
		return errReload
	case devicebound.Skipped(r.Header[devicebound.HeaderSkipped], id):
		return ErrUnproven
	}
	return ErrNotFound // so that the login page can be reached
}

// againAt returns the URL of r as the browser knows it, relative to itself: a
// proxy may have cut something off its path, and "//x" is another host.
func againAt(r *http.Request) string {
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") {
		uri = r.URL.RequestURI()
	}
	path, query, asked := strings.Cut(uri, "?")
	at := "./" + path[strings.LastIndexByte(path, '/')+1:]
	if asked {
		at += "?" + query
	}
	return at
}

// reloadPage loads itself again, without a script, which a policy may forbid. What
// it asks for comes from the site itself.
const reloadPage = `<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0"><title>One moment</title><a href="">Continue</a>`

// answerUnproven answers a request that is to come again, and reports whether err is
// of one.
func (d *device) answerUnproven(w http.ResponseWriter, r *http.Request, err error) bool {
	again, reload := errors.Is(err, errAgain), errors.Is(err, errReload)
	if !again && !reload {
		return false
	}
	h := w.Header()
	gate.ForbidCaching(h)
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Cookie")
	if again {
		for _, c := range d.again(time.Now()) {
			h.Add("Set-Cookie", c)
		}
		h.Set("Location", againAt(r))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(reloadPage))
	return true
}

// offer adds what makes a browser register a key, if Bind has asked for one and rec,
// which may be nil, is stored with it.
func (d *device) offer(h http.Header, s *deviceState, rec *view) {
	if s.offered == "" || rec == nil {
		return
	}
	if b, _, err := rec.Bound(); err != nil || b.ID != s.offered || b.Key != "" {
		return
	}
	h.Add(devicebound.HeaderRegistration, d.registration(s.offered, time.Now()))
	s.offered = ""
	gate.ForbidCaching(h) // whoever gets it may register a key
	if !gate.HeaderHas(h, "Cache-Control", "private") && !gate.HeaderHas(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", "no-store")
	}
}

// logout returns the Set-Cookie headers that end the bound cookie beside the
// session's.
func (d *device) logout(destroyed bool, as []cookie.Attributes, now time.Time) (all []string) {
	if d == nil || !destroyed {
		return nil
	}
	for _, a := range as {
		all = append(all, cookie.SetCookie(d.cookie, "", a, cookie.Lifetime{}, false, now))
	}
	return all
}
