package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/pgsession/session/internal/exampletest"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { exampletest.Main(m) }

var must = exampletest.Must

func TestCartBecomesAnOrder(t *testing.T) {
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	b := exampletest.NewBrowser(t, "session")
	b.Post(p.URL+"/add", url.Values{"item": {"tea"}}).Want(t, 200, "<li>tea</li>")
	b.Post(p.URL+"/add", url.Values{"item": {"milk"}}).Want(t, 200, "<li>tea</li><li>milk</li>")
	b.Post(p.URL+"/order", nil).Want(t, 200, "has the number 1", "Your cart is empty")
	b.Post(p.URL+"/order", nil).Want(t, 200, "has the number 1", "Your cart is empty")
	b.Post(p.URL+"/add", url.Values{"item": {" "}}).Want(t, 400)
	p.Interrupt(os.Interrupt)
}

// Each question has a number of its own, however many are asked at once.
func TestQuestionsHaveNumbers(t *testing.T) {
	p := exampletest.Start(t, "DATABASE_URL="+pgtest.URL(t))
	b := exampletest.NewBrowser(t, "session")
	b.Post(p.URL+"/ask", nil).Want(t, 200, "has the number 1.")
	const asked = 12
	var all sync.WaitGroup
	var numbers [asked + 2]atomic.Int64
	for range asked {
		all.Go(func() {
			for _, line := range strings.Split(b.Post(p.URL+"/ask", nil).Body, ".") {
				var n int
				if _, err := fmt.Sscanf(line, "Your question has the number %d", &n); err == nil && n < len(numbers) {
					numbers[n].Add(1)
				}
			}
		})
	}
	all.Wait()
	for n := 2; n < len(numbers); n++ {
		if got := numbers[n].Load(); got != 1 {
			t.Errorf("number %d: got it %d times, want once", n, got)
		}
	}
}

// What is withdrawn leaves all carts, and nothing else does.
func TestWithdraw(t *testing.T) {
	dsn := "DATABASE_URL=" + pgtest.URL(t)
	p := exampletest.Start(t, dsn)
	one, other := exampletest.NewBrowser(t, "session"), exampletest.NewBrowser(t, "session")
	for _, item := range []string{"tea", "milk", "tea"} {
		one.Post(p.URL+"/add", url.Values{"item": {item}}).Want(t, 200)
	}
	other.Post(p.URL+"/add", url.Values{"item": {"milk"}}).Want(t, 200)
	job := exampletest.Command(t, dsn, "-withdraw", "tea")
	must(t, job.Run())
	job.WantLog("msg=withdrawn carts=1")
	one.Get(p.URL+"/").Want(t, 200, "<ul><li>milk</li></ul>")
	other.Get(p.URL+"/").Want(t, 200, "<ul><li>milk</li></ul>")
}

// carts is how many customers click twice at once, and again until somebody says
// what has become of their order.
const carts = 200

// Every cart becomes one order: by double clicks, while each seventh COMMIT is lost,
// or its answer, and the program is killed in the middle.
func TestEveryCartBecomesOneOrder(t *testing.T) {
	dsn := pgtest.URL(t)
	cut := newCutter(t, dsn)
	var program atomic.Pointer[exampletest.Program]
	start := func() *exampletest.Program {
		p := exampletest.Start(t, "DATABASE_URL="+cut.url)
		p.MayFail = true // it is killed
		program.Store(p)
		return p
	}
	first := start()
	customers := make([]*exampletest.Browser, carts)
	for i := range customers {
		customers[i] = exampletest.NewBrowser(t, "session")
		customers[i].Post(first.URL+"/add", url.Values{"item": {fmt.Sprint("tea ", i)}}).Want(t, 200)
	}
	db, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer db.Close(context.Background())
	count := func(sql string) (n int) {
		must(t, db.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}

	// Half of the orders are made when the program is killed, a quarter is under way,
	// and the last quarter is for the next program.
	restarted := make(chan struct{})
	var half, clicks sync.WaitGroup
	half.Add(carts / 2)
	cut.on.Store(true)
	for i, b := range customers {
		done := sync.OnceFunc(func() {
			if i < carts/2 {
				half.Done()
			}
		})
		for range 2 {
			clicks.Go(func() {
				if i >= carts*3/4 {
					<-restarted
				}
				defer done()
				for range 200 {
					switch done, err := click(b, program.Load().URL); {
					case err != nil: // the program is dead
						<-restarted
					case done:
						return
					}
				}
				t.Errorf("cart %d: no answer after 200 clicks", i)
			})
		}
	}
	half.Wait()
	must(t, first.Process.Kill())
	_ = first.Wait()
	start()
	close(restarted)
	clicks.Wait()
	cut.on.Store(false)

	if got := count("SELECT count(*) FROM shop_order"); got != carts {
		t.Errorf("orders: got %d, want %d", got, carts)
	}
	if got := count("SELECT count(DISTINCT items) FROM shop_order"); got != carts {
		t.Errorf("carts that were ordered: got %d, want %d", got, carts)
	}
	if got := count(`SELECT count(*) FROM schema_system.session WHERE sess->'cart' IS NOT NULL`); got != 0 {
		t.Errorf("carts that are still full: got %d, want none", got)
	}
	requests, replies := cut.requests.Load(), cut.replies.Load()
	if requests == 0 || replies == 0 {
		t.Errorf("lost: got %d COMMITs and %d answers, want some of each", requests, replies)
	}
	t.Logf("%d of %d carts became one order; %d COMMITs and %d answers were lost", count("SELECT count(DISTINCT items) FROM shop_order"), carts, requests, replies)
}

// click clicks on Order, and reports whether the shop says that it is done.
func click(b *exampletest.Browser, url string) (done bool, err error) {
	client := http.Client{Jar: b.Client.Jar, Timeout: exampletest.Deadline, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.PostForm(url+"/order", nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusSeeOther, nil
}

// cutter is a way to PostgreSQL on which every seventh COMMIT is lost, or its answer,
// in turn.
type cutter struct {
	url, target       string
	on                atomic.Bool
	seen              atomic.Int64
	requests, replies atomic.Int64
}

func newCutter(t *testing.T, dsn string) *cutter {
	u, err := url.Parse(dsn)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{target: u.Host}
	u.Host = l.Addr().String()
	c.url = u.String()
	var served sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", c.target)
			if err != nil {
				client.Close()
				continue
			}
			served.Go(func() { c.pass(client, server) })
		}
	})
	return c
}

func (c *cutter) pass(client, server net.Conn) {
	var doomed atomic.Bool
	var both sync.WaitGroup
	both.Go(func() { // the answer to a doomed COMMIT comes after it was carried out
		defer client.Close()
		defer server.Close()
		b := make([]byte, 1<<16)
		for {
			n, err := server.Read(b)
			if err != nil || doomed.Load() {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	})
	defer both.Wait()
	defer client.Close()
	defer server.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if c.on.Load() && bytes.Contains(b[:n], []byte("commit\x00")) {
			if seen := c.seen.Add(1); seen%14 == 7 {
				c.requests.Add(1)
				return
			} else if seen%14 == 0 {
				c.replies.Add(1)
				doomed.Store(true)
				_, _ = server.Write(b[:n])
				_, _ = io.Copy(io.Discard, client) // until the answer has come
				return
			}
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}
