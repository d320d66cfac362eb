package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/pgsession/session"
)

// The keys of the sessions: in Express req.session.user, .cart and .flash.
const (
	user  = session.Key[string]("user")
	cart  = session.Key[[]item]("cart")
	flash = session.Key[message]("flash")
)

type item struct {
	Item    string `json:"item"`
	AddedBy string `json:"addedBy"`
}

type message struct {
	Text string `json:"text"`
	By   string `json:"by"`
}

const maxFormBytes = 64 << 10

// What both programs sell.
//
//go:embed app/shop.json
var shopSource []byte

type product struct {
	ID    string
	Name  string
	About string
	Cents int
}

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"euros": func(cents int) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) },
	"lower": strings.ToLower,
}).Parse(pageSource))

// shop is the same shop as app/server.js, with the same routes, pages and sessions.
type shop struct {
	MaxUser  int
	MaxItems int
	Products []product
	routes   table
}

func newShop(routes table) http.Handler {
	s := &shop{routes: routes}
	if err := json.Unmarshal(shopSource, s); err != nil {
		panic(err) // it is embedded
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.render(w, 200, s.view(r, "Shop")) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { s.render(w, 200, s.view(r, "Log in")) })
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) { s.render(w, 200, s.view(r, "Cart")) })
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("POST /cart/add", s.add)
	mux.HandleFunc("POST /cart/remove", s.remove)
	mux.HandleFunc("GET /me", s.me)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store") // the back button shows nobody's page after logout
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Served-By", programGo)
		mux.ServeHTTP(w, r)
	})
}

func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("user"))
	if problem := s.checkUser(name); problem != "" {
		v := s.view(r, "Log in")
		v.Problem, v.Input = problem, name
		s.render(w, http.StatusUnprocessableEntity, v)
		return
	}
	ses := session.From(r.Context())
	ses.Renew() // a new session ID, as Express's regenerate, and the cart stays
	if before, ok := user.Get(ses); ok && before != name {
		cart.Delete(ses) // what the last user left is not the next one's
	}
	user.Set(ses, name)
	flash.Set(ses, message{fmt.Sprintf("Hello, %s. You are logged in.", name), programGo})
	http.Redirect(w, r, "/cart", http.StatusSeeOther)
}

// checkUser says what is wrong with a name, in words for its owner.
func (s *shop) checkUser(name string) string {
	switch {
	case name == "":
		return "Please tell us your name."
	case utf8.RuneCountInString(name) > s.MaxUser:
		return fmt.Sprintf("That is a long name! Up to %d characters fit here.", s.MaxUser)
	}
	return ""
}

func (s *shop) logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Destroy()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *shop) add(w http.ResponseWriter, r *http.Request) {
	p, ok := s.find(r.PostFormValue("item"))
	if !ok {
		http.Error(w, "There is no such item.", http.StatusBadRequest)
		return
	}
	ses := session.From(r.Context())
	if items, _ := cart.Get(ses); len(items) < s.MaxItems {
		flash.Set(ses, message{p.Name + " is in your cart.", programGo})
	} else {
		flash.Set(ses, message{"Your cart is full.", programGo})
	}
	// Update, not Get and Set: when two tabs add at once, both items are kept.
	cart.Update(ses, func(items []item) []item {
		if len(items) >= s.MaxItems {
			return items
		}
		return append(items, item{p.ID, programGo})
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *shop) remove(w http.ResponseWriter, r *http.Request) {
	id := r.PostFormValue("item")
	ses := session.From(r.Context())
	last := func(items []item) int {
		for i := len(items) - 1; i >= 0; i-- {
			if items[i].Item == id {
				return i
			}
		}
		return -1
	}
	if items, _ := cart.Get(ses); last(items) >= 0 {
		cart.Update(ses, func(items []item) []item {
			if i := last(items); i >= 0 {
				return append(items[:i], items[i+1:]...)
			}
			return items // another tab was faster
		})
		flash.Set(ses, message{"One item less.", programGo})
	}
	http.Redirect(w, r, "/cart", http.StatusSeeOther)
}

func (s *shop) me(w http.ResponseWriter, r *http.Request) {
	ses := session.From(r.Context())
	me := struct {
		ServedBy string  `json:"servedBy"`
		User     *string `json:"user"` // null when not logged in
		Cart     []item  `json:"cart"`
	}{programGo, nil, []item{}}
	if name, ok := user.Get(ses); ok {
		me.User = &name
	}
	if items, ok := cart.Get(ses); ok && items != nil {
		me.Cart = items
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(me)
}

func (s *shop) find(id string) (product, bool) {
	for _, p := range s.Products {
		if p.ID == id {
			return p, true
		}
	}
	return product{}, false
}

// view is what a page shows.
type view struct {
	Page    string
	User    string // "": not logged in
	Flash   *message
	Count   int
	Lines   []line
	Total   int
	Problem string // with the login form's last input
	Input   string
	Shop    *shop
	Routes  table
}

type line struct {
	product
	AddedBy string
}

func (s *shop) view(r *http.Request, page string) view {
	ses := session.From(r.Context())
	v := view{Page: page, Shop: s, Routes: s.routes}
	v.User, _ = user.Get(ses)
	if m, ok := flash.Take(ses); ok {
		v.Flash = &m
	}
	items, _ := cart.Get(ses)
	v.Count = len(items)
	for _, it := range items {
		if p, ok := s.find(it.Item); ok {
			v.Lines = append(v.Lines, line{p, it.AddedBy})
			v.Total += p.Cents
		}
	}
	return v
}

func (s *shop) render(w http.ResponseWriter, code int, v view) {
	var b strings.Builder
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
