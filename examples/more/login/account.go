package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/pgsession/session"
)

func (a *app) account(w http.ResponseWriter, r *http.Request, u user) {
	s := session.From(r.Context())
	all, err := a.sessions.Sessions(r.Context(), userID.Is(u.id))
	if err != nil {
		fail(w, err)
		return
	}
	label, _ := device.Get(s)
	render(w, r, http.StatusOK, "account", view{
		Title: "Account", User: u.name, Admin: u.admin, Sessions: len(all),
		Device: deviceView{Label: label, CreatedAt: moment{s.CreatedAt()}},
	})
}

// deviceView is a session of the user's as the pages show it.
type deviceView struct {
	Handle     string
	Label      string
	Own        bool // the one that looks at the page
	Bound      bool // to the browser's device
	CreatedAt  moment
	LastSeenAt moment
}

// Mobile picks the picture.
func (d deviceView) Mobile() bool { return mobile.MatchString(d.Label) }

func (a *app) devices(w http.ResponseWriter, r *http.Request, u user) {
	all, err := a.sessions.Sessions(r.Context(), userID.Is(u.id))
	if err != nil {
		fail(w, err)
		return
	}
	own := session.From(r.Context()).Handle()
	v := view{Title: "Your devices", User: u.name, Sessions: len(all)}
	for _, i := range all {
		label, _ := device.Of(i)
		d := deviceView{i.Handle, label, i.Handle == own, i.Bound, moment{i.CreatedAt}, moment{i.LastSeenAt}}
		if d.Own {
			v.Devices = slices.Insert(v.Devices, 0, d)
		} else {
			v.Devices = append(v.Devices, d)
		}
	}
	render(w, r, http.StatusOK, "devices", v)
}

// revoke logs one device out. The filter names sessions of this user only, whatever
// handle the form has.
func (a *app) revoke(w http.ResponseWriter, r *http.Request, u user) {
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

func (a *app) revokeOthers(w http.ResponseWriter, r *http.Request, u user) {
	s := session.From(r.Context())
	n, err := a.sessions.Revoke(r.Context(), userID.Is(u.id).Except(s))
	if err != nil {
		fail(w, err)
		return
	}
	flash.Set(s, fmt.Sprintf("Logged out everywhere else: %d.", n))
	http.Redirect(w, r, "/devices", http.StatusSeeOther)
}

// nextPages are those that ask for the password again.
var nextPages = map[string]bool{"/password": true, "/delete": true, adminPath: true}

func (a *app) confirmForm(w http.ResponseWriter, r *http.Request, u user) {
	render(w, r, http.StatusOK, "confirm", view{Title: "Is it you?", User: u.name, Next: r.FormValue("next")})
}

func (a *app) confirm(w http.ResponseWriter, r *http.Request, u user) {
	v := view{Title: "Is it you?", User: u.name, Next: r.PostFormValue("next")}
	_, err := a.authenticate(r, u.name, r.PostFormValue("password"))
	switch {
	case errors.Is(err, errWrong):
		v.Problem = "The password is wrong."
		render(w, r, http.StatusUnprocessableEntity, "confirm", v)
		return
	case errors.Is(err, errTooMany):
		tooMany(w, r, "confirm", v)
		return
	case err != nil:
		fail(w, err)
		return
	}
	session.From(r.Context()).Renew() // its time counts for stepUpAfter
	if !nextPages[v.Next] {
		v.Next = "/account" // anything else could lead to another site
	}
	http.Redirect(w, r, v.Next, http.StatusSeeOther)
}

func (a *app) passwordForm(w http.ResponseWriter, r *http.Request, u user) {
	render(w, r, http.StatusOK, "password", view{Title: "Change password", User: u.name})
}

// changePassword stores the new hash first: what logs in with the old password from
// then on fails, and what has got in before is revoked.
func (a *app) changePassword(w http.ResponseWriter, r *http.Request, u user) {
	password := r.PostFormValue("password")
	if problem := checkNewPassword(password); problem != "" {
		render(w, r, http.StatusUnprocessableEntity, "password", view{Title: "Change password", User: u.name, Problem: problem})
		return
	}
	hash, err := hashPassword(r.Context(), password)
	if err == nil {
		u, err = a.users.setPassword(r.Context(), u.id, hash)
	}
	if err != nil {
		fail(w, err)
		return
	}
	s := session.From(r.Context())
	if _, err := a.sessions.Revoke(r.Context(), userID.Is(u.id).Except(s)); err != nil {
		slog.Error("sessions of an old password are refused, but not deleted yet", "user", u.id, "error", err)
	}
	s.Renew()
	version.Set(s, u.version)
	flash.Set(s, "Your password is changed, and you are logged out everywhere else.")
	slog.Info("password changed", "user", u.id, "client", a.client(r))
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func (a *app) deleteForm(w http.ResponseWriter, r *http.Request, u user) {
	render(w, r, http.StatusOK, "delete", view{Title: "Delete account", User: u.name})
}

func (a *app) deleteAccount(w http.ResponseWriter, r *http.Request, u user) {
	if err := a.users.remove(r.Context(), u.id); err != nil {
		fail(w, err)
		return
	}
	if _, err := a.sessions.Revoke(r.Context(), userID.Is(u.id)); err != nil {
		slog.Error("sessions of a deleted user are refused, but not deleted yet", "user", u.id, "error", err)
	}
	slog.Info("account deleted", "user", u.id, "client", a.client(r))
	s := session.From(r.Context())
	s.Destroy()
	flash.Set(s, "Your account is deleted.") // in a new session, nobody's
	s.SetIdleTimeout(time.Minute)            // which need not live long
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
