package row

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgsession/session/internal/cookie"
	"github.com/pgsession/session/internal/jsonobj"
)

// NewCookie returns the cookie object of a new record, its members in the order
// in which Express writes them and its lifetime still open: see
// [Row.SetLifetime].
func NewCookie(a cookie.Attributes) jsonobj.Object {
	var c jsonobj.Object
	add := func(name, value string) { c.Add(name, jsonobj.AppendString(nil, value)) }
	c.Add("originalMaxAge", []byte("null"))
	if a.Partitioned {
		c.Add("partitioned", []byte("true"))
	}
	c.Add("expires", []byte("null"))
	c.Add("secure", strconv.AppendBool(nil, a.Secure))
	c.Add("httpOnly", []byte("true"))
	if a.Domain != "" {
		add("domain", a.Domain)
	}
	add("path", a.Path)
	if a.SameSite != "" {
		add("sameSite", strings.ToLower(a.SameSite))
	}
	return c
}

// cookie returns the record's cookie object, taken apart; ok is false if the
// record has none, which no healthy one lacks.
func (r *Row) cookie() (c jsonobj.Object, ok bool) {
	raw := r.Get(memberCookie)
	if len(raw) == 0 || raw[0] != '{' {
		return c, false
	}
	return jsonobj.Scan(raw)
}

// Cookie returns the record's cookie object; healthy is false unless Express can
// use it. It answers 500 where there is none, and never answers where
// originalMaxAge is no number or an attribute is none that it knows.
func (r *Row) Cookie() (c jsonobj.Object, healthy bool) {
	c, ok := r.cookie()
	if !ok {
		return jsonobj.Object{}, false
	}
	if _, err := attributes(&c); err != nil {
		return jsonobj.Object{}, false
	}
	maxAge := c.Get("originalMaxAge")
	_, number := duration(maxAge)
	return c, number || maxAge == nil || string(maxAge) == "null"
}

// Attributes returns the cookie attributes that the record holds for an existing
// Express session. What a browser or Express itself would choke on is an error,
// which shows nothing of the record.
func (r *Row) Attributes() (cookie.Attributes, error) {
	c, ok := r.cookie()
	if !ok {
		return cookie.Attributes{}, errors.New("no cookie object")
	}
	return attributes(&c)
}

// attributes reads those of a cookie object. A save does so, too: what is as
// usual costs no decoder.
func attributes(c *jsonobj.Object) (cookie.Attributes, error) {
	a := cookie.Attributes{Path: "/"} // as in Express where the record has none; its null is no Path at all
	if string(c.Get("path")) == "null" {
		a.Path = ""
	}
	for _, m := range [...]struct {
		name  string
		field *string
	}{{"domain", &a.Domain}, {"path", &a.Path}, {"priority", &a.Priority}} {
		raw := c.Get(m.name)
		if raw == nil || string(raw) == `"/"` && *m.field == "/" {
			continue
		}
		if json.Unmarshal(raw, m.field) != nil { // null leaves it empty
			return a, errors.New(m.name + " is not a string")
		}
	}
	usual := a.Domain == "" && a.Path == "/"
	if !usual && (&http.Cookie{Name: "x", Domain: a.Domain, Path: a.Path}).Valid() != nil { // #nosec G124 -- never sent
		return a, errors.New("domain or path is not valid in a cookie")
	}
	switch p := strings.ToLower(a.Priority); p {
	case "":
	case "low", "medium", "high":
		a.Priority = strings.ToUpper(p[:1]) + p[1:]
	default:
		return a, errors.New("priority is not low, medium or high")
	}
	a.Secure = bytes.Equal(c.Get("secure"), []byte("true"))
	a.Partitioned = bytes.Equal(c.Get("partitioned"), []byte("true"))
	switch s := strings.ToLower(string(c.Get("sameSite"))); s {
	case "", "null", "false":
	case "true", `"strict"`:
		a.SameSite = "Strict"
	case `"lax"`:
		a.SameSite = "Lax"
	case `"none"`:
		a.SameSite = "None"
	default:
		return a, errors.New("sameSite is not lax, strict, none or a boolean")
	}
	return a, nil
}

// MaxAge returns the session's own idle timeout: cookie.originalMaxAge, in
// milliseconds, as Express keeps it. ok is false where the record has none,
// which in Express is a session that ends with the browser. It allocates
// nothing for a usual cookie object, for every request that uses its session
// asks.
func (r *Row) MaxAge() (d time.Duration, ok bool) {
	return duration(jsonobj.Lookup(r.Get(memberCookie), "originalMaxAge"))
}

// SetLifetime writes the idle timeout and the expiry into the cookie object c,
// and that into r. maxAge 0 writes Express's null: a session that ends with the
// browser.
func (r *Row) SetLifetime(c jsonobj.Object, maxAge time.Duration, expires time.Time) {
	if maxAge <= 0 {
		c.Set("originalMaxAge", []byte("null"))
		c.Set("expires", []byte("null"))
		r.setCookie(&c)
		return
	}
	c.Set("originalMaxAge", strconv.AppendInt(nil, maxAge.Milliseconds(), 10))
	r.SetExpires(c, expires)
}

// SetExpires writes the expiry into the cookie object c, and that into r.
func (r *Row) SetExpires(c jsonobj.Object, t time.Time) {
	c.Set("expires", t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`))
	r.setCookie(&c)
}

// setCookie puts the cookie object where it stands, else first, as Express does.
func (r *Row) setCookie(c *jsonobj.Object) { r.SetFirst(memberCookie, c.Encode()) }
