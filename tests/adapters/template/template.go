// Package web is an application of its framework, as docs/adapters.md shows it.
package web

import (
	"bytes"
	"html/template"
	"net/http"

	"github.com/pgsession/session"
)

const (
	userName = session.Key[string]("userName")
	flash    = session.Key[string]("flash")
)

var pages = template.Must(template.New("home").Parse(`
	{{with .Flash}}<p role="status">{{.}}</p>{{end}}
	{{with .User}}Hello {{.}}{{else}}<a href="/login">Log in</a>{{end}}
	<h1>{{.Page}}</h1>`))

// render gives every page what its layout needs.
func render(w http.ResponseWriter, r *http.Request, name string, page any) {
	s := session.From(r.Context())
	user, _ := userName.Get(s)
	message, _ := flash.Take(s) // before the first byte leaves, so not in a function of the template
	var html bytes.Buffer
	err := pages.ExecuteTemplate(&html, name, map[string]any{"User": user, "Flash": message, "Page": page})
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	_, _ = html.WriteTo(w)
}

func home(w http.ResponseWriter, r *http.Request) { render(w, r, "home", "News") }
