package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/pgsession/session"
	"github.com/pgsession/session/sessiontest"
)

const userID = session.Key[int64]("userId")

var news = make(chan string) // stands for your application's

func events(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if _, ok := userID.Get(s); !ok {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream") // or EventSource gives up
	out := http.NewResponseController(w)
	if out.Flush() != nil {
		return // the session could not be saved: the browser has a 503
	}
	ctx, stop := s.Watch(r.Context())
	defer stop()
	for {
		select {
		case text := <-news:
			data, _ := json.Marshal(text) // on one line: what others write begins no event of its own
			fmt.Fprintf(w, "data: %s\n\n", data)
			_ = out.Flush()
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, session.ErrDestroyed) && !errors.Is(err, session.ErrRenewed) {
				fmt.Fprint(w, "event: bye\ndata: {}\n\n") // else the browser comes back by itself
			}
			return
		}
	}
}

// The handler of docs/streams.md, which is the one above: a browser's EventSource
// accepts the answer at once, whoever writes a message sends no event of his own,
// and a logout says goodbye.
func TestDocsStream(t *testing.T) {
	t.Parallel()
	_, code, _ := strings.Cut(docRead(t, "docs_streams_test.go"), "\nvar news")
	code, _, _ = strings.Cut(code, "\n}\n")
	if !strings.Contains(docRead(t, "docs/streams.md"), "\n```go\nvar news"+code+"\n}\n```\n") {
		t.Error("no block of the document is this handler")
	}

	m := sessiontest.NewManager(t)
	server := httptest.NewServer(m.Handler(http.HandlerFunc(events)))
	t.Cleanup(server.Close)
	r := httptest.NewRequest(http.MethodGet, server.URL, nil).WithContext(t.Context())
	r.RequestURI = ""
	sessiontest.Login(t, m, r, func(s *session.Session) { userID.Set(s, 42) })
	client := &http.Client{Timeout: patience} // the header has to come before any news
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type: got %q, want text/event-stream, or EventSource never comes back", got)
	}
	news <- "hello\n\nevent: bye\ndata: {}"
	if _, err := m.Revoke(t.Context(), userID.Is(42)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(res.Body)
	if want := `data: "hello\n\nevent: bye\ndata: {}"` + "\n\nevent: bye\ndata: {}\n\n"; err != nil || string(got) != want {
		t.Errorf("stream: got %q, %v, want %q", got, err, want)
	}
}
