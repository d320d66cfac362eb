package session_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

// boundSite is an application whose logins ask for a key, over a store that can be
// counted and made to fail. Nothing of it waits: tests run in bubbles.
type boundSite struct {
	t     *testing.T
	store *hookedStore
	m     *session.Manager
	h     http.Handler
}

const boundRefresh = 10 * time.Minute

func withBinding(c *session.Config) {
	c.Cookie.Secure = session.SecureAlways
	c.DeviceBound.Refresh = boundRefresh
	c.DisablePrune = true
}

func newBoundSite(t *testing.T, opts ...func(*session.Config)) *boundSite {
	t.Helper()
	return newBoundSiteOver(t, newHookedStore(), opts...)
}

func newBoundSiteOver(t *testing.T, store *hookedStore, opts ...func(*session.Config)) *boundSite {
	t.Helper()
	var cfg session.Config
	withBinding(&cfg)
	for _, o := range opts {
		o(&cfg)
	}
	b := &boundSite{t: t, store: store, m: newManager(t, store, cfg)}
	b.h = b.m.Handler(http.HandlerFunc(boundPages))
	return b
}

// boundPages is what the application does at a path.
func boundPages(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	switch r.URL.Path {
	case "/login":
		s.Renew()
		s.Bind()
		userKey.Set(s, "ada")
	case "/renew":
		s.Renew()
	case "/bind":
		s.Bind()
	case "/logout":
		s.Destroy()
	case "/cart":
		keyA.Set(s, "tea")
	case "/public":
		_, _ = io.WriteString(w, "public")
		return
	}
	user, ok := userKey.Get(s)
	if !ok {
		user = "nobody"
	}
	fmt.Fprintf(w, "%s %v", user, s.Bound())
}

// unit is a browser with a device, step by step: a [sessiontest.Device] has the key
// and signs, and its tests say what it sends when, with which cookies.
type unit struct {
	site   *boundSite
	device *sessiontest.Device
	jar    map[string]string
	id     string
	offer  string // the challenge of the registration header that came last
}

func (b *boundSite) unit() *unit {
	return &unit{site: b, device: sessiontest.NewDevice(b.t, b.h), jar: map[string]string{}}
}

// copied is a thief who has all of the cookies, and a key of his own.
func (u *unit) copied() *unit {
	c := u.site.unit()
	for name, value := range u.jar {
		c.jar[name] = value
	}
	c.id, c.offer = u.id, u.offer
	return c
}

// at is the same browser at another instance.
func (u *unit) at(b *boundSite) *unit {
	v := *u
	v.site = b
	return &v
}

var registrationHeader = regexp.MustCompile(`^\(ES256\);path="([^"]+)";challenge="([^"]+)"$`)

func (u *unit) request(method, path string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "https://example.com"+path, nil)
	r.RequestURI = path
	for name, value := range u.jar {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// send is one request, and nothing of its own accord.
func (u *unit) send(method, path string, header ...string) *response {
	resp := askBroken(u.site.h, u.request(method, path, header...))
	u.take(resp)
	return resp
}

// take keeps what a browser keeps of a response.
func (u *unit) take(resp *response) {
	for _, line := range resp.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			u.site.t.Fatal("got a Set-Cookie header that does not parse")
		}
		if c.MaxAge < 0 {
			delete(u.jar, c.Name)
		} else {
			u.jar[c.Name] = c.Value
		}
	}
	if m := registrationHeader.FindStringSubmatch(resp.header.Get("Secure-Session-Registration")); m != nil {
		u.offer = m[2]
	}
}

func (u *unit) get(path string, header ...string) *response { return u.send("GET", path, header...) }

// forget is what time does to the bound cookie.
func (u *unit) forget() *unit {
	delete(u.jar, "session-bound")
	return u
}

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is the unit's public key.
func (u *unit) jwk() string { return u.device.JWK() }

// jws signs whatever it is given.
func (u *unit) jws(header, claims string) string { return u.device.Sign(header, claims) }

func claim(challenge string) string { return fmt.Sprintf(`{"jti":%q}`, challenge) }

const proofHeader = `{"alg":"ES256","typ":"dbsc+jwt"}`

func (u *unit) registration(challenge string) string {
	return u.jws(`{"alg":"ES256","jwk":`+u.jwk()+`,"typ":"dbsc+jwt"}`, claim(challenge))
}

// register answers the offer.
func (u *unit) register() *response {
	return u.prove("", u.registration(u.offer))
}

// prove brings a proof to the endpoint, "" for none, for a binding, "" for a
// registration.
func (u *unit) prove(id, proof string) *response {
	var header []string
	if id != "" {
		header = append(header, "Sec-Secure-Session-Id", id)
	}
	if proof != "" {
		header = append(header, "Secure-Session-Response", proof)
	}
	resp := u.send("POST", "/session/bind", header...)
	if _, after, ok := strings.Cut(resp.body, `"session_identifier":"`); ok && id == "" && resp.status == 200 {
		u.id, _, _ = strings.Cut(after, `"`)
	}
	return resp
}

// challenge asks for one.
func (u *unit) challenge() string {
	u.site.t.Helper()
	resp := u.prove(u.id, "")
	value, after, ok := strings.Cut(strings.TrimPrefix(resp.header.Get("Secure-Session-Challenge"), `"`), `"`)
	if resp.status != 403 || !ok || after != `;id="`+u.id+`"` {
		u.site.t.Fatalf("asking for a challenge: got status %d, and of the header %q", resp.status, after)
	}
	return value
}

// refresh is what a browser does before a request without the bound cookie.
func (u *unit) refresh() *response {
	u.site.t.Helper()
	return u.prove(u.id, u.jws(proofHeader, claim(u.challenge())))
}

// boundUnit is a browser whose key counts, and counted for longer than requests
// are under way that began before.
func (b *boundSite) boundUnit() *unit {
	b.t.Helper()
	u := b.unit()
	u.send("POST", "/login")
	want(b.t, "registration", u.register(), 200, `"session_identifier":"`+u.id+`"`)
	want(b.t, "first proven request", u.get("/"), 200, "ada true")
	pass(boundGrace)
	b.store.took()
	return u
}

// boundGrace is longer than a request counts as one of before its session was bound.
const boundGrace = 11 * time.Second

// want compares a status and looks for a text in the body; "" is any body, but of a
// 200 an empty one, as that of a refresh.
func want(t testing.TB, what string, r *response, status int, body string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.body, body) || status == 200 && body == "" && r.body != "" {
		t.Errorf("%s: got %d %q, want %d %q", what, r.status, r.body, status, body)
	}
}

// wantSet compares the names of the cookies that were set, those dropped with a
// minus, in the order of their lines.
func wantSet(t testing.TB, what string, r *response, want string) {
	t.Helper()
	var got []string
	for _, pair := range r.cookies() {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" {
			name = "-" + name
		}
		got = append(got, name)
	}
	if strings.Join(got, " ") != want {
		t.Errorf("%s: got cookies %q, want %q", what, got, want)
	}
}
