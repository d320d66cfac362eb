package cookie_test

import (
	"testing"
	"time"

	"github.com/pgsession/session/internal/cookie"
)

func TestSetCookie(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, int(time.Millisecond), time.UTC)
	all := cookie.Attributes{Domain: "example.com", Path: "/app", SameSite: "None", Priority: "High", Secure: true, Partitioned: true}
	for _, c := range []struct {
		name    string
		value   string
		a       cookie.Attributes
		l       cookie.Lifetime
		secure  string // securecookie's format
		express string
	}{
		{
			name: "everything, in Express's order", value: "v", a: all, l: cookie.Lifetime{TTL: time.Hour},
			secure:  "s=v; Domain=example.com; Path=/app; Expires=Sat, 01 Jan 2000 01:00:01 GMT; Max-Age=3600; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None",
			express: "s=v; Domain=example.com; Path=/app; Expires=Sat, 01 Jan 2000 01:00:01 GMT; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None",
		},
		{
			name: "no attributes: HttpOnly all the same", value: "v", l: cookie.Lifetime{UntilExit: true},
			secure: "s=v; HttpOnly", express: "s=v; HttpOnly",
		},
		{
			name: "rounded up", value: "v", l: cookie.Lifetime{TTL: time.Second + 1},
			secure: "s=v; Expires=Sat, 01 Jan 2000 00:00:02 GMT; Max-Age=2; HttpOnly", express: "s=v; Expires=Sat, 01 Jan 2000 00:00:02 GMT; HttpOnly",
		},
		{
			name: "over already", value: "v", l: cookie.Lifetime{TTL: -time.Hour},
			secure: "s=v; Expires=Sat, 01 Jan 2000 00:00:01 GMT; Max-Age=0; HttpOnly", express: "s=v; Expires=Sat, 01 Jan 2000 00:00:01 GMT; HttpOnly",
		},
		{
			name: "no value: dropped by the browser", a: cookie.Attributes{Path: "/"}, l: cookie.Lifetime{TTL: time.Hour},
			secure: "s=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly", express: "s=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly",
		},
	} {
		if got := cookie.SetCookie("s", c.value, c.a, c.l, false, now); got != c.secure {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.secure)
		}
		if got := cookie.SetCookie("s", c.value, c.a, c.l, true, now); got != c.express {
			t.Errorf("%s, Express:\ngot  %s\nwant %s", c.name, got, c.express)
		}
	}
}
