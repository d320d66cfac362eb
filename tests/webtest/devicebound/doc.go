// Package devicebound tests device-bound sessions with a real Chromium: two
// instances behind a front that gives each request to the other one, over TLS with
// a certificate made on the spot. The key is in the browser's memory instead of in
// hardware, which the build machines lack.
package devicebound
