// Command docker runs PostgreSQL in a container until its standard input is closed.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/pgsession/session/internal/pgtest/provider"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

func main() { provider.Exit(run(context.Background())) }

func run(ctx context.Context) error {
	password := cmp.Or(os.Getenv("PGTEST_PASSWORD"), rand.Text())
	c, err := testcontainers.Run(ctx, cmp.Or(os.Getenv("PGTEST_IMAGE"), "postgres:17-alpine"),
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": password}),
		testcontainers.WithExposedPorts("5432/tcp"),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			// A bind of the plain name: a volume that testcontainers made would
			// carry its label, and be removed with the container.
			if volume := os.Getenv("PGTEST_VOLUME"); volume != "" {
				hc.Binds = append(hc.Binds, volume+":/var/lib/postgresql/data")
			}
		}),
		testcontainers.WithWaitStrategy(wait.ForListeningPort("5432/tcp")),
	)
	if err != nil {
		return errors.Join(err, testcontainers.TerminateContainer(c))
	}
	return errors.Join(offer(ctx, c, password), testcontainers.TerminateContainer(c))
}

func offer(ctx context.Context, c testcontainers.Container, password string) error {
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	port, err := c.MappedPort(ctx, "5432/tcp")
	if err != nil {
		return err
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", password),
		Host: net.JoinHostPort(host, port.Port()), Path: "/postgres", RawQuery: "sslmode=disable",
	}
	return provider.Serve(provider.Offer{URL: u.String()})
}
