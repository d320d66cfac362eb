package explore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/explore"
)

// device is what the browser keeps of device-bound sessions, in runs that have them.
type device struct {
	key    *ecdsa.PrivateKey
	id     string // of the binding, "" without one
	cookie string // the bound cookie
	offer  string // the challenge of a registration that is still to come
}

var (
	offered    = regexp.MustCompile(`^\(ES256\);path="/session/bind";challenge="([^"]+)"$`)
	challenged = regexp.MustCompile(`^"([^"]+)";id="[^"]+"$`)
	identified = regexp.MustCompile(`"session_identifier":"([^"]+)"`)
)

// take keeps what a response says.
func (d *device) take(h http.Header) {
	for _, line := range h["Set-Cookie"] {
		if value, ok := strings.CutPrefix(line, "session-bound="); ok {
			d.cookie, _, _ = strings.Cut(value, ";")
		}
	}
	if m := offered.FindStringSubmatch(h.Get("Secure-Session-Registration")); m != nil {
		d.offer = m[1]
	}
}

// brings adds the bound cookie to a request.
func (d *device) brings(r *http.Request) *http.Request {
	if cookies := r.Header.Get("Cookie"); d.cookie != "" && cookies != "" {
		r.Header.Set("Cookie", cookies+"; session-bound="+d.cookie)
	}
	return r
}

// prove registers a key, if one is asked for, else it refreshes. r has the
// session's cookie. It returns the last response.
func (d *device) prove(m *session.Manager, r *http.Request) *body {
	send := func(header ...string) *body {
		r := d.brings(r.Clone(r.Context()))
		r.Method, r.URL.Path = http.MethodPost, "/session/bind"
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := &body{response: response{header: http.Header{}}}
		m.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
		return w
	}
	var w *body
	switch {
	case d.offer != "":
		offer := d.offer
		d.offer = ""
		w = send("Secure-Session-Response", d.sign(`{"alg":"ES256","jwk":`+d.jwk()+`,"typ":"dbsc+jwt"}`, offer))
	case d.id != "":
		w = send("Sec-Secure-Session-Id", d.id)
		if m := challenged.FindStringSubmatch(w.header.Get("Secure-Session-Challenge")); m != nil {
			w = send("Sec-Secure-Session-Id", d.id, "Secure-Session-Response", d.sign(`{"alg":"ES256","typ":"dbsc+jwt"}`, m[1]))
		}
	}
	return w
}

// learn keeps what the endpoint has answered. A binding that ends is the one that
// is named.
func (d *device) learn(w *body) {
	if w == nil {
		return
	}
	d.take(w.header)
	named := identified.FindStringSubmatch(w.text)
	switch {
	case named == nil:
	case strings.Contains(w.text, `"continue":false`):
		if d.id == named[1] {
			d.id = ""
		}
	default:
		d.id = named[1]
	}
}

// confirm sends the first request with the bound cookie.
func (d *device) confirm(m *session.Manager, r *http.Request) {
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if !session.From(r.Context()).Bound() {
			panic("explore: the session is not bound")
		}
	})).ServeHTTP(&response{header: http.Header{}}, d.brings(r))
}

func (d *device) jwk() string {
	point, err := d.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, base64url(point[1:33]), base64url(point[33:]))
}

func (d *device) sign(header, challenge string) string {
	signed := base64url([]byte(header)) + "." + base64url([]byte(`{"jti":"`+challenge+`"}`))
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, d.key, hash[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + base64url(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// body is a response of which the text is kept.
type body struct {
	response
	text string
}

func (w *body) Write(b []byte) (int, error) {
	w.text += string(b)
	return w.response.Write(b)
}

// refresh is what the browser does beside its pages.
func (a *actor) refresh() {
	a.record(explore.Event{Kind: explore.Begins, ID: a.w.jarNow().ID})
	a.record(explore.Event{Kind: explore.Asks, Call: explore.Refresh})
	ctx := context.WithValue(context.Background(), actorKey{}, a)
	w := a.w.device.prove(a.manager(), request(ctx, a.w.cookiesNow()...))
	a.w.stage.Await(a.number, "header")
	e := explore.Event{Kind: explore.Returns, Call: explore.Refresh}
	if w != nil {
		e.Value = fmt.Sprint(w.code)
		for _, c := range readCookies(w.header) {
			a.w.takeCookie(c)
		}
	}
	a.w.device.learn(w)
	a.record(e)
	a.record(explore.Event{Kind: explore.Ends, Full: true})
}

// finishBound sends the browser's next request, which is held back until the key
// is proven where the bound cookie is missing, and then one of a thief's, with the
// session's cookie alone.
func (w *world) finishBound(m *session.Manager) {
	h, d := w.history, &w.device
	for range 5 {
		if d.offer != "" || d.cookie == "" && d.id != "" {
			answer := d.prove(m, request(context.Background(), w.cookiesNow()...))
			for _, c := range readCookies(answer.header) {
				w.takeCookie(c)
			}
			d.learn(answer)
		}
		out := &response{header: http.Header{}}
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			_, h.Next.User = keyUser.Get(s)
			h.Next.Bound = s.Bound()
		})).ServeHTTP(out, d.brings(request(context.Background(), w.cookiesNow()...)))
		d.take(out.header)
		for _, c := range readCookies(out.header) {
			w.takeCookie(c)
		}
		if h.Next.Code = max(out.code, http.StatusOK); h.Next.Code != http.StatusTemporaryRedirect {
			break
		}
	}
	w.readTable()
	h.Next.Table, h.Next.ID = w.table, h.Jar.ID
	w.stage.Elapse(11e9) // over the grace of a key that has just counted
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, h.Next.Stolen = keyUser.Get(session.From(r.Context()))
	})).ServeHTTP(&response{header: http.Header{}}, request(context.Background(), w.cookiesNow()...))
}
