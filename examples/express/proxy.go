package main

import (
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// The two programs, by the names that they have on their pages.
const (
	programExpress = "Express"
	programGo      = "Go"
)

// route says which program serves a path and everything below it.
type route struct {
	Path    string `json:"path"`
	Program string `json:"program"`
}

// table is the state of the move. The longest path that fits a request decides;
// "/" is the front page and whatever no other route has.
type table []route

// The routes of the shop, and those of them that have moved to Go so far. To move
// another, add it to the second line; -go and GO_ROUTES replace that line.
const (
	allRoutes    = "/,/login,/logout,/cart,/cart/add,/cart/remove,/me"
	defaultMoved = "/cart,/me"
)

// newTable gives the routes in moved, and what is below them, to Go.
func newTable(moved string) (table, error) {
	known := strings.Split(allRoutes, ",")
	list := strings.Split(moved, ",")
	switch moved = strings.TrimSpace(moved); moved {
	case "all":
		list = known
	case "none", "":
		list = nil
	}
	byGo := make(map[string]bool)
	for _, path := range list {
		path = strings.TrimSpace(path)
		if !strings.Contains(","+allRoutes+",", ","+path+",") || path == "" {
			return nil, fmt.Errorf("-go: there is no route %q; the routes are %s, and all or none stand for themselves", path, strings.Join(known, ", "))
		}
		byGo[path] = true
	}
	var t table
	for _, path := range known {
		parent := path[:strings.LastIndexByte(path, '/')]
		program := programExpress
		if byGo[path] || byGo[parent] {
			program = programGo
		}
		t = append(t, route{path, program})
	}
	return t, nil
}

// program is the one that serves a request's path.
func (t table) program(path string) string {
	found := t[0]
	for _, r := range t {
		if len(r.Path) > len(found.Path) && (path == r.Path || strings.HasPrefix(path, r.Path+"/")) {
			found = r
		}
	}
	return found.Program
}

//go:embed shop.css
var styles []byte

// newProxy is what the browser talks to. Neither program sees whether a request
// was meant for the other, and cookies pass as they are.
func newProxy(t table, goURL, expressURL string) http.Handler {
	programs := map[string]http.Handler{
		programGo:      forward(programGo, goURL),
		programExpress: forward(programExpress, expressURL),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /shop.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(styles)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		program := t.program(r.URL.Path)
		slog.Info("request", "program", program, "method", r.Method, "path", r.URL.Path)
		programs[program].ServeHTTP(w, r)
	})
	// Browsers say where a form was sent from; those of other sites are refused,
	// for both programs.
	return http.NewCrossOriginProtection().Handler(mux)
}

// forward passes requests on to one program.
func forward(program, to string) http.Handler {
	target, err := url.Parse(to)
	if err != nil {
		panic(err) // both come from a listener
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			// X-Forwarded-Proto decides whether a cookie is Secure. Rewrite has
			// dropped what the browser may have sent under that name.
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil { // else the browser has gone
				slog.Error("no answer", "program", program, "error", err)
			}
			http.Error(w, "The "+program+" application does not answer. Please try again.", http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}
