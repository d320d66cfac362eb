package session

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// routeKey finds in a context the pattern of the request that it is of.
type routeKey struct{}

// withRoutes returns a logger that adds the pattern to what is about a request.
func withRoutes(l *slog.Logger) *slog.Logger {
	if _, has := l.Handler().(routed); has {
		return l
	}
	return slog.New(routed{l.Handler()})
}

// routed is a [slog.Handler] around an application's.
type routed struct{ slog.Handler }

func (h routed) Handle(ctx context.Context, r slog.Record) error {
	if ctx != nil {
		if route, _ := ctx.Value(routeKey{}).(string); route != "" {
			r = r.Clone()
			r.AddAttrs(slog.String("route", route))
		}
	}
	return h.Handler.Handle(ctx, r)
}

func (h routed) WithAttrs(attrs []slog.Attr) slog.Handler { return routed{h.Handler.WithAttrs(attrs)} }

func (h routed) WithGroup(name string) slog.Handler { return routed{h.Handler.WithGroup(name)} }

// use is a call of the application's, as a log names it.
type use struct{ call, key string }

func (u use) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("call", u.call)}
	if u.key != "" {
		attrs = append(attrs, slog.String("key", u.key))
	}
	return attrs
}

const (
	seldomInterval = time.Minute

	// mostSeldom bounds the keys that are told apart, should a program have made a
	// pattern for each request.
	mostSeldom = 1000
)

// seldom lets each of its keys through once in seldomInterval. The zero value is
// ready, and safe for concurrent use.
type seldom struct {
	mu   sync.Mutex
	last map[string]*held
}

type held struct {
	at   time.Time // when the key was let through
	back int       // how often it was not, since then
}

// due reports whether key is let through, and how often it was held back since it
// last was.
func (l *seldom) due(key string) (back int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]*held{}
	}
	last := l.last[key]
	if last == nil && len(l.last) >= mostSeldom {
		key = ""
		last = l.last[key]
	}
	now := time.Now()
	switch {
	case last == nil:
		l.last[key] = &held{at: now}
		return 0, true
	case now.Sub(last.at) < seldomInterval:
		last.back++
		return 0, false
	}
	back = last.back
	last.at, last.back = now, 0
	return back, true
}
