package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pgsession/session/bench/internal/rig"
)

// Layout is how many programs and databases there are, and who goes where.
type Layout struct {
	Programs  int  `json:"programs"`
	Databases int  `json:"databases"` // a Manager for each in every program
	Own       bool `json:"own"`       // each program serves the users of one database, not those of all
	Conns     int  `json:"requestsUnderWay"`
}

// conns returns how many requests are under way in all programs.
func (l Layout) conns() int { return l.Programs * l.Conns }

// program returns where a connection leads: rig.Load sends them round.
func (l Layout) program(conn int) int { return conn % l.Programs }

// database returns whose user a connection's request n is of.
func (l Layout) database(conn, n int) int {
	if l.Own {
		return l.program(conn) % l.Databases
	}
	return (conn/l.Programs + n) % l.Databases
}

// town is the users of one database.
type town struct {
	host     string
	ids      []string
	cookies  []string
	counters []int // as /write has left them
}

// newTown returns n users who have not logged in yet.
func newTown(database, n int) *town {
	t := &town{host: fmt.Sprintf("d%d.localhost", database), cookies: make([]string, n), counters: make([]int, n)}
	for i := range n {
		t.ids = append(t.ids, fmt.Sprintf("user-%d-%06d", database, i))
	}
	return t
}

// request returns a whole GET request.
func (t *town) request(path, cookie string) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n", path, t.host)
	if cookie != "" {
		b = fmt.Appendf(b, "Cookie: %s\r\n", cookie)
	}
	return append(b, "\r\n"...)
}

// arrivals is a Script: each user of a town logs in once.
type arrivals struct {
	*town
	next int
}

// Next implements [rig.Script].
func (a *arrivals) Next(int) (int, []byte) {
	if a.next == len(a.ids) {
		return 0, nil
	}
	a.next++
	return a.next - 1, a.request(login+"?u="+a.ids[a.next-1], "")
}

// Done implements [rig.Script].
func (a *arrivals) Done(_, user int, answer rig.Answer) error {
	a.cookies[user] = string(answer.Cookie)
	return loggedIn(answer)
}

func loggedIn(a rig.Answer) error {
	if a.Status != http.StatusOK || string(a.Body) != "ok" || len(a.Cookie) == 0 {
		return fmt.Errorf("%s: got %d %q (a cookie: %t), want 200 \"ok\" with one", login, a.Status, a.Body, a.SetCookie)
	}
	return nil
}

// visits is a Script: the users of all databases, each always on the same connection,
// request one route in turn. Every answer is checked.
type visits struct {
	Layout
	route string
	towns []*town
	n     []int    // requests so far, of each connection
	open  []string // of each connection: the cookie of a login that waits for its logout
	each  int      // requests that each connection makes; 0: no end
	done  uint64
}

func (l Layout) visits(route string, towns []*town, each int) (*visits, error) {
	if l.conns() > len(towns[0].ids) {
		return nil, errors.New("fewer users than connections")
	}
	return &visits{Layout: l, route: route, towns: towns, n: make([]int, l.conns()), open: make([]string, l.conns()), each: each}, nil
}

// Next implements [rig.Script].
func (v *visits) Next(conn int) (int, []byte) {
	n := v.n[conn]
	if v.each > 0 && n == v.each {
		return 0, nil
	}
	v.n[conn]++
	path := v.route
	if path == pair {
		n, path = n/2, login // and its logout is of the same user
	}
	db := v.database(conn, n)
	t := v.towns[db]
	// A connection's own users are every conns-th; it meets them in turn, in one database after
	// the other.
	turn := n
	if !v.Own {
		turn /= v.Databases
	}
	user := conn + turn%(len(t.ids)/v.conns())*v.conns()
	cookie := t.cookies[user]
	switch {
	case path != login:
	case v.open[conn] != "":
		path, cookie = logout, v.open[conn]
	default:
		path, cookie = login+"?u="+t.ids[user], ""
	}
	return db*len(t.ids) + user, t.request(path, cookie)
}

// Done implements [rig.Script].
func (v *visits) Done(conn, tag int, a rig.Answer) error {
	v.done++
	t, user := v.towns[tag/len(v.towns[0].ids)], tag%len(v.towns[0].ids)
	want := "ok"
	switch v.route {
	case rig.Read:
		want = t.ids[user]
	case rig.Write:
		t.counters[user]++
		want = strconv.Itoa(t.counters[user])
	case pair:
		if v.open[conn] == "" {
			v.open[conn] = string(a.Cookie)
			return loggedIn(a)
		}
		v.open[conn] = ""
	}
	if a.Status != http.StatusOK || string(a.Body) != want {
		return fmt.Errorf("%s: got %d %q, want 200 %q", v.route, a.Status, a.Body, want)
	}
	return nil
}

// pairs returns how many logins there were, and how many of them were ended.
func (v *visits) pairs() (logins, logouts uint64) {
	waiting := uint64(0)
	for _, cookie := range v.open {
		if cookie != "" {
			waiting++
		}
	}
	return (v.done + waiting) / 2, (v.done - waiting) / 2
}
