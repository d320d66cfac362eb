package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/pgsession/session"
	"golang.org/x/oauth2"
)

const (
	idToken = session.Key[string]("idToken") // what the provider's logout asks for
	begun   = session.Key[map[string]login]("begun")
)

// A login that has begun, in one tab of perhaps several, has so long to come back.
const (
	beginFor = 15 * time.Minute
	maxBegun = 8
)

// login is what the session remembers of a login that has begun, by its state.
type login struct {
	Nonce    string    `json:"nonce"`    // comes back inside the ID token
	Verifier string    `json:"verifier"` // without it the code is worth nothing (RFC 7636)
	Return   string    `json:"return"`
	At       time.Time `json:"at"`
	Taken    string    `json:"taken,omitempty"` // by the one request that came back with it
}

// client is this application to the provider.
type client struct {
	oauth       oauth2.Config
	provider    *oidc.Provider
	verifier    *oidc.IDTokenVerifier
	endSession  *url.URL // the provider's logout page, nil for none
	home        string   // where that sends users back to
	formPost    bool     // the provider sends users back by a form
	typedLogout bool     // logout tokens say in their header what they are
	http        *http.Client
	accounts    *accounts
	sessions    *session.Manager
}

// begin sends a user to the provider. It is for POST: a link of another site begins no
// login.
func (c *client) begin(w http.ResponseWriter, r *http.Request) {
	state := rand.Text()
	l := login{Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Return: localPath(r.PostFormValue("return")), At: time.Now()}
	begun.Update(session.From(r.Context()), func(all map[string]login) map[string]login {
		if all == nil {
			all = map[string]login{}
		}
		maps.DeleteFunc(all, func(_ string, l login) bool { return time.Since(l.At) > beginFor })
		for len(all) >= maxBegun {
			delete(all, oldest(all))
		}
		all[state] = l
		return all
	})
	options := []oauth2.AuthCodeOption{oidc.Nonce(l.Nonce), oauth2.S256ChallengeOption(l.Verifier)}
	if c.formPost {
		options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
	}
	http.Redirect(w, r, c.oauth.AuthCodeURL(state, options...), http.StatusSeeOther)
}

// callback is where the provider sends the user back to, by a link or a form.
func (c *client) callback(w http.ResponseWriter, r *http.Request) {
	ctx, s := r.Context(), session.From(r.Context())
	l, ok := take(ctx, s, r.FormValue("state"))
	switch {
	case s.Err() != nil:
		return // the Manager's error handler answers
	case !ok:
		refuse(w, http.StatusForbidden, "This login was not begun in this browser, or it has taken too long.")
		return
	case r.FormValue("error") != "": // the user has said no, for instance; its text may be anybody's
		refuse(w, http.StatusForbidden, "The provider has not logged you in.")
		return
	}
	token, who, err := c.exchange(ctx, r.FormValue("code"), l)
	if err != nil {
		slog.Warn("login refused", "error", err)
		refuse(w, http.StatusForbidden, "The provider's answer was not what it has to be.")
		return
	}
	id, err := c.accounts.of(ctx, token.Subject, who.name)
	if err != nil {
		unavailable(w, err)
		return
	}
	userID.Set(s, id) // before the rest: what another user has left here is not this one's
	s.Renew()         // an ID that somebody planted in this browser is worth nothing now
	loginSID.Set(s, who.sid)
	idToken.Set(s, who.token)

	// The provider may have ended this login a moment ago, when there was no session
	// to be found yet. From here on there is one, so one of the two sees the other. A
	// Save that ctx cuts short goes on behind, and nobody would ask after it.
	if s.Save(context.WithoutCancel(ctx)) != nil {
		return
	}
	ended, err := c.accounts.ended(ctx, token.Subject, who.sid, token.IssuedAt, l.At)
	if err != nil || ended {
		s.Destroy()
	}
	switch {
	case err != nil:
		unavailable(w, err)
	case ended:
		refuse(w, http.StatusForbidden, "You were logged out meanwhile.")
	default:
		http.Redirect(w, r, l.Return, http.StatusSeeOther)
	}
}

// take returns the login that has begun with a state. Of several requests with the
// same state it does so for one.
func take(ctx context.Context, s *session.Session, state string) (login, bool) {
	if all, _ := begun.Get(s); all[state].Nonce == "" {
		return login{}, false // nothing is written for whoever makes a state up
	}
	mine := rand.Text()
	all, err := begun.UpdateNow(ctx, s, func(all map[string]login) map[string]login {
		if l, ok := all[state]; ok && l.Taken == "" {
			l.Taken = mine
			all[state] = l
		}
		return all
	})
	if err != nil || all[state].Taken != mine {
		return login{}, false
	}
	begun.Update(s, func(all map[string]login) map[string]login {
		delete(all, state)
		return all
	})
	return all[state], time.Since(all[state].At) <= beginFor
}

// whoever is what the session and the account need to know of a user.
type whoever struct{ token, sid, name string }

// exchange gets the ID token for a code and checks it (OpenID Connect Core 1.0, section
// 3.1.3.7): go-oidc the signature, its algorithm, iss, aud and exp, this the rest.
func (c *client) exchange(ctx context.Context, code string, l login) (*oidc.IDToken, whoever, error) {
	ctx = oidc.ClientContext(ctx, c.http)
	tokens, err := c.oauth.Exchange(ctx, code, oauth2.VerifierOption(l.Verifier))
	if err != nil {
		return nil, whoever{}, errors.New("the code was not accepted") // err holds the provider's answer
	}
	raw, _ := tokens.Extra("id_token").(string)
	token, err := c.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, whoever{}, fmt.Errorf("ID token: %w", err)
	}
	var claims struct {
		SID string `json:"sid"`
		AZP string `json:"azp"`
	}
	switch err := token.Claims(&claims); {
	case err != nil:
		return nil, whoever{}, errors.New("ID token: claims of another type")
	case token.Nonce != l.Nonce:
		return nil, whoever{}, errors.New("ID token: of another login")
	case token.Subject == "":
		return nil, whoever{}, errors.New("ID token: of nobody")
	case len(claims.SID) > 200:
		return nil, whoever{}, errors.New("ID token: a sid that no session could be found by") // see Key.Is
	case len(token.Audience) > 1, claims.AZP != "" && claims.AZP != c.oauth.ClientID: // item 3: none but those that we trust
		return nil, whoever{}, errors.New("ID token: for another application")
	}
	info, err := c.provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil {
		return nil, whoever{}, errors.New("the user's name cannot be had")
	}
	var profile struct {
		Name string `json:"name"`
	}
	if err := info.Claims(&profile); err != nil || info.Subject != token.Subject { // section 5.3.2
		return nil, whoever{}, errors.New("the user's name is another user's")
	}
	return token, whoever{raw, claims.SID, profile.Name}, nil
}

// localPath returns to if it is a page of this site, else "/". A browser takes what
// begins with // or /\ for another site, and leaves out tabs and line breaks.
func localPath(to string) string {
	odd := strings.ContainsFunc(to, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' })
	if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || odd || len(to) > 1000 {
		return "/"
	}
	return to
}

func oldest(all map[string]login) (state string) {
	for s, l := range all {
		if state == "" || l.At.Before(all[state].At) {
			state = s
		}
	}
	return state
}
