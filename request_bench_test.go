package session_test

import (
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/pgsession/session"
)

// BenchmarkRequest is what a request costs beside the store: compare two
// checkouts by building this test in each ("go test -c") and running both.
func BenchmarkRequest(b *testing.B) {
	for _, bm := range []struct {
		name string
		use  func(*session.Session)
	}{
		{"public", nil},
		{"read", func(s *session.Session) { countKey.Get(s) }},
		{"write", func(s *session.Session) { n, _ := countKey.Get(s); countKey.Set(s, n+1) }},
		{"update", increment},
	} {
		b.Run(bm.name, func(b *testing.B) {
			m := newManager(b, session.NewMemoryStore(), session.Config{DisablePrune: true})
			cookie := useSession(m, "", func(s *session.Session) { countKey.Set(s, 0) }).newCookie()
			h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if bm.use != nil {
					bm.use(session.From(r.Context()))
				}
				_, _ = io.WriteString(w, "page")
			}))
			r := request("GET", cookie)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(discard{header: http.Header{}}, r)
			}
		})
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// A Session is one allocation of 704 bytes, the runtime's word included: the next
// larger ones have 768, with every request that uses its session.
func TestSessionSize(t *testing.T) {
	if got := session.SessionBytes; strconv.IntSize == 64 && got > 696 {
		t.Errorf("got %d bytes, want 696 at most: put flags side by side", got)
	}
}
