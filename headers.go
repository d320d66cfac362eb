package session

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/gate"
)

// isPublic reports whether caches may keep a response with these headers.
func isPublic(h http.Header) bool {
	return gate.HeaderHas(h, "Cache-Control", "public") || gate.HeaderHas(h, "Cache-Control", "s-maxage=")
}

// addHeaders adds what the session has to say to the final header. It never
// lets a cache keep a session cookie, or a page that depends on one without
// saying so.
func (s *Session) addHeaders(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.used {
		return
	}
	h := w.Header()
	if !gate.HeaderHas(h, "Vary", "cookie") && !gate.HeaderHas(h, "Vary", "*") {
		h.Add("Vary", "Cookie")
	}
	if s.m.cfg.TokenPrefix != "" && !gate.HeaderHas(h, "Vary", "authorization") && !gate.HeaderHas(h, "Vary", "*") {
		h.Add("Vary", "Authorization")
	}
	s.addCookiesLocked(h)
	s.m.device.offer(h, &s.device, s.rec)
}

// addMadeCookie adds the cookie of an ID that this request made, to a response
// that is not the handler's: the browser's old ID is dead, and nobody else will
// send the new one.
func (s *Session) addMadeCookie(w http.ResponseWriter) {
	_ = s.settleHanded() // which keeps its error
	s.sendMadeCookie(w)
}

func (s *Session) sendMadeCookie(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made && s.cookie.send {
		s.addCookiesLocked(w.Header())
		s.m.device.offer(w.Header(), &s.device, s.rec)
	}
}

func (s *Session) addCookiesLocked(h http.Header) {
	ended := s.cookie.expire
	cookies := s.cookiesLocked(isPublic(h))
	switch {
	case len(cookies) == 0:
		return
	case s.token:
		h[headerToken] = cookies
	default:
		if ended && s.m.secure(s.x.r) {
			dropSpeculations(h)
		}
		for _, c := range cookies {
			h.Add("Set-Cookie", c)
		}
	}
	gate.ForbidCaching(h) // first: what it drops keeps nothing private
	if !gate.HeaderHas(h, "Cache-Control", "private") && !gate.HeaderHas(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", "no-store")
	}
	if s.token {
		return
	}
	_ = s.unlocked(func() error { // it logs
		s.m.warnOfProxy(s.x)
		return nil
	})
}

// cookiesLocked returns the Set-Cookie headers that are due, or the token, and
// forgets them.
// public says that caches may keep the response, which is then not spoilt for
// the sake of a touch.
func (s *Session) cookiesLocked(public bool) []string {
	c := s.cookie
	s.cookie = cookieState{}
	now := time.Now()
	name, express := s.m.cfg.Cookie.Name, s.m.cfg.Cookie.Format == FormatExpress
	switch {
	case c.send && s.rec != nil && (s.made || !s.detached && !(c.refreshOnly && public)):
		if s.token {
			return s.tokenLocked()
		}
		value, err := s.m.keys.codec().Sign(name, s.rec.id)
		if err != nil || len(name)+len(value) > maxCookieBytes {
			// Only an ID of kilobytes, made by a custom genid, comes here.
			s.logUnlocked(slog.LevelError, "session: cookie left out, too long for browsers")
			return nil
		}
		lifetime := s.lifetimeLocked(now)
		return append(s.m.device.logout(c.expire, s.expireAs, now), cookie.SetCookie(name, value, s.attributesLocked(), lifetime, express, now))
	case c.expire:
		all := s.m.device.logout(true, s.expireAs, now)
		for _, a := range s.expireAs {
			all = append(all, cookie.SetCookie(name, "", a, cookie.Lifetime{}, express, now))
		}
		return all
	}
	return nil
}

// headerToken is the response header that brings a client its token, in the form in
// which net/http keeps it.
const headerToken = "Session-Token"

// tokenLocked returns the value of headerToken.
func (s *Session) tokenLocked() []string {
	token, err := s.m.keys.bearer().Make(s.rec.id)
	if err != nil { // never: a token's ID was made by newID
		return nil
	}
	return []string{token}
}

// attributesLocked returns those of the session's cookie: an existing Express
// session's are in its record. It may unlock s for a moment.
func (s *Session) attributesLocked() cookie.Attributes {
	if s.m.cfg.Cookie.Format == FormatExpress && s.rec != nil {
		a, err := s.rec.Attributes()
		if err == nil {
			return a
		}
		s.logUnlocked(slog.LevelWarn, "session: cookie attributes in the record are not usable, the configuration's are used", slog.String("reason", err.Error()))
	}
	return s.m.configured(s.x.r)
}

// lifetimeLocked says how long the session's cookie is to live.
func (s *Session) lifetimeLocked(now time.Time) cookie.Lifetime {
	own := s.rec.idle.own
	untilExit := !own && (s.m.cfg.Cookie.BrowserSession || s.m.cfg.Cookie.Format == FormatExpress)
	return cookie.Lifetime{TTL: s.rec.remaining(now), UntilExit: untilExit}
}

// configured returns the attributes that the configuration gives on r.
func (m *Manager) configured(r *http.Request) cookie.Attributes {
	c := &m.cfg.Cookie
	return cookie.Attributes{Domain: m.domain(r), Path: c.Path, SameSite: c.sameSite(), Partitioned: c.Partitioned, Secure: m.secure(r)}
}

// domain returns the Domain of a cookie made on r. Whoever lies about the host is
// given a cookie for another domain of the list, which his browser does not take.
func (m *Manager) domain(r *http.Request) string {
	if m.domains == nil {
		return m.cfg.Cookie.Domain
	}
	host := r.Host
	if m.cfg.TrustProxy {
		if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" {
			host, _, _ = strings.Cut(forwarded, ",") // the client's side comes first
			host = strings.TrimSpace(host)
		}
	}
	return m.domains.of(host)
}

// secure reports whether a cookie made on r is to have the Secure attribute.
func (m *Manager) secure(r *http.Request) bool {
	switch m.cfg.Cookie.Secure {
	case SecureAlways:
		return true
	case SecureNever:
		return false
	}
	if r.TLS != nil {
		return true
	}
	proto := r.Header.Get("X-Forwarded-Proto")
	if proto == "" {
		return false
	}
	if !m.cfg.TrustProxy {
		return false // and warnOfProxy says so when a cookie is sent
	}
	return isHTTPS(proto)
}

// warnOfProxy logs once that cookies are sent without Secure although a proxy may
// know better, or with it although nothing shows that the browser came by HTTPS.
func (m *Manager) warnOfProxy(x *exchange) {
	r := x.r
	if r.TLS != nil {
		return
	}
	forwarded := r.Header.Get("X-Forwarded-Proto")
	switch m.cfg.Cookie.Secure {
	case SecureAuto:
		if m.cfg.TrustProxy || forwarded == "" {
			return
		}
		m.warnProxy.Do(func() {
			m.cfg.Logger.LogAttrs(x.below(), slog.LevelWarn, "session: X-Forwarded-Proto seen but Config.TrustProxy is not set: session cookies are sent without Secure; set TrustProxy if your proxy sets this header, or SecureAlways")
		})
	case SecureAlways:
		// Browsers say where a request comes from over HTTPS alone, and to localhost
		// (Fetch Metadata, section 4), where they keep such a cookie too.
		if isHTTPS(forwarded) || r.Header.Get("Sec-Fetch-Site") != "" {
			return
		}
		m.warnPlain.Do(func() {
			m.cfg.Logger.LogAttrs(x.below(), slog.LevelWarn, "session: SecureAlways, and a session cookie goes out by plain HTTP: a browser that came so drops it, and is logged out at once; if a proxy ends TLS, let it set X-Forwarded-Proto: https, else serve HTTPS or set SecureAuto")
		})
	}
}

// isHTTPS reads an X-Forwarded-Proto header. The client's side comes first.
func isHTTPS(forwarded string) bool {
	proto, _, _ := strings.Cut(forwarded, ",")
	return strings.EqualFold(strings.TrimSpace(proto), "https")
}
