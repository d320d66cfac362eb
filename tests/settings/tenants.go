package settings

import (
	"context"
	"net"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

// tenant is one customer of several: a host, a secret and a table of its own.
type tenant struct {
	host, table string
	secret      string // from where you keep secrets: openssl rand -base64 48 for each
}

// tenants gives each host its handler. next gets the requests of all, with the
// tenant's session.
func tenants(ctx context.Context, pool *pgxpool.Pool, all []tenant, next http.Handler) (http.Handler, error) {
	handlers := map[string]http.Handler{}
	for _, t := range all {
		store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{
			Schema: "tenants", // beside each other, away from the tables of the application
			Table:  t.table,   // Revoke(ctx, session.Everyone()) ends this tenant's sessions and no others
		})
		if err != nil {
			return nil, err
		}
		m, err := session.New(store, session.Config{
			Secret:  t.secret, // a cookie of another tenant does not verify, wherever it is copied to
			Encrypt: true,     // nor does this secret open the rows of another
			UserKey: "userId", // user 42 of one is not user 42 of another: another table
			Cookie: session.CookieConfig{
				Name:   "__Host-session", // the browser sends it to this host alone: no Domain
				Secure: session.SecureAlways,
			},
		})
		if err != nil {
			return nil, err
		}
		handlers[t.host] = m.Handler(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if h, ok := handlers[host]; ok {
			h.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r) // a host that is nobody's gets no session
	}), nil
}
