package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/pgsession/session"
)

// left tells a page how long its user is still logged in. It is the page that asks,
// not the user, so it does not extend that.
func left(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).SkipTouch()
	writeLeft(w, r)
}

// stay is for the button "Stay logged in": that is the user, and like every other
// request of theirs it extends the login.
func stay(w http.ResponseWriter, r *http.Request) { writeLeft(w, r) }

func writeLeft(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	var seconds int
	if _, ok := userID.Get(s); ok {
		seconds = int(s.ExpiresIn() / time.Second)
	} else if s.Err() != nil {
		return // an outage: the answer is sessionFailed's
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"seconds": seconds})
}
