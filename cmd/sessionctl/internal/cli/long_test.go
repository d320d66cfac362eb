package cli_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session"
	"github.com/pgsession/session/cmd/sessionctl/internal/cli"
)

type pruned struct {
	Pruned, Left int64
	Interrupted  bool
}

const insertExpired = `INSERT INTO schema_system.session SELECT md5(random()::text || n), '{"cookie":{}}', now() - n * interval '1 second' FROM generate_series(1, $1) n`

func TestPrune(t *testing.T) {
	r := newRig(t)
	m := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	ada := r.login(m, 42)
	r.exec(insertExpired, 20_000)

	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		res := r.runWith(ctx, func(s string) {
			if strings.HasPrefix(s, "pruned ") {
				cancel()
			}
		}, "prune", "--json")
		got := parse[pruned](res.want(cli.ExitInterrupted, "run it again to go on"))
		if !got.Interrupted || got.Left == 0 || got.Pruned%50 != 0 || got.Pruned+got.Left != 20_000 || r.rows() != int(got.Left)+1 {
			t.Errorf("got %+v and %d rows, want whole batches of 50 and the rest left", got, r.rows())
		}
	})
	t.Run("with locked rows", func(t *testing.T) {
		tx, err := r.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		if _, err := tx.Exec(t.Context(), "SELECT FROM schema_system.session WHERE expire < now() ORDER BY expire DESC LIMIT 3 FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		res := r.run("prune").want(cli.ExitOK, "expired rows deleted, 3 left", "locked by somebody")
		if lines := strings.Count(res.err, "pruned "); lines < 2 || lines > 11 {
			t.Errorf("got %d lines of progress, want one for each tenth\n%s", lines, res.err)
		}
		if got := r.rows(); got != 4 {
			t.Errorf("got %d rows, want the live one and the locked", got)
		}
	})
	t.Run("fast", func(t *testing.T) {
		r.exec(insertExpired, 20_000)
		if got := parse[pruned](r.run("prune", "--fast", "--json").want(cli.ExitOK)); got != (pruned{Pruned: 20_003}) {
			t.Errorf("got %+v, want all 20,003", got)
		}
	})
	r.run("prune").want(cli.ExitOK, "no expired row: there is nothing to delete")
	if ada.user() != 42 {
		t.Error("a live session was pruned")
	}
}

// Beside an old snapshot what is deleted stays in the index. A batch does not walk
// over all of it again: the entries that are read are counted, not the time.
func TestPruneGoesOnWhereItEnded(t *testing.T) {
	const rows = 5000
	r := newRig(t)
	r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.exec(insertExpired, rows)
	r.exec("VACUUM (ANALYZE) schema_system.session")
	old, err := r.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Rollback(context.Background())
	if _, err := old.Exec(t.Context(), "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM schema_system.session"); err != nil {
		t.Fatal(err)
	}
	defer cli.SetSlice(time.Millisecond)() // a batch or a few each time
	if got := parse[pruned](r.run("prune", "--fast", "--json").want(cli.ExitOK)); got.Pruned != rows || got.Left != 0 {
		t.Fatalf("got %+v, want all %d", got, rows)
	}
	var read, deleted int64
	for deleted < rows { // until the statistics are there
		err := r.pool.QueryRow(t.Context(), `SELECT i.idx_tup_read, t.n_tup_del, pg_sleep(0.02)::text FROM pg_stat_user_indexes i JOIN pg_stat_user_tables t USING (relid)
			WHERE i.indexrelname = 'idx_session_expire' AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sessionctl')`).Scan(&read, &deleted, nil)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
	}
	if most := int64(12 * rows); read > most {
		t.Errorf("got %d entries of the index read for %d rows, want at most %d", read, rows, most)
	}
	t.Logf("%d entries of the index read for %d rows", read, rows)
}

type rotated struct {
	Sessions, Plain, Current, Resealed, Unopened int64
	Remaining                                    *int64
	DryRun, Interrupted                          bool
}

func (r *rig) rotate(code int, args ...string) rotated {
	r.t.Helper()
	return parse[rotated](r.run(append([]string{"rotate", "--json"}, args...)...).want(code))
}

// crowd is browsers, each with what it knows that its session holds.
type crowd struct {
	browsers []*browser
	counts   []int
	gone     []bool
}

func (r *rig) crowd(m *session.Manager, n int) *crowd {
	r.t.Helper()
	c := &crowd{browsers: make([]*browser, n), counts: make([]int, n), gone: make([]bool, n)}
	var wg sync.WaitGroup
	const workers = 4
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				b := &browser{m: m}
				if status := b.visit(func(s *session.Session) { userID.Set(s, int64(i)) }); status != http.StatusOK {
					r.t.Errorf("login: got status %d, want 200", status)
				}
				c.browsers[i] = b
			}
		})
	}
	wg.Wait()
	return c
}

// act changes sessions until the context ends, each worker its own.
func (c *crowd) act(ctx context.Context, t *testing.T, m *session.Manager) (wait func()) {
	var wg sync.WaitGroup
	const workers = 3
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for ctx.Err() == nil {
				i := random.IntN(len(c.browsers)/workers)*workers + w
				b := c.browsers[i]
				b.m = m
				if c.gone[i] {
					continue
				}
				status := http.StatusOK
				switch random.IntN(10) {
				case 0:
					status = b.visit((*session.Session).Renew)
				case 1:
					status = b.visit((*session.Session).Destroy)
					c.gone[i] = true
				default:
					status = b.visit(func(s *session.Session) { count.Update(s, func(n int) int { return n + 1 }) })
					c.counts[i]++
				}
				if status != http.StatusOK {
					t.Errorf("got status %d, want 200", status)
					return
				}
			}
		})
	}
	return wg.Wait
}

// check compares what the sessions hold with what the browsers were told.
func (c *crowd) check(t *testing.T, m *session.Manager) {
	t.Helper()
	lost := 0
	for i, b := range c.browsers {
		user, n := int64(-1), 0
		b.m = m
		b.visit(func(s *session.Session) {
			if id, ok := userID.Get(s); ok {
				user = id
			}
			n, _ = count.Get(s)
		})
		want := int64(i)
		if c.gone[i] {
			want = -1
		}
		if user != want || n != c.counts[i] && !c.gone[i] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d sessions do not hold what their browsers were told", lost, len(c.browsers))
	}
}

func TestRotate(t *testing.T) {
	const sessions = 2000
	r := newRig(t)
	before := r.manager(session.Config{Secret: oldSecret, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{})
	after := r.manager(session.Config{Secret: secret, OldSecrets: []string{oldSecret}, Encrypt: true, UserKey: "userId"}, session.PostgresOptions{})
	c := r.crowd(before, sessions)
	r.exec(insertExpired, 10)

	if got := r.rotate(cli.ExitFailed, "--dry-run"); *got.Remaining != sessions || got.Sessions != sessions || !got.DryRun || got.Resealed != 0 {
		t.Errorf("--dry-run: got %+v, want %d under an old secret", got, sessions)
	}
	acting, rest := context.WithCancel(t.Context())
	wait := c.act(acting, t, after)
	ctx, cancel := context.WithCancel(t.Context())
	lines := 0
	res := r.runWith(ctx, func(s string) {
		if strings.HasPrefix(s, "looked at ") {
			if lines++; lines == 5 {
				cancel()
			}
		}
	}, "rotate", "--json")
	half := parse[rotated](res.want(cli.ExitInterrupted, "run it again to go on"))
	if !half.Interrupted || half.Remaining != nil || half.Resealed == 0 || half.Sessions < sessions/3 || half.Sessions > sessions*3/4 {
		t.Errorf("interrupted: got %+v, want about half", half)
	}
	full := r.rotate(cli.ExitOK)
	rest()
	wait()
	if *full.Remaining != 0 || full.Resealed == 0 || full.Current < half.Resealed/2 || full.Unopened != 0 {
		t.Errorf("again: got %+v after %+v, want none under the old secret", full, half)
	}
	c.check(t, after)
	if t.Failed() {
		return
	}

	// The old secret can go: all data opens, and is found by its user.
	t.Setenv("SESSION_SECRET_OLD", "")
	got := r.rotate(cli.ExitOK)
	if got.Current != got.Sessions || got.Unopened != 0 || got.Plain != 0 || got.Sessions == 0 {
		t.Errorf("with the new secret alone: got %+v, want all to open", got)
	}
	for i, gone := range c.gone {
		if !gone {
			if got := r.list("--key", "userId", "--value", strconv.Itoa(i)); len(got) != 1 {
				t.Errorf("found by its user: got %d sessions, want 1", len(got))
			}
			break
		}
	}
	t.Logf("interrupted after %d of %d, %d resealed; then %d resealed of %d, %d changed by requests", half.Sessions, sessions, half.Resealed, full.Resealed, full.Sessions, full.Current-half.Resealed)
}

func TestRotateLeavesTheRestAlone(t *testing.T) {
	r := newRig(t)
	lost := r.manager(session.Config{Secret: strings.ToUpper(secret), Encrypt: true}, session.PostgresOptions{})
	plain := r.manager(session.Config{Secret: secret}, session.PostgresOptions{})
	r.login(lost, 1)
	r.login(plain, 2)
	// With secrets that open nothing at all, nothing is said to be done.
	r.run("rotate").want(cli.ExitFailed, "no secret given here opens any encrypted session (0 of 1)", "Keep every old secret")
	r.run("rotate", "--dry-run").want(cli.ExitFailed, "no secret given here opens any")
	r.login(r.manager(session.Config{Secret: secret, Encrypt: true}, session.PostgresOptions{}), 3)
	state := "SELECT md5(string_agg(sid || sess::text || expire::text, ' ' ORDER BY sid)) FROM schema_system.session"
	before := get[string](r, state)
	got := r.rotate(cli.ExitFailed)
	if got.Unopened != 1 || got.Plain != 1 || got.Current != 1 || got.Sessions != 3 || *got.Remaining != 0 {
		t.Errorf("got %+v, want 1 unopened, 1 plain and 1 current", got)
	}
	if get[string](r, state) != before {
		t.Error("the table has changed")
	}
	for _, args := range [][]string{{"rotate"}, {"rotate", "--dry-run"}} {
		r.run(args...).want(cli.ExitFailed, "opened by no secret, left alone", "remaining under an old secret", "1 session opens with no secret given here: keep every old secret")
	}
	t.Setenv("SESSION_SECRET_OLD", strings.ToUpper(secret)) // it was this one
	r.run("rotate").want(cli.ExitOK)
}

// A program that seals with a secret that is not given here, while rotate looks.
func TestRotateBesideAProgramWithAnotherSecret(t *testing.T) {
	r := newRig(t)
	lost := r.manager(session.Config{Secret: strings.ToUpper(secret), Encrypt: true}, session.PostgresOptions{})
	r.login(r.manager(session.Config{Secret: secret, Encrypt: true}, session.PostgresOptions{}), 1)
	r.exec(`INSERT INTO schema_system.session VALUES ('zzzzzzzzzzzz', '{"cookie":{}}', now() + interval '1 hour')`) // see below
	var once sync.Once
	r.runWith(t.Context(), func(string) { once.Do(func() { r.login(lost, 2) }) }, "rotate").
		want(cli.ExitFailed, "1 session opens with no secret given here: keep every old secret")
}

// Where the library refuses SESSION_SECRET, rotate does as well, and doctor does not
// send anybody there before there is a new one.
func TestRotateAndDoctorOfARefusedSecret(t *testing.T) {
	r := newRig(t)
	r.login(r.manager(session.Config{Secret: secret, Encrypt: true}, session.PostgresOptions{}), 1)
	const first = "give every program a new SESSION_SECRET, with this one in SESSION_SECRET_OLD, and run: sessionctl rotate"
	t.Setenv("SESSION_SECRET", "keyboard-cat")
	r.run("doctor").want(cli.ExitErrors, "1 live sessions are encrypted with a secret that is not set here", first)
	t.Setenv("SESSION_SECRET_OLD", secret)
	r.run("doctor").want(cli.ExitErrors, "1 live sessions are encrypted with SESSION_SECRET, which the library refuses, or an old secret", first)
	r.run("rotate").want(cli.ExitFailed, "give every program a new one, and this one in SESSION_SECRET_OLD")
	t.Setenv("SESSION_SECRET", oldSecret)
	t.Setenv("SESSION_SECRET_OLD", "keyboard-cat "+secret)
	r.run("rotate").want(cli.ExitOK, "resealed now")
}

// A program that still seals with the old secret: the old secret must stay.
func TestRotateBesideAProgramWithTheOldSecret(t *testing.T) {
	r := newRig(t)
	before := r.manager(session.Config{Secret: oldSecret, Encrypt: true}, session.PostgresOptions{})
	r.login(before, 1)
	// Sessions are looked at in the order of their IDs, so one that is made after
	// the progress of the last is not seen before the second pass.
	r.exec(`INSERT INTO schema_system.session VALUES ('zzzzzzzzzzzz', '{"cookie":{}}', now() + interval '1 hour')`)
	var once sync.Once
	r.runWith(t.Context(), func(string) { once.Do(func() { r.login(before, 2) }) }, "rotate").
		want(cli.ExitFailed, "1 session remains under an old secret", "Give every program the new one")
	r.run("rotate").want(cli.ExitOK)
}

// Ctrl-C in the second pass, which only looks: what the first has done is said.
func TestRotateInterruptedWhileItVerifies(t *testing.T) {
	r := newRig(t)
	r.login(r.manager(session.Config{Secret: oldSecret, Encrypt: true}, session.PostgresOptions{}), 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res := r.runWith(ctx, func(s string) {
		if strings.HasPrefix(s, "verified ") {
			cancel()
		}
	}, "rotate", "--json")
	got := parse[rotated](res.want(cli.ExitInterrupted, "run it again to go on"))
	if got.Resealed != 1 || got.Remaining != nil || !got.Interrupted {
		t.Errorf("got %+v, want 1 resealed, interrupted, and that what remains is not known", got)
	}
	if got := r.rotate(cli.ExitOK); got.Current != 1 || got.Interrupted {
		t.Errorf("again: got %+v, want 1 current", got)
	}
}

// A table that goes away under a command: what was done before is said.
func TestLongCommandsThatFailSayWhatWasDone(t *testing.T) {
	for _, c := range []struct {
		name, at, want string
		args           []string
	}{
		{"rotate", "looked at ", "1 session was resealed, then: ", []string{"rotate"}},
		{"rotate, in its second pass", "verified ", "1 session was resealed, and what remains under an old secret is not known: ", []string{"rotate"}},
		{"prune", "pruned ", "expired rows deleted, then: ", []string{"prune"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.login(r.manager(session.Config{Secret: oldSecret, Encrypt: true}, session.PostgresOptions{}), 1)
			r.exec(insertExpired, 20_000)
			var once sync.Once
			r.runWith(t.Context(), func(s string) {
				if strings.HasPrefix(s, c.at) {
					once.Do(func() { r.exec("ALTER TABLE schema_system.session RENAME TO gone") })
				}
			}, c.args...).want(cli.ExitFailed, c.want)
		})
	}
}
