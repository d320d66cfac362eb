package web

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/gorilla/sessions"
	"github.com/markbates/goth"
	"github.com/markbates/goth/gothic"
	"github.com/pgsession/session"
)

const userID = session.Key[string]("userId") // Config.UserKey

// oauth1 are those of the providers that speak OAuth 1: they have no state, but their
// answer fits only the token that gothic has noted.
var oauth1 = []string{"twitter", "twitterv2"}

// gothicStore keeps in the session what gothic notes of a login that has begun.
type gothicStore struct{}

func (g gothicStore) Get(r *http.Request, name string) (*sessions.Session, error) {
	return g.New(r, name)
}

func (g gothicStore) New(r *http.Request, name string) (*sessions.Session, error) {
	s := session.From(r.Context())
	noted := sessions.NewSession(g, name)
	values, ok := session.Key[map[string][]byte](name).Get(s)
	for key, value := range values {
		noted.Values[key] = string(value)
	}
	noted.IsNew = !ok
	return noted, s.Err()
}

// Save takes texts alone, which is all that gothic has. They are compressed, so they are
// kept as bytes: JSON would not bring them back as they were.
func (g gothicStore) Save(r *http.Request, _ http.ResponseWriter, noted *sessions.Session) error {
	s, kept := session.From(r.Context()), session.Key[map[string][]byte](noted.Name())
	if noted.Options.MaxAge < 0 { // the login has come back: that ends, and not the visitor's session
		kept.Delete(s)
		return s.Err()
	}
	values := map[string][]byte{}
	for key, value := range noted.Values {
		name, isText := key.(string)
		text, isTextToo := value.(string)
		if !isText || !isTextToo {
			return fmt.Errorf("a %T by a %T is no text", value, key)
		}
		values[name] = []byte(text)
	}
	kept.Set(s, values)
	return s.Err()
}

// App is the application: mux with the logins by these providers, and around it what
// refuses other sites' forms, but for the callback, which has a state (see begin). gothic's settings
// are the program's, so call it once.
func App(sessions *session.Manager, mux *http.ServeMux, providers ...goth.Provider) http.Handler {
	goth.UseProviders(providers...)
	gothic.Store = gothicStore{}
	gothic.SetState = func(*http.Request) string { return rand.Text() } // or gothic takes one out of the URL, which anybody writes
	mux.HandleFunc("POST /login/{provider}", begin)
	mux.HandleFunc("GET /login/{provider}/callback", callback)
	mux.Handle("POST /login/{provider}/callback", session.PostAgain(http.HandlerFunc(callback))) // Apple
	mux.HandleFunc("POST /logout", logout)
	protection := http.NewCrossOriginProtection()
	protection.AddInsecureBypassPattern("POST /login/{provider}/callback")
	return protection.Handler(sessions.Handler(mux))
}

func begin(w http.ResponseWriter, r *http.Request) {
	to, err := gothic.GetAuthURL(w, r)
	if err != nil {
		http.Error(w, "There is no such provider.", http.StatusNotFound)
		return
	}
	u, err := url.Parse(to)
	name, _ := gothic.GetProviderName(r)
	if (err != nil || u.Query().Get("state") == "") && !slices.Contains(oauth1, name) {
		_ = gothic.Logout(w, r) // or the callback would take any answer for that of the login that gothic has noted
		http.Error(w, "This provider's answers could be forged.", http.StatusForbidden)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther) // gothic's own handler sends a 307, by which a form is posted on to the provider
}

func callback(w http.ResponseWriter, r *http.Request) {
	user, err := gothic.CompleteUserAuth(w, r)
	if err != nil || user.UserID == "" { // all whom a provider leaves without one would share an account
		http.Error(w, "This login was not begun in this browser, or the provider has refused it.", http.StatusForbidden)
		return
	}
	s := session.From(r.Context())
	userID.Set(s, user.Provider+" "+user.UserID) // not the address, which may become somebody else's
	s.Renew()
	http.Redirect(w, r, "/account", http.StatusSeeOther)
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
