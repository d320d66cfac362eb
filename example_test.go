package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// exampleSecret stands for a real one: openssl rand -base64 48.
const exampleSecret = "an example only: keep a random one in SESSION_SECRET"

// newExampleManager returns a manager over the memory store that logs nothing.
func newExampleManager(cfg session.Config) *session.Manager {
	cfg.Secret = exampleSecret
	cfg.DisablePrune = true
	cfg.Logger = slog.New(slog.DiscardHandler)
	sessions, err := session.New(session.NewMemoryStore(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	return sessions
}

// browse requests the paths one after another, as one browser would, and prints
// the answers.
func browse(h http.Handler, paths ...string) {
	server := httptest.NewServer(h)
	defer server.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	client := server.Client()
	client.Jar = jar
	for _, path := range paths {
		resp, err := client.Get(server.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(strings.TrimSpace(fmt.Sprint(path, " ", resp.StatusCode, " ", string(body))))
	}
}

// A web application with sessions in PostgreSQL. SESSION_SECRET must be set.
func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.Open(ctx, pool)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	const visits = session.Key[int]("visits")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		visits.Update(s, func(n int) int { return n + 1 })
		n, _ := visits.Get(s)
		fmt.Fprintf(w, "visit %d", n)
	})
	if err := http.ListenAndServe(":8080", sessions.Handler(mux)); err != nil {
		log.Print(err)
	}
}

// A key is declared once, with the type of its value.
func ExampleKey() {
	type preferences struct {
		Theme string `json:"theme"`
		Zoom  int    `json:"zoom"`
	}
	const prefs = session.Key[preferences]("prefs")

	mux := http.NewServeMux()
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		prefs.Set(session.From(r.Context()), preferences{Theme: "dark", Zoom: 120})
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		p, ok := prefs.Get(session.From(r.Context()))
		fmt.Fprint(w, p, ok)
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/get", "/set", "/get")
	// Output:
	// /get 200 { 0} false
	// /set 200
	// /get 200 {dark 120} true
}

// What several requests may change at once goes through Update: its function
// runs again when another request got there first, so that no visit is lost.
func ExampleKey_Update() {
	const cart = session.Key[map[string]int]("cart")

	mux := http.NewServeMux()
	mux.HandleFunc("/add/{item}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		cart.Update(s, func(c map[string]int) map[string]int {
			if c == nil {
				c = make(map[string]int)
			}
			c[r.PathValue("item")]++
			return c
		})
		c, _ := cart.Get(s)
		fmt.Fprint(w, c)
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/add/tea", "/add/cup", "/add/tea")
	// Output:
	// /add/tea 200 map[tea:1]
	// /add/cup 200 map[cup:1 tea:1]
	// /add/tea 200 map[cup:1 tea:2]
}

// A flash message is shown once, on whatever page comes next.
func ExampleKey_Take() {
	const flash = session.Key[string]("flash")

	mux := http.NewServeMux()
	mux.HandleFunc("/save", func(w http.ResponseWriter, r *http.Request) {
		flash.Set(session.From(r.Context()), "Saved.")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if msg, ok := flash.Take(session.From(r.Context())); ok {
			fmt.Fprint(w, msg, " ")
		}
		fmt.Fprint(w, "Home")
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/save", "/", "/")
	// Output:
	// /save 200
	// / 200 Saved. Home
	// / 200 Home
}

// At login the session gets a new ID, so that one which an attacker had planted
// before is worth nothing.
func ExampleSession_Renew() {
	const userID = session.Key[int64]("userId")

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		// ... having checked the password:
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
		fmt.Fprint(w, "welcome")
	})
	mux.HandleFunc("/account", func(w http.ResponseWriter, r *http.Request) {
		id, ok := userID.Get(session.From(r.Context()))
		if !ok {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "user ", id)
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/account", "/login", "/account")
	// Output:
	// /account 401 log in first
	// /login 200 welcome
	// /account 200 user 42
}

// A logout deletes the record and expires the cookie. Whoever kept a copy of the
// cookie is logged out too.
func ExampleSession_Destroy() {
	const userID = session.Key[int64]("userId")

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		_, ok := userID.Get(session.From(r.Context()))
		fmt.Fprint(w, "logged in: ", ok)
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/login", "/me", "/logout", "/me")
	// Output:
	// /login 200
	// /me 200 logged in: true
	// /logout 200
	// /me 200 logged in: false
}

// "Remember me": without it the cookie ends with the browser, with it both the
// session and its cookie live for 30 days after each visit.
func ExampleSession_SetIdleTimeout() {
	const userID = session.Key[int64]("userId")

	login := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
		if r.FormValue("remember") != "" {
			s.SetIdleTimeout(30 * 24 * time.Hour)
		}
	}

	sessions := newExampleManager(session.Config{
		Cookie: session.CookieConfig{BrowserSession: true},
	})
	for _, query := range []string{"", "?remember=1"} {
		w := httptest.NewRecorder()
		sessions.Handler(http.HandlerFunc(login)).ServeHTTP(w, httptest.NewRequest("GET", "/login"+query, nil))
		cookie := w.Result().Cookies()[0]
		fmt.Println(cookie.Name, cookie.MaxAge)
	}
	// Output:
	// session 0
	// session 2592000
}

// When the session can be neither read nor saved the browser gets this answer
// instead of the handler's page, and keeps its cookie: an outage is no logout.
func ExampleConfig_errorHandler() {
	cfg := session.Config{
		Secret: os.Getenv("SESSION_SECRET"),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			switch {
			case errors.Is(err, session.ErrDestroyed): // logged out in another tab meanwhile
				http.Redirect(w, r, "/login", http.StatusSeeOther)
			case errors.Is(err, session.ErrInvalid), errors.Is(err, session.ErrHeaderSent):
				http.Error(w, "Our mistake.", http.StatusInternalServerError)
			default:
				w.Header().Set("Retry-After", "5")
				http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
			}
		},
	}

	const bad = session.Key[func()]("callback") // a function is no JSON
	sessions := newExampleManager(cfg)
	browse(sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bad.Set(session.From(r.Context()), func() {})
		fmt.Fprint(w, "never sent")
	})), "/")
	// Output:
	// / 500 Our mistake.
}

// With the Express format both programs accept each other's cookies: give them
// the same secret, cookie name and table. req.session.userId is Key "userId".
func ExampleConfig_express() {
	const userID = session.Key[int64]("userId")

	sessions := newExampleManager(session.Config{
		Secret:      os.Getenv("SESSION_SECRET"), // what express-session has as secret
		IdleTimeout: 24 * time.Hour,              // its cookie.maxAge
		Cookie:      session.CookieConfig{Format: session.FormatExpress},
	})
	h := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		userID.Set(session.From(r.Context()), 42)
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	cookie := w.Result().Cookies()[0]
	fmt.Println(cookie.Name, cookie.Value[:4])
	// Output:
	// connect.sid s%3A
}

// A program that is too short-lived for a goroutine of its own, such as a
// serverless function, prunes when it is called to.
func ExampleManager_Prune() {
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret:       exampleSecret,
		DisablePrune: true,
		Logger:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := sessions.Prune(ctx) // what is left when ctx ends is for the next call
	fmt.Println(n, err)
	// Output:
	// 0 <nil>
}

// A stream outlives other requests of its session: Reload tells it what they have
// stored meanwhile.
func ExampleSession_Reload() {
	events := func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
			if err := s.Reload(r.Context()); errors.Is(err, session.ErrDestroyed) {
				return
			}
			fmt.Fprint(w, "data: still there\n\n")
			_ = http.NewResponseController(w).Flush()
		}
	}
	http.Handle("GET /events", http.HandlerFunc(events))
}

// A stream ends with its session: a second after the user has logged out elsewhere,
// whichever program answered that.
func ExampleSession_Watch() {
	const userID = session.Key[int64]("userId")
	sessions := newExampleManager(session.Config{})

	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Renew()
		userID.Set(s, 42)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if _, ok := userID.Get(s); !ok {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		ctx, stop := s.Watch(r.Context())
		defer stop()
		go logOutElsewhere(sessions)
		news := make(chan string)
		for {
			select {
			case text := <-news:
				fmt.Fprintf(w, "data: %s\n\n", text)
				_ = http.NewResponseController(w).Flush()
			case <-ctx.Done():
				switch err := context.Cause(ctx); {
				case errors.Is(err, session.ErrRenewed), errors.Is(err, session.ErrUnproven):
					// The browser comes again, with a new cookie.
				case errors.Is(err, session.ErrDestroyed):
					fmt.Fprint(w, "event: bye\ndata: you are logged out\n\n")
				}
				return
			}
		}
	})
	browse(sessions.Handler(mux), "/login", "/events")
	// Output:
	// /login 200
	// /events 200 event: bye
	// data: you are logged out
}

// logOutElsewhere is the button "log out everywhere" in another browser.
func logOutElsewhere(sessions *session.Manager) {
	const userID = session.Key[int64]("userId")
	if _, err := sessions.Revoke(context.Background(), userID.Is(42)); err != nil {
		log.Print(err)
	}
}

// Wrong: the session is begun after the first byte of the page has left. Its
// cookie can no longer be sent, so nothing is saved, and the log says so.
// Change the session first, then write.
func ExampleSession_Err_changedTooLate() {
	const userID = session.Key[int64]("userId")

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprint(w, "welcome")
		_ = http.NewResponseController(w).Flush() // the first byte leaves

		userID.Set(s, 42) // too late
		fmt.Println(errors.Is(s.Err(), session.ErrHeaderSent))
	})), "/login")
	// Output:
	// true
	// /login 200 welcome
}
