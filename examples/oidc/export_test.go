package main

import (
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

type (
	Settings = settings
	Provider = provider
)

var (
	NewProvider  = newProvider
	NewApp       = newApp
	OpenAccounts = openAccounts
	OpenSessions = openSessions
	LocalPath    = localPath
)

// Agreed are the settings of an application and a provider at these addresses.
func Agreed(app, provider string, formPost bool) Settings {
	return settings{issuer: provider, clientID: "bank", secret: "secret", home: app, formPost: formPost}
}

// LogoutToken is what the provider would send.
func LogoutToken(p *Provider, user, sid string) *oidc.LogoutTokenClaims {
	return oidc.NewLogoutTokenClaims(p.issuer, users[user], oidc.Audience{p.client.id}, time.Now().Add(2*time.Minute), "jti", sid, 0)
}

// Sign signs claims with the provider's key.
func Sign(p *Provider, kind string, claims any) (string, error) { return p.sign(kind, claims) }
