// Command oidc is an application whose users log in at an OpenID provider, and that
// provider, on two sites: logins with PKCE, nonce and state, in several tabs; single logout,
// begun here or there, which ends the sessions in every browser.
//
//	cd examples/oidc && go run .
//
// The application is http://localhost:8080, or PORT; the provider is 127.0.0.1 at a port of
// its own, which to a browser is another site. It asks no password: choose who you are. Log
// in with two browsers, then press "Log out everywhere" at the provider. With -form-post
// the provider sends users back by a form, as Apple does, instead of a link.
//
// DATABASE_URL names its database; without it, one is found or started. For an application
// that asks for passwords itself see ../more/login.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	formPost := flag.Bool("form-post", false, "the provider sends users back by a form")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	if err := run(ctx, *formPost); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, formPost bool) error {
	ln, err := net.Listen("tcp", "localhost:"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	defer ln.Close()
	pool, closeDatabase, err := openDatabase(ctx)
	if err != nil {
		return err
	}
	defer closeDatabase()
	cfg := settings{
		clientID: "bank", secret: rand.Text(), formPost: formPost,
		home: fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port),
	}
	failed := make(chan error, 2)

	// The provider: yours runs somewhere else, and here is its issuer and a secret.
	providerLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	cfg.issuer = "http://" + providerLn.Addr().String()
	provider, err := newProvider(cfg)
	if err != nil {
		return errors.Join(err, providerLn.Close())
	}
	defer provider.Close()
	defer serve(providerLn, provider, failed).Close()

	accounts, err := openAccounts(ctx, pool)
	if err != nil {
		return fmt.Errorf("accounts: %w", err)
	}
	sessions, err := openSessions(ctx, pool)
	if err != nil {
		return err
	}
	defer sessions.Close()
	app, err := newApp(ctx, cfg, accounts, sessions)
	if err != nil {
		return err
	}
	server := serve(ln, app, failed)
	slog.Info("the provider", "url", cfg.issuer)
	slog.Info("listening", "url", cfg.home)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(ctx)
}

func serve(ln net.Listener, h http.Handler, failed chan<- error) *http.Server {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute}
	go func() { failed <- server.Serve(ln) }()
	return server
}
