package main

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/pgsession/session"
	"golang.org/x/oauth2"
)

// settings are what the provider and this application have agreed on.
type settings struct {
	issuer, clientID, secret string
	home                     string // this application's URL, without a slash at its end
	formPost                 bool
}

// newApp asks the provider for its addresses and returns the application.
func newApp(ctx context.Context, cfg settings, accounts *accounts, sessions *session.Manager) (http.Handler, error) {
	c := &client{formPost: cfg.formPost, typedLogout: true, accounts: accounts, sessions: sessions, home: cfg.home + "/"}
	c.http = &http.Client{Timeout: 10 * time.Second} // the default waits for ever
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, c.http), cfg.issuer)
	if err != nil {
		return nil, fmt.Errorf("the provider: %w", err)
	}
	var more struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, fmt.Errorf("the provider: %w", err)
	}
	c.provider = provider
	if more.EndSession != "" {
		if c.endSession, err = url.Parse(more.EndSession); err != nil {
			return nil, fmt.Errorf("the provider: %w", err)
		}
	}
	c.verifier = provider.Verifier(&oidc.Config{ClientID: cfg.clientID, SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256, oidc.PS256}})
	c.oauth = oauth2.Config{
		ClientID: cfg.clientID, ClientSecret: cfg.secret, Endpoint: provider.Endpoint(),
		RedirectURL: cfg.home + "/login/callback", Scopes: []string{oidc.ScopeOpenID, "profile"},
	}
	return c.routes(), nil
}

// routes are the application's pages.
func (c *client) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.page)
	mux.HandleFunc("GET /account", c.page)
	mux.HandleFunc("GET /login", loginPage)
	mux.HandleFunc("POST /login", c.begin)
	mux.HandleFunc("POST /logout", c.logout)
	mux.HandleFunc("POST /logout/provider", c.providerLogout)

	protection := http.NewCrossOriginProtection()
	if c.formPost {
		mux.Handle("POST /login/callback", session.PostAgain(http.HandlerFunc(c.callback)))
		protection.AddInsecureBypassPattern("POST /login/callback") // it has a state
	} else {
		mux.HandleFunc("GET /login/callback", c.callback)
	}
	return secureHeaders(c.sites(), protection.Handler(c.sessions.Handler(mux)))
}

// sites are those of the provider that this application's forms lead to: its login's and
// its logout's, which may be two.
func (c *client) sites() (sites string) {
	pages := []*url.URL{c.endSession}
	if u, err := url.Parse(c.oauth.Endpoint.AuthURL); err == nil {
		pages = append(pages, u)
	}
	for _, u := range pages {
		if u != nil && u.Host != "" {
			sites += " " + u.Scheme + "://" + u.Host
		}
	}
	return sites
}

func secureHeaders(sites string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		// Browsers hold a redirect that follows a form to form-action as well.
		h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'"+sites+"; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin") // the callback's address has a code
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

var pages = template.Must(template.New("").Parse(`{{define "top"}}<!DOCTYPE html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{{.Title}}</title>{{end}}
{{define "account"}}{{template "top" .}}<main><h1>{{.Title}}</h1>
{{if .User}}<p>Hello, {{.User}}.</p><form method="post" action="/logout"><button>Log out</button></form>
{{else}}<p>You are not logged in.</p><p><a href="/account">Your account</a></p>{{end}}</main>{{end}}
{{define "login"}}{{template "top" .}}<main><h1>{{.Title}}</h1>
<form method="post" action="/login"><input type="hidden" name="return" value="{{.Return}}"><button>Log in with the provider</button></form></main>{{end}}
{{define "refused"}}{{template "top" .}}<main><h1>{{.Title}}</h1><p>{{.Problem}}</p><p><a href="/login">Log in again</a></p></main>{{end}}
`))

type view struct{ Title, User, Return, Problem string }

func render(w http.ResponseWriter, code int, page string, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if err := pages.ExecuteTemplate(w, page, v); err != nil {
		slog.Warn("page", "name", page, "error", err)
	}
}

func (c *client) page(w http.ResponseWriter, r *http.Request) {
	v := view{Title: "Bank"}
	id, ok := userID.Get(session.From(r.Context()))
	switch {
	case ok:
		name, err := c.accounts.name(r.Context(), id)
		if err != nil {
			unavailable(w, err)
			return
		}
		v.User = name
	case r.URL.Path != "/":
		http.Redirect(w, r, "/login?return="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return
	}
	render(w, http.StatusOK, "account", v)
}

func loginPage(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusOK, "login", view{Title: "Log in", Return: cmp.Or(r.FormValue("return"), "/account")})
}

func refuse(w http.ResponseWriter, code int, problem string) {
	render(w, code, "refused", view{Title: "Not logged in", Problem: problem})
}

func unavailable(w http.ResponseWriter, err error) {
	slog.Error("request failed", "error", err)
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, "We have a problem on our side. Please try again in a moment.")
}
