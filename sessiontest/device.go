package sessiontest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"
)

// Device is a browser that knows device-bound sessions ([session.Config].DeviceBound),
// over an application's handler: it keeps cookies for as long as they say, makes a
// key when it is asked for one, and proves it before a request that lacks the bound
// cookie, as Chromium does. Its key is in memory, its host is example.com, by
// HTTPS, and it keeps one session.
//
// In a bubble of package testing/synctest its cookies end as time passes. Other
// than a browser, it registers a key before Do returns, refreshes only when the
// bound cookie is gone, loads no pages and follows no redirect but a 307 to the
// same URL. A Device is used by one goroutine at a time.
type Device struct {
	t       testing.TB
	h       http.Handler
	key     *ecdsa.PrivateKey
	cookies map[string]deviceCookie
	bound   *binding
}

// deviceCookie is a cookie of the jar; ends is zero where it has no end.
type deviceCookie struct {
	value string
	ends  time.Time
}

// binding is what a browser keeps of a registration.
type binding struct {
	id, refreshURL, cookie string
	proof                  string // sent again until there is another challenge
	skipped                string // why the last refresh has failed
}

// NewDevice returns a browser without cookies, over the handler of an application,
// with its [session.Manager.Handler].
func NewDevice(t testing.TB, h http.Handler) *Device {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("sessiontest: NewDevice: %v", err)
	}
	return &Device{t: t, h: h, key: key, cookies: map[string]deviceCookie{}}
}

// Copy returns a thief's browser: it has all of the cookies and knows of the
// binding, but its key is another one.
func (d *Device) Copy() *Device {
	d.t.Helper()
	c := NewDevice(d.t, d.h)
	for name, v := range d.cookies {
		c.cookies[name] = v
	}
	if d.bound != nil {
		c.bound = &binding{id: d.bound.id, refreshURL: d.bound.refreshURL, cookie: d.bound.cookie}
	}
	return c
}

// Bound reports whether the browser keeps a binding. That the application counts
// on it is known by [session.Session.Bound].
func (d *Device) Bound() bool { return d.bound != nil }

// JWK returns the public key of the device as JSON (RFC 7518, section 6.2), as a
// registration's proof has it in its header.
func (d *Device) JWK() string {
	d.t.Helper()
	point, err := d.key.PublicKey.Bytes()
	if err != nil {
		d.t.Fatalf("sessiontest: Device.JWK: %v", err)
	}
	return fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encode(point[1:33]), encode(point[33:]))
}

// Sign returns a proof of the device's key, a JWS, with whatever header and claims,
// both JSON: for attacks on what stands before the application. A refresh's header
// is {"alg":"ES256","typ":"dbsc+jwt"}, a registration's has a "jwk" too; the claims
// are {"jti":"<challenge>"}. Do makes the proofs that are right by itself.
func (d *Device) Sign(header, claims string) string {
	d.t.Helper()
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, d.key, hash[:])
	if err != nil {
		d.t.Fatalf("sessiontest: Device.Sign: %v", err)
	}
	return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// Expire drops the bound cookie, as the end of its life does.
func (d *Device) Expire() {
	if d.bound != nil {
		delete(d.cookies, d.bound.cookie)
	}
}

// Do sends r with the browser's cookies, and what r brings itself: first it proves
// its key, if the bound cookie is gone and r does not say that it comes from
// another site (Sec-Fetch-Site). Then it does as the response says: keeps cookies,
// registers a key, and goes where a 307 leads, at most ten times. r is one of
// [httptest.NewRequest]; it is read to its end.
func (d *Device) Do(r *http.Request) *http.Response {
	d.t.Helper()
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			d.t.Fatalf("sessiontest: Device.Do: %v", err)
		}
	}
	for range 10 {
		site := r.Header.Get("Sec-Fetch-Site")
		next := r.Clone(r.Context())
		next.Body, next.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if site != "cross-site" && site != "same-site" {
			d.refresh()
		}
		if d.bound != nil && d.bound.skipped != "" {
			next.Header.Set("Secure-Session-Skipped", d.bound.skipped+`;session_identifier="`+d.bound.id+`"`)
			d.bound.skipped = ""
		}
		resp := d.send(next)
		if resp == nil {
			d.t.Fatal("sessiontest: Device.Do: the handler has aborted the response")
		}
		d.register(resp.Header.Get("Secure-Session-Registration"))
		if resp.StatusCode != http.StatusTemporaryRedirect {
			return resp
		}
	}
	d.t.Fatal("sessiontest: Device.Do: ten redirects, and no end")
	return nil
}

// Get is Do for a GET of a path.
func (d *Device) Get(path string) *http.Response {
	d.t.Helper()
	return d.Do(httptest.NewRequest(http.MethodGet, "https://example.com"+path, nil))
}

// send is one exchange; nil if the handler aborts it.
func (d *Device) send(r *http.Request) (resp *http.Response) {
	for name, c := range d.cookies {
		if !c.ends.IsZero() && !time.Now().Before(c.ends) {
			delete(d.cookies, name)
			continue
		}
		r.AddCookie(&http.Cookie{Name: name, Value: c.value}) // #nosec G124 -- a request's cookie has no attributes
	}
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { // as net/http compares it
				panic(v)
			}
			resp = nil
		}
	}()
	d.h.ServeHTTP(w, r)
	resp = w.Result()
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 {
			delete(d.cookies, c.Name)
			continue
		}
		kept := deviceCookie{value: c.Value}
		if c.MaxAge > 0 {
			kept.ends = time.Now().Add(time.Duration(c.MaxAge) * time.Second)
		}
		d.cookies[c.Name] = kept
	}
	if challenge, id, ok := parseChallenge(resp.Header.Get("Secure-Session-Challenge")); ok && d.bound != nil && id == d.bound.id {
		d.bound.proof = d.Sign(`{"alg":"ES256","typ":"dbsc+jwt"}`, claims(challenge))
	}
	return resp
}

var (
	registrationHeader = regexp.MustCompile(`^\(ES256\);path="([^"]+)";challenge="([^"]+)"$`)
	challengeHeader    = regexp.MustCompile(`^"([^"]+)";id="([^"]+)"$`)
)

func parseChallenge(header string) (challenge, id string, ok bool) {
	m := challengeHeader.FindStringSubmatch(header)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// register answers an offer. What does not work is silent, as in a browser.
func (d *Device) register(offer string) {
	m := registrationHeader.FindStringSubmatch(offer)
	if m == nil {
		return
	}
	resp := d.send(d.post(m[1], d.Sign(`{"alg":"ES256","jwk":`+d.JWK()+`,"typ":"dbsc+jwt"}`, claims(m[2])), ""))
	if resp == nil || resp.StatusCode != http.StatusOK {
		return
	}
	var configuration struct {
		Identifier  string `json:"session_identifier"`
		RefreshURL  string `json:"refresh_url"`
		Continue    *bool
		Credentials []struct{ Name string }
	}
	if json.NewDecoder(resp.Body).Decode(&configuration) != nil || len(configuration.Credentials) != 1 || configuration.Continue != nil {
		return
	}
	d.bound = &binding{id: configuration.Identifier, refreshURL: configuration.RefreshURL, cookie: configuration.Credentials[0].Name}
}

// maxChallenges is how often a browser answers a challenge in one refresh.
const maxChallenges = 4

// refresh proves the key if the bound cookie is gone.
func (d *Device) refresh() {
	if d.bound == nil {
		return
	}
	if c, ok := d.cookies[d.bound.cookie]; ok && (c.ends.IsZero() || time.Now().Before(c.ends)) {
		return
	}
	for range 1 + maxChallenges {
		resp := d.send(d.post(d.bound.refreshURL, d.bound.proof, d.bound.id))
		switch {
		case resp == nil:
			d.bound.skipped = "unreachable"
			return
		case resp.StatusCode >= 500:
			d.bound.skipped = "server_error"
			return
		case resp.StatusCode == http.StatusForbidden && resp.Header.Get("Secure-Session-Challenge") != "":
			continue
		case resp.StatusCode >= 300:
			d.bound = nil
			return
		}
		var end struct{ Continue *bool }
		if json.NewDecoder(resp.Body).Decode(&end) == nil && end.Continue != nil && !*end.Continue {
			d.bound = nil
		}
		return
	}
	d.bound = nil
}

// post returns a request to the endpoint, as Chromium makes it.
func (d *Device) post(path, proof, id string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://example.com"+path, nil)
	for name, value := range map[string]string{
		"Origin": "https://example.com", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty",
		"Secure-Session-Response": proof, "Sec-Secure-Session-Id": id,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func claims(challenge string) string { return `{"jti":"` + challenge + `"}` }
