package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/pgsession/session"
)

// A logout token is good for a few minutes, whatever its exp says: so long its jti is
// remembered.
const (
	logoutTokenFor = 10 * time.Minute
	clockSkew      = time.Minute
	maxLogoutBytes = 64 << 10
)

// logout ends the session here, then sends the browser to the provider to end the login
// there (OpenID Connect RP-Initiated Logout 1.0).
func (c *client) logout(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	token, ok := idToken.Get(s)
	s.Destroy()
	if !ok || c.endSession == nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	to := *c.endSession
	query := to.Query() // it may have one of its own (section 2.1)
	query.Set("id_token_hint", token)
	query.Set("client_id", c.oauth.ClientID)
	query.Set("post_logout_redirect_uri", c.home)
	to.RawQuery = query.Encode()
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

// providerLogout is for the provider itself, which says that a login, or every login of
// a user, has ended (OpenID Connect Back-Channel Logout 1.0).
func (c *client) providerLogout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // section 2.8
	r.Body = http.MaxBytesReader(w, r.Body, maxLogoutBytes)
	raw := r.PostFormValue("logout_token")
	// A provider that does not wait for the answer means the logout all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
	defer cancel()
	token, err := c.logoutToken(ctx, raw)
	if err != nil {
		slog.Warn("logout token refused", "error", err)
		logoutFailed(w, "invalid_request")
		return
	}
	n, err := c.end(ctx, token)
	if err != nil {
		slog.Error("the provider's logout failed", "error", err) // it may send the same token again
		logoutFailed(w, "temporarily_unavailable")
		return
	}
	slog.Info("the provider has ended a login", "sessions", n)
}

// logoutFailed answers 400 whatever the reason is, as section 2.8 wants it.
func logoutFailed(w http.ResponseWriter, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": reason})
}

// logoutToken checks a logout token (section 2.6): go-oidc the signature, its algorithm,
// iss, aud, exp and jti, that it is a logout and has a sub or a sid and no nonce; this
// its type and age.
func (c *client) logoutToken(ctx context.Context, raw string) (*oidc.LogoutToken, error) {
	token, err := c.verifier.VerifyLogout(oidc.ClientContext(ctx, c.http), raw)
	if err != nil {
		return nil, err
	}
	var header struct {
		Type string `json:"typ"`
	}
	first, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	kind := strings.TrimPrefix(strings.ToLower(header.Type), "application/")
	switch age := time.Since(token.IssuedAt); {
	case err != nil, c.typedLogout && kind != "logout+jwt":
		return nil, errors.New("not of type logout+jwt")
	case age > logoutTokenFor, age < -clockSkew:
		return nil, errors.New("too old, or of the future")
	}
	return token, nil
}

// end destroys the sessions of the login that a token names, or of its user where it
// names no login (section 2.7), and returns how many there were.
func (c *client) end(ctx context.Context, token *oidc.LogoutToken) (int64, error) {
	// First it is written down, so that a login under way sees it: see callback.
	done, err := c.accounts.noteLogout(ctx, token.TokenID, token.Subject, token.SessionID, token.IssuedAt)
	if err != nil || done {
		return 0, err // done: the provider has not heard our answer, or somebody repeats the token
	}
	var n int64
	if token.SessionID != "" {
		n, err = c.sessions.Revoke(ctx, loginSID.Is(token.SessionID))
	} else if id, known, e := c.accounts.known(ctx, token.Subject); e != nil {
		err = e
	} else if known {
		n, err = c.sessions.Revoke(ctx, userID.Is(id))
	}
	if err != nil {
		return n, err
	}
	return n, c.accounts.logoutDone(ctx, token.TokenID)
}
