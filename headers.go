package session

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/gate"
)

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
	cookie := s.headerLocked(gate.HeaderHas(h, "Cache-Control", "public") || gate.HeaderHas(h, "Cache-Control", "s-maxage="))
	if cookie == "" {
		return
	}
	h.Add("Set-Cookie", cookie)
	if !gate.HeaderHas(h, "Cache-Control", "private") && !gate.HeaderHas(h, "Cache-Control", "no-store") {
		h.Set("Cache-Control", "no-store")
	}
	gate.ForbidCaching(h)
}

// headerLocked returns the Set-Cookie header that is due, "" if none, and forgets it.
// public says that caches may keep the response, which is then not spoilt for
// the sake of a touch.
func (s *Session) headerLocked(public bool) string {
	c := s.cookie
	s.cookie = cookieState{}
	if s.detached || c.refreshOnly && public {
		return ""
	}
	now := time.Now()
	s.m.warnOfProxy(s.r)
	attrs := s.attributesLocked()
	name, express := s.m.cfg.Cookie.Name, s.m.cfg.Cookie.Format == FormatExpress
	switch {
	case c.send && s.id != "":
		value, err := s.m.codec.Sign(name, s.id)
		if err != nil || len(name)+len(value) > maxCookieBytes {
			// Only an ID of kilobytes, made by a custom genid, comes here.
			s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelError, "session: cookie left out, too long for browsers")
			return ""
		}
		return cookie.SetCookie(name, value, attrs, s.lifetimeLocked(now), express, now)
	case c.expire:
		if s.expireAs != nil {
			attrs = *s.expireAs
		}
		return cookie.SetCookie(name, "", attrs, cookie.Lifetime{}, express, now)
	}
	return ""
}

// attributesLocked returns those of the session's cookie: an existing Express
// session's are in its record.
func (s *Session) attributesLocked() cookie.Attributes {
	if s.m.cfg.Cookie.Format == FormatExpress && s.base.Raw != nil {
		a, err := s.base.Attributes()
		if err == nil {
			return a
		}
		s.m.cfg.Logger.LogAttrs(s.r.Context(), slog.LevelWarn, "session: cookie attributes in the record are not usable, the configuration's are used", slog.String("reason", err.Error()))
	}
	return s.m.configured(s.r)
}

// lifetimeLocked says how long the session's cookie is to live.
func (s *Session) lifetimeLocked(now time.Time) cookie.Lifetime {
	_, own := s.base.MaxAge()
	untilExit := !own && (s.m.cfg.Cookie.BrowserSession || s.m.cfg.Cookie.Format == FormatExpress)
	return cookie.Lifetime{TTL: s.left - now.Sub(s.asOf), UntilExit: untilExit}
}

// configured returns the attributes that the configuration gives on r.
func (m *Manager) configured(r *http.Request) cookie.Attributes {
	c := &m.cfg.Cookie
	a := cookie.Attributes{Domain: c.Domain, Path: c.Path, Partitioned: c.Partitioned, Secure: m.secure(r)}
	switch c.SameSite {
	case http.SameSiteLaxMode:
		a.SameSite = "Lax"
	case http.SameSiteStrictMode:
		a.SameSite = "Strict"
	case http.SameSiteNoneMode:
		a.SameSite = "None"
	}
	return a
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
	proto, _, _ = strings.Cut(proto, ",") // the client's side comes first
	return strings.EqualFold(strings.TrimSpace(proto), "https")
}

// warnOfProxy logs once that cookies are sent without Secure although a proxy may
// know better.
func (m *Manager) warnOfProxy(r *http.Request) {
	if m.cfg.Cookie.Secure != SecureAuto || m.cfg.TrustProxy || r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "" {
		return
	}
	m.warnProxy.Do(func() {
		m.cfg.Logger.Warn("session: X-Forwarded-Proto seen but Config.TrustProxy is not set: session cookies are sent without Secure; set TrustProxy if your proxy sets this header, or SecureAlways")
	})
}
