package rig

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// Users are logged in at a server; each has a session of its own.
type Users struct {
	IDs      []string
	Cookies  []string // Cookie headers
	Counters []int    // as /write has left them
}

// LoginUsers logs n users in, several at once; all their names begin with prefix.
func LoginUsers(s *Server, prefix string, n int) (*Users, error) {
	const atOnce = 16
	u := &Users{IDs: make([]string, n), Cookies: make([]string, n), Counters: make([]int, n)}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, DisableCompression: true}}
	defer client.CloseIdleConnections()
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				u.IDs[i] = fmt.Sprintf("%s-%06d", prefix, i)
				u.Cookies[i], errs[w] = s.Login(client, u.IDs[i])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Variant.Name, err)
	}
	return u, nil
}

// Request returns a whole GET request.
func Request(path, cookie string) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n", path)
	if cookie != "" {
		b = fmt.Appendf(b, "Cookie: %s\r\n", cookie)
	}
	return append(b, "\r\n"...)
}

// Visits is a Script: the users, each always on the same connection, request one
// route in turn. Every answer is checked: its status and its body exactly (the
// counter of /write is one more than the user's last), and that there is no
// Set-Cookie where none is due.
type Visits struct {
	route    string
	users    *Users
	requests [][]byte // of each user
	conns    int
	next     []int // of each connection
	left     []int // requests that each has to send; nil: no end
	noCookie bool
	want     string // body, where it is the same for all

	SetCookies int // answers with one
}

// NewVisits returns visits of a route on so many connections, of which there must
// not be more than users; each, unless 0, is how many requests a connection makes.
func NewVisits(v *Variant, route string, users *Users, conns, each int) *Visits {
	s := &Visits{route: route, users: users, conns: conns, next: make([]int, conns)}
	if each > 0 {
		s.left = slices.Repeat([]int{each}, conns)
	}
	s.requests = make([][]byte, len(users.IDs))
	for i := range s.requests {
		cookie := users.Cookies[i]
		if route == New {
			cookie = ""
		}
		s.requests[i] = Request(route, cookie)
	}
	for c := range s.next {
		s.next[c] = c
	}
	switch route {
	case Public:
		s.want, s.noCookie = "public", v.Name != "scs-pgx-idle" // which sends one with everything
	case New:
		s.want, s.noCookie = "anon", true
	}
	return s
}

// Next implements Script.
func (s *Visits) Next(conn int) (int, []byte) {
	if s.left != nil {
		if s.left[conn] == 0 {
			return 0, nil
		}
		s.left[conn]--
	}
	u := s.next[conn]
	if s.next[conn] += s.conns; s.next[conn] >= len(s.requests) {
		s.next[conn] = conn
	}
	return u, s.requests[u]
}

// Done implements Script.
func (s *Visits) Done(_, user int, a Answer) error {
	want := s.want
	switch s.route {
	case Read:
		want = s.users.IDs[user]
	case Write:
		s.users.Counters[user]++
		want = strconv.Itoa(s.users.Counters[user])
	}
	if a.Status != http.StatusOK || string(a.Body) != want {
		return fmt.Errorf("%s: got %d %q, want 200 %q", s.route, a.Status, a.Body, want)
	}
	if a.SetCookie {
		if s.noCookie {
			return fmt.Errorf("%s: got a Set-Cookie, want none", s.route)
		}
		s.SetCookies++
	}
	return nil
}
