package main

import (
	"context"
	"embed"
	"html/template"
	"net/http"
)

//go:embed *.html style.css live.js
var files embed.FS

var (
	controlPage = template.Must(template.ParseFS(files, "control.html"))
	troublePage = template.Must(template.ParseFS(files, "trouble.html"))
)

// newFront is what the browser talks to: the page that controls the processes, and
// for all the rest the balancer.
func newFront(c *cluster) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", c.balancer)
	mux.HandleFunc("GET /cluster", c.show)
	mux.HandleFunc("POST /cluster/{action}", c.act)
	mux.HandleFunc("POST /cluster/database/{action}", c.actOnNode)
	for path, file := range map[string]string{"GET /cluster/style.css": "style.css", "GET /cluster/live.js": "live.js"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, files, file)
		})
	}
	// Browsers say where a form was sent from; those of other sites are refused,
	// for every process.
	return http.NewCrossOriginProtection().Handler(mux)
}

// act does what a button says, or begins to.
func (c *cluster) act(w http.ResponseWriter, r *http.Request) {
	action := r.PathValue("action")
	if action == "roll" {
		c.background("rolling restart", c.roll)
		http.Redirect(w, r, "/cluster", http.StatusSeeOther)
		return
	}
	m := c.find(r.PostFormValue("process"))
	switch {
	case m != nil && action == "kill":
		c.kill(m)
	case m != nil && action == "restart":
		c.background("restart of process "+m.name, func(ctx context.Context) error { return c.restart(ctx, m) })
	default:
		http.Error(w, "There is no such process, or no such button.", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, "/cluster", http.StatusSeeOther)
}

func (c *cluster) find(name string) *member {
	for _, m := range c.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

// memberView is one process on the page.
type memberView struct {
	Name     string
	State    string
	PID      int // 0: there is no process
	Answered int
	UnderWay int
	Starts   int
}

func (c *cluster) show(w http.ResponseWriter, r *http.Request) {
	v := struct {
		Members []memberView
		Up      int
		Nodes   []nodeView // empty: one database
		Host    string
	}{Nodes: c.databases.view(), Host: r.Host}
	for _, m := range c.members {
		mv := m.view()
		c.balancer.mu.Lock()
		mv.Answered, mv.UnderWay = m.answered, m.underWay
		if m.unwell && mv.State == "up" {
			mv.State = "not answering"
		}
		c.balancer.mu.Unlock()
		if mv.State == "up" {
			v.Up++
		}
		v.Members = append(v.Members, mv)
	}
	render(w, http.StatusOK, controlPage, v)
}

func (m *member) view() memberView {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := memberView{Name: m.name, State: m.state, Starts: m.starts}
	if m.process != nil {
		v.PID = m.process.cmd.Process.Pid
	}
	return v
}
