package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

const (
	user = session.Key[string]("user")
	cart = session.Key[[]string]("cart")
)

// managers are configurations that helpers must cope with.
var managers = []struct {
	name string
	cfg  session.Config
}{
	{"default", session.Config{}},
	{"Express", session.Config{Cookie: session.CookieConfig{Format: session.FormatExpress}}},
	{"host cookie", session.Config{Cookie: session.CookieConfig{Name: "__Host-id", Secure: session.SecureAlways}}},
	{"path", session.Config{Cookie: session.CookieConfig{Path: "/app", Domain: "example.org"}}},
	{"browser session", session.Config{Cookie: session.CookieConfig{BrowserSession: true}}},
	{"behind a proxy", session.Config{TrustProxy: true, AbsoluteTimeout: time.Hour}},
}

func newManager(t *testing.T, store session.Store, cfg session.Config) *session.Manager {
	t.Helper()
	cfg.Secret, cfg.DisablePrune = "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A", true
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := session.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// serve runs handle in a handler of m.
func serve(m *session.Manager, r *http.Request, handle func(*session.Session)) *http.Response {
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		handle(session.From(r.Context()))
	})).ServeHTTP(w, r)
	return w.Result()
}

func asAda(s *session.Session) { user.Set(s, "ada") }

func wantUser(t *testing.T, s *session.Session, want string) {
	t.Helper()
	if got, ok := user.Get(s); got != want || ok != (want != "") || s.IsNew() != (want == "") {
		t.Errorf("user: got %q, %t, new %t, want %q", got, ok, s.IsNew(), want)
	}
}

func TestLogin(t *testing.T) {
	for _, tc := range managers {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, session.NewMemoryStore(), tc.cfg)
			r := httptest.NewRequest("GET", "/", nil)
			sessiontest.Login(t, m, r, asAda)
			serve(m, r, func(s *session.Session) { wantUser(t, s, "ada") })
			if got := m.Stats(); got.Creates != 1 || got.BadCookies != 0 {
				t.Errorf("got %d sessions created, %d bad cookies, want 1, 0", got.Creates, got.BadCookies)
			}
		})
	}
}

func TestLoginLeavesTheRequestAlone(t *testing.T) {
	type key struct{}
	m := sessiontest.NewManager(t)
	r := httptest.NewRequest("POST", "/form?a=b", strings.NewReader("a=c"))
	r = r.WithContext(context.WithValue(r.Context(), key{}, "value"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: "before", Value: "1"})
	sessiontest.Login(t, m, r, asAda)
	r.AddCookie(&http.Cookie{Name: "after", Value: "2"})

	if body, err := io.ReadAll(r.Body); string(body) != "a=c" || err != nil {
		t.Errorf("body: got %q, %v, want a=c", body, err)
	}
	if r.Method != "POST" || r.URL.String() != "/form?a=b" || r.ContentLength != 3 || r.Context().Value(key{}) != "value" {
		t.Errorf("got another request: %s %s, %d bytes", r.Method, r.URL, r.ContentLength)
	}
	var names []string
	for _, c := range r.Cookies() {
		names = append(names, c.Name)
	}
	if want := []string{"before", "session", "after"}; !slices.Equal(names, want) {
		t.Errorf("cookies: got %v, want %v", names, want)
	}
}

func TestLoginOfASessionThatIsThere(t *testing.T) {
	for _, tc := range managers {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, session.NewMemoryStore(), tc.cfg)
			r := httptest.NewRequest("GET", "/", nil)
			sessiontest.Login(t, m, r, asAda)
			first := sessiontest.Look(t, m, r, nil).ID()

			sessiontest.Login(t, m, r, func(s *session.Session) { cart.Set(s, []string{"tea"}) })
			s := sessiontest.Look(t, m, r, nil)
			wantUser(t, s, "ada")
			if _, ok := cart.Get(s); !ok || s.ID() != first {
				t.Errorf("got cart %t, another ID %t, want true, false", ok, s.ID() != first)
			}

			sessiontest.Login(t, m, r, (*session.Session).Renew)
			s = sessiontest.Look(t, m, r, nil)
			wantUser(t, s, "ada")
			if s.ID() == first {
				t.Error("the session ID is the same after Renew")
			}

			sessiontest.Login(t, m, r, func(s *session.Session) {
				s.Destroy()
				user.Set(s, "bob")
			})
			wantUser(t, sessiontest.Look(t, m, r, nil), "bob")
			if n := len(r.Cookies()); n != 1 {
				t.Errorf("cookies: got %d, want 1", n)
			}
		})
	}
}

// In Express's format the first cookie of the name counts, so a forged one must
// not stay in front.
func TestLoginReplacesABadCookie(t *testing.T) {
	for _, tc := range managers {
		t.Run(tc.name, func(t *testing.T) {
			m := newManager(t, session.NewMemoryStore(), tc.cfg)
			r := httptest.NewRequest("GET", "/", nil)
			for _, name := range []string{"session", "connect.sid", "__Host-id"} {
				r.AddCookie(&http.Cookie{Name: name, Value: "s:forged.forged"})
			}
			sessiontest.Login(t, m, r, asAda)
			wantUser(t, sessiontest.Look(t, m, r, nil), "ada")
		})
	}
}

func TestLook(t *testing.T) {
	for _, tc := range []struct {
		name     string
		loggedIn bool
		handle   func(*session.Session)
		want     string
		sameID   bool
	}{
		{"login", false, asAda, "ada", false},
		{"visitor", false, func(s *session.Session) { user.Get(s) }, "", false},
		{"read", true, func(s *session.Session) { user.Get(s) }, "ada", true},
		{"not used", true, func(*session.Session) {}, "ada", true},
		{"change", true, func(s *session.Session) { user.Set(s, "bob") }, "bob", true},
		{"renewal", true, (*session.Session).Renew, "ada", false},
		{"idle timeout", true, func(s *session.Session) { s.SetIdleTimeout(time.Hour) }, "ada", true},
		{"logout", true, (*session.Session).Destroy, "", false},
		{"logout and login", true, func(s *session.Session) { s.Destroy(); user.Set(s, "bob") }, "bob", false},
		{"logout and save", true, func(s *session.Session) { s.Destroy(); _ = s.Save(context.Background()) }, "", false},
	} {
		for _, mc := range managers {
			t.Run(tc.name+", "+mc.name, func(t *testing.T) {
				m := newManager(t, session.NewMemoryStore(), mc.cfg)
				r := httptest.NewRequest("GET", "/", nil)
				before := ""
				if tc.loggedIn {
					sessiontest.Login(t, m, r, asAda)
					before = sessiontest.Look(t, m, r, nil).ID()
				}
				cookies := r.Header.Get("Cookie")
				s := sessiontest.Look(t, m, r, serve(m, r, tc.handle))
				wantUser(t, s, tc.want)
				if (s.ID() == before) != (tc.sameID || tc.want == "" && !tc.loggedIn) {
					t.Errorf("same session ID: got %t, want %t", s.ID() == before, tc.sameID)
				}
				if tc.want == "" && (s.ID() != "" || len(s.Keys()) > 0) {
					t.Errorf("nobody's session: got an ID %t, %d keys, want none", s.ID() != "", len(s.Keys()))
				}
				if r.Header.Get("Cookie") != cookies {
					t.Error("Look has changed the request")
				}
			})
		}
	}
}

// A handler that reads after half the idle timeout extends the session's life;
// a test that looks does not.
func TestLookDoesNotTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sessiontest.NewManager(t)
		r := httptest.NewRequest("GET", "/", nil)
		sessiontest.Login(t, m, r, asAda)
		for range 2 {
			<-time.After(12 * time.Hour)
			wantUser(t, sessiontest.Look(t, m, r, nil), "ada")
		}
		<-time.After(time.Nanosecond)
		wantUser(t, sessiontest.Look(t, m, r, nil), "")
		if n := m.Stats().Touches; n != 0 {
			t.Errorf("touches: got %d, want 0", n)
		}
	})
}

func TestLookIsReadOnly(t *testing.T) {
	m := sessiontest.NewManager(t)
	r := httptest.NewRequest("GET", "/", nil)
	sessiontest.Login(t, m, r, asAda)
	s := sessiontest.Look(t, m, r, nil)
	if err := s.Err(); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	user.Set(s, "bob")
	s.Destroy()
	if err := s.Err(); !errors.Is(err, session.ErrFinished) {
		t.Errorf("changed: got %v, want ErrFinished", err)
	}
	wantUser(t, s, "ada")
	wantUser(t, sessiontest.Look(t, m, r, nil), "ada")
}

// Both helpers know requests to a real server as well.
func TestThroughAServer(t *testing.T) {
	m := sessiontest.NewManager(t)
	srv := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		name, _ := user.Get(s)
		cart.Set(s, []string{"tea"})
		fmt.Fprint(w, name)
	})))
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	sessiontest.Login(t, m, r, asAda)
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "ada" || err != nil {
		t.Errorf("got %q, %v, want ada", body, err)
	}
	s := sessiontest.Look(t, m, r, resp)
	if got, _ := cart.Get(s); !slices.Equal(got, []string{"tea"}) {
		t.Errorf("cart: got %q, want tea", got)
	}
}

// A store that is down, in these tests.
type noStore struct{ session.Store }

var errDown = errors.New("the store is down")

func (noStore) Load(context.Context, string) (session.Record, error) {
	return session.Record{}, errDown
}
func (noStore) Create(context.Context, string, session.Record) error { return errDown }

func TestHelpersFailTheTest(t *testing.T) {
	m := sessiontest.NewManager(t)
	down := newManager(t, noStore{}, session.Config{})
	up := newManager(t, session.NewMemoryStore(), session.Config{}) // has the secret of down
	r := httptest.NewRequest("GET", "/", nil)
	sessiontest.Login(t, up, r, asAda)
	visitor := func() *http.Request { return httptest.NewRequest("GET", "/", nil) }
	for _, tc := range []struct {
		name string
		do   func(testing.TB)
		want string
	}{
		{"nothing set", func(t testing.TB) {
			sessiontest.Login(t, m, visitor(), func(*session.Session) {})
		}, "sessiontest: Login: nothing was set, so there is no session"},
		{"only an idle timeout", func(t testing.TB) {
			sessiontest.Login(t, m, visitor(), func(s *session.Session) { s.SetIdleTimeout(time.Hour) })
		}, "sessiontest: Login: nothing was set, so there is no session"},
		{"a reserved key", func(t testing.TB) {
			sessiontest.Login(t, m, visitor(), func(s *session.Session) { session.Key[int]("cookie").Set(s, 1) })
		}, "cannot be stored"},
		{"Login without a store", func(t testing.TB) {
			sessiontest.Login(t, down, visitor(), asAda)
		}, errDown.Error()},
		{"Look without a store", func(t testing.TB) {
			sessiontest.Look(t, down, r, nil)
		}, errDown.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fatal(t, tc.do); !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// fatal returns what f says when it fails the test, "" if it does not.
func fatal(t *testing.T, f func(testing.TB)) (said string) {
	defer func() {
		if v := recover(); v != nil {
			said = fmt.Sprint(v)
		}
	}()
	f(standIn{t})
	return ""
}

// standIn is a testing.TB whose Fatalf panics with the message.
type standIn struct{ testing.TB }

func (standIn) Helper()                           {}
func (standIn) Cleanup(func())                    {}
func (standIn) Context() context.Context          { return context.Background() }
func (standIn) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
