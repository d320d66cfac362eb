package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

const (
	// unfindable are characters that encoding/json writes as escapes which not
	// every database can read.
	unfindable = "\x00\u2028\u2029"

	// revokeTimeout bounds Manager.Revoke(Everyone()), where the caller's
	// context does not: a million rows take seconds.
	revokeTimeout = time.Hour
)

// Filter says which sessions [Manager.Sessions] lists, [Manager.Edit] changes and
// [Manager.Revoke] destroys: those of a user ([Key.Is]) or all ([Everyone]). The zero Filter is
// an error, so that a mistake logs nobody out.
type Filter struct {
	key      string
	value    []byte // JSON
	everyone bool
	handle   string
	except   *Session
	err      error
}

// Is names the sessions in which k has the value v: a string, a number or a
// boolean of at most 200 bytes, without NUL and Unicode's line separators. The number 42 and the string "42" are the same
// to it. With [Config.Encrypt] k must be [Config.UserKey].
func (k Key[T]) Is(v T) Filter {
	raw, err := k.encode(v)
	f := Filter{key: string(k), value: raw, err: err}
	if text, ok := jsonobj.Text(raw); err == nil && (!ok || len(text) > maxFindBytes || strings.ContainsAny(text, unfindable)) {
		f.err = invalid(k.op(), "Is needs a string, a number or a boolean of at most %d bytes, without NUL and line separators", maxFindBytes)
	}
	return f
}

// Everyone names all sessions, those of Express included.
func Everyone() Filter { return Filter{everyone: true} }

// Except leaves s out: "log out everywhere else", after a password change. A
// session without a record leaves out nothing. nil is an error, and so is one that
// its handler never used, once the handler has returned.
func (f Filter) Except(s *Session) Filter {
	if f.except = s; s == nil {
		f.err = invalid("Filter", "Except(nil) leaves out nothing: was the session looked for in another request's context?")
	}
	return f
}

// Handle keeps only the session of this [Info.Handle], so that
//
//	userID.Is(42).Handle(r.FormValue("handle"))
//
// is one of user 42's own sessions or none. A session that was renewed has
// another handle: where Revoke returns 0, list again. An empty handle is an
// error.
func (f Filter) Handle(handle string) Filter {
	if f.handle = handle; handle == "" || !utf8.ValidString(handle) || strings.IndexByte(handle, 0) >= 0 {
		f.err = invalid("Filter", "the handle is empty or no text")
	}
	return f
}

// Format shows no value that sessions are found by, whatever the verb.
func (Filter) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "session.Filter") }

// LogValue shows no value that sessions are found by.
func (Filter) LogValue() slog.Value { return slog.StringValue("session.Filter") }

// Info describes a session to people who may not know its ID.
type Info struct {
	_ struct{}

	// Handle names the session without giving access to it: for pages, forms
	// and logs. A renewal changes it, as it changes the ID. See
	// [Session.Handle] for one's own.
	Handle string

	// CreatedAt and RenewedAt are those of [Session.CreatedAt] and
	// [Session.RenewedAt].
	CreatedAt, RenewedAt time.Time

	// LastSeenAt is when a request last moved the session's expiry: up to
	// [Config.TouchInterval] before its last use, and longer once an absolute
	// timeout is all that is left of its life.
	LastSeenAt time.Time

	// ExpiresAt is when the session ends unless it is used.
	ExpiresAt time.Time

	// Token says that the session's client holds a token, and no cookie
	// ([Session.UseToken]). It is false where the data cannot be read, see [Key.Of].
	Token bool

	// Bound says that the browser has proven a key of its device, as
	// [Session.Bound]. It is false where the data cannot be read, see [Key.Of].
	Bound bool

	row row.Row
}

// Format shows the handle and no data, whatever the verb.
func (i Info) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "session.Info(%s)", i.Handle) }

// LogValue shows the handle and no data.
func (i Info) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(i)) }

// Of returns the value of k in a listed session, as [Key.Get] does. ok is also
// false where the data cannot be read: that of an encrypted session with
// [PostgresOptions.HashIDs].
func (k Key[T]) Of(i Info) (value T, ok bool) {
	if string(k) == row.MemberBound || string(k) == row.MemberToken {
		return value, false
	}
	value, ok, err := decode[T](i.row.Get(string(k)))
	return value, ok && err == nil
}

// Sessions lists the live sessions that f names, the last seen first; of more
// than a thousand those that expire last. Without an index on the key ([PostgresOptions.IndexKeys])
// it reads the whole table. It is bounded by [Config.StoreTimeout] and by ctx.
func (m *Manager) Sessions(ctx context.Context, f Filter) ([]Info, error) {
	finder, q, err := m.query(f)
	if err != nil {
		return nil, &opError{"Sessions", err}
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
	defer cancel()
	found, err := finder.Find(ctx, q)
	if err != nil {
		return nil, &opError{"Sessions", m.engine.countError(err)}
	}
	now := time.Now()
	infos := make([]Info, 0, len(found))
	for _, r := range found {
		infos = append(infos, m.info(&r, now))
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return b.LastSeenAt.Compare(a.LastSeenAt) })
	return infos, nil
}

// Revoke destroys the sessions that f names and returns how many were live.
// Requests under way do not bring them back. It is bounded by
// [Config.StoreTimeout], with [Everyone] only by ctx, and not cut by a browser
// that goes away.
//
// A login under way may create its session a moment later: change the password
// first, then revoke. A request's own session is destroyed with the others
// unless [Filter.Except] names it; its cookie is expired by [Session.Destroy].
func (m *Manager) Revoke(ctx context.Context, f Filter) (int64, error) {
	finder, q, err := m.query(f)
	if err != nil {
		return 0, &opError{"Revoke", err}
	}
	var cancel context.CancelFunc
	switch deadline, bounded := ctx.Deadline(); {
	case f.everyone && bounded:
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	case f.everyone:
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	default:
		ctx, cancel = m.engine.storeContext(ctx)
	}
	defer cancel()
	n, err := finder.DeleteFound(m.engine.hears(ctx, whyRevoked), q)
	m.engine.stats.destroys.Add(uint64(max(n, 0)))
	if err != nil {
		return n, &opError{"Revoke", m.engine.countError(err)}
	}
	return n, nil
}

// query translates f for the store.
func (m *Manager) query(f Filter) (Finder, Query, error) {
	q := Query{Handle: f.handle, Limit: maxFound}
	finder, ok := m.store.(Finder)
	switch {
	case !ok:
		return nil, q, errors.New("the store cannot find sessions: it is no Finder")
	case f.key == "" && !f.everyone && f.handle == "":
		return nil, q, invalid("Filter", "names no sessions: use Key.Is or Everyone")
	case f.err != nil:
		return nil, q, f.err
	case f.key == "" && !f.everyone:
		return nil, q, invalid("Filter", "names no sessions: use Key.Is or Everyone")
	case f.key != "" && m.cfg.Encrypt && f.key != m.cfg.UserKey:
		return nil, q, invalid("Filter", "the key %q is encrypted: only Config.UserKey can be searched", f.key)
	}
	if q.Key = f.key; q.Key != "" {
		text, _ := jsonobj.Text(f.value)
		var err error
		if q.Values, err = m.engine.sealer.Load().FindValues(f.key, text); err != nil {
			return nil, q, err
		}
	}
	if f.except != nil {
		if f.except.m != m { // it would leave out nothing
			return nil, q, invalid("Filter", "Except names a session of another Manager")
		}
		q.Except = f.except.ID()
		if err := f.except.Err(); err != nil && q.Except == "" {
			return nil, q, err // it is not known which session that is
		}
	}
	return finder, q, nil
}

func (m *Manager) info(r *Found, now time.Time) Info {
	i := Info{Handle: r.Handle, ExpiresAt: now.Add(min(r.TTL, row.MaxLifetime))}
	d, err := row.Parse(r.Data)
	if err != nil {
		return i // no session of ours; revoking it is all one can do
	}
	i.CreatedAt, _ = d.Created()
	i.RenewedAt = d.Renewed()
	i.LastSeenAt = i.ExpiresAt.Add(-m.engine.idle(&d).timeout)
	if !i.CreatedAt.IsZero() && i.LastSeenAt.Before(i.CreatedAt) {
		i.LastSeenAt = i.CreatedAt
	}
	if m.engine.sealer.Load().Open(r.ID, &d) == nil {
		i.row = d
		b, _, _ := d.Bound()
		i.Bound, i.Token = b.Confirmed != 0, d.Token()
	}
	return i
}
