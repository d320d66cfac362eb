package web

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session"
	"github.com/volatiletech/authboss/v3"
	_ "github.com/volatiletech/authboss/v3/auth"
	"github.com/volatiletech/authboss/v3/defaults"
	_ "github.com/volatiletech/authboss/v3/lock"
	_ "github.com/volatiletech/authboss/v3/logout"
)

const (
	userID      = session.Key[string](authboss.SessionKey) // Config.UserKey
	remember    = "remember"
	rememberFor = 30 * 24 * time.Hour
)

// sessionState is authboss.ClientStateReadWriter.
type sessionState struct{}

// values are what authboss keeps in the session, one key each. Nothing is loaded before
// it asks for one.
type values struct{ s *session.Session }

func (v values) Get(key string) (string, bool) { return session.Key[string](key).Get(v.s) }

func (sessionState) ReadState(r *http.Request) (authboss.ClientState, error) {
	return values{session.From(r.Context())}, nil
}

// WriteState returns no error of the session's: authboss would panic, and the Manager
// answers with a 503 as it is.
func (sessionState) WriteState(_ http.ResponseWriter, state authboss.ClientState, events []authboss.ClientStateEvent) error {
	v, ok := state.(values)
	if !ok {
		return errors.New("LoadClientStateMiddleware has to be outside of this")
	}
	for _, e := range events {
		switch e.Kind {
		case authboss.ClientStateEventPut:
			v.put(e.Key, e.Value)
		case authboss.ClientStateEventDel:
			session.Key[string](e.Key).Delete(v.s)
		case authboss.ClientStateEventDelAll:
			v.destroy(strings.Split(e.Key, ","))
		}
	}
	return nil
}

func (v values) put(key, value string) {
	if key == remember {
		v.s.SetIdleTimeout(rememberFor)
		return
	}
	session.Key[string](key).Set(v.s, value)
	switch key {
	case authboss.SessionKey: // a login
		v.s.Renew()
		v.s.SetIdleTimeout(0) // the default, until remember says otherwise
	case authboss.Session2FA:
		v.s.Renew() // it may do more from now on
	}
}

// destroy ends the session, and begins another with what is to be kept of it.
func (v values) destroy(except []string) {
	kept := map[string]string{}
	for _, key := range except {
		if value, ok := v.Get(key); ok && key != authboss.SessionKey {
			kept[key] = value
		}
	}
	v.s.Destroy()
	for key, value := range kept {
		session.Key[string](key).Set(v.s, value)
	}
}

// ownPages follows the form's "redir" to pages of this site only: authboss refuses one
// with ://, and browsers take //evil.example for another site as well.
type ownPages struct{ authboss.HTTPRedirector }

func (p ownPages) Redirect(w http.ResponseWriter, r *http.Request, to authboss.RedirectOptions) error {
	page := r.FormValue(authboss.FormValueRedirect)
	odd := strings.ContainsFunc(page, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' })
	if !strings.HasPrefix(page, "/") || strings.HasPrefix(page, "//") || odd {
		to.FollowRedirParam = false
	}
	return p.HTTPRedirector.Redirect(w, r, to)
}

// stayLoggedIn is for whoever has ticked "rm" in the form of the login.
func stayLoggedIn(w http.ResponseWriter, r *http.Request, _ bool) (handled bool, err error) {
	if form, ok := r.Context().Value(authboss.CTXKeyValues).(authboss.RememberValuer); ok && form.GetShouldRemember() {
		authboss.PutSession(w, remember, "true")
	}
	return false, nil
}

// App is the application: mux with authboss below /auth, and what has to be around it.
func App(sessions *session.Manager, mux *http.ServeMux, users authboss.ServerStorer, pages authboss.Renderer) (http.Handler, *authboss.Authboss, error) {
	ab := authboss.New()
	ab.Config.Storage.Server = users
	ab.Config.Storage.SessionState = sessionState{}
	ab.Config.Core.ViewRenderer = pages
	ab.Config.Paths.AuthLoginOK = "/account"
	ab.Config.Paths.LockNotOK = "/auth/login"
	ab.Config.Modules.LogoutMethod = http.MethodPost
	defaults.SetCore(&ab.Config, false, true)
	ab.Config.Core.Redirector = ownPages{ab.Config.Core.Redirector}
	ab.Events.After(authboss.EventAuth, stayLoggedIn)
	if err := ab.Init(); err != nil {
		return nil, nil, err
	}
	mux.Handle("/auth/", http.StripPrefix("/auth", ab.Config.Core.Router))
	return http.NewCrossOriginProtection().Handler(sessions.Handler(ab.LoadClientStateMiddleware(mux))), ab, nil
}
