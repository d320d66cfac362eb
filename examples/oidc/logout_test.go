package main_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	main "github.com/pgsession/session/examples/oidc"
	"github.com/pgsession/session/internal/exampletest"
)

// A logout in one browser ends what it says in the others, and nothing else.
func TestChromiumSingleLogout(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	ada, phone, bob := newReal(s), newReal(s), newVisitor(s)
	bob.logIn("bob")
	for _, b := range []*real{ada, phone} {
		b.visit(s.app+"/login", "Log in")
		b.press("Log in with the provider", "Who are you?")
		b.press("I am ada", "Hello, ada.")
	}

	// Begun by the application: this browser's login, here and at the provider.
	ada.press("Log out", "You are not logged in.")
	phone.visit(s.app, "Hello, ada.")
	ada.visit(s.provider, "Who are you?")

	// Begun at the provider: all of the user's.
	ada.press("I am ada", "You are ada here.")
	ada.press("Log out everywhere", "Who are you?")
	phone.visit(s.app, "You are not logged in.")
	phone.visit(s.provider, "Who are you?")
	bob.want("bob")
}

// One login at the provider may have several sessions here, as a browser's that has lost
// its cookie: the logout ends them all.
func TestLogoutEndsEverySessionOfTheLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v, other := newVisitor(s), newVisitor(s)
	other.logIn("ada")
	v.logIn("ada")
	lost := v.cookie()
	v.set("")
	v.Post(s.app+"/login", nil).Want(t, http.StatusOK, "Hello, ada.") // the provider does not ask again
	if v.cookie() == lost {
		t.Fatal("got the same session, want another of the same login")
	}
	v.Post(s.app+"/logout", nil).Want(t, http.StatusOK, "You are not logged in.")
	v.set(lost)
	v.want("")
	other.want("ada")
}

// The provider's logout page may be at a site of its own, and have a query.
func TestLogoutPageOfTheProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	v.logIn("ada")
	const discovery = "/.well-known/openid-configuration"
	tamper := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == discovery {
			rec := httptest.NewRecorder()
			s.issuer.ServeHTTP(rec, r)
			var answer map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Error(err)
			}
			answer["end_session_endpoint"] = "https://logout.example/end?policy=one"
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		}
		return r.URL.Path == discovery
	}
	s.tamper.Store(&tamper)
	app := s.instance()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, s.app+"/logout", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: v.cookie()})
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)

	to, err := url.Parse(w.Header().Get("Location"))
	must(t, err)
	if got := to.Scheme + "://" + to.Host + to.Path; got != "https://logout.example/end" {
		t.Errorf("the browser is sent to %s, want the provider's logout page", got)
	}
	q := to.Query()
	if q.Get("policy") != "one" || q.Get("id_token_hint") == "" || q.Get("client_id") != "bank" || q.Get("post_logout_redirect_uri") != s.app+"/" {
		t.Error("the query is not the page's own and the logout's")
	}
	allowed, _, _ := strings.Cut(w.Header().Get("Content-Security-Policy"), "; base-uri")
	for _, site := range []string{s.provider, "https://logout.example"} {
		if !strings.Contains(allowed+" ", " "+site+" ") {
			t.Errorf("form-action keeps browsers from %s", site)
		}
	}
}

func TestLogoutTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	v.logIn("ada")
	sid := s.sid("ada")
	stranger, err := main.NewProvider(main.Agreed(s.app, s.provider, false))
	must(t, err)
	t.Cleanup(func() { must(t, stranger.Close()) })
	for _, tt := range []struct {
		name   string
		kind   string
		by     *main.Provider
		change func(claims map[string]any)
	}{
		{"another key", "logout+jwt", stranger, func(map[string]any) {}},
		{"another type", "JWT", s.issuer, func(map[string]any) {}},
		{"another provider", "logout+jwt", s.issuer, func(c map[string]any) { c["iss"] = "http://127.0.0.1" }},
		{"another application", "logout+jwt", s.issuer, func(c map[string]any) { c["aud"] = []string{"shop"} }},
		{"no logout", "logout+jwt", s.issuer, func(c map[string]any) { delete(c, "events") }},
		{"another event", "logout+jwt", s.issuer, func(c map[string]any) { c["events"] = map[string]any{"x": map[string]any{}} }},
		{"a nonce", "logout+jwt", s.issuer, func(c map[string]any) { c["nonce"] = "x" }},
		{"a null for a nonce", "logout+jwt", s.issuer, func(c map[string]any) { c["nonce"] = nil }},
		{"neither sub nor sid", "logout+jwt", s.issuer, func(c map[string]any) { delete(c, "sub"); delete(c, "sid") }},
		{"no jti", "logout+jwt", s.issuer, func(c map[string]any) { delete(c, "jti") }},
		{"no exp", "logout+jwt", s.issuer, func(c map[string]any) { delete(c, "exp") }},
		{"over", "logout+jwt", s.issuer, func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }},
		{"old, whatever its exp", "logout+jwt", s.issuer, func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
		}},
		{"of the future", "logout+jwt", s.issuer, func(c map[string]any) { c["iat"] = time.Now().Add(time.Hour).Unix() }},
		{"no iat", "logout+jwt", s.issuer, func(c map[string]any) { delete(c, "iat") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := s.logoutToken(tt.by, tt.kind, "ada", sid, tt.change)
			got := s.tell(token)
			got.Want(t, http.StatusBadRequest, `"error":"invalid_request"`)
			if got.Header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be kept")
			}
			v.want("ada")
		})
	}
	good := s.logoutToken(s.issuer, "logout+jwt", "ada", sid, func(map[string]any) {})
	for name, token := range map[string]string{"nothing": "", "signed with the secret": s.hmac(good), "no token": "a.b.c", "not signed": unsigned(good), "cut": good[:len(good)-4], "huge": strings.Repeat("x", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			s.tell(token).Want(t, http.StatusBadRequest)
			v.want("ada")
		})
	}

	// A page of another site that knows a good one gets nowhere.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.app+"/logout/provider", strings.NewReader("logout_token="+good))
	must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: got %d, want 403", res.StatusCode)
	}
	v.want("ada")
	s.tell(good).Want(t, http.StatusOK)
	v.want("")
}

// logoutToken is one that the provider by has signed.
func (s *site) logoutToken(by *main.Provider, kind, user, sid string, change func(map[string]any)) string {
	s.t.Helper()
	text, err := json.Marshal(main.LogoutToken(by, user, sid))
	must(s.t, err)
	var claims map[string]any
	must(s.t, json.Unmarshal(text, &claims))
	claims["iat"], claims["exp"] = time.Now().Unix(), time.Now().Add(2*time.Minute).Unix()
	change(claims)
	token, err := main.Sign(by, kind, claims)
	must(s.t, err)
	return token
}

// hmac is a token's claims, signed with what the application and the provider share.
func (s *site) hmac(token string) string {
	s.t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(s.t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("secret", 6))}, (&jose.SignerOptions{}).WithType("logout+jwt"))
	must(s.t, err)
	signed, err := signer.Sign(payload)
	must(s.t, err)
	text, err := signed.CompactSerialize()
	must(s.t, err)
	return text
}

// A token does its work once: whoever repeats it does not log a user out who has come
// back. One for a user ends all of the user's sessions and nobody else's.
func TestLogoutTokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	ada, phone, bob := newVisitor(s), newVisitor(s), newVisitor(s)
	ada.logIn("ada")
	phone.logIn("ada")
	bob.logIn("bob")
	// Issued a little earlier than what comes back: both are in whole seconds.
	token := s.logoutToken(s.issuer, "logout+jwt", "ada", "", func(c map[string]any) { c["iat"] = time.Now().Add(-time.Minute).Unix() })
	s.tell(token).Want(t, http.StatusOK)
	ada.want("")
	phone.want("")
	bob.want("bob")
	ada.Client.Jar = newVisitor(s).Client.Jar
	ada.logIn("ada")
	s.tell(token).Want(t, http.StatusOK)
	ada.want("ada")

	// Of somebody who was never here: nothing to do.
	s.tell(s.logoutToken(s.issuer, "logout+jwt", "ada", "", func(c map[string]any) { c["sub"], c["jti"] = "subject-9", "another" })).Want(t, http.StatusOK)
	ada.want("ada")
}

// A token whose work has failed may come again: here the sessions cannot be ended.
func TestLogoutThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	v.logIn("ada")
	token := s.logoutToken(s.issuer, "logout+jwt", "ada", s.sid("ada"), func(map[string]any) {})
	rename := func(from, to string) {
		t.Helper()
		_, err := s.pool.Exec(t.Context(), "ALTER TABLE schema_system."+from+" RENAME TO "+to)
		must(t, err)
	}
	rename("session", "away")
	s.tell(token).Want(t, http.StatusBadRequest, "temporarily_unavailable")
	rename("away", "session")
	v.want("ada")
	s.tell(token).Want(t, http.StatusOK)
	v.want("")
}

// The provider hangs up before it has the answer.
func TestLogoutWhoseProviderHangsUp(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	app := s.instance()
	v := newVisitor(s)
	v.logIn("ada")
	token := s.logoutToken(s.issuer, "logout+jwt", "ada", s.sid("ada"), func(map[string]any) {})
	wait, unlock := s.lock("oidc_example.logouts")
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, s.app+"/logout/provider", strings.NewReader("logout_token="+token))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	done := make(chan struct{})
	go func() {
		defer close(done)
		app.ServeHTTP(httptest.NewRecorder(), r)
	}()
	wait()
	cancel()
	unlock()
	<-done
	v.want("")
}

// The provider ends a login that has not come back yet, when there is no session to be
// found: the callback waits for the user's name meanwhile.
func TestLogoutDuringTheLogin(t *testing.T) {
	t.Parallel()
	for _, bySID := range []bool{true, false} {
		s := newSite(t, false)
		sids := make(chan string, 1)
		asked, answer := make(chan struct{}), make(chan struct{})
		var once sync.Once
		spy := s.withIDToken(t, func(claims map[string]any) { sids <- claims["sid"].(string) })
		tamper := func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/userinfo" {
				once.Do(func() { close(asked); <-answer })
			}
			return spy(w, r)
		}
		s.tamper.Store(&tamper)
		v := newVisitor(s)
		callback := v.answer(v.begin("/"), "ada")
		came := make(chan *http.Response, 1)
		go func() {
			res, err := v.Client.Get(callback)
			if err != nil {
				t.Error(err)
			}
			came <- res
		}()
		<-asked
		sid := <-sids
		if !bySID {
			sid = ""
		}
		s.tell(s.logoutToken(s.issuer, "logout+jwt", "ada", sid, func(map[string]any) {})).Want(t, http.StatusOK)
		close(answer)
		exampletest.Read(t, <-came).Want(t, http.StatusForbidden, "You were logged out meanwhile.")
		v.want("")
	}
}

// The provider ends a login whose code it has given out already: what the code is
// exchanged for is newer than the logout, by more than the seconds that both count in.
func TestLogoutBeforeTheCodeIsExchanged(t *testing.T) {
	t.Parallel()
	for name, logout := range map[string]func(v *visitor){
		"of the user": func(v *visitor) { v.Post(v.s.provider+"/everywhere", nil).Want(v.T, http.StatusOK, "Who are you?") },
		"of the login": func(v *visitor) { // by another session of it
			v.set("")
			v.Post(v.s.app+"/login", nil).Want(v.T, http.StatusOK, "Hello, ada.")
			v.Post(v.s.app+"/logout", nil).Want(v.T, http.StatusOK, "You are not logged in.")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, false)
			tamper := s.withIDToken(t, func(claims map[string]any) { claims["iat"] = time.Now().Add(5 * time.Second).Unix() })
			s.tamper.Store(&tamper)
			v := newVisitor(s)
			callback := v.answer(v.begin("/"), "ada")
			cookie := v.cookie()
			logout(v)
			v.set(cookie)
			v.Get(callback).Want(t, http.StatusForbidden, "You were logged out meanwhile.")
			v.want("")
			v.logIn("ada") // begun after the logout
		})
	}
}
