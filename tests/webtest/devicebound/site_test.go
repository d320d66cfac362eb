package devicebound

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) {
	// A browser that is waited for cannot wait for minutes. Everything else is as
	// it is in production.
	devicebound.MinRefresh, devicebound.Slack, devicebound.Grace = time.Second, time.Second, 0
	pgtest.Main(m)
}

const user = session.Key[string]("user")

// patience bounds what is waited for; no test depends on how long it takes.
const patience = 2 * time.Minute

var errDown = errors.New("the test's database is down")

// downFor, in its context, makes the database down for one request.
type downFor struct{}

// database is a store that can be down for all instances at once.
type database struct {
	session.Store

	mu   sync.Mutex
	down bool
}

func (d *database) set(down bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = down
}

func (d *database) err(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down || ctx.Value(downFor{}) != nil {
		return errDown
	}
	return nil
}

func (d *database) Load(ctx context.Context, id string) (session.Record, error) {
	if err := d.err(ctx); err != nil {
		return session.Record{}, err
	}
	return d.Store.Load(ctx, id)
}

func (d *database) Create(ctx context.Context, id string, r session.Record) error {
	if err := d.err(ctx); err != nil {
		return err
	}
	return d.Store.Create(ctx, id, r)
}

func (d *database) Update(ctx context.Context, id string, c session.Change) error {
	if err := d.err(ctx); err != nil {
		return err
	}
	return d.Store.Update(ctx, id, c)
}

func (d *database) Touch(ctx context.Context, id string, ttl time.Duration) error {
	if err := d.err(ctx); err != nil {
		return err
	}
	return d.Store.Touch(ctx, id, ttl)
}

func (d *database) Delete(ctx context.Context, id string) error {
	if err := d.err(ctx); err != nil {
		return err
	}
	return d.Store.Delete(ctx, id)
}

// exchange is what one instance was asked and has answered.
type exchange struct {
	instance           int
	method, path       string
	cookies            []string // names
	id, proof, offered bool
	site, skipped      string
	status             int    // 0: the connection was cut
	set                string // names of cookies, - for those that were dropped
	body               string // of the endpoint
}

func (e exchange) String() string {
	return fmt.Sprintf("%c %s %s %v id=%v proof=%v site=%s skipped=%q -> %d set %s offered=%v %s",
		'A'+e.instance, e.method, e.path, e.cookies, e.id, e.proof, e.site, e.skipped, e.status, e.set, e.offered, e.body)
}

// kill says of a request whether the instance that gets it dies, and whether it
// acts before.
type kill func(e exchange) (dies, acts bool)

// site is the application: instances that share nothing but the database, behind a
// front.
type site struct {
	t   *testing.T
	db  *database
	url string
	pin string // what makes the browser trust the certificate

	instances []http.Handler

	mu   sync.Mutex
	next int
	log  []exchange
	kill kill
	down string // the path of requests for which the database is down
	dead map[int]bool
}

func newSite(t *testing.T, refresh time.Duration, store session.Store) *site {
	t.Helper()
	s := &site{t: t, db: &database{Store: store}, dead: map[int]bool{}}
	for range 2 {
		cfg := session.Config{Secret: "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", DisablePrune: true, Logger: slog.New(slog.DiscardHandler), UserKey: string(user)}
		cfg.Cookie.Secure = session.SecureAlways
		cfg.DeviceBound.Refresh = refresh
		m, err := session.New(s.db, cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.instances = append(s.instances, strict(m.Handler(http.HandlerFunc(pages))))
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	front.EnableHTTP2 = true
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	t.Cleanup(front.Close)
	s.url = strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
	hash := sha256.Sum256(front.Certificate().RawSubjectPublicKeyInfo)
	s.pin = base64.StdEncoding.EncodeToString(hash[:])
	t.Cleanup(func() {
		if t.Failed() {
			for _, e := range s.since(0) {
				t.Log(e)
			}
		}
	})
	return s
}

// strict is a policy around everything: also a page that loads itself again must do
// under it.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		http.NewCrossOriginProtection().Handler(next).ServeHTTP(w, r)
	})
}

// pages is the application.
func pages(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/favicon.ico" {
		http.NotFound(w, r)
		return
	}
	s := session.From(r.Context())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch r.Method + " " + r.URL.Path {
	case "GET /login":
		_, _ = io.WriteString(w, `<!doctype html><form method="post"><button>Log in</button></form>`)
		return
	case "POST /login":
		s.Renew()
		s.Bind()
		user.Set(s, "ada")
		http.Redirect(w, r, "/account", http.StatusSeeOther)
		return
	case "POST /renew":
		s.Renew()
	case "POST /logout":
		s.Destroy()
	}
	body, _ := io.ReadAll(r.Body)
	name, ok := user.Get(s)
	if !ok {
		name = "nobody"
	}
	fmt.Fprintf(w, `<!doctype html><p>%s bound=%v %s</p>`, name, s.Bound(), body)
}

// serve is the front.
func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	e := exchange{
		method: r.Method, path: r.URL.Path, site: r.Header.Get("Sec-Fetch-Site"), skipped: r.Header.Get("Secure-Session-Skipped"),
		id: r.Header.Get("Sec-Secure-Session-Id") != "", proof: r.Header.Get("Secure-Session-Response") != "",
	}
	for _, c := range r.Cookies() {
		e.cookies = append(e.cookies, c.Name)
	}
	s.mu.Lock()
	for s.dead[s.next] {
		s.next = 1 - s.next
	}
	e.instance, s.next = s.next, 1-s.next
	var dies, acts bool
	if s.kill != nil {
		if dies, acts = s.kill(e); dies {
			s.dead[e.instance], s.kill = true, nil
		}
	}
	if s.down != "" && s.down == e.path {
		r = r.WithContext(context.WithValue(r.Context(), downFor{}, true))
	}
	s.mu.Unlock()
	if dies && !acts {
		s.note(e)
		panic(http.ErrAbortHandler)
	}
	rec := httptest.NewRecorder()
	s.instances[e.instance].ServeHTTP(rec, r)
	if dies {
		s.note(e)
		panic(http.ErrAbortHandler)
	}
	e.status, e.offered = rec.Code, rec.Header().Get("Secure-Session-Registration") != ""
	for _, c := range rec.Result().Cookies() {
		if c.MaxAge < 0 {
			e.set += "-"
		}
		e.set += c.Name + " "
	}
	if r.URL.Path == "/session/bind" {
		e.body = rec.Body.String()
	}
	s.note(e)
	for name, lines := range rec.Header() {
		w.Header()[name] = lines
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func (s *site) note(e exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, e)
}

// since returns the exchanges from the nth on.
func (s *site) since(n int) []exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log[n:])
}

func (s *site) mark() int { return len(s.since(0)) }

// kills lets the next request that is so end its instance.
func (s *site) kills(k kill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill, s.dead = k, map[int]bool{}
}

// downAt lets the database be down for the requests of a path, and for no others that
// come at the same time; "" for none.
func (s *site) downAt(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = path
}

// revives starts what is dead again, and reports whether there was one.
func (s *site) revives() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	any := len(s.dead) > 0
	s.kill, s.dead = nil, map[int]bool{}
	return any
}

// count counts the exchanges since n that are so.
func (s *site) count(n int, is func(exchange) bool) (c int) {
	for _, e := range s.since(n) {
		if is(e) {
			c++
		}
	}
	return c
}

func refreshed(e exchange) bool {
	return e.path == "/session/bind" && e.id && e.status == 200 && strings.Contains(e.set, "session-bound")
}

func ended(e exchange) bool { return strings.Contains(e.body, `"continue":false`) }

// eventually waits until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: waited for it for %v", what, patience)
		}
	}
}
