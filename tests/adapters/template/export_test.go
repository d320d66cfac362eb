package web

import "net/http"

// Home is home, for the tests.
func Home(w http.ResponseWriter, r *http.Request) { home(w, r) }
