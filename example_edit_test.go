package session_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/pgsession/session"
)

// A payment has come in: whatever devices the user is logged in on show the new plan
// with their next request. No request of theirs is needed, and none of theirs that is
// under way loses a change.
func ExampleManager_Edit() {
	const (
		userID = session.Key[int]("userId")
		plan   = session.Key[string]("plan")
	)
	sessions := newExampleManager(session.Config{})
	loginOn(sessions, "phone")
	loginOn(sessions, "laptop")

	paid := func(ctx context.Context, user int) error {
		n, err := sessions.Edit(ctx, userID.Is(user), func(s *session.Session) error {
			plan.Set(s, "gold")
			return nil
		})
		fmt.Println(n, "sessions changed")
		return err
	}
	if err := paid(context.Background(), 42); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 2 sessions changed
}

// The number of an invoice is used at once, so it must be final: two requests that
// call Update at the same time could both read 1 after it.
func ExampleKey_UpdateNow() {
	const invoices = session.Key[int]("invoices")

	mux := http.NewServeMux()
	mux.HandleFunc("/invoice", func(w http.ResponseWriter, r *http.Request) {
		n, err := invoices.UpdateNow(r.Context(), session.From(r.Context()), func(n int) int { return n + 1 })
		if err != nil {
			return // the error handler answers
		}
		fmt.Fprintf(w, "invoice %d", n)
	})

	sessions := newExampleManager(session.Config{})
	browse(sessions.Handler(mux), "/invoice", "/invoice")
	// Output:
	// /invoice 200 invoice 1
	// /invoice 200 invoice 2
}

// A page's frame that public pages have too, where no session is around the handler.
func ExampleLookup() {
	const userName = session.Key[string]("userName")

	greeting := func(ctx context.Context) string {
		s, ok := session.Lookup(ctx)
		if !ok {
			return "Welcome" // a public page, the same for everybody
		}
		if name, ok := userName.Get(s); ok {
			return "Hello, " + name
		}
		return "Please log in"
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, greeting(r.Context())) })

	sessions := newExampleManager(session.Config{})
	mux := http.NewServeMux()
	mux.Handle("/imprint", page)
	mux.Handle("/", sessions.Handler(page))
	browse(mux, "/imprint", "/")
	// Output:
	// /imprint 200 Welcome
	// / 200 Please log in
}
