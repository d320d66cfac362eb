package web

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

// Go's test cache does not see changes of a file outside of the module: use -count=1.
const document = "../../../docs/moving-from-gin-and-echo.md"

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	os.Exit(m.Run())
}

// The blocks of the document are these files, and no others.
func TestBlocksAreTheCompiledFiles(t *testing.T) {
	page := read(t, document)
	files := []string{"flash.go", "gin.go", "echo.go"}
	for _, file := range files {
		_, code, ok := strings.Cut(read(t, file), "package web\n\n")
		if !ok {
			t.Fatalf("%s has no package web", file)
		}
		if !strings.Contains(page, "\n```go\n"+code+"```\n") {
			t.Errorf("no block of the document is %s", file)
		}
	}
	if got := strings.Count(page, "\n```go\n"); got != len(files) {
		t.Errorf("blocks of code: got %d, want the %d that are compared", got, len(files))
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// view is what the pages say.
type view struct {
	User         int64
	In           bool
	Errors, News []string
}

func TestMoved(t *testing.T) {
	for name, routes := range map[string]func(*session.Manager) http.Handler{"gin": ginRoutes, "echo": echoRoutes} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(routes(sessiontest.NewManager(t)))
			defer srv.Close()
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			c := &http.Client{Jar: jar}
			for _, step := range []struct {
				name, path, password string
				want                 view
			}{
				{"a wrong password", "/login", "x", view{Errors: []string{"wrong password"}}},
				{"the message is gone", "", "", view{}},
				{"the login", "/login", "correct horse", view{User: 42, In: true}},
				{"the logout leaves a message, and nobody logged in", "/logout", "", view{News: []string{"Good bye"}}},
				{"that is gone", "", "", view{}},
			} {
				resp, err := c.PostForm(srv.URL+step.path, url.Values{"password": {step.password}})
				if step.path == "" {
					resp, err = c.Get(srv.URL)
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := decode(t, resp.Body); !reflect.DeepEqual(got, step.want) {
					t.Errorf("%s: got %+v, want %+v", step.name, got, step.want)
				}
			}
		})
	}
}

func decode(t *testing.T, body io.ReadCloser) (v view) {
	t.Helper()
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// The MaxAge that a request gives to gin-contrib/sessions holds for what that
// request saves; what the next one saves has the store's. SetIdleTimeout stays.
func TestHowLongATimeHolds(t *testing.T) {
	store := cookie.NewStore([]byte("0123456789abcdef0123456789abcdef"))
	store.Options(sessions.Options{Path: "/", MaxAge: 1000})
	before := gin.New()
	before.Use(sessions.Sessions("session", store))
	m := sessiontest.NewManager(t)
	after := gin.New()
	for path, seconds := range map[string]int{"/short": 300, "/next": 0} {
		before.GET(path, func(c *gin.Context) {
			s := sessions.Default(c)
			s.Set("path", path)
			if seconds != 0 {
				s.Options(sessions.Options{Path: "/", MaxAge: seconds})
			}
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		})
		after.GET(path, func(c *gin.Context) {
			s := session.From(c.Request.Context())
			session.Key[string]("path").Set(s, path)
			if seconds != 0 {
				s.SetIdleTimeout(300 * time.Second)
			}
			s.Renew() // so that a cookie is sent, which says how long
		})
	}
	for _, app := range []struct {
		name string
		http.Handler
		next int
	}{{"gin-contrib/sessions", before, 1000}, {"session", m.Handler(after), 300}} {
		first := answer(t, app, "/short", nil)
		if first.MaxAge != 300 {
			t.Errorf("%s: the first cookie: got Max-Age %d, want 300", app.name, first.MaxAge)
		}
		if got := answer(t, app, "/next", first).MaxAge; got != app.next {
			t.Errorf("%s: the next request's cookie: got Max-Age %d, want %d", app.name, got, app.next)
		}
	}
}

// down is a store that is out.
type down struct{ *session.MemoryStore }

var errDown = errors.New("the test's store is down")

func (down) Load(context.Context, string) (session.Record, error) { return session.Record{}, errDown }

// In an outage the handler's Write fails, and the browser gets a 503.
func TestWriteFailsForARefusedPage(t *testing.T) {
	store := session.NewMemoryStore()
	cfg := session.Config{Secret: "an 0DD s3cret of 32 bytes or more, for the test", Logger: slog.New(slog.DiscardHandler)}
	up, err := session.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	out, err := session.New(down{store}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		userID.Update(session.From(r.Context()), func(n int64) int64 { return n + 1 })
		_, err = io.WriteString(w, "page")
	})
	cookie := answer(t, up.Handler(app), "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.AddCookie(cookie)
	w := httptest.NewRecorder()
	out.Handler(app).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "page") {
		t.Errorf("got %d %q, want 503 and nothing of the page", w.Code, w.Body)
	}
	if !errors.Is(err, errDown) {
		t.Errorf("the handler's Write: got %v, want the store's error", err)
	}
}

// The session's cookie comes after those of the handler.
func TestCookieIsLast(t *testing.T) {
	app := sessiontest.NewManager(t).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		userID.Set(session.From(r.Context()), 42)
		http.SetCookie(w, &http.Cookie{Name: "own", Value: "1"})
	}))
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var got []string
	for _, c := range w.Result().Cookies() {
		got = append(got, c.Name)
	}
	if want := []string{"own", "session"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got the cookies %q, want %q", got, want)
	}
}

type person struct{ Groups []string }

// gob brings an empty slice back as nil, JSON as what it was.
func TestEmptySlices(t *testing.T) {
	gob.Register(person{})
	before := gin.New()
	before.Use(sessions.Sessions("session", cookie.NewStore([]byte("0123456789abcdef0123456789abcdef"))))
	m := sessiontest.NewManager(t)
	after := gin.New()
	key := session.Key[person]("person")
	var got person
	before.GET("/set", func(c *gin.Context) {
		s := sessions.Default(c)
		s.Set("person", person{Groups: []string{}})
		if err := s.Save(); err != nil {
			t.Error(err)
		}
	})
	before.GET("/get", func(c *gin.Context) { got, _ = sessions.Default(c).Get("person").(person) })
	after.GET("/set", func(c *gin.Context) { key.Set(session.From(c.Request.Context()), person{Groups: []string{}}) })
	after.GET("/get", func(c *gin.Context) { got, _ = key.Get(session.From(c.Request.Context())) })
	for _, app := range []struct {
		name string
		http.Handler
		isNil bool
	}{{"gin-contrib/sessions", before, true}, {"session", m.Handler(after), false}} {
		r := httptest.NewRequest(http.MethodGet, "/get", nil)
		r.AddCookie(answer(t, app, "/set", nil))
		app.ServeHTTP(httptest.NewRecorder(), r)
		if (got.Groups == nil) != app.isNil {
			t.Errorf("%s: got %#v, want nil: %t", app.name, got.Groups, app.isNil)
		}
	}
}

func answer(t *testing.T, h http.Handler, path string, with *http.Cookie) *http.Cookie {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if with != nil {
		r.AddCookie(with)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	cookies := w.Result().Cookies()
	if len(cookies) == 0 {
		t.Fatalf("%s: no cookie", path)
	}
	return cookies[len(cookies)-1]
}
