package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"

	"github.com/pgsession/session/bench/internal/app"
	"github.com/pgsession/session/bench/internal/rig"
)

// visitor is a session of which we have the cookie.
type visitor struct {
	at      int // which row of the table it is
	uid     string
	sid     string
	cookie  string
	counter int
}

// filler fills the table with sessions made by this library itself, which are taken
// from it before they reach a database: three million logins would take long.
type filler struct {
	db       *pgx.Conn
	manager  *session.Manager
	made     *made
	rows     int
	visitors []*visitor
	texts    []string // records to copy for sessions that nobody visits
}

// made is a session.Store that keeps the last record created.
type made struct {
	id   string
	data string
}

var errOnlyCreate = errors.New("growth: this store only creates")

func (m *made) Create(_ context.Context, id string, r session.Record) error {
	m.id, m.data = id, string(r.Data)
	return nil
}

func (m *made) Load(context.Context, string) (session.Record, error) {
	return session.Record{}, session.ErrNotFound
}
func (m *made) Update(context.Context, string, session.Change) error { return errOnlyCreate }
func (m *made) Touch(context.Context, string, time.Duration) error   { return errOnlyCreate }
func (m *made) Delete(context.Context, string) error                 { return errOnlyCreate }

func newFiller(db *pgx.Conn, secret string) (*filler, error) {
	f := &filler{db: db, made: new(made)}
	var err error
	f.manager, err = session.New(f.made, session.Config{Secret: secret, DisablePrune: true, Logger: slog.New(slog.DiscardHandler)})
	return f, err
}

// login makes a session as bench/server does, and returns its cookie.
func (f *filler) login(uid string) (cookie string, err error) {
	w := httptest.NewRecorder()
	f.manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		session.Key[string]("user_id").Set(s, uid)
		session.Key[int]("counter").Set(s, 0)
		for i := range app.Facts {
			session.Key[string](app.FactName(i)).Set(s, app.Fact(uid, i))
		}
		app.Text(w, http.StatusOK, "ok")
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/login", nil))
	cookies := w.Result().Cookies()
	if w.Code != http.StatusOK || len(cookies) != 1 {
		return "", fmt.Errorf("login: got %d with %d cookies, want 200 with one", w.Code, len(cookies))
	}
	return cookies[0].Name + "=" + cookies[0].Value, nil
}

const (
	dense = 50_000 // of the first rows each is a visitor's
	every = 30     // of the others one in so many
)

// fill adds rows until there are n.
func (f *filler) fill(ctx context.Context, n int) error {
	if n <= f.rows {
		return nil
	}
	if _, err := f.db.Exec(ctx, "ALTER TABLE schema_system.session ALTER expire SET DEFAULT now() + interval '1 day'"); err != nil {
		return err
	}
	_, err := f.db.CopyFrom(ctx, pgx.Identifier{"schema_system", "session"}, []string{"sid", "sess"}, pgx.CopyFromFunc(func() ([]any, error) {
		if f.rows == n {
			return nil, nil
		}
		row, err := f.row()
		f.rows++
		return row, err
	}))
	if err != nil {
		return err
	}
	if _, err := f.db.Exec(ctx, "ALTER TABLE schema_system.session ALTER expire DROP DEFAULT"); err != nil {
		return err
	}
	_, err = f.db.Exec(ctx, "VACUUM ANALYZE schema_system.session")
	return err
}

func (f *filler) row() ([]any, error) {
	if f.rows >= dense && f.rows%every != 0 {
		var id [24]byte
		if _, err := rand.Read(id[:]); err != nil {
			return nil, err
		}
		return []any{base64.RawURLEncoding.EncodeToString(id[:]), f.texts[f.rows%len(f.texts)]}, nil
	}
	v := &visitor{at: f.rows, uid: fmt.Sprintf("user-%07d", f.rows)}
	var err error
	if v.cookie, err = f.login(v.uid); err != nil {
		return nil, err
	}
	v.sid = f.made.id
	f.visitors = append(f.visitors, v)
	if len(f.texts) < 1000 {
		f.texts = append(f.texts, f.made.data)
	}
	return []any{f.made.id, f.made.data}, nil
}

// active returns n visitors, spread evenly over the table.
func (f *filler) active(n int) []*visitor {
	n = min(n, len(f.visitors))
	var all []*visitor
	for i := range n {
		want := int(int64(i) * int64(f.rows) / int64(n))
		at, _ := slices.BinarySearchFunc(f.visitors, want, func(v *visitor, at int) int { return v.at - at })
		if at == len(f.visitors) || len(all) > 0 && all[len(all)-1] == f.visitors[at] {
			continue
		}
		all = append(all, f.visitors[at])
	}
	return all
}

// users are the visitors as a server sees them: the two servers have cookies of
// their own kinds, and the same rows.
func users(visitors []*visitor, v *rig.Variant) *rig.Users {
	u := new(rig.Users)
	for _, x := range visitors {
		cookie := x.cookie
		if !v.Ours {
			cookie = "sid=" + x.sid
		}
		u.IDs = append(u.IDs, x.uid)
		u.Cookies = append(u.Cookies, cookie)
		u.Counters = append(u.Counters, x.counter)
	}
	return u
}

// counted takes over how far the counters have come.
func counted(visitors []*visitor, u *rig.Users) {
	for i, x := range visitors {
		x.counter = u.Counters[i]
	}
}
