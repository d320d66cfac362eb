package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgsession/session/internal/pgtest"
)

// usage is what the client can do.
const usage = "use: login <name>, whoami, password or logout; nothing at all for the server"

// headerToken is the header in which a server of ours sends a token: at the login,
// whenever the session gets another ID, and where the server has another secret.
const headerToken = "Session-Token"

// client is the command line's way to the server.
type client struct {
	http   http.Client
	server *url.URL
	file   string // of the token
}

func newClient() (*client, error) {
	server, err := url.Parse(cmp.Or(os.Getenv("TOKEN_SERVER"), "http://localhost:8080"))
	if err != nil || server.Host == "" {
		return nil, errors.New("TOKEN_SERVER is no URL, such as https://shop.example")
	}
	// Who reads a token on its way has the session (RFC 6750, section 5.3).
	if name := server.Hostname(); server.Scheme != "https" && name != "localhost" && name != "127.0.0.1" && name != "::1" {
		return nil, errors.New("TOKEN_SERVER has no https: the token would go over the network in the clear")
	}
	file := os.Getenv("TOKEN_FILE")
	if file == "" {
		dir, err := pgtest.CacheDir("token")
		if err != nil {
			return nil, err
		}
		file = filepath.Join(dir, "client-token")
	}
	// Whoever a redirect leads to, on a port or by a scheme of its choice, would get
	// the token: Go takes it along to the same host.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{http.Client{Timeout: 30 * time.Second, CheckRedirect: stay}, server, file}, nil
}

// runClient carries out one command.
func runClient(ctx context.Context, args []string, out io.Writer) error {
	c, err := newClient()
	if err != nil {
		return err
	}
	switch command := args[0]; {
	case command == "login" && len(args) == 2:
		// Without the token of before: that one's session goes on.
		if err := c.forget(); err != nil {
			return err
		}
		return c.say(ctx, out, "POST", "/login", url.Values{"user": {args[1]}}, "logged in as %s\n")
	case command == "whoami" && len(args) == 1:
		return c.say(ctx, out, "GET", "/me", nil, "%s\n")
	case command == "password" && len(args) == 1:
		return c.say(ctx, out, "POST", "/password", nil, "changed the password of %s, and the token with it\n")
	case command == "logout" && len(args) == 1:
		if _, err := c.do(ctx, "POST", "/logout", nil); err != nil {
			return err
		}
		fmt.Fprintln(out, "logged out")
		return c.forget()
	}
	return errors.New(usage)
}

// say makes a request and prints who the server says we are.
func (c *client) say(ctx context.Context, out io.Writer, method, path string, form url.Values, text string) error {
	body, err := c.do(ctx, method, path, form)
	if err != nil {
		return err
	}
	var answer struct{ User string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the server's answer is no JSON: %w", err)
	}
	_, err = fmt.Fprintf(out, text, answer.User)
	return err
}

// do makes a request with the token, and keeps the one that comes: with an error's
// status too, for then the one of before is dead.
func (c *client) do(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.server.JoinPath(path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	token, err := os.ReadFile(c.file)
	switch {
	case err == nil:
		r.Header.Set("Authorization", "Bearer "+string(token))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		return nil, fmt.Errorf("the server answers with a redirect, which is not followed (%s): is TOKEN_SERVER right?", res.Status)
	}
	if token := res.Header.Get(headerToken); token != "" {
		if err := c.keep(token); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("you are not logged in: run login <name>")
	case res.StatusCode >= 300:
		return nil, fmt.Errorf("the server says: %s (%s)", strings.TrimSpace(string(body)), res.Status)
	}
	return body, nil
}

// keep writes a token where nobody else reads it, whole or not at all.
func (c *client) keep(token string) error {
	f, err := os.CreateTemp(filepath.Dir(c.file), "token-*") // readable by us alone
	if err != nil {
		return err
	}
	_, err = f.WriteString(token)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// forget drops the token.
func (c *client) forget() error {
	if err := os.Remove(c.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
