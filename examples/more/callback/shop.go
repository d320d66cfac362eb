package main

import (
	"crypto/rand"
	"html/template"
	"net/http"
	"net/url"

	"github.com/pgsession/session"
)

// The keys of the shop's sessions.
const (
	user       = session.Key[string]("user")
	cart       = session.Key[int]("cart")
	loginState = session.Key[string]("loginState")
)

var shopPage = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><title>Shop</title>
<main>{{with .User}}Hello, {{.}}. {{end}}In your cart: {{.Cart}}.</main>
<form method="post" action="/cart"><button>Add to cart</button></form>
<form method="post" action="/login"><button>Log in</button></form>
`))

func newShop(sessions *session.Manager, provider string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		name, _ := user.Get(s)
		n, _ := cart.Get(s)
		_ = shopPage.Execute(w, map[string]any{"User": name, "Cart": n})
	})
	mux.HandleFunc("POST /cart", func(w http.ResponseWriter, r *http.Request) {
		cart.Update(session.From(r.Context()), func(n int) int { return n + 1 })
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		state := rand.Text()
		loginState.Set(session.From(r.Context()), state)
		http.Redirect(w, r, provider+"/authorize?state="+url.QueryEscape(state), http.StatusSeeOther)
	})
	mux.Handle("POST /login/callback", session.PostAgain(http.HandlerFunc(callback)))

	// Forms of other sites are refused, but for the one that is expected.
	protection := http.NewCrossOriginProtection()
	protection.AddInsecureBypassPattern("POST /login/callback")
	return protection.Handler(sessions.Handler(mux))
}

// callback is where the provider sends the user back to. That this browser has begun
// the login is known by the state, and by nothing else: see PostAgain.
func callback(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	state, ok := loginState.Take(s)
	if !ok || r.PostFormValue("state") != state {
		http.Error(w, "This login was not begun in this browser.", http.StatusForbidden)
		return
	}
	s.Renew()
	user.Set(s, r.PostFormValue("name")) // a real one sends a token, which is verified here
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

var providerPage = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><title>Provider</title>
<main>Log in to the shop?</main>
<form method="post" action="{{.Shop}}/login/callback"><input type="hidden" name="state" value="{{.State}}">
<button name="name" value="ada">I am ada</button></form>
`))

// newProvider stands for Apple, or a company's own.
func newProvider(shop string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		_ = providerPage.Execute(w, map[string]string{"Shop": shop, "State": r.FormValue("state")})
	})
	return mux
}
