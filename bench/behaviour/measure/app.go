package measure

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"time"
)

// library is one of those that are compared.
type library struct {
	name     string
	versions []string // "module version"

	// start starts an application on it, as the library's documentation writes
	// them. Its routes:
	//
	//	/public  a page that does not use the session
	//	/state   a page that shows what the session holds
	//	/read    the same for users that are logged in; redirects others to /login
	//	/visit   sets key a; with ?public=1 the handler marks its page as public
	//	/set     sets the key ?key=
	//	/login   changes the session ID and sets the user
	//	/logout
	//	/late    sends the first bytes, then sets key late
	//
	// With ?gate= the handler waits there, /read and /set when they have read the
	// session, /late when its first bytes are sent.
	start func(ctx context.Context, db *database, o appOptions) (*app, error)

	cookie string // its name
	age    string // SQL that lets every row's expiry be two minutes nearer
	data   string // SQL that finds the data of all rows, as text

	// checked is the page that reads as /read does and checks the library's error,
	// if it has one to check.
	checked string

	byHand    string // how to say that the ID is not changed by a call of the library
	noSecret  bool   // the cookie is not signed, so there is nothing to rotate
	noSealing string // what there is in place of an option that encrypts the data
}

// appOptions are settings that a measurement needs; the others have the library's
// defaults, but no application prunes: its statements would be counted.
type appOptions struct {
	secrets      []string // the current first; nil: one
	sliding      bool     // every use of the session extends it
	encrypt      bool
	storeTimeout time.Duration
	express      bool // Express's cookies
	gates        *gates
}

const secretA, secretB = "the first secret of the measurement, 32 bytes", "the second secret of the measurement, 32 bytes"

func (o *appOptions) keys() []string {
	if o.secrets == nil {
		return []string{secretA}
	}
	return o.secrets
}

// app is an application that runs.
type app struct {
	lib *library
	db  *database
	url string
	end []func() // called in reverse order

	cookie string // its name, where it is not the library's
}

func (a *app) close() {
	for i := len(a.end) - 1; i >= 0; i-- {
		a.end[i]()
	}
}

// serve lets a handler answer on a port of its own.
func (a *app) serve(h http.Handler) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(ln) }()
	a.end = append(a.end, func() { _ = srv.Close() })
	a.url = "http://" + ln.Addr().String()
	return nil
}

// keys are those of the applications' sessions.
var keys = []string{"user", "a", "b", "late"}

// marker is the value that they store.
const marker = "marker"

// page is every application's.
func page(w io.Writer, get func(key string) string) {
	fmt.Fprint(w, "page ")
	for _, k := range keys {
		fmt.Fprintf(w, "%s=%s ", k, get(k))
	}
	fmt.Fprintln(w)
}

func plain(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "page") }

// markPublic does what a handler does whose page may be cached.
func markPublic(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("public") != "" {
		w.Header().Set("Cache-Control", "public, max-age=60")
	}
}

// moduleVersion finds a version in the program itself.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return path
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return path + " " + m.Version
		}
	}
	return path
}
