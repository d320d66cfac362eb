package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/pgsession/session"
)

func (a *app) account(w http.ResponseWriter, r *http.Request, u *user) {
	render(w, r, "account", view{Title: "Account", User: u.name, Email: u.email})
}

func (a *app) emailForm(w http.ResponseWriter, r *http.Request, u *user) {
	render(w, r, "email", view{Title: "E-mail address", User: u.name, Email: u.email})
}

// changeEmail believes what it is told: a real program sends a link to the new address,
// and a notice to the old one.
func (a *app) changeEmail(w http.ResponseWriter, r *http.Request, u *user) {
	address, err := mail.ParseAddress(r.PostFormValue("email"))
	if err != nil || len(address.Address) > 254 {
		renderError(w, http.StatusUnprocessableEntity, "This is no e-mail address.")
		return
	}
	if err := a.users.setEmail(r.Context(), u.id, address.Address); err != nil {
		fail(w, err)
		return
	}
	slog.Info("e-mail address changed", "user", u.id)
	flash.Set(session.From(r.Context()), "Your e-mail address is changed.")
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

// passkeyView and sessionView are what the page "Your devices" shows.
type passkeyView struct {
	ID                int64
	Label             string
	Own               bool // the last one that was used in this session
	Synced, Locked    bool
	CreatedAt, UsedAt string
}

type sessionView struct {
	Handle, Label         string
	Own                   bool // the one that looks at the page
	CreatedAt, LastSeenAt string
}

func (a *app) devices(w http.ResponseWriter, r *http.Request, u *user) {
	s := session.From(r.Context())
	all, err := a.sessions.Sessions(r.Context(), userID.Is(u.id))
	if err != nil {
		fail(w, err)
		return
	}
	v := view{Title: "Your devices", User: u.name}
	own, _ := passkeyID.Get(s)
	for _, p := range u.passkeys {
		v.Passkeys = append(v.Passkeys, passkeyView{
			p.id, p.label, p.id == own, p.credential.Flags.BackupState, p.lockedAt != nil, day(p.createdAt), day(p.usedAt),
		})
	}
	for _, i := range all {
		label, _ := device.Of(i)
		v.Sessions = append(v.Sessions, sessionView{i.Handle, label, i.Handle == s.Handle(), day(i.CreatedAt), day(i.LastSeenAt)})
	}
	render(w, r, "devices", v)
}

func day(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// revoke logs one device out. The filter names sessions of this user only, whatever
// handle the form has.
func (a *app) revoke(w http.ResponseWriter, r *http.Request, u *user) {
	s, handle := session.From(r.Context()), r.PostFormValue("handle")
	if handle == s.Handle() {
		a.logout(w, r)
		return
	}
	n, err := a.sessions.Revoke(r.Context(), userID.Is(u.id).Handle(handle))
	switch {
	case errors.Is(err, session.ErrInvalid): // no handle
		renderError(w, http.StatusBadRequest, "The form names no device.")
		return
	case err != nil:
		fail(w, err)
		return
	case n == 0:
		flash.Set(s, "That device was logged out already.")
	default:
		flash.Set(s, "The device is logged out.")
	}
	http.Redirect(w, r, "/devices", http.StatusSeeOther)
}

func (a *app) revokeOthers(w http.ResponseWriter, r *http.Request, u *user) {
	s := session.From(r.Context())
	n, err := a.sessions.Revoke(r.Context(), userID.Is(u.id).Except(s))
	if err != nil {
		fail(w, err)
		return
	}
	flash.Set(s, fmt.Sprintf("Logged out everywhere else: %d.", n))
	http.Redirect(w, r, "/devices", http.StatusSeeOther)
}

func (a *app) addBegin(w http.ResponseWriter, r *http.Request, u *user) {
	var form struct{ Label string }
	if err := json.NewDecoder(r.Body).Decode(&form); err != nil {
		refuse(w, http.StatusBadRequest, "This is no form of ours.")
		return
	}
	label := strings.TrimSpace(form.Label)
	if label == "" || utf8.RuneCountInString(label) > 60 || strings.ContainsFunc(label, unicode.IsControl) { // NUL is no text to PostgreSQL
		refuse(w, http.StatusUnprocessableEntity, "Please give the passkey a name of up to 60 letters.")
		return
	}
	there := webauthn.Credentials(u.WebAuthnCredentials()).CredentialDescriptors() // an authenticator makes no second one
	options, data, err := a.rp.BeginRegistration(u, webauthn.WithExclusions(there))
	if err != nil {
		fail(w, err)
		return
	}
	begin(session.From(r.Context()), ceremony{For: adding, Data: *data, Label: label})
	answer(w, http.StatusOK, options)
}

func (a *app) addFinish(w http.ResponseWriter, r *http.Request, u *user) {
	c, credential, err := a.created(r, adding, func(ceremony) *user { return u })
	if err != nil {
		refuseAnswer(w, err)
		return
	}
	err = a.users.addPasskey(r.Context(), u, c.Label, credential)
	switch {
	case errors.Is(err, errTaken):
		refuse(w, http.StatusUnprocessableEntity, "This passkey is there already.")
	case err != nil:
		fail(w, err)
	default:
		slog.Info("passkey added", "user", u.id)
		flash.Set(session.From(r.Context()), "The passkey is added.")
		answer(w, http.StatusOK, struct{}{})
	}
}

// removePasskey ends what the passkey has let in, too: whoever removes one has lost the
// device with it, or somebody else has it.
func (a *app) removePasskey(w http.ResponseWriter, r *http.Request, u *user) {
	s := session.From(r.Context())
	id, _ := strconv.ParseInt(r.PostFormValue("passkey"), 10, 64) // 0 is nobody's
	err := a.users.removePasskey(r.Context(), u.id, id)
	switch {
	case errors.Is(err, errLast):
		flash.Set(s, "This is your only passkey: please add another before you remove it.")
		http.Redirect(w, r, "/devices", http.StatusSeeOther)
		return
	case errors.Is(err, errNoUser):
		flash.Set(s, "That passkey was removed already.")
		http.Redirect(w, r, "/devices", http.StatusSeeOther)
		return
	case err != nil:
		fail(w, err)
		return
	}
	slog.Info("passkey removed", "user", u.id, "passkey", id)
	own, err := a.endSessionsOf(r, id)
	if err != nil {
		fail(w, err)
		return
	}
	if own { // this session is over, and the message in a new one, nobody's
		flash.Set(s, "The passkey is removed. Please log in with another one.")
		s.SetIdleTimeout(ceremonyTimeout)
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	flash.Set(s, "The passkey is removed.")
	http.Redirect(w, r, "/devices", http.StatusSeeOther)
}
