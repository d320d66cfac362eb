package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/devicebound"
	"github.com/pgsession/session/internal/row"
)

// DeviceBoundConfig says how sessions are bound to the device of the browser
// (Device Bound Session Credentials, a W3C draft; docs/device-bound.md). The zero
// value switches it off; then sessions that are bound count as if they were not.
//
// It needs [SecureAlways] and a certificate that browsers trust, and a cookie in
// [FormatSecureCookie] without Domain, Domains and Partitioned.
type DeviceBoundConfig struct {
	_ struct{}

	// Refresh is how long the browser keeps the second cookie, named as the
	// session's with "-bound" at its end, before it has to prove its key again: a
	// stolen copy of all cookies works for as long, and a minute more. Default
	// 0: off; else at least 5 minutes, for browsers refuse to sign more often, and
	// at most a day.
	Refresh time.Duration

	// Path is where browsers bring their proofs. [Manager.Handler] answers there
	// itself; no other handler gets such a request. It must lie below
	// Cookie.Path. Two Managers around one handler need two. Default: Cookie.Path
	// and "session/bind".
	Path string

	// Require ends a session whose browser has not proven a key this long after
	// [Session.Bind]: for fleets in which every browser can. Any other user would
	// be logged out. Default 0: never; else at least a minute.
	Require time.Duration
}

// maxRefresh bounds DeviceBoundConfig.Refresh: a copy of the cookies that works
// for longer is not ended by it.
const maxRefresh = 24 * time.Hour

func (c DeviceBoundConfig) withDefaults(cookiePath string) DeviceBoundConfig {
	if c.Refresh != 0 {
		setDefault(&c.Path, strings.TrimSuffix(cookiePath, "/")+"/session/bind")
	}
	return c
}

// check refuses what browsers refuse, and what would promise more than it holds.
func (c *DeviceBoundConfig) check(with *CookieConfig, fault func(string, ...any)) {
	if c.Refresh == 0 {
		if c.Path != "" || c.Require != 0 {
			fault("DeviceBound.Refresh is 0, which is off: set it, 10 * time.Minute for example")
		}
		return
	}
	if c.Refresh < devicebound.MinRefresh || c.Refresh > maxRefresh {
		fault("DeviceBound.Refresh is %v: must be at least %v, for browsers sign no more often, and at most %v", c.Refresh, devicebound.MinRefresh, maxRefresh)
	}
	if c.Require != 0 && c.Require < time.Minute {
		fault("DeviceBound.Require is %v: must be at least a minute, which a registration may take; 0 means never", c.Require)
	}
	below := strings.TrimSuffix(with.Path, "/") + "/"
	if !strings.HasPrefix(c.Path, below) || c.Path == below || path.Clean(c.Path) != c.Path || strings.ContainsFunc(c.Path, notInPath) {
		fault("DeviceBound.Path %q must lie below Cookie.Path, and be clean: letters, digits, and -._~/", c.Path)
	}
	if with.Format != FormatSecureCookie {
		fault("DeviceBound needs Cookie.Format FormatSecureCookie: Express would let in whom it keeps out")
	}
	if with.Secure != SecureAlways {
		fault("DeviceBound needs Cookie.Secure SecureAlways: browsers bind sessions over HTTPS alone")
	}
	if with.Partitioned {
		fault("DeviceBound does not work with Cookie.Partitioned: browsers refuse such a cookie")
	}
	if with.Domain != "" {
		fault("DeviceBound does not work with Cookie.Domain: browsers bind a session to one host")
	}
	if len(with.Domains) > 0 {
		fault("DeviceBound does not work with Cookie.Domains: browsers bind a session to one host")
	}
}

func notInPath(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~/", r))
}

// device answers the browser's registrations and refreshes, and knows the bound
// cookie. It knows no Session and no Manager, and holds no state: any instance
// answers what another one has asked. It is safe for concurrent use.
type device struct {
	engine *engine
	keys   *keys // which may be replaced at any time

	path, session, cookie string // where; names of the two cookies
	refresh, require      time.Duration
	attributes            cookie.Attributes // of both
}

// newDevice returns nil where cfg switches it off.
func newDevice(cfg *Config, e *engine, k *keys) *device {
	if cfg.DeviceBound.Refresh == 0 {
		return nil
	}
	return &device{
		engine: e, keys: k,
		path: cfg.DeviceBound.Path, session: cfg.Cookie.Name, cookie: cfg.Cookie.Name + "-bound",
		refresh: cfg.DeviceBound.Refresh, require: cfg.DeviceBound.Require,
		attributes: cookie.Attributes{Path: cfg.Cookie.Path, SameSite: cfg.Cookie.sameSite(), Secure: true},
	}
}

// broughtCookie is what a request has as its bound cookie.
type broughtCookie int

const (
	noCookie   broughtCookie = iota
	badCookie                // and was not told to come again a moment ago
	goodCookie               // one at least
)

// maxBoundCookies bounds the cookies of one name that are looked at, as those of
// the session's.
const maxBoundCookies = 8

// brought looks at the bound cookies of r.
func (d *device) brought(r *http.Request, id string, now time.Time) broughtCookie {
	lines := r.Header["Cookie"]
	result := noCookie
	for _, value := range cookie.Values(lines, d.cookie, maxBoundCookies) {
		if d.keys.tokens().Check(devicebound.Cookie, id, value, now) {
			return goodCookie
		}
		result = badCookie
	}
	if result == badCookie && len(cookie.Values(lines, d.cookie+"-again", 1)) > 0 {
		// Dropping it has not helped: another host of the site has set it.
		return noCookie
	}
	return result
}

// again returns the Set-Cookie headers that drop a bad bound cookie and say so
// for a moment, so that it is done once.
func (d *device) again(now time.Time) []string {
	return []string{
		d.ends(d.cookie, now),
		cookie.SetCookie(d.cookie+"-again", "1", d.attributes, cookie.Lifetime{TTL: againLife}, false, now),
	}
}

// againLife is longer than a browser takes to prove its key and come again.
const againLife = 30 * time.Second

func (d *device) ends(name string, now time.Time) string {
	return cookie.SetCookie(name, "", d.attributes, cookie.Lifetime{}, false, now)
}

// registration returns the header that asks for a key.
func (d *device) registration(id string, now time.Time) string {
	return devicebound.FormatRegistration(d.path, d.keys.tokens().MakeRegistration(id, now.Add(devicebound.ChallengeLife)))
}

// ServeHTTP answers a registration or a refresh. A browser takes nearly every
// answer but 200, 403 with a challenge, and 503 for the end of its session, and
// never begins it again: so nothing else is answered to it.
func (d *device) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Cookie")
	if r.Method != http.MethodPost { // no browser's proof
		h.Set("Allow", http.MethodPost)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	a := d.answer(r)
	a.again = len(cookie.Values(r.Header["Cookie"], d.cookie+"-again", 1)) > 0
	a.write(w, d)
}

// answer is one of those that browsers understand.
type answer struct {
	status int    // 200, 403 or 503
	id     string // the binding's identifier, "" if it is not known

	challenge bool // 403: sign this
	ends      bool // 200: the browser is to forget the binding
	forget    bool // and its cookie
	configure bool // 200: with the configuration, else the bound cookie alone
	again     bool // the request was told to come again
}

var unavailable = answer{status: http.StatusServiceUnavailable}

func (a answer) write(w http.ResponseWriter, d *device) {
	h, now := w.Header(), time.Now()
	var body []byte
	switch {
	case a.challenge:
		challenge := d.keys.tokens().Make(devicebound.Refresh, a.id, now.Add(devicebound.ChallengeLife))
		h.Set(devicebound.HeaderChallenge, devicebound.FormatChallenge(challenge, a.id))
	case a.status == http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	case a.ends:
		body = devicebound.End(a.id)
	case a.status == http.StatusOK:
		value := d.keys.tokens().Make(devicebound.Cookie, a.id, now.Add(d.refresh+devicebound.Slack))
		h.Add("Set-Cookie", cookie.SetCookie(d.cookie, value, d.attributes, cookie.Lifetime{TTL: d.refresh}, false, now))
		if a.again {
			h.Add("Set-Cookie", d.ends(d.cookie+"-again", now))
		}
	}
	if a.configure {
		_, attributes, _ := strings.Cut(cookie.SetCookie("x", "x", d.attributes, cookie.Lifetime{UntilExit: true}, false, now), "; ")
		body = devicebound.Configuration(a.id, d.path, d.cookie, attributes)
	}
	if a.forget {
		// Not the session's: by now that may be one of a login since, which would
		// be logged out by this. A dead one opens nothing. A bound cookie of a
		// login since that is dropped here costs one proof more.
		h.Add("Set-Cookie", d.ends(d.cookie, now))
	}
	if body != nil {
		h.Set("Content-Type", "application/json")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// answer decides. The order is that of cost: what needs no statement and no
// signature comes first.
func (d *device) answer(r *http.Request) answer {
	refused := answer{status: http.StatusForbidden}
	// 1. Whose? A refresh names its binding, a registration's challenge does.
	id, refresh := "", len(r.Header[devicebound.HeaderIdentifier]) > 0
	if refresh {
		var ok bool
		if id, ok = devicebound.ParseString(r.Header.Get(devicebound.HeaderIdentifier)); !ok {
			return refused
		}
		if !devicebound.IsIdentifier(id) { // none of ours
			return answer{status: http.StatusOK, id: id, ends: true}
		}
		refused = answer{status: http.StatusForbidden, id: id, challenge: true}
	}
	// 2. Without a session there is nothing to be proven for.
	presented, _ := d.keys.codec().Find(r.Header["Cookie"], d.session, nil)
	if refresh && len(presented) == 0 {
		return answer{status: http.StatusOK, id: id, ends: true}
	}
	// 3. No proof yet: here is what to sign.
	if len(r.Header[devicebound.HeaderResponse]) == 0 {
		return refused
	}
	// 4. The proof is one, and of a challenge that is still good.
	proof, err := devicebound.ParseProof(r.Header.Get(devicebound.HeaderResponse))
	if err != nil || len(r.Header[devicebound.HeaderResponse]) > 1 {
		d.engine.stats.unproven.Add(1)
		return refused
	}
	if refresh {
		if proof.HasKey || !d.keys.tokens().Check(devicebound.Refresh, id, proof.Challenge, time.Now()) {
			return refused // a browser sends an answer again until it gets another challenge
		}
		return d.refreshed(r, presented, id, &proof, refused)
	}
	id, ok := d.keys.tokens().CheckRegistration(proof.Challenge, time.Now())
	if !ok || !proof.HasKey || !proof.By(proof.Key) {
		d.engine.stats.unproven.Add(1)
		return refused
	}
	if len(presented) == 0 {
		return answer{status: http.StatusOK, id: id, ends: true}
	}
	return d.registered(r, presented, id, proof.Key)
}

// find loads the record that a proof is for. done says that a is the answer.
func (d *device) find(ctx context.Context, presented []cookie.Signed, id string) (rec *view, b row.Bound, a answer, done bool) {
	which, found, err := d.engine.loadFirst(ctx, presented, false)
	if err != nil {
		return nil, b, d.failed(ctx, id, err), true
	}
	rec = &view{presented[which].ID, found}
	b, _, err = rec.Bound()
	if err != nil || b.ID != id { // another session's, or one that is bound anew
		return nil, b, answer{status: http.StatusOK, id: id, ends: true}, true
	}
	return rec, b, a, false
}

// failed answers where the record was not found, or the store did not answer.
func (d *device) failed(ctx context.Context, id string, err error) answer {
	switch {
	case errors.Is(err, ErrRenewed): // the browser has the new cookie in a moment
		return unavailable
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDestroyed):
		// A 503 would keep the binding for ever.
		return answer{status: http.StatusOK, id: id, ends: true, forget: true}
	}
	d.engine.log.LogAttrs(ctx, levelOf(err), "session: a device's proof could not be checked, the browser is told to try again", slog.Any("error", err))
	return unavailable
}

// refreshed answers the proof of a known key. It writes nothing.
func (d *device) refreshed(r *http.Request, presented []cookie.Signed, id string, proof *devicebound.Proof, refused answer) answer {
	_, b, a, done := d.find(r.Context(), presented, id)
	if done {
		return a
	}
	key, ok := devicebound.ParseKey(b.Key)
	if !ok {
		return answer{status: http.StatusOK, id: id, ends: true}
	}
	if !proof.By(key) {
		d.engine.stats.unproven.Add(1)
		return refused
	}
	d.engine.stats.refreshed.Add(1)
	return answer{status: http.StatusOK, id: id}
}

// registered stores a key. One that is there already is a reply that was lost; a
// second one is a thief's, before or after the browser's own, and nobody knows
// which: then the session ends.
func (d *device) registered(r *http.Request, presented []cookie.Signed, id string, key devicebound.Key) answer {
	rec, b, a, done := d.find(r.Context(), presented, id)
	if done {
		return a
	}
	ctx, cancel := d.engine.storeContext(r.Context())
	defer cancel()
	if b.Key == "" {
		var out outcome
		p := &snapshot{
			attributes: d.attributes, rec: rec, asked: noChange, noCookie: true,
			device: &deviceStep{id, key.String()},
		}
		if err := d.engine.save(ctx, p, &out); err != nil {
			return d.failed(ctx, id, err)
		}
		now, _, err := out.rec.Bound()
		if err != nil || now.ID != id { // bound anew meanwhile
			return answer{status: http.StatusOK, id: id, ends: true}
		}
		if b = now; b.Key == key.String() {
			d.engine.stats.bound.Add(1)
		}
	}
	if b.Key == key.String() {
		return answer{status: http.StatusOK, id: id, configure: true}
	}
	d.engine.stats.unproven.Add(1)
	if err := d.engine.store.Delete(d.engine.hears(ctx, whyDevice), rec.id); err != nil {
		return d.failed(ctx, id, d.engine.countError(err))
	}
	d.engine.stats.destroys.Add(1)
	d.engine.log.LogAttrs(ctx, slog.LevelWarn, "session: a second key was registered for a session, which has been ended: two had its cookie right after the login")
	return answer{status: http.StatusOK, id: id, ends: true, forget: true}
}
