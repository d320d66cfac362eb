package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"log/slog"
	"net/http"

	"github.com/pgsession/session"
)

//go:embed web
var web embed.FS

var (
	pages    = parsePages("signup", "login", "cookies", "account", "devices", "confirm", "password", "delete", "error")
	style, _ = web.ReadFile("web/style.css")
	// styleURL changes with the style sheet, so that browsers may keep it.
	styleURL  = "/style.css?v=" + hash(style)
	script, _ = web.ReadFile("web/left.js")
	scriptURL = "/left.js?v=" + hash(script)
)

// view is what the pages show.
type view struct {
	Title   string
	User    string // "" for a visitor
	Admin   bool
	Flash   string
	Problem string // with the form, and its last input:
	Name    string

	Remember bool
	Next     string

	Sessions int
	Device   deviceView
	Devices  []deviceView
}

func (view) StyleURL() string  { return styleURL }
func (view) ScriptURL() string { return scriptURL }
func (view) MinPassword() int  { return minPassword }
func (view) MaxDevices() int   { return maxPerUser }

// Initial is the letter of the user's picture.
func (v view) Initial() string { return v.User[:1] }

func parsePages(names ...string) map[string]*template.Template {
	parsed := map[string]*template.Template{}
	for _, name := range names {
		parsed[name] = template.Must(template.ParseFS(web, "web/layout.html", "web/"+name+".html"))
	}
	return parsed
}

func render(w http.ResponseWriter, r *http.Request, code int, page string, v view) {
	v.Flash, _ = flash.Take(session.From(r.Context()))
	write(w, code, page, v)
}

// renderError uses no session: there may be none to be had.
func renderError(w http.ResponseWriter, code int, message string) {
	write(w, code, "error", view{Title: http.StatusText(code), Problem: message})
}

func write(w http.ResponseWriter, code int, page string, v view) {
	var b bytes.Buffer
	if err := pages[page].ExecuteTemplate(&b, "layout.html", v); err != nil {
		slog.Error("page failed", "page", page, "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}

func serveStyle(w http.ResponseWriter, _ *http.Request)  { serveFile(w, "text/css", style) }
func serveScript(w http.ResponseWriter, _ *http.Request) { serveFile(w, "text/javascript", script) }

// serveFile uses no session, so it costs no statement and can be cached.
func serveFile(w http.ResponseWriter, kind string, content []byte) {
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", kind+"; charset=utf-8")
	_, _ = w.Write(content)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
