package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/pgsession/session"
)

const rememberTimeout = 30 * 24 * time.Hour

// Attempts to log in: so many at once, then one each interval. Whoever guesses at
// a name keeps its owner from logging in meanwhile, but logs nobody out.
const (
	nameBurst, nameInterval     = 10, 30 * time.Second
	clientBurst, clientInterval = 30, 5 * time.Second
)

var (
	errWrong   = errors.New("wrong user name or password")
	errTooMany = errors.New("too many attempts")
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,29}$`)

// formName reads the user name; capitals make no difference.
func formName(r *http.Request) string {
	return strings.ToLower(strings.TrimSpace(r.PostFormValue("name")))
}

func (a *app) signupForm(w http.ResponseWriter, r *http.Request) {
	render(w, r, http.StatusOK, "signup", view{Title: "Sign up"})
}

func (a *app) signup(w http.ResponseWriter, r *http.Request) {
	name, password := formName(r), r.PostFormValue("password")
	v := view{Title: "Sign up", Name: name, Remember: r.PostFormValue("remember") != ""}
	v.Problem = checkNewPassword(password)
	if !validName.MatchString(name) {
		v.Problem = "Please choose a user name of 2 to 30 letters a to z, digits, dots and dashes."
	}
	if v.Problem != "" {
		render(w, r, http.StatusUnprocessableEntity, "signup", v)
		return
	}
	u, err := a.addUser(r, name, password)
	switch {
	case errors.Is(err, errTaken):
		v.Problem = "This user name is taken. Please choose another."
		render(w, r, http.StatusUnprocessableEntity, "signup", v)
	case errors.Is(err, errTooMany):
		tooMany(w, r, "signup", v)
	case err != nil:
		fail(w, err)
	default:
		a.begin(w, r, u, v.Remember, "Welcome, "+u.name+". Your account is ready.")
	}
}

func (a *app) addUser(r *http.Request, name, password string) (user, error) {
	ok, err := a.users.attempt(r.Context(), "client "+a.client(r), clientBurst, clientInterval)
	if err == nil && !ok {
		err = errTooMany
	}
	if err != nil {
		return user{}, err
	}
	hash, err := hashPassword(r.Context(), password)
	if err != nil {
		return user{}, err
	}
	return a.users.add(r.Context(), name, hash)
}

func (a *app) loginForm(w http.ResponseWriter, r *http.Request) {
	if _, ok := userID.Get(session.From(r.Context())); ok {
		http.Redirect(w, r, "/account", http.StatusSeeOther)
		return
	}
	render(w, r, http.StatusOK, "login", view{Title: "Log in"})
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	v := view{Title: "Log in", Name: formName(r), Remember: r.PostFormValue("remember") != ""}
	u, err := a.authenticate(r, v.Name, r.PostFormValue("password"))
	switch {
	case errors.Is(err, errWrong):
		v.Problem = "User name or password is wrong."
		render(w, r, http.StatusUnprocessableEntity, "login", v)
	case errors.Is(err, errTooMany):
		tooMany(w, r, "login", v)
	case err != nil:
		fail(w, err)
	default:
		a.begin(w, r, u, v.Remember, "")
	}
}

// authenticate checks a password. It answers alike, and as late, whether the name
// or the password is wrong.
func (a *app) authenticate(r *http.Request, name, password string) (user, error) {
	ctx := r.Context()
	if !validName.MatchString(name) {
		name = ""
	}
	if err := a.countAttempt(ctx, name, a.client(r)); err != nil {
		return user{}, err
	}
	u, err := a.users.byName(ctx, name)
	if errors.Is(err, errNoUser) {
		u.password, err = nobody, nil
	}
	if err != nil {
		return user{}, err
	}
	ok, err := isPassword(ctx, u.password, password)
	if err != nil {
		return user{}, err
	}
	if !ok || u.id == 0 {
		slog.Warn("wrong password", "user", u.id, "client", a.client(r))
		return user{}, errWrong
	}
	return u, a.users.forget(ctx, "name "+name)
}

// countAttempt returns errTooMany if it is one too many.
func (a *app) countAttempt(ctx context.Context, name, client string) error {
	ok, err := a.users.attempt(ctx, "client "+client, clientBurst, clientInterval)
	if ok && err == nil && name != "" {
		ok, err = a.users.attempt(ctx, "name "+name, nameBurst, nameInterval)
	}
	if err == nil && !ok {
		slog.Warn("too many attempts to log in", "client", client)
		err = errTooMany
	}
	return err
}

func tooMany(w http.ResponseWriter, r *http.Request, page string, v view) {
	v.Problem = "These were many attempts. Please wait half a minute, then try again."
	w.Header().Set("Retry-After", "30")
	render(w, r, http.StatusTooManyRequests, page, v)
}

// begin logs a user in, with a message for the next page unless it is empty.
func (a *app) begin(w http.ResponseWriter, r *http.Request, u user, remember bool, message string) {
	s := session.From(r.Context())
	userID.Set(s, u.id) // it is Config.UserKey: what was set before, by another user or here, is not this one's
	s.Renew()           // an ID that somebody planted in this browser is worth nothing now; also if it is the same user
	s.Bind()            // nor, in a browser that can, is a copy of its cookies in some minutes
	version.Set(s, u.version)
	device.Set(s, deviceLabel(r.UserAgent()))
	if message != "" {
		flash.Set(s, message)
	}
	s.SetIdleTimeout(0) // the default
	if remember {
		s.SetIdleTimeout(rememberTimeout)
	}
	slog.Info("logged in", "user", u.id, "client", a.client(r), "remember", remember)
	http.Redirect(w, r, "/login/done", http.StatusSeeOther)
}

// loginDone is where a browser comes that has just got its cookie. One that has not
// kept it is told so, instead of the login again and again.
func (a *app) loginDone(w http.ResponseWriter, r *http.Request) {
	if _, ok := userID.Get(session.From(r.Context())); ok {
		http.Redirect(w, r, "/account", http.StatusSeeOther)
		return
	}
	render(w, r, http.StatusOK, "cookies", view{Title: "Please allow cookies"})
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
