// Package web is what the tests of docs/adapters.md test.
package web

import (
	"fmt"
	"net/http"

	"github.com/pgsession/session"
)

const userID = session.Key[int64]("userId")

func login(_ http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Renew()
	userID.Set(s, 42)
}

func account(w http.ResponseWriter, r *http.Request) {
	id, ok := userID.Get(session.From(r.Context()))
	if !ok {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "user %d", id)
}
