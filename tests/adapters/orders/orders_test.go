package orders_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	echo4 "github.com/labstack/echo/v4"

	"github.com/pgsession/session/tests/adapters/orders"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	m.Run()
}

var (
	errHandler = errors.New("the handler's")
	errTeapot  = errors.New("no coffee")
	errMissing = errors.New("not found")
)

// status is what an application's error page makes of an error.
func status(err error) int {
	var coded interface{ StatusCode() int }
	var he *echo4.HTTPError
	switch {
	case errors.As(err, &he):
		return he.Code
	case errors.As(err, &coded):
		return coded.StatusCode()
	case errors.Is(err, errTeapot):
		return http.StatusTeapot
	case errors.Is(err, errMissing):
		return http.StatusNotFound
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// routes are the application for frameworks whose handlers can give back an error.
func routes(k *orders.Kit, add func(path string, h func(context.Context, http.ResponseWriter) error)) {
	changed := func(h func(context.Context, http.ResponseWriter) error) func(context.Context, http.ResponseWriter) error {
		return func(ctx context.Context, w http.ResponseWriter) error {
			k.Change(ctx)
			return h(ctx, w)
		}
	}
	add("/page", changed(func(_ context.Context, w http.ResponseWriter) error {
		_, err := w.Write([]byte(orders.Page))
		return err
	}))
	add("/fails", changed(func(context.Context, http.ResponseWriter) error { return errTeapot }))
	add("/panic", changed(func(context.Context, http.ResponseWriter) error { panic(errHandler) }))
	add("/slow", changed(func(ctx context.Context, _ http.ResponseWriter) error { return k.Slow(ctx) }))
	add("/stream", changed(func(_ context.Context, w http.ResponseWriter) error {
		k.Stream(w)
		return nil
	}))
	add("/late", func(ctx context.Context, w http.ResponseWriter) error {
		k.Stream(w)
		k.Change(ctx)
		return nil
	})
	add("", func(context.Context, http.ResponseWriter) error { return errMissing })
}

// right are the ways that the document recommends.
var right = []struct {
	name    string // as the document has it
	app     orders.App
	streams bool // false: its timeout lets nobody stream, and Echo's Flush panics there
}{
	{"chi, `r.Use`", chiUse, true},
	{"gorilla/mux, around", muxAround, true},
	{"httprouter, around", httprouterAround, true},
	{"Gin, around", ginAround, true},
	{"Echo 4, around", echo4Around, true},
	{"Echo 4, `Sessions`", echo4Use, true},
	{"Echo 4, `Sessions`, `Timeout`", echo4UseTimeout, false},
	{"Echo 5, around", echo5Around, true},
	{"Echo 5, `Sessions`", echo5Use, true},
}

const (
	refused    = "session: request refused"
	aborted    = "session: not saved after the first byte, response aborted"
	afterwards = "session: first used after its handler has returned, nothing was loaded"
)

// In every order the browser gets what it would get without sessions, error pages
// know who is logged in, and an access log outside tells what the browser got.
func TestEveryOrder(t *testing.T) {
	for _, a := range right {
		t.Run(a.name, func(t *testing.T) {
			for _, path := range []string{"/page", "/missing", "/fails", "/panic", "/slow", "/stream"} {
				if path == "/stream" && !a.streams {
					continue
				}
				for _, o := range orders.All() {
					got, plain := orders.Run(t, a.app, o, path), orders.RunPlain(t, a.app, o, path)
					want := plain
					want.Body = strings.Replace(plain.Body, "no session", "user 42", 1)
					want.Saved = 1
					if path == "/missing" || path == "/panic" && o.Recover {
						want.Saved = 0
					}
					if path == "/stream" && plain.Body != "in pieces" && plain.Body != "at once" { // Echo's Flush panics where it cannot flush
						got.Saved, want.Saved = 0, 0
					}
					if got.Seen != got.Code && o.Log {
						t.Errorf("%v %s: got %d in the access log, want the browser's %d", o, path, got.Seen, got.Code)
					}
					got.Seen, want.Seen = 0, 0
					if got != want {
						t.Errorf("%v %s: got %v, want %v", o, path, got, want)
					}
				}
			}
		})
	}
}

// In every order an outage is an answer of the error handler's, without anything of
// the page, and not a page for somebody who is logged out.
func TestOutageInEveryOrder(t *testing.T) {
	for _, a := range right {
		t.Run(a.name, func(t *testing.T) {
			for _, path := range []string{"/page?down", "/missing?down", "/fails?down"} {
				for _, o := range orders.All() {
					got := orders.Run(t, a.app, o, path)
					if !o.Log { // it tells what the handler meant
						got.Seen = http.StatusServiceUnavailable
					}
					want := orders.Result{Code: 503, Body: "Service Unavailable", Seen: 503, Log: refused}
					if got != want {
						t.Errorf("%v %s: got %v, want %v", o, path, got, want)
					}
				}
			}
		})
	}
}

// In no order a response whose changes were not saved looks complete.
func TestLateInEveryOrder(t *testing.T) {
	for _, a := range right {
		if !a.streams {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			for _, o := range orders.All() {
				plain := orders.RunPlain(t, a.app, o, "/late")
				if plain.Body != "in pieces" && plain.Body != "at once" {
					continue // Echo's Flush panics where it cannot flush, with and without sessions
				}
				got := orders.Run(t, a.app, o, "/late")
				switch {
				case got.Body == "cut off" && got.Log == aborted: // after the first byte
				case got.Code == 503 && got.Body == "Service Unavailable" && got.Log == refused: // what lies inside has kept all of it back
				default:
					t.Errorf("%v: got %v, want it cut off or refused", o, got)
				}
			}
		})
	}
}

// What the document warns of.
var wrong = []struct {
	name, place, path string
	app               orders.App
	order             orders.Order
	browser, access   string
	log               string
}{
	{"gorilla/mux, `r.Use`", "", "/missing", muxUse, orders.Order{}, "404, error page, no session", "nothing", ""},
	{"Echo 4, `WrapMiddleware`", "", "/missing", echo4Wrap, orders.Order{}, "404, error page, nobody", "404", afterwards},
	{"Echo 4, `WrapMiddleware`", "log outside", "/fails", echo4Wrap, orders.Order{Log: true}, "418, error page, user 42", "200", ""},
	{"Echo 4, `WrapMiddleware`", "`Gzip`, `Timeout` outside", "/missing", echo4WrapTimeout, orders.Order{Timeout: true, Gzip: true, GzipFirst: true}, "404, empty, called gzip", "404", afterwards},
	{"Echo 4, `WrapMiddleware`", "`Timeout` outside, outage", "/page?down", echo4WrapTimeout, orders.Order{Timeout: true}, "200, empty", "200", refused},
	{"Echo 4, `WrapMiddleware`", "`Timeout` outside, outage", "/fails?down", echo4WrapTimeout, orders.Order{Timeout: true}, "418, error page, nobody", "nothing", refused},
	{"Echo 5, `WrapMiddleware`", "", "/missing", echo5Wrap, orders.Order{}, "404, error page, nobody", "404", afterwards},
	{"Echo 5, `WrapMiddleware`", "log outside, outage", "/page?down", echo5Wrap, orders.Order{Log: true}, "503, Service Unavailable", "200", refused},
	{"any", "log inside, outage", "/page?down", chiUse, orders.Order{Recover: true}, "503, Service Unavailable", "200", refused},
	{"Gin, around", "its `gzip`, `gin.Recovery`", "/panic", ginAround, orders.Order{}, "500, empty, called gzip", "500", ""},
	{"Gin, around", "its `gzip`, recovery outside", "/panic", ginAround, orders.Order{Log: true, Recover: true}, "500, broken gzip", "500", ""},
}

var pages = map[string]string{"/missing": "no such page", "/fails": "an error", "/page?down": "a page", "/fails?down": "an error", "/panic": "a panic"}

// The document's table of what to avoid is what happens.
func TestWrong(t *testing.T) {
	page := document(t)
	for _, w := range wrong {
		got := orders.Run(t, w.app, w.order, w.path)
		access := strconv.Itoa(got.Seen)
		if got.Seen == 0 {
			access = "nothing"
		}
		if browser := fmt.Sprint(got.Code, ", ", got.Body); browser != w.browser || access != w.access || got.Log != w.log {
			t.Errorf("%s, %s, %s: got %v, want %s, %s in the access log and %q in the library's", w.name, w.place, w.path, got, w.browser, w.access, w.log)
		}
		log := ""
		if w.log != "" {
			log = "`" + w.log + "`"
		}
		wantRow(t, page, w.name, w.place, pages[w.path], w.browser, w.access, log)
	}
}

// The document's table of the frameworks is what happens.
func TestTable(t *testing.T) {
	page := document(t)
	outside, inside := orders.Order{Log: true, Recover: true, Timeout: true, Gzip: true}, orders.Order{}
	for _, a := range right {
		both := func(path string, say func(orders.Result) string) string {
			out, in := say(orders.Run(t, a.app, outside, path)), say(orders.Run(t, a.app, inside, path))
			if out == in {
				return out
			}
			return out + " / " + in
		}
		brief := func(r orders.Result) string { return fmt.Sprint(r.Code, ", ", r.Body) }
		stream := "no"
		if a.streams {
			stream = both("/stream", func(r orders.Result) string { return r.Body })
		}
		wantRow(t, page, a.name, both("/missing", brief), both("/panic", func(r orders.Result) string {
			return brief(r) + map[int]string{0: "", 1: ", saved"}[r.Saved]
		}), both("/slow", brief), stream)
	}
}

func wantRow(t *testing.T, page string, cells ...string) {
	t.Helper()
	row := "| " + strings.Join(cells, " | ") + " |\n"
	if row = strings.ReplaceAll(row, "|  |", "| |"); !strings.Contains(page, row) {
		t.Errorf("the document has no row\n%s", row)
	}
}

// Go's test cache does not see changes of a file outside of the module: use -count=1.
func document(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../../docs/adapters.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
