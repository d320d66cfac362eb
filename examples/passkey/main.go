// Command passkey is an application without passwords: sign-up and login with a
// passkey, "your devices", the passkey asked for again before what matters.
//
//	cd examples/passkey && go run .
//
// It listens on HOST (default 127.0.0.1) and PORT (default 8080). ORIGIN is the address
// that browsers know it by, such as https://login.example.com, where a proxy does HTTPS
// for it; without it http://localhost with that port, for which browsers allow passkeys
// without HTTPS. DATABASE_URL names its database; without it, one is found or started.
// SESSION_SECRET and SESSION_TIMEOUT are the library's.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
)

const (
	maxPerUser      = 10                  // the eleventh login ends the oldest
	absoluteTimeout = 90 * 24 * time.Hour // then the passkey is asked for, however much the session is used
	shutdownTimeout = 10 * time.Second    // for requests under way after Ctrl-C
)

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ln, err := net.Listen("tcp", net.JoinHostPort(cmp.Or(os.Getenv("HOST"), "127.0.0.1"), cmp.Or(os.Getenv("PORT"), "8080")))
	if err != nil {
		return fmt.Errorf("listen on HOST and PORT: %w", err)
	}
	defer ln.Close()
	origin := cmp.Or(os.Getenv("ORIGIN"), fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port))
	rp, https, err := relyingParty(origin)
	if err != nil {
		return fmt.Errorf("ORIGIN: %w", err)
	}
	dsn, closeDatabase, err := findDatabase(ctx) // yours: os.Getenv("DATABASE_URL")
	if err != nil {
		return err
	}
	defer closeDatabase()
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()

	users, err := openUsers(ctx, pool)
	if err != nil {
		return err
	}
	sessions, err := openSessions(ctx, pool, https)
	if err != nil {
		return err
	}
	defer sessions.Close()
	return serve(ctx, ln, origin, newApp(users, sessions, rp, https))
}

// relyingParty is this application as passkeys know it: by its host, for good. A
// passkey works at no other, and so cannot be phished.
func relyingParty(origin string) (rp *webauthn.WebAuthn, https bool, err error) {
	u, err := url.Parse(strings.ToLower(origin)) // as browsers write it
	if err != nil {
		return nil, false, err
	}
	https = u.Scheme == "https"
	local := u.Scheme == "http" && u.Hostname() == "localhost"
	if !https && !local || u.Hostname() == "" || strings.TrimSuffix(u.Path, "/") != "" {
		return nil, false, errors.New("want an address such as https://login.example.com, without a path; http for localhost only")
	}
	timeout := webauthn.TimeoutConfig{Enforce: true, Timeout: ceremonyTimeout, TimeoutUVD: ceremonyTimeout}
	rp, err = webauthn.New(&webauthn.Config{
		RPID:          u.Hostname(),
		RPOrigins:     []string{u.Scheme + "://" + u.Host},
		RPDisplayName: "session passkey",
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey:      protocol.ResidentKeyRequirementRequired, // a login asks for no user name
			UserVerification: protocol.VerificationRequired,           // a finger, a face, a PIN: two factors in one
		},
		AttestationPreference: protocol.PreferNoAttestation, // of what make it is does not matter here
		Timeouts:              webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
	})
	return rp, https, err
}

func openSessions(ctx context.Context, pool *pgxpool.Pool, https bool) (*session.Manager, error) {
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	store, err := session.NewPostgresStore(ctx, pool, session.PostgresOptions{
		IndexKeys: []string{string(userID), string(passkeyID)}, // their sessions are found without reading the table
		HashIDs:   true,                                        // a stolen backup logs nobody in
	})
	if err != nil {
		return nil, err
	}
	cfg.AbsoluteTimeout = absoluteTimeout
	cfg.UserKey = string(userID)
	cfg.MaxPerUser = maxPerUser
	cfg.ErrorHandler = sessionFailed
	if https {
		cfg.Cookie.Name = "__Host-session"       // no other host below the domain can set it
		cfg.Cookie.Secure = session.SecureAlways // which that name needs
	}
	return session.New(store, cfg)
}

// serve answers requests until ctx ends, and lets those under way finish.
func serve(ctx context.Context, ln net.Listener, origin string, app http.Handler) error {
	server := &http.Server{
		Handler:           app,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	slog.Info("listening", "url", origin, "address", ln.Addr().String())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	slog.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		slog.Warn("requests still under way are cut off", "error", err)
		return server.Close()
	}
	return nil
}
