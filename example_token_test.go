package session_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/pgsession/session"
)

// A client without cookies: a native program, a command line, a page on another site.
// It keeps the token whenever one comes, and brings it with every request;
// examples/token has such a command line.
func ExampleSession_UseToken() {
	const userID = session.Key[int64]("userId")
	sessions := newExampleManager(session.Config{TokenPrefix: "shop_"})

	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.UseToken()
		s.Renew()
		userID.Set(s, 42)
	})
	mux.HandleFunc("POST /me", func(w http.ResponseWriter, r *http.Request) {
		id, ok := userID.Get(session.From(r.Context()))
		fmt.Fprint(w, id, ok)
	})
	mux.HandleFunc("POST /password", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Renew() // another token comes, the old one is dead
	})
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Destroy()
	})
	server := httptest.NewServer(sessions.Handler(mux))
	defer server.Close()

	token := ""
	for _, path := range []string{"/me", "/login", "/me", "/password", "/me", "/logout", "/me"} {
		req, err := http.NewRequest("POST", server.URL+path, http.NoBody)
		if err != nil {
			log.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		came := resp.Header.Get("Session-Token")
		if came != "" {
			token = came
		}
		fmt.Println(path, string(body), "token:", strings.HasPrefix(came, "shop_"), "cookie:", resp.Header.Get("Set-Cookie") != "")
	}
	// Output:
	// /me 0 false token: false cookie: false
	// /login  token: true cookie: false
	// /me 42 true token: false cookie: false
	// /password  token: true cookie: false
	// /me 42 true token: false cookie: false
	// /logout  token: false cookie: false
	// /me 0 false token: false cookie: false
}
