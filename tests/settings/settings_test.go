package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	userID = session.Key[int]("userId")
	cart   = session.Key[[]string]("cart")
)

// site is a program with a cart and a login: it answers with the user and the cart.
func site(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	switch r.URL.Path {
	case "/add", "/wiki/add":
		cart.Update(s, func(c []string) []string { return append(c, "tea") })
	case "/42", "/43":
		var id int
		fmt.Sscanf(r.URL.Path, "/%d", &id)
		userID.Set(s, id)
		s.Bind()
	case "/token":
		s.UseToken()
		userID.Set(s, 42)
	case "/big":
		session.Key[string]("big").Set(s, strings.Repeat("x", 5000))
	case "/logout":
		s.Destroy()
		return
	}
	id, _ := userID.Get(s)
	items, _ := cart.Get(s)
	fmt.Fprintf(w, "%d%v", id, items)
}

// client is a browser, or a program with a token.
type client struct {
	h       http.Handler
	base    string // "https://shop.example"
	header  http.Header
	cookies map[string]string
	last    *http.Response
}

func newClient(h http.Handler, base string) *client {
	return &client{h: h, base: base, header: http.Header{}, cookies: map[string]string{}}
}

func (c *client) get(path string) string {
	r := httptest.NewRequest("GET", c.base+path, nil)
	r.Header = c.header.Clone()
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	c.last = w.Result()
	for _, sent := range c.last.Cookies() {
		c.cookies[sent.Name] = sent.Value
		if sent.MaxAge < 0 {
			delete(c.cookies, sent.Name)
		}
	}
	if w.Code != http.StatusOK {
		return fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String()))
	}
	return w.Body.String()
}

func (c *client) want(t *testing.T, path, want string) {
	t.Helper()
	if got := c.get(path); got != want {
		t.Errorf("%s: got %q, want %q", path, got, want)
	}
}

// cookie returns the one cookie of the last response.
func (c *client) cookie(t *testing.T) *http.Cookie {
	t.Helper()
	cookies := c.last.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies: got %d, want 1", len(cookies))
	}
	return cookies[0]
}

type settings = func(session.Config) (session.Config, session.PostgresOptions)

// open is Open, with the secret in the environment and a log that nobody reads.
func open(t *testing.T, pool *pgxpool.Pool, f settings) *session.Manager {
	t.Helper()
	t.Setenv("SESSION_SECRET", "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa")
	m, err := Open(t.Context(), pool, quiet(f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func quiet(f settings) settings {
	return func(cfg session.Config) (session.Config, session.PostgresOptions) {
		cfg, options := f(cfg)
		cfg.Logger = slog.New(slog.DiscardHandler)
		cfg.StoreTimeout = max(cfg.StoreTimeout, 30*time.Second) // the machine may be busy
		options.Logger = cfg.Logger
		return cfg, options
	}
}

// inMemory is the same without a database, for a bubble.
func inMemory(t *testing.T, f settings) *session.Manager {
	t.Helper()
	cfg, _ := inMemoryConfig(f)
	m, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func inMemoryConfig(f settings) (session.Config, session.PostgresOptions) {
	return quiet(f)(session.Config{Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", DisablePrune: true})
}

func TestShop(t *testing.T) {
	m := open(t, pgtest.Pool(t), shop)
	h := m.Handler(http.HandlerFunc(site))
	c := newClient(h, "http://shop.example")
	c.header.Set("X-Forwarded-Proto", "https")
	c.want(t, "/add", "0[tea]")
	before := c.cookie(t)
	if !before.Secure || before.Domain != "" || before.Path != "/" || before.MaxAge != 14*24*3600 {
		t.Errorf("cookie: got Secure %v, Domain %q, Path %q, Max-Age %d", before.Secure, before.Domain, before.Path, before.MaxAge)
	}
	c.want(t, "/42", "42[tea]") // the cart is kept
	if c.cookie(t).Value == before.Value {
		t.Error("login: got the same ID, want another")
	}
	c.want(t, "/43", "43[]") // and not given to another user
	first := newClient(h, "http://shop.example")
	first.want(t, "/42", "42[]")
	for range 20 {
		newClient(h, "http://shop.example").want(t, "/42", "42[]")
	}
	first.want(t, "/", "0[]")
	if found, err := m.Sessions(t.Context(), userID.Is(42)); err != nil || len(found) != 20 {
		t.Errorf("sessions of user 42: got %d, %v, want 20", len(found), err)
	}
}

// A day of two visits a week does not end before the two weeks do.
func TestShopTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(inMemory(t, shop).Handler(http.HandlerFunc(site)), "https://shop.example")
		c.want(t, "/add", "0[tea]")
		for range 5 {
			time.Sleep(13 * 24 * time.Hour)
			c.want(t, "/", "0[tea]")
		}
		time.Sleep(14*24*time.Hour + time.Second)
		c.want(t, "/", "0[]")
	})
}

func TestBank(t *testing.T) {
	pool := pgtest.Pool(t)
	m := open(t, pool, bank)
	h := m.Handler(http.HandlerFunc(site))
	c := newClient(h, "https://bank.example")
	c.want(t, "/42", "42[]")
	got := c.cookie(t)
	if got.Name != "__Host-bank" || !got.Secure || !got.HttpOnly || got.Domain != "" || got.Path != "/" || got.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie: got %s, Secure %v, HttpOnly %v, Domain %q, Path %q, SameSite %v", got.Name, got.Secure, got.HttpOnly, got.Domain, got.Path, got.SameSite)
	}
	if got.MaxAge != 0 || !got.Expires.IsZero() {
		t.Error("cookie: got an expiry, want one that ends with the browser")
	}
	if !strings.Contains(c.last.Header.Get("Secure-Session-Registration"), "challenge") {
		t.Error("login: got no request to bind the session to the device")
	}
	c.want(t, "/add", "42[tea]")
	var id, data string
	if err := pool.QueryRow(t.Context(), `SELECT sid, sess::text FROM schema_system.session`).Scan(&id, &data); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(data, `"tea"`) || strings.Contains(data, `"userId"`) {
		t.Error("the table: got it readable, want it sealed")
	}
	if held := sessionID(t, m, c); held == "" || id == held {
		t.Error("the table: got the session ID, want its hash")
	}
	other := newClient(h, "https://bank.example")
	other.want(t, "/42", "42[]")
	c.want(t, "/", "0[]") // one login at a time
}

// sessionID returns what the client's cookie names.
func sessionID(t *testing.T, m *session.Manager, c *client) string {
	t.Helper()
	r := httptest.NewRequest("GET", c.base, nil)
	for name, value := range c.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return sessiontest.Look(t, m, r, nil).ID()
}

func TestBankTime(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between time.Duration
		times   int
		want    string
	}{
		{"in use", 4 * time.Minute, 14, "42[]"},
		{"in use for an hour", 4 * time.Minute, 15, "0[]"},
		{"left alone", 5*time.Minute + time.Second, 1, "0[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := sessiontest.NewDevice(t, inMemory(t, bank).Handler(http.HandlerFunc(site)))
				d.Get("/42")
				var got string
				for range tt.times {
					time.Sleep(tt.between)
					got = body(t, d.Get("/"))
				}
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// A browser that proves its device goes on where a copy of its cookies, and a
// browser that cannot, are out after minutes.
func TestBankDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := inMemory(t, bank).Handler(http.HandlerFunc(site))
		d := sessiontest.NewDevice(t, h)
		d.Get("/42")
		thief := d.Copy()
		for range 4 {
			time.Sleep(3 * time.Minute)
			if got := body(t, d.Get("/")); got != "42[]" {
				t.Errorf("the device: got %q, want 42[]", got)
			}
		}
		if got := body(t, thief.Get("/")); got != "0[]" {
			t.Errorf("the thief, twelve minutes later: got %q, want 0[]", got)
		}
		old := newClient(h, "https://bank.example") // knows nothing of binding
		old.want(t, "/43", "43[]")
		time.Sleep(3 * time.Minute)
		old.want(t, "/", "0[]")
	})
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
	return text
}

func TestIntranet(t *testing.T) {
	pool := pgtest.Pool(t)
	m := open(t, pool, intranet)
	h := m.Handler(http.HandlerFunc(site))
	proxied := newClient(h, "http://intranet.example")
	proxied.header.Set("X-Forwarded-Proto", "https")
	proxied.want(t, "/wiki/add", "0[tea]")
	if c := proxied.cookie(t); !c.Secure || c.Path != "/wiki/" || c.Name != "wiki" {
		t.Errorf("by the proxy: got Secure %v, Path %q, %q", c.Secure, c.Path, c.Name)
	}
	direct := newClient(h, "http://localhost:8080")
	direct.want(t, "/wiki/add", "0[tea]")
	if c := direct.cookie(t); c.Secure {
		t.Error("by plain HTTP: got Secure, want a cookie that comes back")
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM schema_system.wiki`).Scan(&n); err != nil || n != 2 {
		t.Errorf("rows of its table: got %d, %v, want 2", n, err)
	}
}

func TestIntranetTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(inMemory(t, intranet).Handler(http.HandlerFunc(site)), "https://intranet.example")
		c.want(t, "/add", "0[tea]")
		time.Sleep(9 * time.Hour)
		c.want(t, "/", "0[tea]")
		time.Sleep(6 * time.Hour) // used since, but it is another day
		c.want(t, "/", "0[]")
	})
}

func TestAPI(t *testing.T) {
	pool := pgtest.Pool(t)
	m := open(t, pool, api)
	h := m.Handler(http.HandlerFunc(site))
	c := newClient(h, "https://api.example")
	c.want(t, "/token", "42[]")
	token := c.last.Header.Get("Session-Token")
	if !strings.HasPrefix(token, "acme_") || len(c.cookies) != 0 {
		t.Fatalf("login: got the token's prefix %v and %d cookies", strings.HasPrefix(token, "acme_"), len(c.cookies))
	}
	c.want(t, "/", "0[]")
	c.header.Set("Authorization", "Bearer "+token)
	c.want(t, "/", "42[]")
	c.want(t, "/big", `500 {"error":"Internal Server Error"}`)
	c.want(t, "/", "42[]")
	if !json.Valid([]byte(c.get("/big")[4:])) || c.last.Header.Get("Content-Type") != "application/json" {
		t.Error("an error: got no JSON")
	}
	exec(t, pool, `ALTER TABLE schema_system.session RENAME TO away`)
	if got := c.get("/"); got != `503 {"error":"Service Unavailable"}` {
		t.Errorf("in an outage: got %q", got)
	}
	exec(t, pool, `ALTER TABLE schema_system.away RENAME TO session`)
}

// Its errors have the status of the default, in JSON.
func TestAPIError(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		retry  string
	}{
		{errors.New("the database is down"), 503, "5"},
		{session.ErrUncertain, 503, "5"},
		{session.ErrConflict, 409, ""},
		{session.ErrDestroyed, 409, ""},
		{session.ErrRenewed, 409, ""},
		{session.ErrInvalid, 500, ""},
		{session.ErrHeaderSent, 500, ""},
	} {
		w := httptest.NewRecorder()
		apiError(w, nil, fmt.Errorf("saving: %w", tt.err))
		if got := w.Header().Get("Retry-After"); w.Code != tt.status || got != tt.retry || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%v: got %d %s, Retry-After %q, want %d in JSON, and %q", tt.err, w.Code, w.Body, got, tt.status, tt.retry)
		}
	}
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func TestTenants(t *testing.T) {
	pool := pgtest.Pool(t)
	all := []tenant{
		{host: "ada.example", table: "ada", secret: "Ada7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa"},
		{host: "bob.example", table: "bob", secret: "Bob3Vx8nU1yC5oS9tM2dA7zI4qE6hK1gb"},
	}
	h, err := tenants(t.Context(), pool, all, http.HandlerFunc(site))
	if err != nil {
		t.Fatal(err)
	}
	ada, bob := newClient(h, "https://ada.example"), newClient(h, "https://bob.example:443")
	ada.want(t, "/42", "42[]")
	if c := ada.cookie(t); c.Domain != "" || !c.Secure {
		t.Errorf("cookie: got Domain %q, Secure %v", c.Domain, c.Secure)
	}
	bob.want(t, "/42", "42[]")
	bob.want(t, "/add", "42[tea]")
	ada.want(t, "/", "42[]")

	stolen := newClient(h, "https://bob.example")
	stolen.cookies = ada.cookies
	stolen.want(t, "/", "0[]")
	// The row in the other's table as well, under the same ID.
	exec(t, pool, `INSERT INTO tenants.bob SELECT * FROM tenants.ada`)
	stolen.want(t, "/", "0[]")
	if got := newClient(h, "https://eve.example").get("/add"); !strings.HasPrefix(got, "404") {
		t.Errorf("a host that is nobody's: got %q, want 404", got)
	}
	exec(t, pool, `DELETE FROM tenants.ada`) // as Revoke(ctx, session.Everyone()) does
	ada.want(t, "/", "0[]")
	bob.want(t, "/", "42[tea]")
}

func TestServerless(t *testing.T) {
	pool, err := serverlessPool(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	m := open(t, pool, serverless)
	// The handler holds a connection of its own while its session is saved.
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tx, err := pool.Begin(r.Context())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = tx.Rollback(r.Context()) }()
		site(w, r)
	}))
	c := newClient(h, "https://f.example")
	c.want(t, "/add", "0[tea]")
	c.want(t, "/42", "42[tea]")
	if got := pool.Stat().TotalConns(); got > 2 {
		t.Errorf("connections: got %d, want 2 at most", got)
	}
	// Nobody prunes but who is told to.
	cfg, _ := serverless(session.Config{})
	exec(t, pool, `UPDATE schema_system.session SET expire = now() - interval '1 day'`)
	if n, err := m.Prune(t.Context()); !cfg.DisablePrune || err != nil || n < 1 {
		t.Errorf("pruned: got %d, %v, DisablePrune %v, want the expired session", n, err, cfg.DisablePrune)
	}
}

// Every kind starts with nothing but a secret.
func TestSettingsAreAccepted(t *testing.T) {
	t.Parallel()
	for i, f := range []settings{shop, bank, intranet, api, serverless} {
		cfg, options := inMemoryConfig(f)
		m, err := session.New(session.NewMemoryStore(), cfg)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			continue
		}
		_ = m.Close()
		if cfg.MaxPerUser > 0 && !slices.Contains(options.IndexKeys, cfg.UserKey) {
			t.Errorf("%d: MaxPerUser without an index on the user's key", i)
		}
	}
}
