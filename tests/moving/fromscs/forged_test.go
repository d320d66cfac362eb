package fromscs

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

const state = session.Key[string]("state")

// callback is a handler of the application's.
func callback(w http.ResponseWriter, r *http.Request) {
	want, ok := state.Take(session.From(r.Context()))
	if !ok || r.FormValue("state") != want {
		http.Error(w, "another state", http.StatusBadRequest)
	}
}

// Instead of Codec.Encode, Store.Commit and a cookie.
func TestCallback(t *testing.T) {
	m := sessiontest.NewManager(t) // or the application's own: Login works with any
	h := m.Handler(http.HandlerFunc(callback))
	r := httptest.NewRequest("GET", "/callback?state=abc", nil)
	sessiontest.Login(t, m, r, func(s *session.Session) { state.Set(s, "abc") })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("got %d, want 200", w.Code)
	}
	if _, ok := state.Get(sessiontest.Look(t, m, r, w.Result())); ok {
		t.Error("got the state still there, want it taken")
	}
}

// Instead of Load(ctx, "") and Put: code that has a context and no handler around it.
func TestCallbackAlone(t *testing.T) {
	m := sessiontest.NewManager(t)
	r := httptest.NewRequest("GET", "/callback?state=abc", nil)
	r = r.WithContext(sessiontest.Context(t, m, func(s *session.Session) { state.Set(s, "abc") })) // nil: a visitor
	w := httptest.NewRecorder()
	callback(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("got %d, want 200", w.Code)
	}
}

// A client with a cookie jar that is logged in from the start.
func TestCallbackByClient(t *testing.T) {
	m := sessiontest.NewManager(t)
	server := httptest.NewServer(m.Handler(http.HandlerFunc(callback)))
	defer server.Close()
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	u, _ := url.Parse(server.URL)
	r, _ := http.NewRequest("GET", server.URL, nil)
	sessiontest.Login(t, m, r, func(s *session.Session) { state.Set(s, "abc") })
	client.Jar.SetCookies(u, r.Cookies())
	for i, want := range []int{http.StatusOK, http.StatusBadRequest} {
		resp, err := client.Get(fmt.Sprint(server.URL, "/callback?state=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("request %d: got %d, want %d", i, resp.StatusCode, want)
		}
	}
}
