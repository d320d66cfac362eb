package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/pgsession/session"
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,29}$`)

func (a *app) signupForm(w http.ResponseWriter, r *http.Request) {
	render(w, r, "signup", view{Title: "Sign up"})
}

func (a *app) signupBegin(w http.ResponseWriter, r *http.Request) {
	var form struct{ Name string }
	if err := json.NewDecoder(r.Body).Decode(&form); err != nil {
		refuse(w, http.StatusBadRequest, "This is no form of ours.")
		return
	}
	name := strings.ToLower(strings.TrimSpace(form.Name)) // capitals make no difference
	if !validName.MatchString(name) {
		refuse(w, http.StatusUnprocessableEntity, "Please choose a user name of 2 to 30 letters a to z, digits, dots and dashes.")
		return
	}
	taken, err := a.users.taken(r.Context(), name)
	switch {
	case err != nil:
		fail(w, err)
		return
	case taken:
		refuse(w, http.StatusUnprocessableEntity, "This user name is taken. Please choose another.")
		return
	}
	handle := make([]byte, 32)
	_, _ = rand.Read(handle) // it never fails
	options, data, err := a.rp.BeginRegistration(&user{name: name, handle: handle})
	if err != nil {
		fail(w, err)
		return
	}
	a.beginVisitor(w, r, options, ceremony{For: signingUp, Data: *data, Name: name})
}

// beginVisitor begins a ceremony of somebody who is not logged in yet: the session that
// a visitor has for it need not live long.
func (a *app) beginVisitor(w http.ResponseWriter, r *http.Request, options any, c ceremony) {
	s := session.From(r.Context())
	begin(s, c)
	if s.IsNew() {
		s.SetIdleTimeout(2 * ceremonyTimeout)
	}
	answer(w, http.StatusOK, options)
}

func (a *app) signupFinish(w http.ResponseWriter, r *http.Request) {
	c, credential, err := a.created(r, signingUp, func(c ceremony) *user { return &user{name: c.Name, handle: c.Data.UserID} })
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	u := &user{name: c.Name, handle: c.Data.UserID}
	id, err := a.users.add(r.Context(), u, deviceLabel(r), credential)
	switch {
	case errors.Is(err, errTaken):
		refuse(w, http.StatusUnprocessableEntity, "This user name is taken. Please choose another.")
	case err != nil:
		fail(w, err)
	default:
		slog.Info("signed up", "user", u.id)
		a.letIn(w, r, u.id, id)
	}
}

// created reads and verifies the passkey that a browser has made.
func (a *app) created(r *http.Request, purpose string, owner func(ceremony) *user) (c ceremony, credential *webauthn.Credential, err error) {
	parsed, err := protocol.ParseCredentialCreationResponse(r)
	if err != nil {
		return c, nil, err
	}
	c, err = take(r.Context(), session.From(r.Context()), purpose, parsed.Response.CollectedClientData.Challenge)
	if err != nil {
		return c, nil, err
	}
	credential, err = a.rp.CreateCredential(owner(c), c.Data, parsed)
	return c, credential, err
}

func (a *app) loginForm(w http.ResponseWriter, r *http.Request) {
	if _, ok := userID.Get(session.From(r.Context())); ok {
		http.Redirect(w, r, "/account", http.StatusSeeOther)
		return
	}
	render(w, r, "login", view{Title: "Log in"})
}

func (a *app) loginBegin(w http.ResponseWriter, r *http.Request) {
	options, data, err := a.rp.BeginDiscoverableLogin() // whoever has a passkey of ours
	if err != nil {
		fail(w, err)
		return
	}
	a.beginVisitor(w, r, options, ceremony{For: loggingIn, Data: *data})
}

func (a *app) loginFinish(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	parsed, err := protocol.ParseCredentialRequestResponse(r)
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	c, err := take(ctx, session.From(ctx), loggingIn, parsed.Response.CollectedClientData.Challenge)
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	var u *user
	var outage error
	_, credential, err := a.rp.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
		u, err = a.users.byHandle(ctx, handle)
		if err != nil && !errors.Is(err, errNoUser) {
			outage = err
		}
		return u, err
	}, c.Data, parsed)
	switch {
	case outage != nil:
		fail(w, outage)
	case err != nil:
		refuseAnswer(w, err)
	default:
		a.verified(w, r, u, credential)
	}
}

func (a *app) confirmForm(w http.ResponseWriter, r *http.Request, u *user) {
	next := r.FormValue("next")
	if next != "/devices" && next != "/email" {
		next = "/account" // anything else could lead to another site
	}
	render(w, r, "confirm", view{Title: "Is it you?", User: u.name, Next: next})
}

func (a *app) confirmBegin(w http.ResponseWriter, r *http.Request, u *user) {
	options, data, err := a.rp.BeginLogin(u) // with one of this user's passkeys
	if err != nil {
		fail(w, err)
		return
	}
	begin(session.From(r.Context()), ceremony{For: confirming, Data: *data})
	answer(w, http.StatusOK, options)
}

func (a *app) confirmFinish(w http.ResponseWriter, r *http.Request, u *user) {
	parsed, err := protocol.ParseCredentialRequestResponse(r)
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	c, err := take(r.Context(), session.From(r.Context()), confirming, parsed.Response.CollectedClientData.Challenge)
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	credential, err := a.rp.ValidateLogin(u, c.Data, parsed)
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	a.verified(w, r, u, credential)
}

// verified lets a user in whose passkey was just verified, unless there are two of it.
func (a *app) verified(w http.ResponseWriter, r *http.Request, u *user, credential *webauthn.Credential) {
	id, err := a.users.used(r.Context(), credential)
	switch {
	case errors.Is(err, errCopied):
		slog.Warn("passkey locked: there may be a copy of it", "user", u.id, "passkey", id)
		if _, err := a.endSessionsOf(r, id); err != nil {
			fail(w, err)
			return
		}
		refuse(w, http.StatusForbidden, "There may be a copy of this passkey, so it is locked. Please use another one, and remove it.")
	case errors.Is(err, errNoUser):
		refuseAnswer(w, err)
	case err != nil:
		fail(w, err)
	default:
		a.letIn(w, r, u.id, id)
	}
}

func (a *app) letIn(w http.ResponseWriter, r *http.Request, user, passkey int64) {
	letIn(session.From(r.Context()), user, passkey, deviceLabel(r))
	slog.Info("passkey used", "user", user, "passkey", passkey)
	answer(w, http.StatusOK, struct{}{})
}

// endSessionsOf ends all sessions in which a passkey was the last that was used, and
// says whether this one is among them. A login under way is found by member.
func (a *app) endSessionsOf(r *http.Request, passkey int64) (own bool, err error) {
	s := session.From(r.Context())
	_, err = a.sessions.Revoke(r.Context(), passkeyID.Is(passkey).Except(s))
	if id, ok := passkeyID.Get(s); ok && id == passkey {
		s.Destroy()
		own = true
	}
	return own, err
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// refuseAnswer tells browsers less than the log: what was wrong helps whoever tries.
func refuseAnswer(w http.ResponseWriter, err error) {
	slog.Warn("passkey refused", "error", err)
	refuse(w, http.StatusForbidden, "This passkey was not accepted. Please try again.")
}
