package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/pgsession/session"
)

// The keys of this application's sessions.
const (
	userID  = session.Key[int64]("userId")
	version = session.Key[int]("passwordVersion")
	device  = session.Key[string]("device")
	flash   = session.Key[string]("flash")
)

const (
	maxFormBytes    = 64 << 10
	databaseTimeout = 10 * time.Second
	stepUpAfter     = 10 * time.Minute // since the password was last given
)

type app struct {
	users      *users
	sessions   *session.Manager
	trustProxy bool
}

func newApp(users *users, sessions *session.Manager, admin http.Handler, trustProxy bool) http.Handler {
	a := &app{users, sessions, trustProxy}
	r := chi.NewRouter()
	r.Use(
		a.secureHeaders,
		http.NewCrossOriginProtection().Handler, // browsers say where a form was sent from
		middleware.RequestSize(maxFormBytes),
		middleware.GetHead,
		deadline,
		sessions.Handler,
	)
	r.Get("/style.css", serveStyle)
	r.Get("/left.js", serveScript)
	r.Get("/", http.RedirectHandler("/account", http.StatusSeeOther).ServeHTTP)
	r.Get("/signup", a.signupForm)
	r.Post("/signup", a.signup)
	r.Get("/login", a.loginForm)
	r.Post("/login", a.login)
	r.Get("/login/done", a.loginDone)
	r.Post("/logout", a.logout)
	r.Get("/left", left)
	r.Post("/left", stay)

	r.Get("/account", a.member(a.account))
	r.Get("/devices", a.member(a.devices))
	r.Post("/devices/revoke", a.member(a.revoke))
	r.Post("/devices/revoke-others", a.member(a.revokeOthers))

	r.Get("/confirm", a.member(a.confirmForm))
	r.Post("/confirm", a.member(a.confirm))
	r.Get("/password", a.confirmed(a.passwordForm))
	r.Post("/password", a.confirmed(a.changePassword))
	r.Get("/delete", a.confirmed(a.deleteForm))
	r.Post("/delete", a.confirmed(a.deleteAccount))

	pages := a.onlyAdmins(http.StripPrefix("/admin/sessions", admin))
	r.Handle("/admin/sessions", pages)
	r.Handle(adminPath+"*", pages)

	r.NotFound(noSuchPage)
	return r
}

// secureHeaders marks every page no-store, too: after a logout the back button
// shows nothing, and no proxy keeps anything.
func (a *app) secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self' 'inline-speculation-rules'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		if r.TLS != nil || a.trustProxy && r.Header.Get("X-Forwarded-Proto") == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// deadline bounds the handlers' own statements; the sessions' have StoreTimeout.
func deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), databaseTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

type memberFunc func(w http.ResponseWriter, r *http.Request, u user)

// member lets users pass who are logged in, and sends others to the login.
func (a *app) member(next memberFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		id, ok := userID.Get(s)
		if !ok {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		u, err := a.users.byID(r.Context(), id)
		// The account is deleted, or its password was changed while this login
		// was under way.
		if v, _ := version.Get(s); errors.Is(err, errNoUser) || err == nil && v != u.version {
			s.Destroy()
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		if err != nil {
			fail(w, err)
			return
		}
		next(w, r, u)
	}
}

// confirmed lets users pass who have given their password lately, so that a
// browser left alone is no way to take an account over (ASVS 5.0, 7.5).
func (a *app) confirmed(next memberFunc) http.HandlerFunc {
	return a.member(func(w http.ResponseWriter, r *http.Request, u user) {
		if time.Since(session.From(r.Context()).RenewedAt()) > stepUpAfter {
			http.Redirect(w, r, "/confirm?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
			return
		}
		next(w, r, u)
	})
}

// client names who is asking, to count attempts: an IPv4 address, or the network
// that a provider gives to one customer of IPv6.
func (a *app) client(r *http.Request) string {
	text := r.RemoteAddr
	if hops := strings.Join(r.Header.Values("X-Forwarded-For"), ","); a.trustProxy && hops != "" {
		// What the proxy itself has seen; the browser can write the others.
		text = strings.TrimSpace(hops[strings.LastIndex(hops, ",")+1:])
	}
	addr, err := netip.ParseAddr(text)
	if port, e := netip.ParseAddrPort(text); e == nil {
		addr, err = port.Addr(), nil
	}
	if addr = addr.Unmap(); err != nil || addr.Is4() {
		return addr.String()
	}
	network, _ := addr.WithZone("").Prefix(64)
	return network.String()
}

// fail answers where the database of users does not.
func fail(w http.ResponseWriter, err error) {
	slog.Error("request failed", "error", err)
	w.Header().Set("Retry-After", "5")
	renderError(w, http.StatusServiceUnavailable, "We have a problem on our side, and you have done nothing wrong. Please try again in a moment.")
}

// sessionFailed answers where the session could not be loaded or saved.
func sessionFailed(w http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, session.ErrDestroyed) {
		renderError(w, http.StatusConflict, "You were logged out meanwhile. Please log in again.")
		return
	}
	fail(w, err)
}
