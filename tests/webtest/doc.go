// Package webtest tests the session middleware together with other people's:
// compression and websocket libraries that the root module does not depend on,
// and goleak, which finds goroutines that are left behind.
package webtest
