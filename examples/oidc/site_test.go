package main_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pgsession/session"
	main "github.com/pgsession/session/examples/oidc"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) {
	os.Setenv("SESSION_SECRET", exampletest.Secret)
	exampletest.Main(m)
}

var must = exampletest.Must

// site is the application and its provider, two sites to a browser.
type site struct {
	t             *testing.T
	app, provider string
	pool          *pgxpool.Pool
	sessions      *session.Manager
	issuer        *main.Provider

	exchanges atomic.Int64                                                      // codes that were exchanged
	tamper    atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool] // answers in the provider's place
}

func newSite(t *testing.T, formPost bool) *site {
	t.Helper()
	s := &site{t: t}
	var app, provider http.Handler
	listen := func(h func(http.ResponseWriter, *http.Request)) *httptest.Server {
		server := httptest.NewServer(http.HandlerFunc(h))
		t.Cleanup(server.Close)
		return server
	}
	appServer := listen(func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(w, r) })
	providerServer := listen(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth/token" {
			s.exchanges.Add(1)
		}
		if f := s.tamper.Load(); f != nil && (*f)(w, r) {
			return
		}
		provider.ServeHTTP(w, r)
	})
	s.app, s.provider = strings.Replace(appServer.URL, "127.0.0.1", "localhost", 1), providerServer.URL
	cfg := main.Agreed(s.app, s.provider, formPost)
	var err error
	s.issuer, err = main.NewProvider(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, s.issuer.Close()) })
	provider = s.issuer

	s.pool, err = pgxpool.New(t.Context(), pgtest.URL(t))
	must(t, err)
	t.Cleanup(s.pool.Close)
	accounts, err := main.OpenAccounts(t.Context(), s.pool)
	must(t, err)
	sessions, err := main.OpenSessions(t.Context(), s.pool)
	must(t, err)
	t.Cleanup(func() { must(t, sessions.Close()) })
	s.sessions = sessions
	app, err = main.NewApp(t.Context(), cfg, accounts, sessions)
	must(t, err)
	return s
}

// instance is the application once more, on the same database: for what is not done over
// a network.
func (s *site) instance() http.Handler {
	s.t.Helper()
	accounts, err := main.OpenAccounts(s.t.Context(), s.pool)
	must(s.t, err)
	app, err := main.NewApp(s.t.Context(), main.Agreed(s.app, s.provider, false), accounts, s.sessions)
	must(s.t, err)
	return app
}

// lock keeps everybody from writing to a table until unlock. wait returns when somebody
// wants to.
func (s *site) lock(table string) (wait, unlock func()) {
	s.t.Helper()
	tx, err := s.pool.Begin(s.t.Context())
	must(s.t, err)
	_, err = tx.Exec(s.t.Context(), "LOCK TABLE "+table+" IN SHARE MODE")
	must(s.t, err)
	wait = func() {
		s.t.Helper()
		for waits := false; !waits; {
			must(s.t, s.pool.QueryRow(s.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'), pg_sleep(0.01)::text`).Scan(&waits, nil))
		}
	}
	return wait, func() { s.t.Helper(); must(s.t, tx.Rollback(s.t.Context())) }
}

// real is a real browser.
type real struct {
	s   *site
	ctx context.Context
}

func newReal(s *site) *real {
	s.t.Helper()
	path, err := exec.LookPath("chromium")
	must(s.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*exampletest.Deadline) // several start at once
	s.t.Cleanup(cancel)
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(s.t.TempDir()), chromedp.WSURLReadTimeout(exampletest.Deadline),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
	}
	for _, name := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(name, true))
	}
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	s.t.Cleanup(cancelAllocator)
	ctx, _ = chromedp.NewContext(ctx)
	s.t.Cleanup(func() { must(s.t, chromedp.Cancel(ctx)) })
	return &real{s, ctx}
}

func (b *real) visit(address, want string) {
	b.s.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.NavigateResponse(address))
	must(b.s.t, err)
	b.see(want)
}

// press presses a button and waits for a page with a text.
func (b *real) press(label, want string) {
	b.s.t.Helper()
	must(b.s.t, chromedp.Do(b.ctx, chromedp.Click(chromedp.Search(`//button[normalize-space()="`+label+`"]`))))
	b.see(want)
}

func (b *real) see(want string) {
	b.s.t.Helper()
	must(b.s.t, chromedp.Do(b.ctx, chromedp.WaitVisible(chromedp.Search(`//main[contains(., "`+want+`")]`))))
}

func (b *real) path() string {
	b.s.t.Helper()
	path, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.pathname + location.search"))
	must(b.s.t, err)
	return path
}

// cookie is the application's.
func (b *real) cookie() string {
	b.s.t.Helper()
	found, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{b.s.app}})
	must(b.s.t, err)
	for _, c := range found.Cookies {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

// visitor is a browser that follows redirects, and no forms or scripts.
type visitor struct {
	*exampletest.Browser
	s *site
}

func newVisitor(s *site) *visitor { return &visitor{exampletest.NewBrowser(s.t, "session"), s} }

// cookie is the application's; set puts another in its place.
func (v *visitor) cookie() string {
	u, err := url.Parse(v.s.app)
	must(v.T, err)
	for _, c := range v.Client.Jar.Cookies(u) {
		if c.Name == "session" {
			return c.Value
		}
	}
	return ""
}

func (v *visitor) set(cookie string) {
	u, err := url.Parse(v.s.app)
	must(v.T, err)
	c := &http.Cookie{Name: "session", Value: cookie, Path: "/"}
	if cookie == "" {
		c.MaxAge = -1
	}
	v.Client.Jar.SetCookies(u, []*http.Cookie{c})
}

var requestField = regexp.MustCompile(`name="request" value="(\w+)"`)

// begin begins a login and returns the provider's name of it.
func (v *visitor) begin(to string) string {
	v.T.Helper()
	page := v.Post(v.s.app+"/login", url.Values{"return": {to}})
	m := requestField.FindStringSubmatch(page.Body)
	if page.Code != http.StatusOK || m == nil {
		v.T.Fatalf("the provider's login: got %d, want its page", page.Code)
	}
	return m[1]
}

// answer tells the provider who one is, and gives where it sends the browser to.
func (v *visitor) answer(request, user string) (callback string) {
	v.T.Helper()
	client := *v.Client
	client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), v.s.app) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	res, err := client.PostForm(v.s.provider+"/signin", url.Values{"request": {request}, "user": {user}})
	must(v.T, err)
	res.Body.Close()
	return res.Header.Get("Location")
}

func (v *visitor) logIn(user string) {
	v.T.Helper()
	v.Get(v.answer(v.begin("/account"), user)).Want(v.T, http.StatusOK, "Hello, "+user+".")
}

func (v *visitor) want(user string) {
	v.T.Helper()
	text := "You are not logged in."
	if user != "" {
		text = "Hello, " + user + "."
	}
	v.Get(v.s.app+"/").Want(v.T, http.StatusOK, text)
}

// tell sends a logout token to the application, and gives the status of its answer.
func (s *site) tell(token string) exampletest.Response {
	s.t.Helper()
	res, err := http.PostForm(s.app+"/logout/provider", url.Values{"logout_token": {token}})
	must(s.t, err)
	return exampletest.Read(s.t, res)
}

// sid is that of the one session of a user.
func (s *site) sid(user string) string {
	s.t.Helper()
	var id int64
	must(s.t, s.pool.QueryRow(s.t.Context(), "SELECT id FROM oidc_example.accounts WHERE name = $1", user).Scan(&id))
	found, err := s.sessions.Sessions(s.t.Context(), session.Key[int64]("userId").Is(id))
	must(s.t, err)
	if len(found) != 1 {
		s.t.Fatalf("sessions of %s: got %d, want 1", user, len(found))
	}
	sid, _ := session.Key[string]("loginSid").Of(found[0])
	return sid
}
