package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/pgsession/session"
)

// A browser fetches a page before its user has asked for it. The page takes a message
// that is shown once, so the request is declined, and the message is there when the
// user comes.
func ExampleKey_Take_prefetch() {
	const flash = session.Key[string]("flash")
	sessions := newExampleManager(session.Config{})
	page := sessions.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := flash.Take(session.From(r.Context()))
		fmt.Fprintf(w, "%s %v", text, ok)
	}))
	saved := httptest.NewRecorder()
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		flash.Set(session.From(r.Context()), "Saved.")
	})).ServeHTTP(saved, httptest.NewRequest("POST", "/", nil))

	for _, purpose := range []string{"prefetch", "", "prefetch"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(saved.Result().Cookies()[0])
		if purpose != "" {
			r.Header.Set("Sec-Purpose", purpose)
		}
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		fmt.Printf("%q: %d %s\n", purpose, w.Code, w.Body)
	}
	// Output:
	// "prefetch": 503 Service Unavailable
	//
	// "": 200 Saved. true
	// "prefetch": 200  false
}
