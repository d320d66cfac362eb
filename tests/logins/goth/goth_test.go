package web

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/sessions"
	"github.com/markbates/goth/gothic"
	"github.com/markbates/goth/providers/openidConnect"
	"github.com/markbates/goth/providers/steam"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/logins/check"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const cart = session.Key[string]("cart")

// newProvider is an OpenID provider whose codes are the names of its users; of nobody its
// token has no sub.
func newProvider(t *testing.T) *httptest.Server {
	t.Helper()
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, secret, _ := r.BasicAuth(); r.URL.Path != "/token" || name != "client" || secret != "secret" || r.PostFormValue("code") == "" {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		claims := fmt.Sprintf(`{"iss":%q,"aud":"client","sub":%q,"exp":%d}`, server.URL, r.PostFormValue("code"), time.Now().Add(time.Hour).Unix())
		claims = strings.Replace(claims, `"sub":"nobody",`, "", 1)
		token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2lnbmF0dXJl"
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"the access token","token_type":"Bearer","id_token":%q}`, token)
	}))
	t.Cleanup(server.Close)
	return server
}

// steamServer answers in Steam's place that whatever it is shown is its own.
type steamServer struct{}

func (steamServer) RoundTrip(r *http.Request) (*http.Response, error) {
	text := "ns:http://specs.openid.net/auth/2.0\nis_valid:true\n"
	if r.URL.Host == "api.steampowered.com" {
		text = `{"response":{"players":[{"steamid":"76561197960287930"}]}}`
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// gothic's settings are the program's, so this is one test.
func TestGoth(t *testing.T) {
	server := newProvider(t)
	provider, err := openidConnect.NewCustomisedURL("client", "secret", "http://example.com/login/openid-connect/callback",
		server.URL+"/authorize", server.URL+"/token", server.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cart", func(_ http.ResponseWriter, r *http.Request) { cart.Set(session.From(r.Context()), "tea") })
	mux.HandleFunc("GET /account", func(w http.ResponseWriter, r *http.Request) {
		id, _ := userID.Get(session.From(r.Context()))
		item, _ := cart.Get(session.From(r.Context()))
		fmt.Fprintf(w, "user %q, cart %q", id, item)
	})
	manager, pool := check.Open(t, string(userID))
	withoutState, named := steam.New("key", "http://example.com/login/steam/callback"), steam.New("key", "http://example.com")
	withoutState.HTTPClient = &http.Client{Transport: steamServer{}}
	named.SetName("twitter")
	app := App(manager, mux, provider, withoutState, named)
	browser := func(t *testing.T) *check.Browser { return &check.Browser{T: t, App: app} }
	const callback, refused = "/login/openid-connect/callback", "not begun in this browser"
	begin := func(b *check.Browser, query string) (state string) {
		b.T.Helper()
		a := b.Post("/login/openid-connect"+query, nil)
		u, err := url.Parse(a.Location)
		if err != nil || a.Code != http.StatusSeeOther || !strings.HasPrefix(a.Location, server.URL+"/authorize?") {
			b.T.Fatalf("the login begins: got %d to %q, want 303 to the provider", a.Code, a.Location)
		}
		return u.Query().Get("state")
	}
	comeBack := func(b *check.Browser, state, user string) check.Answer {
		return b.Get(callback + "?" + url.Values{"state": {state}, "code": {user}}.Encode())
	}

	t.Run("login and logout", func(t *testing.T) {
		b := browser(t)
		b.Get("/cart")
		state := begin(b, "")
		before := b.Cookie
		comeBack(b, state, "ada").Want(t, http.StatusSeeOther, "/account")
		b.Get("/account").Want(t, http.StatusOK, `user "openid-connect ada", cart "tea"`)
		if b.Cookie == before {
			t.Error("the session is not renewed")
		}
		thief := browser(t)
		thief.Cookie = before
		thief.Get("/account").Want(t, http.StatusOK, `user "", cart ""`)
		if stored := check.Stored(t, pool); strings.Contains(stored, "the access token") || strings.Contains(stored, gothic.SessionName) {
			t.Error("the table has what gothic noted, want it gone")
		}
		comeBack(b, state, "ada").Want(t, http.StatusForbidden, refused) // a state is good once
		b.Get("/account").Want(t, http.StatusOK, `user "openid-connect ada", cart "tea"`)

		comeBack(b, begin(b, ""), "bob").Want(t, http.StatusSeeOther, "/account")
		b.Get("/account").Want(t, http.StatusOK, `user "openid-connect bob", cart ""`) // nothing of ada's
		last := b.Cookie
		b.Post("/logout", nil).Want(t, http.StatusSeeOther, "/")
		if b.Cookie != "" {
			t.Error("got a cookie after the logout, want none")
		}
		b.Cookie = last
		b.Get("/account").Want(t, http.StatusOK, `user "", cart ""`)
	})

	t.Run("forged callbacks", func(t *testing.T) {
		b, mallory := browser(t), browser(t)
		mallorys := begin(mallory, "")
		comeBack(b, mallorys, "mallory").Want(t, http.StatusForbidden, refused)
		if b.Cookie != "" {
			t.Error("a forged callback has begun a session")
		}
		for _, state := range []string{mallorys, "", "known"} {
			if begin(b, "?state=known") == "known" {
				t.Error("the state is the one in the URL, which anybody writes")
			}
			comeBack(b, state, "mallory").Want(t, http.StatusForbidden, refused)
		}
		b.Get("/account").Want(t, http.StatusOK, `user "", cart ""`)
		b.Post("/login/openid-connect", nil, "Sec-Fetch-Site", "cross-site").Want(t, http.StatusForbidden, "")
		b.Post("/login/another", nil).Want(t, http.StatusNotFound, "no such provider")
	})

	// Not every provider says who somebody is, and goth has no error for that.
	t.Run("a user without an ID", func(t *testing.T) {
		b := browser(t)
		comeBack(b, begin(b, ""), "nobody").Want(t, http.StatusForbidden, refused)
		b.Get("/account").Want(t, http.StatusOK, `user "", cart ""`)
	})

	// Steam's login has no state, so gothic would take anybody's answer for it.
	t.Run("providers without a state", func(t *testing.T) {
		b := browser(t)
		mallorys := "/login/steam/callback?" + url.Values{
			"openid.mode": {"id_res"}, "openid.return_to": {withoutState.CallbackURL}, "openid.signed": {"claimed_id"},
			"openid.claimed_id": {"https://steamcommunity.com/openid/id/76561197960287930"},
		}.Encode()
		b.Post("/login/steam", nil).Want(t, http.StatusForbidden, "could be forged")
		b.Get(mallorys).Want(t, http.StatusForbidden, refused)
		b.Get("/account").Want(t, http.StatusOK, `user "", cart ""`)

		b.Post("/login/twitter?provider=steam", nil).Want(t, http.StatusForbidden, "could be forged")
		if got := b.Post("/login/twitter", nil); got.Code != http.StatusSeeOther { // it is among oauth1
			t.Errorf("a provider that is named: got %d, want 303", got.Code)
		}
	})

	// gothic notes one login of a provider at a time: that of the last tab, and only if it
	// is the first to come back.
	t.Run("tabs", func(t *testing.T) {
		b := browser(t)
		first, second := begin(b, ""), begin(b, "")
		comeBack(b, first, "ada").Want(t, http.StatusForbidden, refused)
		comeBack(b, second, "ada").Want(t, http.StatusForbidden, refused)
		begin(b, "")
		comeBack(b, begin(b, ""), "ada").Want(t, http.StatusSeeOther, "/account")
	})

	t.Run("a form from another site", func(t *testing.T) {
		b := browser(t)
		form := url.Values{"state": {begin(b, "")}, "code": {"ada"}}
		before := b.Cookie
		b.Post(callback, form, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate").Want(t, http.StatusOK, `<form method="post">`)
		if b.Cookie != before {
			t.Error("the page that posts again has changed the cookie")
		}
		b.Post(callback, form, "Sec-Fetch-Site", "same-origin").Want(t, http.StatusSeeOther, "/account")
		b.Get("/account").Want(t, http.StatusOK, `user "openid-connect ada"`)
	})

	t.Run("outage", func(t *testing.T) {
		b := browser(t)
		state := begin(b, "")
		check.Rename(t, pool, "session", "away")
		comeBack(b, state, "ada").Want(t, http.StatusServiceUnavailable, "")
		browser(t).Post("/login/openid-connect", nil).Want(t, http.StatusServiceUnavailable, "")
		check.Rename(t, pool, "away", "session")
		comeBack(b, state, "ada").Want(t, http.StatusSeeOther, "/account")
	})

	t.Run("values", func(t *testing.T) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		serve := func(b *check.Browser, page http.HandlerFunc) {
			b.App = manager.Handler(page)
			b.Get("/")
		}
		b := browser(t)
		serve(b, func(w http.ResponseWriter, r *http.Request) {
			s, err := gothicStore{}.Get(r, "x")
			if err != nil || !s.IsNew {
				t.Errorf("got %v, new %v, want a new one", err, s.IsNew)
			}
			s.Values["bytes"] = string(every)
			if err := s.Save(r, w); err != nil {
				t.Error(err)
			}
		})
		serve(b, func(w http.ResponseWriter, r *http.Request) {
			s, err := gothicStore{}.Get(r, "x")
			if err != nil || s.IsNew || s.Values["bytes"] != string(every) {
				t.Errorf("got %v, new %v, want all bytes as they were", err, s.IsNew)
			}
			for _, values := range []map[any]any{{1: "x"}, {"x": 1}} {
				odd := sessions.NewSession(gothicStore{}, "x")
				odd.Values = values
				if err := odd.Save(r, w); err == nil {
					t.Errorf("%v: got no error, want one", values)
				}
			}
			_, _ = io.WriteString(w, "done")
		})
	})
}
