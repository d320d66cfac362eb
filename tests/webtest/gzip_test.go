package webtest

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/NYTimes/gziphandler"
	"github.com/klauspost/compress/gzhttp"

	"github.com/pgsession/session"
)

// page is long enough for every middleware to compress it.
var page = strings.Repeat("a page of the handler ", 1000)

var gzips = []struct {
	name string
	wrap func(http.Handler) http.Handler
}{
	{"gzhttp", func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) }},
	{"gziphandler", gziphandler.GzipHandler},
}

// stack puts a gzip middleware on one side of the session's.
func stack(s *site, gz func(http.Handler) http.Handler, side string, h http.HandlerFunc) http.Handler {
	if side == "outside" {
		return outside(gz(s.m.Handler(h)))
	}
	return outside(s.m.Handler(gz(h)))
}

// get returns a response and its body, decompressed if it says so.
func get(t *testing.T, client *http.Client, url, cookie string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	var body io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(res.Body); err != nil {
			return res, "", err
		}
	}
	b, err := io.ReadAll(body)
	return res, string(b), err
}

// writes are the ways to send the page through a gzip middleware.
var writes = []struct {
	name string
	send func(w http.ResponseWriter)
}{
	{"Write", func(w http.ResponseWriter) { _, _ = w.Write([]byte(page)) }},
	{"WriteString", func(w http.ResponseWriter) { _, _ = io.WriteString(w, page) }},
	{"ReadFrom", func(w http.ResponseWriter) { _, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader(page)}) }},
	{"WriteHeader", func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK); _, _ = w.Write([]byte(page)) }},
	{"small writes", func(w http.ResponseWriter) {
		for _, word := range strings.SplitAfter(page, " ") {
			_, _ = io.WriteString(w, word)
		}
	}},
	{"flush first", func(w http.ResponseWriter) {
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write([]byte(page))
	}},
	{"flush between", func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, page[:10])
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, page[10:])
	}},
}

func TestGzip(t *testing.T) {
	for _, gz := range gzips {
		for _, side := range []string{"outside", "inside"} {
			for _, proto := range protocols {
				for _, write := range writes {
					t.Run(gz.name+"/"+side+"/"+proto+"/"+write.name, func(t *testing.T) {
						s := newSite(t)
						url, client := serve(t, proto, stack(s, gz.wrap, side, func(w http.ResponseWriter, r *http.Request) {
							w.Header().Set("Content-Type", "text/html")
							w.Header().Set("X-Handler", "yes")
							name.Set(session.From(r.Context()), "ada")
							write.send(w)
						}))
						res, body, err := get(t, client, url, "")
						if err != nil {
							t.Fatal(err)
						}
						if res.Proto != proto {
							t.Fatalf("protocol: got %s, want %s", res.Proto, proto)
						}
						if res.StatusCode != 200 || body != page {
							t.Errorf("response: got %d and %d bytes, want 200 and the page's %d", res.StatusCode, len(body), len(page))
						}
						if got := res.Header.Get("Cache-Control"); got != "no-store" {
							t.Errorf("Cache-Control: got %q, want no-store", got)
						}
						s.wantStored(t, sessionCookie(res.Header), name, "ada")

						s.store.fail("Create")
						res, body, err = get(t, client, url, "")
						if err != nil {
							t.Fatal(err)
						}
						// A compressor outside says that it looks at the request, and
						// may compress what it is told to flush.
						var also []string
						if side == "outside" {
							also = append(also, "Vary")
						}
						if side == "outside" && strings.HasPrefix(write.name, "flush") {
							also = append(also, "Content-Encoding")
						}
						wantRefused(t, res, body, 503, also...)
						if side == "outside" && res.Header.Get("Vary") != "Accept-Encoding" {
							t.Errorf("Vary: got %q, want what the compressor has set", res.Header.Get("Vary"))
						}
					})
				}
			}
		}
	}
}

// The compressor may compress a long error page; it is whole and readable.
func TestGzipLongErrorPage(t *testing.T) {
	sorry := strings.Repeat("sorry ", 5000)
	for _, gz := range gzips {
		for _, side := range []string{"outside", "inside"} {
			for _, proto := range protocols {
				t.Run(gz.name+"/"+side+"/"+proto, func(t *testing.T) {
					s := newSite(t, func(c *session.Config) {
						c.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
							w.Header().Set("Content-Type", "text/plain")
							w.Header().Set("Retry-After", "7")
							w.WriteHeader(http.StatusBadGateway)
							_, _ = io.WriteString(w, sorry)
						}
					})
					s.store.fail("Create")
					url, client := serve(t, proto, stack(s, gz.wrap, side, func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("X-Handler", "yes")
						name.Set(session.From(r.Context()), "ada")
						_, _ = io.WriteString(w, page)
					}))
					res, body, err := get(t, client, url, "")
					if err != nil {
						t.Fatal(err)
					}
					if res.StatusCode != http.StatusBadGateway || body != sorry {
						t.Errorf("response: got %d and %d bytes, want 502 and the error page's %d", res.StatusCode, len(body), len(sorry))
					}
					if got := res.Header.Get("Content-Encoding") == "gzip"; got != (side == "outside") {
						t.Errorf("compressed: got %v, want it only by a compressor outside", got)
					}
					if got := res.Header.Get("Cache-Control") + " " + res.Header.Get("Retry-After"); got != "no-store 7" {
						t.Errorf("Cache-Control and Retry-After: got %q, want no-store and 7", got)
					}
					if got := res.Header.Get("X-Handler"); got != "" {
						t.Errorf("X-Handler: got %q, want none", got)
					}
				})
			}
		}
	}
}

// A save that fails after the first byte does not end in a well-formed stream.
func TestGzipLateFailure(t *testing.T) {
	for _, gz := range gzips {
		for _, side := range []string{"outside", "inside"} {
			for _, proto := range protocols {
				t.Run(gz.name+"/"+side+"/"+proto, func(t *testing.T) {
					s := newSite(t)
					cookie := s.login(t)
					s.store.fail("Update")
					url, client := serve(t, proto, stack(s, gz.wrap, side, func(w http.ResponseWriter, r *http.Request) {
						_, _ = io.WriteString(w, page)
						_ = http.NewResponseController(w).Flush()
						name.Set(session.From(r.Context()), "eve")
					}))
					if res, body, err := get(t, client, url, cookie); err == nil {
						t.Errorf("response: got a complete one, %d and %d bytes, want a truncated one", res.StatusCode, len(body))
					}
					s.wantStored(t, cookie, name, "ada")
				})
			}
		}
	}
}
