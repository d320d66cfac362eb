package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/pgsession/session"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// provider is an OpenID provider, by zitadel/oidc, for trying this example: two users
// without passwords, one application, everything in memory. Sessions of its own keep its
// users logged in. zitadel/oidc sends no back-channel logouts, so this does.
type provider struct {
	http.Handler
	*memory
	issuer   string
	sessions *session.Manager
	logout   string // where the application wants to hear of logouts
	http     *http.Client
	callback func(context.Context, string) string
}

// The keys of the provider's own sessions.
const (
	providerUser = session.Key[string]("user")
	providerSID  = session.Key[string]("sid")
)

func newProvider(cfg settings) (*provider, error) {
	key := rand.Text()
	p := &provider{memory: newMemory(cfg), issuer: cfg.issuer, logout: cfg.home + "/logout/provider", http: &http.Client{Timeout: 10 * time.Second}}
	config := &op.Config{
		CodeMethodS256: true, DefaultLogoutRedirectURI: cfg.issuer + "/",
		BackChannelLogoutSupported: true, BackChannelLogoutSessionSupported: true,
	}
	copy(config.CryptoKey[:], key+key)
	protocol, err := op.NewProvider(config, p, op.StaticIssuer(cfg.issuer), op.WithAllowInsecure())
	if err != nil {
		return nil, err
	}
	p.sessions, err = session.New(session.NewMemoryStore(), session.Config{
		Secret: key + key, UserKey: string(providerUser), Cookie: session.CookieConfig{Name: "provider"},
	})
	if err != nil {
		return nil, err
	}
	p.callback = op.AuthCallbackURL(protocol)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.page)
	mux.Handle("GET /signin", op.NewIssuerInterceptor(protocol.IssuerFromRequest).HandlerFunc(p.page))
	mux.Handle("POST /signin", op.NewIssuerInterceptor(protocol.IssuerFromRequest).HandlerFunc(p.signin))
	mux.HandleFunc("POST /everywhere", p.everywhere)
	mux.Handle("/", protocol)
	p.Handler = http.NewCrossOriginProtection().Handler(p.sessions.Handler(mux))
	return p, nil
}

// Close ends the provider's sessions' goroutines.
func (p *provider) Close() error { return p.sessions.Close() }

var providerPage = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Provider</title>
<main><h1>Provider</h1>
{{if .User}}<p>You are {{.User}} here.</p><form method="post" action="/everywhere"><button>Log out everywhere</button></form>
{{else}}<p>Who are you?</p><form method="post" action="/signin"><input type="hidden" name="request" value="{{.Request}}">
<button name="user" value="ada">I am ada</button> <button name="user" value="bob">I am bob</button></form>{{end}}</main>
`))

// page asks who the user is. Who is logged in goes on to the application at once.
func (p *provider) page(w http.ResponseWriter, r *http.Request) {
	s, request := session.From(r.Context()), r.FormValue("request")
	user, ok := providerUser.Get(s)
	sid, _ := providerSID.Get(s)
	if ok && request != "" && p.complete(request, user, sid) {
		http.Redirect(w, r, p.callback(r.Context(), request), http.StatusSeeOther)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = providerPage.Execute(w, map[string]string{"User": user, "Request": request})
}

func (p *provider) signin(w http.ResponseWriter, r *http.Request) {
	user, sid := r.PostFormValue("user"), rand.Text()
	if users[user] == "" {
		http.Error(w, "Nobody has this name.", http.StatusForbidden)
		return
	}
	s := session.From(r.Context())
	providerUser.Set(s, user)
	s.Renew()
	providerSID.Set(s, sid)
	request := r.PostFormValue("request")
	if request == "" || !p.complete(request, user, sid) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, p.callback(r.Context(), request), http.StatusSeeOther)
}

// everywhere ends all logins of a user, and tells the application.
func (p *provider) everywhere(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if user, ok := providerUser.Get(s); ok {
		if _, err := p.sessions.Revoke(r.Context(), providerUser.Is(user)); err != nil {
			slog.Error("provider", "error", err)
		}
		s.Destroy()
		p.tell(r.Context(), user, "")
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// TerminateSessionFromRequest is the application's logout. The login of another browser
// than this one is left alone, whoever has its ID token.
func (p *provider) TerminateSessionFromRequest(ctx context.Context, request *op.EndSessionRequest) (string, error) {
	s := session.From(ctx)
	user, _ := providerUser.Get(s)
	sid, ok := providerSID.Get(s)
	if ok && request.IDTokenHintClaims != nil && request.IDTokenHintClaims.SessionID == sid {
		s.Destroy()
		p.tell(ctx, user, sid)
	}
	return request.RedirectURI, nil
}

// tell sends a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.5). One
// without a sid is for all logins of the user.
func (p *provider) tell(ctx context.Context, user, sid string) {
	err := func() error {
		token, err := p.sign("logout+jwt", oidc.NewLogoutTokenClaims(p.issuer, users[user], oidc.Audience{p.client.id}, time.Now().Add(2*time.Minute), rand.Text(), sid, 0))
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.logout, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := p.http.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", res.StatusCode)
		}
		return nil
	}()
	if err != nil {
		slog.Error("provider: the application has not heard of a logout", "error", err) // a real one tries again
	}
}

// sign signs claims with the key that the provider's ID tokens are signed with.
func (p *provider) sign(kind string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: p.key, KeyID: keyID}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(kind)))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
