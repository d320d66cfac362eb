package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	main "github.com/pgsession/session/examples/oidc"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

// A login by a link and one by a form: the session is renewed, and the user is where
// they wanted to go.
func TestChromiumLogin(t *testing.T) {
	t.Parallel()
	for name, formPost := range map[string]bool{"query": false, "form_post": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, formPost)
			b := newReal(s)
			b.visit(s.app+"/account?tab=2", "Log in")
			b.press("Log in with the provider", "Who are you?")
			before := b.cookie()
			b.press("I am ada", "Hello, ada.")
			if got := b.path(); got != "/account?tab=2" {
				t.Errorf("after the login: got %s, want /account?tab=2", got)
			}
			if after := b.cookie(); before == "" || after == "" || after == before {
				t.Error("the session is not renewed")
			}
			thief := newVisitor(s)
			thief.set(before)
			thief.want("")

			// Who is logged in at the provider is not asked again.
			b.press("Log out", "You are not logged in.")
			if b.cookie() != "" {
				t.Error("a cookie is left after the logout")
			}
			b.visit(s.app+"/login", "Log in")
			b.press("Log in with the provider", "Who are you?") // the logout was the provider's, too
		})
	}
}

// Another site sends the browser to the callback with a code of its own account.
func TestChromiumForgedLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	mallory := newVisitor(s)
	code := formFields(t, mallory, mallory.begin("/"))
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<!DOCTYPE html><main>A game</main><form method="post" action="`+s.app+`/login/callback">`+code+`<button>Play</button></form>`)
	}))
	t.Cleanup(evil.Close)
	b := newReal(s)
	for _, user := range []string{"", "bob"} {
		if user != "" {
			b.visit(s.app+"/login", "Log in")
			b.press("Log in with the provider", "Who are you?")
			b.press("I am bob", "Hello, bob.")
		}
		cookie := b.cookie()
		b.visit(evil.URL, "A game")
		b.press("Play", "not begun in this browser")
		if b.cookie() != cookie {
			t.Errorf("the cookie of %q has changed", user)
		}
	}
	b.visit(s.app, "Hello, bob.")
}

// formFields logs mallory in at the provider, and gives the fields that it would post.
func formFields(t *testing.T, v *visitor, request string) string {
	t.Helper()
	page := v.Post(v.s.provider+"/signin", url.Values{"request": {request}, "user": {"ada"}})
	_, fields, ok := strings.Cut(page.Body, "<form method=\"post\" action=\"")
	if !ok {
		t.Fatal("got no form of the provider's")
	}
	_, fields, _ = strings.Cut(fields, ">")
	fields, _, _ = strings.Cut(fields, "</form>")
	if !strings.Contains(fields, `name="code"`) {
		t.Fatal("got no code")
	}
	return fields
}

func TestForgedCallback(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	ada, mallory := newVisitor(s), newVisitor(s)
	ada.begin("/")
	mallorys := mallory.answer(mallory.begin("/"), "bob")
	for _, callback := range []string{mallorys, s.app + "/login/callback", s.app + "/login/callback?state=&code=x", s.app + "/login/callback?state=x&error=access_denied"} {
		ada.Get(callback).Want(t, http.StatusForbidden, "not begun in this browser")
	}
	stranger := newVisitor(s)
	stranger.Get(mallorys).Want(t, http.StatusForbidden, "not begun in this browser")
	if stranger.cookie() != "" {
		t.Error("a forged callback has begun a session")
	}
	if n := s.exchanges.Load(); n != 0 {
		t.Errorf("codes that were exchanged: got %d, want none", n)
	}
	ada.want("")
	mallory.Get(mallorys).Want(t, http.StatusOK, "Hello, bob.") // it was a good one
}

// Logins begun in two tabs both come back, each once. Of many the oldest is forgotten.
func TestTabs(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	first := v.begin("/account?tab=1")
	second := v.begin("/account?tab=2")
	one, two := v.answer(first, "ada"), v.answer(second, "ada")
	for tab, callback := range map[string]string{"2": two, "1": one} {
		res, err := v.Client.Get(callback)
		must(t, err)
		exampletest.Read(t, res).Want(t, http.StatusOK, "Hello, ada.")
		if got := res.Request.URL.RequestURI(); got != "/account?tab="+tab {
			t.Errorf("after the login: got %s, want tab %s", got, tab)
		}
	}
	v.Get(one).Want(t, http.StatusForbidden, "not begun in this browser")
	v.want("ada")

	late := newVisitor(s)
	requests := make([]string, 9)
	for i := range requests {
		requests[i] = late.begin("/")
	}
	late.Get(late.answer(requests[0], "ada")).Want(t, http.StatusForbidden, "not begun in this browser")
	late.Get(late.answer(requests[1], "ada")).Want(t, http.StatusOK, "Hello, ada.")
}

// The request ends while its session is being saved: nobody knows then whether the
// provider has ended the login, so there is none.
func TestRequestEndsDuringTheSave(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	app := s.instance()
	asked, answer := make(chan struct{}), make(chan struct{})
	tamper := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/userinfo" { // what follows it is the save
			close(asked)
			<-answer
		}
		return false
	}
	s.tamper.Store(&tamper)
	v := newVisitor(s)
	callback := v.answer(v.begin("/"), "ada")
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, callback, nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: v.cookie()})
	w, done := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(done)
		app.ServeHTTP(w, r)
	}()
	<-asked
	wait, unlock := s.lock("schema_system.session")
	close(answer)
	wait()
	cancel()
	unlock()
	<-done
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", w.Code)
	}
	var n int
	must(t, s.pool.QueryRow(t.Context(), `SELECT count(*) FROM schema_system.session WHERE sess->>'userId' IS NOT NULL`).Scan(&n))
	if n != 0 {
		t.Errorf("sessions of users: got %d, want none", n)
	}
}

// However many come back with one state, one of them exchanges the code.
func TestStateIsGoodOnce(t *testing.T) {
	t.Parallel()
	const clicks = 8
	s := newSite(t, false)
	v := newVisitor(s)
	callback := v.answer(v.begin("/"), "ada")
	cookie := v.cookie()
	var all sync.WaitGroup
	for range clicks {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, callback, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.AddCookie(&http.Cookie{Name: "session", Value: cookie})
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	all.Wait()
	if n := s.exchanges.Load(); n != 1 {
		t.Errorf("exchanges: got %d, want 1", n)
	}
}

// The code of another login is worth nothing, nor is an ID token that is not exactly
// this login's.
func TestAnswersOfTheProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	asks := func(_ http.ResponseWriter, r *http.Request) bool {
		if q := r.URL.Query(); r.URL.Path == "/authorize" && (q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("nonce") == "") {
			t.Error("the login asks for no PKCE or no nonce")
		}
		return false
	}
	s.tamper.Store(&asks)
	first, second := v.begin("/"), v.begin("/")
	one, two := v.answer(first, "ada"), v.answer(second, "ada")
	u1, err := url.Parse(one)
	must(t, err)
	u2, err := url.Parse(two)
	must(t, err)
	q := url.Values{"state": {u1.Query().Get("state")}, "code": {u2.Query().Get("code")}}
	v.Get(s.app+"/login/callback?"+q.Encode()).Want(t, http.StatusForbidden, "not what it has to be")
	v.want("")

	for _, tt := range []struct {
		name   string
		change func(claims map[string]any)
		code   int
	}{
		{"as it is", func(map[string]any) {}, http.StatusOK},
		{"another nonce", func(c map[string]any) { c["nonce"] = "another" }, http.StatusForbidden},
		{"no nonce", func(c map[string]any) { delete(c, "nonce") }, http.StatusForbidden},
		{"another application", func(c map[string]any) { c["aud"] = []string{"shop"} }, http.StatusForbidden},
		{"several applications", func(c map[string]any) { c["aud"] = []string{"bank", "shop"}; delete(c, "azp") }, http.StatusForbidden},
		{"asked for by us, and for another application", func(c map[string]any) { c["aud"] = []string{"bank", "shop"}; c["azp"] = "bank" }, http.StatusForbidden},
		{"asked for by another", func(c map[string]any) { c["azp"] = "shop" }, http.StatusForbidden},
		{"another provider", func(c map[string]any) { c["iss"] = "http://127.0.0.1" }, http.StatusForbidden},
		{"another user than userinfo's", func(c map[string]any) { c["sub"] = "subject-2" }, http.StatusForbidden},
		{"nobody", func(c map[string]any) { c["sub"] = "" }, http.StatusForbidden},
		{"over", func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }, http.StatusForbidden},
		{"a sid that is too long", func(c map[string]any) { c["sid"] = strings.Repeat("x", 201) }, http.StatusForbidden},
		{"a logout token", func(c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}
			c["jti"] = "x"
			delete(c, "nonce")
		}, http.StatusForbidden},
		{"not signed", nil, http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tamper := s.withIDToken(t, tt.change)
			s.tamper.Store(&tamper)
			defer s.tamper.Store(nil)
			v := newVisitor(s)
			v.Get(v.answer(v.begin("/"), "ada")).Want(t, tt.code)
			if tt.code != http.StatusOK {
				v.want("")
			}
		})
	}
}

// withIDToken answers in the provider's place with an ID token that change has been at;
// nil makes one with alg none.
func (s *site) withIDToken(t *testing.T, change func(map[string]any)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/oauth/token" {
			return false
		}
		rec := httptest.NewRecorder()
		s.issuer.ServeHTTP(rec, r)
		var answer map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			t.Error(err)
			return true
		}
		raw, _ := answer["id_token"].(string)
		if change == nil {
			answer["id_token"] = unsigned(raw)
		} else {
			claims := claimsOf(t, raw)
			change(claims)
			signed, err := main.Sign(s.issuer, "JWT", claims)
			if err != nil {
				t.Error(err)
			}
			answer["id_token"] = signed
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
		return true
	}
}

// claimsOf are those of a token, with their numbers as they stand.
func claimsOf(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Error(err)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		t.Error(err)
	}
	return claims
}

// unsigned is a token's claims with alg none.
func unsigned(token string) string {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"logout+jwt"}`))
	return header + "." + strings.Split(token, ".")[1] + "."
}

func TestReturn(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"/": "/", "/account?tab=2": "/account?tab=2", "/a//b": "/a//b", "/ä%20?x=//y": "/ä%20?x=//y",
		"": "/", "account": "/", "//evil.example": "/", "/\\evil.example": "/", "\\\\evil.example": "/", "https://evil.example": "/",
		"/\t/evil.example": "/", "/\n/evil.example": "/", "\t//evil.example": "/", " //evil.example": "/", "javascript:alert(1)": "/",
		"/" + strings.Repeat("x", 1000): "/",
	} {
		if got := main.LocalPath(to); got != want {
			t.Errorf("%q: got %q, want %q", to, got, want)
		}
	}
	s := newSite(t, false)
	v := newVisitor(s)
	v.Client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), s.app) && !strings.HasPrefix(r.URL.String(), s.provider) {
			t.Errorf("the browser is sent to %s", r.URL.Host)
			return http.ErrUseLastResponse
		}
		return nil
	}
	v.Get(v.answer(v.begin("//evil.example/"), "ada")).Want(t, http.StatusOK, "Hello, ada.")
}

// What a login leaves in the session: no code, no verifier, no access token.
func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t, false)
	v := newVisitor(s)
	v.logIn("ada")
	var kept map[string]json.RawMessage
	must(t, s.pool.QueryRow(t.Context(), `SELECT sess FROM schema_system.session WHERE sess->>'userId' IS NOT NULL`).Scan(&kept))
	if got := string(kept["begun"]); got != "{}" {
		t.Error("the login that has come back is still there")
	}
	for name := range kept {
		if !strings.Contains(" userId loginSid idToken begun cookie ", " "+name+" ") && !strings.HasPrefix(name, "__") {
			t.Errorf("got %s, want no such key", name)
		}
	}
	t.Logf("the ID token has %d bytes", len(kept["idToken"]))
	if n := len(kept["idToken"]); n < 500 || n > 1000 {
		t.Errorf("the ID token: got %d bytes, want the 500 to 1000 that docs/logins.md speaks of", n)
	}
}

// The program itself, and that its log tells no secrets.
func TestProgram(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	m := regexp.MustCompile(`msg="the provider" url=(\S+)`).FindStringSubmatch(p.Log())
	if m == nil {
		t.Fatal("the log does not say where the provider is")
	}
	s := &site{t: t, app: strings.Replace(p.URL, "127.0.0.1", "localhost", 1), provider: m[1]}
	v := newVisitor(s)
	callback, err := url.Parse(v.answer(v.begin("/account"), "ada"))
	must(t, err)
	v.Get(callback.String()).Want(t, http.StatusOK, "Hello, ada.")
	v.Get(callback.String()).Want(t, http.StatusForbidden, "not begun in this browser")
	p.WantNotInLog(v.cookie(), callback.Query().Get("code"), callback.Query().Get("state"))
	v.Post(s.app+"/logout", nil).Want(t, http.StatusOK, "You are not logged in.")
	p.WaitLog("the provider has ended a login")
	p.Interrupt(os.Interrupt)

	p = exampletest.Start(t, "-form-post", "DATABASE_URL="+pgtest.URL(t))
	exampletest.NewBrowser(t, "session").Get(p.URL).Want(t, http.StatusOK, "You are not logged in.")
	p.Interrupt(os.Interrupt)
}
