// Package web is what docs/moving-from-gin-and-echo.md shows.
package web

import "github.com/pgsession/session"

const userID = session.Key[int64]("userId")

// flashes are shown once: a key for each kind.
var flashes = map[string]session.Key[[]string]{"error": "flashError", "success": "flashSuccess"}

func addFlash(s *session.Session, kind, message string) {
	flashes[kind].Update(s, func(l []string) []string { return append(l, message) })
}

func takeFlashes(s *session.Session, kind string) []string {
	messages, _ := flashes[kind].Take(s)
	return messages
}
