package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/tests/faults"
)

// broken is a store that does what its functions say, and else what the store
// below does.
type broken struct {
	session.Store
	load   func(id string) (session.Record, error)
	create func(id string, r session.Record) error
	update func(id string, c session.Change) error
	delete func(id string) error
}

func (b *broken) Load(ctx context.Context, id string) (session.Record, error) {
	if b.load != nil {
		return b.load(id)
	}
	return b.Store.Load(ctx, id)
}

func (b *broken) Create(ctx context.Context, id string, r session.Record) error {
	if b.create != nil {
		return b.create(id, r)
	}
	return b.Store.Create(ctx, id, r)
}

func (b *broken) Update(ctx context.Context, id string, c session.Change) error {
	if b.update != nil {
		return b.update(id, c)
	}
	return b.Store.Update(ctx, id, c)
}

func (b *broken) Delete(ctx context.Context, id string) error {
	if b.delete != nil {
		return b.delete(id)
	}
	return b.Store.Delete(ctx, id)
}

// site is one program on an empty table, and a ledger.
type site struct {
	t      *testing.T
	ledger *faults.Ledger
	app    *faults.Program
	store  *broken
}

func newSite(t *testing.T, dbURL string) *site {
	t.Helper()
	s := &site{t: t, ledger: faults.NewLedger()}
	app, err := faults.StartProgram(t.Context(), dbURL, faults.ProgramOptions{
		Wrap: func(below session.Store) session.Store { s.store = &broken{Store: below}; return s.store },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(app.Close)
	s.app = app
	if _, err := app.Pool.Exec(t.Context(), "DELETE FROM schema_system.session"); err != nil {
		t.Fatal(err)
	}
	return s
}

// do lets a browser do things one after the other.
func (s *site) do(b *faults.Browser, kinds ...faults.Kind) {
	for _, kind := range kinds {
		if a := b.Do(kind, s.app.URL); a.Fault != "" {
			s.t.Errorf("%s: got %q", kind, a.Fault)
		}
	}
}

func (s *site) audit() (faults.Findings, []string) {
	rows, err := faults.ReadRows(s.t.Context(), s.app.Pool)
	if err != nil {
		s.t.Fatal(err)
	}
	s.ledger.Audit(rows)
	return s.ledger.Findings()
}

// A store that breaks its promises is found out, each way in its own column.
func TestLedgerFindsBrokenPromises(t *testing.T) {
	const (
		login, write, add, read = faults.Login, faults.Write, faults.Add, faults.Read
		renew, logout, replay   = faults.Renew, faults.Logout, faults.Replay
	)
	ctx, dbURL := context.Background(), pgtest.URL(t)
	// edit changes what an update stores.
	edit := func(s *broken, change func(before, after map[string]json.RawMessage)) {
		s.update = func(id string, c session.Change) error {
			var before, after map[string]json.RawMessage
			if err := errors.Join(json.Unmarshal(c.Old, &before), json.Unmarshal(c.New, &after)); err != nil {
				return err
			}
			change(before, after)
			c.New, _ = json.Marshal(after)
			return s.Store.Update(ctx, id, c)
		}
	}
	restore := func(s *broken, id string, r session.Record) error { return s.Store.Create(ctx, id, r) }
	for _, tt := range []struct {
		name          string
		before, after []faults.Kind // the store is broken in between
		fault         func(s *broken)
		want          faults.Findings
	}{
		{
			name: "an acknowledged write is dropped", before: []faults.Kind{login}, after: []faults.Kind{write, read},
			fault: func(s *broken) { s.update = func(string, session.Change) error { return nil } },
			want:  faults.Findings{Lost: 1},
		},
		{
			name: "an acknowledged write is dropped and nobody reads", before: []faults.Kind{login}, after: []faults.Kind{write},
			fault: func(s *broken) { s.update = func(string, session.Change) error { return nil } },
			want:  faults.Findings{Lost: 1},
		},
		{
			name: "an increment is dropped", before: []faults.Kind{login, add}, after: []faults.Kind{add, read},
			fault: func(s *broken) { s.update = func(string, session.Change) error { return nil } },
			want:  faults.Findings{Lost: 1},
		},
		{
			name: "an increment is done twice", before: []faults.Kind{login, add}, after: []faults.Kind{add, read},
			fault: func(s *broken) {
				edit(s, func(_, after map[string]json.RawMessage) { after["count"] = json.RawMessage("3") })
			},
			want: faults.Findings{Lost: 1},
		},
		{
			name: "a counter that was seen goes back", before: []faults.Kind{login, add, add, read}, after: []faults.Kind{write, read},
			fault: func(s *broken) {
				edit(s, func(_, after map[string]json.RawMessage) { after["count"] = json.RawMessage("1") })
			},
			want: faults.Findings{Lost: 1},
		},
		{
			name: "a deleted key comes back", before: []faults.Kind{login, write, write, write, write, write, write, write}, after: []faults.Kind{write, read},
			fault: func(s *broken) {
				edit(s, func(before, after map[string]json.RawMessage) {
					for name, v := range before {
						if after[name] == nil {
							after[name] = v
						}
					}
				})
			},
			want: faults.Findings{Lost: 1},
		},
		{
			name: "an overwritten value comes back", before: []faults.Kind{login, write}, after: []faults.Kind{write, read},
			fault: func(s *broken) {
				edit(s, func(before, after map[string]json.RawMessage) { after["last"] = before["last"] })
			},
			want: faults.Findings{Lost: 2}, // read, and in the table
		},
		{
			name: "a destroyed session is left alive", before: []faults.Kind{login}, after: []faults.Kind{logout},
			fault: func(s *broken) { s.delete = func(string) error { return nil } },
			want:  faults.Findings{Resurrected: 1},
		},
		{
			name: "a destroyed session comes back", before: []faults.Kind{login}, after: []faults.Kind{logout, replay},
			fault: func(s *broken) {
				s.delete = func(id string) error {
					r, err := s.Store.Load(ctx, id)
					return errors.Join(err, s.Store.Delete(ctx, id), restore(s, id, r))
				}
			},
			want: faults.Findings{Resurrected: 2}, // by its cookie and by its row
		},
		{
			name: "the old ID of a renewed session lives on", before: []faults.Kind{login}, after: []faults.Kind{renew, replay},
			fault: func(s *broken) {
				s.update = func(_ string, c session.Change) error {
					return s.Store.Create(ctx, c.NewID, session.Record{Data: c.New, TTL: time.Hour})
				}
			},
			want: faults.Findings{Resurrected: 2},
		},
		{
			name: "a live session is not found", before: []faults.Kind{login}, after: []faults.Kind{read},
			fault: func(s *broken) {
				s.load = func(string) (session.Record, error) { return session.Record{}, session.ErrNotFound }
			},
			want: faults.Findings{LoggedOut: 1},
		},
		{
			name: "a live session is refused as ended", before: []faults.Kind{login}, after: []faults.Kind{write},
			fault: func(s *broken) { s.update = func(string, session.Change) error { return session.ErrNotFound } },
			want:  faults.Findings{LoggedOut: 1},
		},
		{
			name: "a new session is not stored", after: []faults.Kind{login},
			fault: func(s *broken) { s.create = func(string, session.Record) error { return nil } },
			want:  faults.Findings{LoggedOut: 1},
		},
		{
			name: "a new session is stored twice", after: []faults.Kind{login},
			fault: func(s *broken) {
				s.create = func(id string, r session.Record) error {
					return errors.Join(s.Store.Create(ctx, id, r), restore(s, strings.Repeat("x", 32), r))
				}
			},
			want: faults.Findings{Resurrected: 1},
		},
		{
			name: "a live session's row disappears", before: []faults.Kind{login}, after: []faults.Kind{write},
			fault: func(s *broken) {
				s.update = func(id string, c session.Change) error {
					return errors.Join(s.Store.Update(ctx, id, c), s.Store.Delete(ctx, id))
				}
			},
			want: faults.Findings{LoggedOut: 1},
		},
		{
			name: "a row of nobody appears", before: []faults.Kind{login}, after: []faults.Kind{write},
			fault: func(s *broken) {
				s.update = func(id string, c session.Change) error {
					return errors.Join(s.Store.Update(ctx, id, c), restore(s, strings.Repeat("x", 32), session.Record{Data: []byte(`{"a":1}`), TTL: time.Hour}))
				}
			},
			want: faults.Findings{Foreign: 1},
		},
		{
			name: "a key appears in a row", before: []faults.Kind{login}, after: []faults.Kind{add, read},
			fault: func(s *broken) {
				edit(s, func(_, after map[string]json.RawMessage) { after["m4711"] = json.RawMessage("4711") })
			},
			want: faults.Findings{Foreign: 2}, // read, and in the table
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, dbURL)
			b := s.ledger.NewBrowser("user", "", nil)
			defer b.Close()
			s.do(b, tt.before...)
			if got, notes := s.ledger.Findings(); got != (faults.Findings{}) {
				t.Fatalf("before the fault: got %+v %q, want none", got, notes)
			}
			tt.fault(s.store)
			s.do(b, tt.after...)
			if got, notes := s.audit(); got != tt.want {
				t.Errorf("got %+v %q, want %+v", got, notes, tt.want)
			}
		})
	}
}

func TestLedgerFindsForeignSessions(t *testing.T) {
	s := newSite(t, pgtest.URL(t))
	one, other := s.ledger.NewBrowser("one", "", nil), s.ledger.NewBrowser("other", "", nil)
	defer one.Close()
	defer other.Close()
	var ids []string
	s.store.create = func(id string, r session.Record) error {
		ids = append(ids, id)
		return s.store.Store.Create(context.Background(), id, r)
	}
	s.do(one, faults.Login)
	s.do(other, faults.Login)
	s.store.load = func(id string) (session.Record, error) {
		return s.store.Store.Load(context.Background(), ids[0])
	}
	s.do(one, faults.Read)
	s.do(other, faults.Read)
	if got, notes := s.audit(); got != (faults.Findings{Foreign: 1}) {
		t.Errorf("got %+v %q, want one foreign session", got, notes)
	}
}

// What was answered by 503 may have happened or not; both agree with the ledger.
func TestLedgerAcceptsEitherOutcomeOfADoubt(t *testing.T) {
	ctx, down, dbURL := context.Background(), errors.New("down"), pgtest.URL(t)
	for _, tt := range []struct {
		name string
		kind faults.Kind
		fail func(s *broken, happens bool)
	}{
		{"a login", faults.Login, func(s *broken, happens bool) {
			s.create = func(id string, r session.Record) error {
				if happens {
					return errors.Join(s.Store.Create(ctx, id, r), down)
				}
				return down
			}
		}},
		{"a write", faults.Write, failUpdate},
		{"an increment", faults.Add, failUpdate},
		{"a renewal", faults.Renew, failUpdate},
		{"a logout", faults.Logout, func(s *broken, happens bool) {
			s.delete = func(id string) error {
				if happens {
					return errors.Join(s.Store.Delete(ctx, id), down)
				}
				return down
			}
		}},
	} {
		for _, happens := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, happens: %t", tt.name, happens), func(t *testing.T) {
				s := newSite(t, dbURL)
				b := s.ledger.NewBrowser("user", "", nil)
				defer b.Close()
				if tt.kind != faults.Login {
					s.do(b, faults.Login, faults.Write, faults.Add)
				}
				tt.fail(s.store, happens)
				if a := b.Do(tt.kind, s.app.URL); a.Status != http.StatusServiceUnavailable {
					t.Fatalf("%s: got status %d, want 503", tt.kind, a.Status)
				}
				s.store.update, s.store.create, s.store.delete = nil, nil, nil
				s.do(b, faults.Read, faults.Write, faults.Add, faults.Read, faults.Renew, faults.Replay, faults.Logout, faults.Replay, faults.Read)
				if got, notes := s.audit(); got != (faults.Findings{}) {
					t.Errorf("got %+v %q, want none", got, notes)
				}
			})
		}
	}
}

func failUpdate(s *broken, happens bool) {
	s.update = func(id string, c session.Change) error {
		down := errors.New("down")
		if happens {
			return errors.Join(s.Store.Update(context.Background(), id, c), down)
		}
		return down
	}
}

// A load over a sound program finds nothing; over one that loses every tenth
// update it does.
func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose int // every so many
	}{{"sound", 0}, {"losing", 10}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, pgtest.URL(t))
			var mu sync.Mutex
			updates := 0
			s.store.update = func(id string, c session.Change) error {
				mu.Lock()
				updates++
				lose := tt.lose > 0 && updates%tt.lose == 0 && c.NewID == "" && !bytes.Equal(c.Old, c.New)
				mu.Unlock()
				if lose {
					return nil
				}
				return s.store.Store.Update(context.Background(), id, c)
			}
			run := faults.Load{Ledger: s.ledger, Target: func() string { return s.app.URL }, Pace: 5 * time.Millisecond}.Start()
			err := run.Wait(300)
			rep := run.Stop()
			run.Close()
			if err != nil {
				t.Fatal(err)
			}
			if rep.OK+rep.Ended != rep.Requests || len(rep.Failed) != 0 || len(rep.Faults) != 0 || rep.Requests < 300 {
				t.Errorf("got %d requests, %d 2xx, %d 409, %d failed, faults %v, want all answered", rep.Requests, rep.OK, rep.Ended, len(rep.Failed), rep.Faults)
			}
			got, notes := s.audit()
			if lost := got.Lost > 0; lost != (tt.lose > 0) || got.LoggedOut+got.Resurrected+got.Foreign != 0 {
				t.Errorf("got %+v %q, want lost writes: %t", got, notes, tt.lose > 0)
			}
		})
	}
}

// What must never be in an answer, whatever the session's state.
func TestAnswerFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   faults.Kind
		status int
		cookie bool
		body   string
		want   string
	}{
		{"503", faults.Visit, 503, false, "", ""},
		{"503 with a cookie", faults.Replay, 503, true, "", "503 with a cookie"},
		{"500", faults.Replay, 500, false, "", "status 500"},
		{"an empty page", faults.Replay, 200, false, "", "2xx without the page"},
		{"a visitor", faults.Visit, 200, false, "{}", ""},
		{"a visitor gets a cookie", faults.Visit, 200, true, "{}", "a visitor got a cookie"},
		{"a public page", faults.Public, 200, false, "public", ""},
		{"a public page gets a cookie", faults.Public, 200, true, "public", "a public page got a cookie"},
		{"a login without a session", faults.Login, 200, true, "{}", "a login that logs nobody in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.cookie {
					http.SetCookie(w, &http.Cookie{Name: "session", Value: "x"})
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			defer srv.Close()
			b := faults.NewLedger().NewBrowser("user", "", nil)
			defer b.Close()
			if got := b.Do(tt.kind, srv.URL).Fault; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
