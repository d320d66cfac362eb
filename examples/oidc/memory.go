package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// users are the provider's: their names, and the subjects by which applications know them.
var users = map[string]string{"ada": "subject-1", "bob": "subject-2"}

const (
	keyID    = "key"
	tokenFor = 5 * time.Minute
)

var errNone = errors.New("there is none")

// memory is what the provider keeps: op.Storage.
type memory struct {
	client application
	key    *rsa.PrivateKey

	mu       sync.Mutex
	requests map[string]*request
	codes    map[string]*request
	tokens   map[string]string // access tokens and their subjects
}

// request is a login that an application has asked for. A user has answered it when it
// has a subject.
type request struct {
	*oidc.AuthRequest
	id, subject, sid string
	at               time.Time
}

func newMemory(cfg settings) *memory {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // there is no randomness
	}
	return &memory{
		client: application{cfg.clientID, cfg.secret, cfg.home}, key: key,
		requests: map[string]*request{}, codes: map[string]*request{}, tokens: map[string]string{},
	}
}

// complete answers a request; false says that there is none.
func (m *memory) complete(id, user, sid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.requests[id]
	if r != nil {
		r.subject, r.sid, r.at = users[user], sid, time.Now()
	}
	return r != nil
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return nil }
func (r *request) GetAudience() []string              { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.at }
func (r *request) GetClientID() string                { return r.ClientID }
func (r *request) GetNonce() string                   { return r.Nonce }
func (r *request) GetRedirectURI() string             { return r.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }
func (r *request) GetScopes() []string                { return r.Scopes }
func (r *request) GetState() string                   { return r.State }
func (r *request) GetSubject() string                 { return r.subject }
func (r *request) Done() bool                         { return r.subject != "" }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

func (m *memory) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &request{AuthRequest: asked, id: rand.Text()}
	m.requests[r.id] = r
	return r, nil
}

func (m *memory) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	return m.find(m.requests, id)
}

func (m *memory) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	return m.find(m.codes, code)
}

func (m *memory) find(in map[string]*request, id string) (op.AuthRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := in[id]
	if r == nil {
		return nil, errNone
	}
	now := *r
	return &now, nil
}

func (m *memory) SaveAuthCode(_ context.Context, id, code string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.codes[code] = m.requests[id]
	return nil
}

func (m *memory) DeleteAuthRequest(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.requests, id)
	for code, r := range m.codes {
		if r.id == id {
			delete(m.codes, code)
		}
	}
	return nil
}

func (m *memory) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	token := rand.Text()
	m.tokens[token] = r.GetSubject()
	return token, time.Now().Add(tokenFor), nil
}

func (m *memory) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, asked op.IDTokenRequest, _ []string) error {
	info.Subject = asked.GetSubject()
	if r, ok := asked.(*request); ok {
		info.AppendClaims("sid", r.sid)
	}
	return nil
}

func (m *memory) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, token, _, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	info.Subject = m.tokens[token]
	for name, subject := range users {
		if subject == info.Subject {
			info.Name = name
		}
	}
	return nil
}

func (m *memory) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != m.client.id {
		return nil, errNone
	}
	return m.client, nil
}

func (m *memory) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != m.client.id || subtle.ConstantTimeCompare([]byte(secret), []byte(m.client.secret)) == 0 {
		return errNone
	}
	return nil
}

// signing and public are the key that tokens are signed with, and what all may know of it.
type (
	signing struct{ *rsa.PrivateKey }
	public  struct{ *rsa.PublicKey }
)

func (signing) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signing) Key() any                                  { return k.PrivateKey }
func (signing) ID() string                                  { return keyID }
func (public) ID() string                                   { return keyID }
func (public) Algorithm() jose.SignatureAlgorithm           { return jose.RS256 }
func (public) Use() string                                  { return "sig" }
func (k public) Key() any                                   { return k.PublicKey }

func (m *memory) SigningKey(context.Context) (op.SigningKey, error) { return signing{m.key}, nil }
func (m *memory) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (m *memory) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{public{&m.key.PublicKey}}, nil
}
func (m *memory) Health(context.Context) error { return nil }

// What follows is of no use here: refresh tokens, introspection, keys of applications.

func (m *memory) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errNone
}

func (m *memory) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errNone
}
func (m *memory) TerminateSession(context.Context, string, string) error { return nil }
func (m *memory) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrInvalidRequest()
}

func (m *memory) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (m *memory) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

func (m *memory) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNone
}

func (m *memory) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (m *memory) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNone
}

func (m *memory) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNone
}

// application is the one that the provider knows: op.Client.
type application struct{ id, secret, home string }

func (a application) GetID() string                       { return a.id }
func (a application) RedirectURIs() []string              { return []string{a.home + "/login/callback"} }
func (a application) PostLogoutRedirectURIs() []string    { return []string{a.home + "/"} }
func (a application) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (a application) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (a application) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (a application) GrantTypes() []oidc.GrantType { return []oidc.GrantType{oidc.GrantTypeCode} }
func (a application) LoginURL(id string) string    { return "/signin?request=" + id }
func (a application) AccessTokenType() op.AccessTokenType {
	return op.AccessTokenTypeBearer
}
func (a application) IDTokenLifetime() time.Duration                           { return tokenFor }
func (a application) DevMode() bool                                            { return true } // http
func (a application) RestrictAdditionalIdTokenScopes() func([]string) []string { return same }
func (a application) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return same
}
func (a application) IsScopeAllowed(string) bool           { return false }
func (a application) IDTokenUserinfoClaimsAssertion() bool { return false }
func (a application) ClockSkew() time.Duration             { return 0 }

func same(scopes []string) []string { return scopes }
