package main

import (
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/pgsession/session"
)

const (
	maxBodyBytes    = 64 << 10
	databaseTimeout = 10 * time.Second
)

type app struct {
	users    *users
	sessions *session.Manager
	rp       *webauthn.WebAuthn
	https    bool
}

func newApp(users *users, sessions *session.Manager, rp *webauthn.WebAuthn, https bool) http.Handler {
	a := &app{users, sessions, rp, https}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /style.css", serveStyle)
	mux.HandleFunc("GET /passkey.js", serveScript)
	mux.Handle("GET /{$}", http.RedirectHandler("/account", http.StatusSeeOther))
	mux.HandleFunc("GET /signup", a.signupForm)
	mux.HandleFunc("GET /login", a.loginForm)
	mux.HandleFunc("POST /logout", a.logout)

	// A ceremony is two requests of a script's, with the authenticator between them.
	mux.Handle("POST /signup/begin", onlyJSON(a.signupBegin))
	mux.Handle("POST /signup/finish", onlyJSON(a.signupFinish))
	mux.Handle("POST /login/begin", onlyJSON(a.loginBegin))
	mux.Handle("POST /login/finish", onlyJSON(a.loginFinish))
	mux.Handle("POST /confirm/begin", onlyJSON(a.member(a.confirmBegin)))
	mux.Handle("POST /confirm/finish", onlyJSON(a.member(a.confirmFinish)))
	mux.Handle("POST /passkeys/begin", onlyJSON(a.confirmed("/devices", a.addBegin)))
	mux.Handle("POST /passkeys/finish", onlyJSON(a.confirmed("/devices", a.addFinish)))

	mux.HandleFunc("GET /account", a.member(a.account))
	mux.HandleFunc("GET /confirm", a.member(a.confirmForm))
	mux.HandleFunc("GET /email", a.confirmed("/email", a.emailForm))
	mux.HandleFunc("POST /email", a.confirmed("/email", a.changeEmail))
	mux.HandleFunc("GET /devices", a.member(a.devices))
	mux.HandleFunc("POST /devices/revoke", a.member(a.revoke))
	mux.HandleFunc("POST /devices/revoke-others", a.member(a.revokeOthers))
	mux.HandleFunc("POST /passkeys/remove", a.confirmed("/devices", a.removePasskey))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		renderError(w, http.StatusNotFound, "There is no such page.")
	})

	protection := http.NewCrossOriginProtection() // browsers say where a request was sent from
	return http.MaxBytesHandler(a.secureHeaders(protection.Handler(deadline(sessions.Handler(mux)))), maxBodyBytes)
}

// secureHeaders marks every page no-store, too: after a logout the back button
// shows nothing, and no proxy keeps anything.
func (a *app) secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Permissions-Policy", "publickey-credentials-create=(self), publickey-credentials-get=(self)")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		if a.https {
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

// onlyJSON refuses what a form of another site can send; application/json needs a
// script, which browsers let ask another site only where that agrees (CORS). It is the
// second lock: CrossOriginProtection lets pass what says nothing of its origin.
func onlyJSON(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			refuse(w, http.StatusUnsupportedMediaType, "This is for scripts that send JSON.")
			return
		}
		next(w, r)
	})
}

type memberFunc func(w http.ResponseWriter, r *http.Request, u *user)

// member lets users pass who are logged in, and sends others to the login.
func (a *app) member(next memberFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		id, ok := userID.Get(s)
		if !ok {
			sendTo(w, r, "/login")
			return
		}
		u, err := a.users.byID(r.Context(), id)
		if err != nil && !errors.Is(err, errNoUser) {
			fail(w, err)
			return
		}
		// The passkey was removed or locked while this login was under way, so that
		// there was no session yet to be ended with it.
		if used, _ := passkeyID.Get(s); err != nil || u.usable(used) == nil {
			s.Destroy()
			sendTo(w, r, "/login")
			return
		}
		next(w, r, u)
	}
}

// confirmed lets users pass who have used a passkey lately, so that a browser left
// alone is no way to take an account over. Others are asked, and come to the page back.
func (a *app) confirmed(back string, next memberFunc) http.HandlerFunc {
	return a.member(func(w http.ResponseWriter, r *http.Request, u *user) {
		if !recent(session.From(r.Context())) {
			sendTo(w, r, "/confirm?next="+url.QueryEscape(back))
			return
		}
		next(w, r, u)
	})
}

// sendTo leads a browser to another page: by a redirect, or, if it is a script that asks,
// by telling it where to go.
func sendTo(w http.ResponseWriter, r *http.Request, path string) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		answer(w, http.StatusForbidden, map[string]string{"next": path})
		return
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
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
		renderError(w, http.StatusConflict, "You were logged out, or in, by another page meanwhile. Please try again.")
		return
	}
	fail(w, err)
}
