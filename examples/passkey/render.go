package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"strings"

	"github.com/pgsession/session"
)

//go:embed web
var web embed.FS

var (
	pages    = parsePages("signup", "login", "account", "email", "confirm", "devices", "error")
	style, _ = web.ReadFile("web/style.css")
	// styleURL changes with the style sheet, so that browsers may keep it.
	styleURL  = "/style.css?v=" + hash(style)
	script, _ = web.ReadFile("web/passkey.js")
	scriptURL = "/passkey.js?v=" + hash(script)
)

// view is what the pages show.
type view struct {
	Title    string
	User     string // "" for a visitor
	Flash    string
	Problem  string
	Email    string
	Next     string
	Passkeys []passkeyView
	Sessions []sessionView
}

func (view) StyleURL() string  { return styleURL }
func (view) ScriptURL() string { return scriptURL }

func parsePages(names ...string) map[string]*template.Template {
	parsed := map[string]*template.Template{}
	for _, name := range names {
		parsed[name] = template.Must(template.ParseFS(web, "web/layout.html", "web/"+name+".html"))
	}
	return parsed
}

func render(w http.ResponseWriter, r *http.Request, page string, v view) {
	v.Flash, _ = flash.Take(session.From(r.Context()))
	write(w, http.StatusOK, page, v)
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

// answer answers a script.
func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("answer was not sent", "error", err)
	}
}

// refuse answers a script with what it shows its user.
func refuse(w http.ResponseWriter, code int, problem string) {
	answer(w, code, map[string]string{"problem": problem})
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

// deviceLabel is what the User-Agent header says, in words for its owner. The first
// that matches counts, because most browsers claim to be several others too.
func deviceLabel(r *http.Request) string {
	agent := r.UserAgent()
	name := func(otherwise string, names ...string) string {
		for _, n := range names {
			if strings.Contains(agent, n) {
				return n
			}
		}
		return otherwise
	}
	return name("A browser", "Edg", "Firefox", "Chrome", "Safari") + " on " +
		name("some device", "Windows", "Android", "iPhone", "iPad", "Mac", "CrOS", "Linux")
}
