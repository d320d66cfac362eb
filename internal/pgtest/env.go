package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// connectTimeout bounds one attempt to reach a server.
const connectTimeout = 10 * time.Second

// fromEnv gives the server that the environment names, or nil.
func fromEnv(ctx context.Context) (*Server, error) {
	dsn, name, psql := os.Getenv("DATABASE_URL"), "DATABASE_URL", "psql $DATABASE_URL"
	if dsn == "" {
		dsn, name = urlFromParts(os.Getenv)
		psql = "" // its own variables are others
	}
	if dsn == "" {
		return nil, nil
	}
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return nil, fmt.Errorf("pgtest: %s must look like postgres://user:password@host:5432/database?connect_timeout=2", name)
	}
	if err := ping(ctx, dsn); err != nil {
		return nil, fmt.Errorf("pgtest: %s: %w", name, err)
	}
	return &Server{url: dsn, source: "server named by " + name + ", " + describe(dsn), psql: psql, close: func() error { return nil }}, nil
}

// urlFromParts puts DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME together;
// what is missing has PostgreSQL's usual value. It returns "" when all are missing.
func urlFromParts(getenv func(string) string) (dsn, name string) {
	value, set := map[string]string{}, []string{}
	for _, key := range []string{"DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"} {
		if value[key] = getenv(key); value[key] != "" {
			set = append(set, key)
		}
	}
	if len(set) == 0 {
		return "", ""
	}
	or := func(key, usual string) string {
		if value[key] != "" {
			return value[key]
		}
		return usual
	}
	user := or("DB_USER", "postgres")
	u := url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + or("DB_NAME", user)}
	if value["DB_PASSWORD"] != "" {
		u.User = url.UserPassword(user, value["DB_PASSWORD"])
	}
	host, port := or("DB_HOST", "localhost"), or("DB_PORT", "5432")
	if strings.HasPrefix(host, "/") { // the directory of a Unix socket
		u.RawQuery = url.Values{"host": {host}, "port": {port}}.Encode()
	} else {
		u.Host = net.JoinHostPort(host, port)
	}
	return u.String(), strings.Join(set, ", ")
}

// ping connects once. Its error names host, port, database and user and has no
// password in it.
func ping(ctx context.Context, dsn string) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The parser's error quotes the string; what it hides of a password is a
		// guess when the string is malformed.
		return errors.New("not a valid connection string: it must look like postgres://user:password@host:5432/database?connect_timeout=2 (%-encode special characters of the password)")
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("no connection to PostgreSQL at %s: %w", describe(dsn), err)
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}

// describe names the server of a connection string without its password.
func describe(dsn string) string {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "an invalid connection string"
	}
	return fmt.Sprintf("host %s, port %d, database %s, user %s", cfg.Host, cfg.Port, cfg.Database, cfg.User)
}
