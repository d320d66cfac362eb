package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
	"github.com/pgsession/session/tests/adapters/check"
	web "github.com/pgsession/session/tests/adapters/gin"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter, gin.DefaultErrorWriter = io.Discard, io.Discard
	m.Run()
}

func TestLogin(t *testing.T) { check.Login(t, web.Routes) }

func TestCrossSite(t *testing.T) { check.CrossSite(t, web.Routes) }

var errHandler = errors.New("the handler's")

// answers are the ways that Gin has to answer.
var answers = map[string]gin.HandlerFunc{
	"/json":     func(c *gin.Context) { c.JSON(http.StatusCreated, gin.H{"a": "page"}) },
	"/string":   func(c *gin.Context) { c.String(http.StatusOK, "page") },
	"/data":     func(c *gin.Context) { c.Data(http.StatusOK, "text/plain", []byte("page")) },
	"/reader":   func(c *gin.Context) { c.DataFromReader(http.StatusOK, 4, "text/plain", strings.NewReader("page"), nil) },
	"/status":   func(c *gin.Context) { c.Status(http.StatusNoContent) },
	"/nothing":  func(*gin.Context) {},
	"/redirect": func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/account") },
	"/abort":    func(c *gin.Context) { c.AbortWithStatus(http.StatusForbidden) },
	"/abort-json": func(c *gin.Context) {
		c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"a": "page"})
	},
	"/error": func(c *gin.Context) { _ = c.Error(errHandler) },
	"/panic": func(*gin.Context) { panic(errHandler) },
	"/event": func(c *gin.Context) { c.SSEvent("message", "page") },
	"/now": func(c *gin.Context) {
		c.Status(http.StatusAccepted)
		c.Writer.WriteHeaderNow()
		_, _ = c.Writer.WriteString("page")
	},
	"/flush": func(c *gin.Context) {
		c.Writer.Flush()
		_, _ = c.Writer.WriteString("page")
	},
	"/stream": func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool {
			n++
			_, _ = io.WriteString(w, "page")
			return n < 3
		})
	},
}

// upgrade answers by hand, as a websocket's does.
func upgrade(c *gin.Context) {
	session.From(c.Request.Context()).Keys()
	conn, _, err := c.Writer.Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage")
}

func engine() *gin.Engine {
	r := gin.New()
	r.HandleMethodNotAllowed = true
	r.Use(gin.Logger(), gin.Recovery(), errorPage)
	for path, answer := range answers {
		r.POST(path, func(c *gin.Context) {
			check.Change(c.Writer, session.From(c.Request.Context()))
			answer(c)
		})
	}
	r.POST("/late", func(c *gin.Context) {
		c.String(http.StatusOK, "page")
		c.Writer.Flush()
		check.Change(c.Writer, session.From(c.Request.Context()))
	})
	r.POST("/upgrade", upgrade)
	r.GET("/public", func(c *gin.Context) { c.String(http.StatusOK, "public") })
	return r
}

// errorPage is the usual middleware for c.Error.
func errorPage(c *gin.Context) {
	c.Next()
	if len(c.Errors) > 0 && !c.Writer.Written() {
		c.JSON(http.StatusTeapot, gin.H{"error": "page"})
	}
}

func app(sessions *session.Manager) http.Handler { return sessions.Handler(engine()) }

func TestAnswers(t *testing.T) {
	check.Answers(t, app, []check.Answer{
		{Path: "/json", Code: 201, Body: "page"},
		{Path: "/string", Code: 200, Body: "page"},
		{Path: "/data", Code: 200, Body: "page"},
		{Path: "/reader", Code: 200, Body: "page"},
		{Path: "/status", Code: 204},
		{Path: "/nothing", Code: 200},
		{Path: "/redirect", Code: 303},
		{Path: "/abort", Code: 403},
		{Path: "/abort-json", Code: 403, Body: "page"},
		{Path: "/error", Code: 418, Body: "page"},
		{Path: "/panic", Code: 500}, // gin.Recovery makes it an answer like any other
		{Path: "/event", Code: 200, Body: "page"},
		{Path: "/now", Code: 202, Body: "page"},
		{Path: "/flush", Code: 200, Body: "page"},
		{Path: "/stream", Code: 200, Body: "pagepagepage"},
	})
	check.Late(t, app, "/late")
	check.Public(t, app, "GET", "/public", 200, "public")
	check.Public(t, app, "GET", "/missing", 404, "404 page not found")
	check.Public(t, app, "GET", "/json", 405, "405 method not allowed")
}

// A recovery that detaches the session keeps what the handler had changed from
// being saved.
func TestRecoveryAbandons(t *testing.T) {
	check.Answers(t, func(sessions *session.Manager) http.Handler {
		r := gin.New()
		r.Use(gin.CustomRecovery(func(c *gin.Context, _ any) {
			session.From(c.Request.Context()).Detach()
			c.AbortWithStatus(http.StatusInternalServerError)
		}))
		r.POST("/panic", func(c *gin.Context) {
			check.Change(c.Writer, session.From(c.Request.Context()))
			panic(errHandler)
		})
		return sessions.Handler(r)
	}, []check.Answer{{Path: "/panic", Code: 500, Lost: true}})
}

// Gin's own 404 page may ask for the session, for it is inside as well.
func TestNoRoute(t *testing.T) {
	check.Answers(t, func(sessions *session.Manager) http.Handler {
		r := engine()
		r.NoRoute(func(c *gin.Context) {
			check.Change(c.Writer, session.From(c.Request.Context()))
			c.String(http.StatusNotFound, "nothing here")
		})
		return sessions.Handler(r)
	}, []check.Answer{{Path: "/missing", Code: 404, Body: "nothing here"}})
}

// Gin's logger is inside, and shows what the handler meant.
func TestLoggerIsInside(t *testing.T) {
	var seen int
	var written bool
	var failed error
	s := check.New(t, func(sessions *session.Manager) http.Handler {
		r := gin.New()
		r.Use(func(c *gin.Context) {
			c.Next()
			seen, written = c.Writer.Status(), c.Writer.Written()
			failed = session.From(c.Request.Context()).Err()
		})
		r.POST("/json", func(c *gin.Context) {
			check.Change(c.Writer, session.From(c.Request.Context()))
			c.JSON(http.StatusOK, gin.H{"a": "page"})
		})
		return sessions.Handler(r)
	})
	s.Store.Down.Store(true)
	got, _ := s.Do(t, "POST", "/json", "")
	if got.Code != 503 || seen != 200 || !written || failed == nil {
		t.Errorf("got %d for the browser, %d, written %t and %v for Gin's middleware, want 503, 200, true and an error", got.Code, seen, written, failed)
	}
}

// A *gin.Context is a context, but has the request's values only by Gin's own
// setting.
func TestFromGinContext(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		t.Run(fmt.Sprint("ContextWithFallback ", fallback), func(t *testing.T) {
			found := func(c *gin.Context) (ok bool) {
				defer func() { ok = recover() == nil }()
				return session.From(c) == session.From(c.Request.Context())
			}
			var got bool
			s := check.New(t, func(sessions *session.Manager) http.Handler {
				r := gin.New()
				r.ContextWithFallback = fallback
				r.GET("/", func(c *gin.Context) { got = found(c) })
				return sessions.Handler(r)
			})
			s.Do(t, "GET", "/", "")
			if got != fallback {
				t.Errorf("session.From(c): got a session: %t, want %t", got, fallback)
			}
		})
	}
}

// Gin's Stream ends when the browser goes away.
func TestStreamEnds(t *testing.T) {
	ended := make(chan bool, 1)
	server := httptest.NewServer(sessiontest.NewManager(t).Handler(func() http.Handler {
		r := gin.New()
		r.GET("/", func(c *gin.Context) {
			ended <- c.Stream(func(w io.Writer) bool {
				_, _ = io.WriteString(w, "page")
				return true
			})
		})
		return r
	}()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	select {
	case gone := <-ended:
		if !gone {
			t.Error("Stream: got false, want true: the browser is gone")
		}
		server.Close()
	case <-time.After(time.Minute):
		t.Error("Stream goes on although the browser is gone")
	}
}

func TestHijack(t *testing.T) { check.Upgrade(t, app, "/upgrade") }

// The log of an outage says on which route.
func TestRoute(t *testing.T) {
	check.Route(t, web.Routes, "POST", "/login", "/login")
}

// What must lie outside of the sessions, an access log and CORS, is an engine's of its
// own, which hands everything on.
func TestSecondEngineOutside(t *testing.T) {
	const allowed = "https://app.example"
	logged := make(chan int, 100)
	outside := func(sessions *session.Manager) http.Handler {
		outer, inner := gin.New(), web.Routes(sessions)
		outer.Use(func(c *gin.Context) {
			c.Header("Access-Control-Allow-Origin", allowed)
			c.Next()
			logged <- c.Writer.Status()
		})
		outer.NoRoute(func(c *gin.Context) {
			c.Status(http.StatusOK)
			inner.ServeHTTP(c.Writer, c.Request)
			c.Writer.WriteHeaderNow()
		})
		return outer
	}
	check.Login(t, outside)
	for len(logged) > 0 {
		<-logged
	}
	site := check.New(t, outside)
	_, cookie := site.Do(t, "POST", "/login", "")
	site.Do(t, "GET", "/no-page", cookie)
	site.Store.Down.Store(true)
	got, _ := site.Do(t, "GET", "/account", cookie)
	if got.Code != 503 || got.Header.Get("Access-Control-Allow-Origin") != allowed {
		t.Errorf("store down: got %d, %v, want 503 with what CORS needs", got.Code, got.Header)
	}
	for _, want := range []int{303, 404, 503} {
		if got := <-logged; got != want {
			t.Errorf("the access log: got %d, want %d", got, want)
		}
	}
}
