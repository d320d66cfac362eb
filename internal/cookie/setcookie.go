package cookie

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Attributes are those of a Set-Cookie header beside its lifetime and HttpOnly,
// which is always there. What is empty is left out. They are written as they
// are: a semicolon or a line break in them is the caller's to refuse.
type Attributes struct {
	Domain, Path, SameSite, Priority string
	Secure, Partitioned              bool
}

// Lifetime is what a Set-Cookie header says about the cookie's end.
type Lifetime struct {
	TTL       time.Duration // from now, rounded up to seconds; a negative one is 0
	UntilExit bool          // ends with the browser: neither Max-Age nor Expires
}

// SetCookie returns a Set-Cookie header, the attributes in Express's order. With
// express it has no Max-Age, as in Express. An empty value makes the browser drop
// the cookie, whatever l says.
func SetCookie(name, value string, a Attributes, l Lifetime, express bool, now time.Time) string {
	var b strings.Builder
	attr := func(name, value string) {
		if value != "" {
			b.WriteString("; ")
			b.WriteString(name)
			b.WriteString(value)
		}
	}
	flag := func(name string, on bool) {
		if on {
			b.WriteString("; ")
			b.WriteString(name)
		}
	}
	b.WriteString(name)
	b.WriteByte('=')
	b.WriteString(value)
	attr("Domain=", a.Domain)
	attr("Path=", a.Path)
	switch {
	case value == "":
		attr("Expires=", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		attr("Max-Age=", "0")
	case !l.UntilExit:
		// Rounded up: the cookie never ends before the record.
		seconds := max(0, int64((l.TTL+time.Second-1)/time.Second))
		end := now.Add(max(0, l.TTL) + time.Second - 1).Truncate(time.Second)
		attr("Expires=", end.UTC().Format(http.TimeFormat))
		if !express {
			attr("Max-Age=", strconv.FormatInt(seconds, 10))
		}
	}
	flag("HttpOnly", true)
	flag("Secure", a.Secure)
	flag("Partitioned", a.Partitioned)
	attr("Priority=", a.Priority)
	attr("SameSite=", a.SameSite)
	return b.String()
}
