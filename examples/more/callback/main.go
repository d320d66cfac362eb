// Command callback is a shop whose users log in with somebody else: a provider on
// another site, which sends them back by a form, as Apple and SAML do. Their browsers
// bring no cookie with that form, and yet the login and the cart are there.
//
//	cd examples/more && go run ./callback
//
// The shop is http://localhost:8080, or PORT; the provider is 127.0.0.1 at a port of
// its own, which to a browser is another site. Sessions are in memory: there is nothing
// here to be kept. For an application to copy from see ../login.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop)
	if err := run(ctx); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := pgtest.EnsureSecret("callback"); err != nil {
		return err
	}
	cfg, err := session.ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.UserKey = string(user)
	sessions, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		return err
	}
	defer sessions.Close()
	shop, err := net.Listen("tcp", "localhost:"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		return fmt.Errorf("listen on PORT: %w", err)
	}
	provider, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	shopURL := fmt.Sprintf("http://localhost:%d", shop.Addr().(*net.TCPAddr).Port)
	failed := make(chan error, 2)
	for _, s := range []struct {
		ln net.Listener
		h  http.Handler
	}{{provider, newProvider(shopURL)}, {shop, newShop(sessions, "http://"+provider.Addr().String())}} {
		server := &http.Server{Handler: s.h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
		defer server.Close()
		go func() { failed <- server.Serve(s.ln) }()
	}
	slog.Info("listening", "url", shopURL)
	select {
	case err := <-failed:
		return errors.Join(err, ctx.Err())
	case <-ctx.Done():
		return nil
	}
}
