package fromothers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/sessiontest"
	"github.com/pgsession/session/tests/moving/bridgetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The keys, cookies and rows below were made by the frameworks themselves: Django
// 3.2.25's login and session store, Laravel 8.83's Encrypter and CookieValuePrefix,
// Rack 2.2's SessionId and Ruby's JSON as activerecord-session_store 2.3 calls it.
const (
	djangoSecret = "django-insecure-for-tests-only-+e*"
	djangoHash   = "pbkdf2_sha256$260000$Ly9dBVYt3AJwZ6inwDf9cW$WUvi2dODCS93xJ9nifXuBEXo8jQH2afjo7b6ORDajkw="
	djangoUser   = ".eJxVjMEOwiAQRP-FsyHsUlrw6L3fQBYWpGpoUtqT8d9tkx70OPPezFt42tbit5YWP7G4ig7F5bcMFJ-pHoQfVO-zjHNdlynIQ5EnbXKcOb1up_t3UKiVfR3JsWNUyiBpsCpl26fAmaGHFDBaCgPyng3qoVPgjAKjgbOONlijxecLG7w4Jg:1xXVii:zZ_ot7jbK6YK44DRb3e_gnpp10C89apyPIo7jkONLXk"
	djangoCart   = ".eJztUUsOgjAQvcusCemHQsvSvSdQQ6adqaAGEigr490tCQs9gDs3L_PmfTbvCR2uqe_WheduIGihUlB8Pj2GO4-bQjccr1MZpjHNgy83S7mrS3mciB-H3ftV0OPS53RAR46UEEahllZwtDV7iiRryV4Fi75RlLlRuqmEdEZIoyVFHay3RufSgHOC9gSJMbM__hYvBZxXIdjl8bYjBni9AWpZo5U:1xXVii:oJW3rTSwHe5-rNi26eIcru-fGIpOMTfl3i_pWm_uOL4"
	djangoNobody = "eyJjYXJ0IjpbInRlYSJdfQ:1xXVii:TobbV3EZ4My2FDlhsnOZeNnwjEvx-1pWYCjGlqVmkbs"

	laravelKey    = "for tests only, everybody knows."
	laravelID     = "pWq1ZsXcTnRbV7uYkLmE3aGhJ5fDo2QiC9KtB8wM"
	laravelCookie = "eyJpdiI6IkNJQ0xhV0YybW9TUmNkSnBMQmZKd2c9PSIsInZhbHVlIjoiUUF3dkFML09SK05McU1QZHhWTmFrckpaOVhEUUZlK1lNUVlOOEo4SnVLcm1DSElPcUsxWks5c01UN3g3Nmh3eXI4RHg1QkV0ZUZsaVZ3endUdmtab29jU0doVllmY1lLNTREYytzTkRQTWtnUlFETlR5MU9HSXRjUitIL2R6V24iLCJtYWMiOiI5ODc1NzVmMmY4OGM5YTdkNTY3ZGE0MDMzODJmODU0NDJmNjdjMGIxMmRlMzZhMjdiOGViNjFhYjMzMDVlMmU4IiwidGFnIjoiIn0%3D"
	laravelOther  = "eyJpdiI6ImNLajcrNm1keUtpcGZSeDBMUDFveEE9PSIsInZhbHVlIjoiSGJNQXBTQkx3R2JacjJvTElENFRZRXVLUE0wdUJLa1NSSUR3Q3hUOTRnZ3FnS3dZaXZyV001eU9JWldqSlpLSThJeGtleGpWb01zKzhpeUJwNzdKTDBJZzlBTDRpNUpHS3E4L2xWc1hZbUt0cVA4NFd0d2pFcitKdjBoQ0RwZHkiLCJtYWMiOiI2MzlhNGExODFmZmFiM2FkNDEzMjMyNmJmNzI0ZDdhZmE2ZTZiMWExNzcyNDRlMTRlZTU0MzM2ZjEzY2NiZDQ3IiwidGFnIjoiIn0%3D"

	railsCookie  = "5d1f0c2b8a7e46935d1f0c2b8a7e4693"
	railsID      = "2::f400ba0d93847c5000762e29caa2cf78a0f15cc0a1a56654df869d25d95d7ee9"
	railsDevise  = `{"value":{"warden.user.user.key":[[42],"$2a$12$C6UzMDM.H6dfI/f/IKxGhu"]}}`
	railsNobody  = `{"value":{"session_id":"x","user_id":42}}`
	railsMarshal = "BAh7BkkiDHVzZXJfaWQGOgZFVGkv\n"
)

// browser keeps the cookies that it is sent if no prefix of a name forbids it, and has
// no others.
type browser map[string]string

func (b browser) get(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for name, value := range b {
		r.Header.Add("Cookie", name+"="+value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Sprint(w.Code)
	}
	for _, c := range w.Result().Cookies() {
		if bridgetest.Refuses(c) {
			continue
		}
		b[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b, c.Name)
		}
	}
	return w.Body.String()
}

func newProgram(t *testing.T, old before) http.Handler {
	t.Helper()
	return programOf(sessiontest.NewManager(t), old)
}

func programOf(sessions *session.Manager, old before) http.Handler {
	return sessions.Handler(carryOver(old, http.Cookie{Name: "old", Path: "/"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if r.URL.Path == "/logout" {
			s.Destroy()
			return
		}
		if r.URL.Path == "/cart" {
			session.Key[int]("cart").Set(s, 1)
		}
		id, _ := userID.Get(s)
		fmt.Fprint(w, id)
	})))
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	tag, err := pool.Exec(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	if tag.Update() && tag.RowsAffected() == 0 {
		t.Fatalf("%s: got no row", sql)
	}
}

// The tables are those of the frameworks' own migrations, as far as they are read.
func openDjango(t *testing.T) (django, browser) {
	pool := pgtest.Pool(t)
	exec(t, pool, `CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text NOT NULL, expire_date timestamptz NOT NULL)`)
	exec(t, pool, `CREATE TABLE auth_user (id serial PRIMARY KEY, password varchar(128) NOT NULL, is_active boolean NOT NULL)`)
	exec(t, pool, `INSERT INTO auth_user VALUES (42, $1, true)`, djangoHash)
	exec(t, pool, `INSERT INTO django_session VALUES ('1wkgp58ssvneb1406flmebt1uged8xbz', $1, now() + interval '14 days')`, djangoUser)
	return django{pool, djangoSecret}, browser{"old": "1wkgp58ssvneb1406flmebt1uged8xbz"}
}

func openRails(t *testing.T) (rails, browser) {
	pool := pgtest.Pool(t)
	exec(t, pool, `CREATE TABLE sessions (id bigserial PRIMARY KEY, session_id varchar NOT NULL, data text, created_at timestamp NOT NULL, updated_at timestamp NOT NULL)`)
	exec(t, pool, `CREATE TABLE users (id bigserial PRIMARY KEY, encrypted_password varchar NOT NULL)`)
	exec(t, pool, `INSERT INTO users VALUES (42, '$2a$12$C6UzMDM.H6dfI/f/IKxGhuiuVs9hzy2ZkTa6JxJyBIN1JHqWuDmL6')`)
	exec(t, pool, `INSERT INTO sessions VALUES (1, $1, $2, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')`, railsID, railsDevise)
	return rails{pool}, browser{"old": railsCookie}
}

func openLaravel(t *testing.T) (laravel, browser) {
	pool := pgtest.Pool(t)
	exec(t, pool, `CREATE TABLE sessions (id varchar PRIMARY KEY, user_id bigint, ip_address varchar(45), user_agent text, payload text NOT NULL, last_activity integer NOT NULL)`)
	exec(t, pool, `INSERT INTO sessions (id, user_id, payload, last_activity) VALUES ($1, 42, '', $2)`, laravelID, time.Now().Unix())
	return laravel{pool, []byte(laravelKey), "laravel_session", 2 * time.Hour}, browser{"old": laravelCookie}
}

// A user of the old program stays logged in; once carried over the old cookie is
// gone from the browser, and in a minute worthless to whoever has a copy.
func TestCarryOver(t *testing.T) {
	t.Parallel()
	d, dCookie := openDjango(t)
	r, rCookie := openRails(t)
	l, lCookie := openLaravel(t)
	for _, tt := range []struct {
		name string
		old  before
		b    browser
		pool *pgxpool.Pool
		left string // seconds that the old session lives
	}{
		{"Django", d, dCookie, d.pool, `SELECT extract(epoch FROM expire_date - now())::float8 FROM django_session`},
		{"Rails", r, rCookie, r.pool, `SELECT extract(epoch FROM updated_at + interval '30 days' - (now() AT TIME ZONE 'UTC'))::float8 FROM sessions`},
		{"Laravel", l, lCookie, l.pool, `SELECT last_activity + 7200 - extract(epoch FROM now())::float8 FROM sessions`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newProgram(t, tt.old)
			b, meanwhile := tt.b, maps.Clone(tt.b)
			if got := b.get(t, h, "/"); got != "42" {
				t.Fatalf("first request: got user %s, want 42", got)
			}
			if _, ok := b["old"]; ok || len(b) != 1 {
				t.Errorf("cookies: got %d, the old one among them: %v, want the new one alone", len(b), ok)
			}
			if got := meanwhile.get(t, h, "/"); got != "42" {
				t.Errorf("a request that was under way with the old cookie: got user %s, want 42", got)
			}
			var left float64
			if err := tt.pool.QueryRow(t.Context(), tt.left).Scan(&left); err != nil {
				t.Fatal(err)
			}
			if left > 61 {
				t.Errorf("the old session: got %v s left, want a minute at most", left)
			}
			if got := b.get(t, h, "/"); got != "42" {
				t.Errorf("second request: got user %s, want 42", got)
			}
			b.get(t, h, "/logout")
			if got := b.get(t, h, "/"); got != "0" {
				t.Errorf("after the logout: got user %s, want nobody", got)
			}
		})
	}
}

// Who is nobody there is nobody here.
func TestNobody(t *testing.T) {
	t.Parallel()
	d, dCookie := openDjango(t)
	r, rCookie := openRails(t)
	l, lCookie := openLaravel(t)
	bent := djangoUser[:len(djangoUser)-4] + "AAAA"
	for _, tt := range []struct {
		name   string
		old    before
		pool   *pgxpool.Pool
		cookie string
		sql    string
		args   []any
		want   string
	}{
		{"Django: with a cart, compressed", d, d.pool, dCookie["old"], `UPDATE django_session SET session_data = $1`, []any{djangoCart}, "42"},
		{"Django: a visitor", d, d.pool, dCookie["old"], `UPDATE django_session SET session_data = $1`, []any{djangoNobody}, "0"},
		{"Django: another signature", d, d.pool, dCookie["old"], `UPDATE django_session SET session_data = $1`, []any{bent}, "0"},
		{"Django: no signature", d, d.pool, dCookie["old"], `UPDATE django_session SET session_data = 'e30'`, nil, "0"},
		{"Django: the row as it was", d, d.pool, dCookie["old"], `UPDATE django_session SET session_data = $1`, []any{djangoUser}, "42"},
		{"Django: another password", d, d.pool, dCookie["old"], `UPDATE auth_user SET password = 'x'`, nil, "0"},
		{"Django: not active", d, d.pool, dCookie["old"], `UPDATE auth_user SET password = $1, is_active = false`, []any{djangoHash}, "0"},
		{"Django: active again", d, d.pool, dCookie["old"], `UPDATE auth_user SET is_active = true`, nil, "42"},
		{"Django: expired", d, d.pool, dCookie["old"], `UPDATE django_session SET expire_date = now()`, nil, "0"},
		{"Django: no such cookie", d, d.pool, "forged", `SELECT`, nil, "0"},

		{"Rails: nobody for Devise", r, r.pool, rCookie["old"], `UPDATE sessions SET data = $1`, []any{railsNobody}, "0"},
		{"Rails: Marshal", r, r.pool, rCookie["old"], `UPDATE sessions SET data = $1`, []any{railsMarshal}, "0"},
		{"Rails: the row as it was", r, r.pool, rCookie["old"], `UPDATE sessions SET data = $1`, []any{railsDevise}, "42"},
		{"Rails: the ID from the table as a cookie", r, r.pool, railsID, `SELECT`, nil, "0"},
		{"Rails: another password", r, r.pool, rCookie["old"], `UPDATE users SET encrypted_password = '$2a$12$abcdefghijklmnopqrstuvwxyz'`, nil, "0"},
		{"Rails: expired", r, r.pool, rCookie["old"], `UPDATE sessions SET updated_at = updated_at - interval '31 days'`, nil, "0"},

		{"Laravel: another cookie of the program", l, l.pool, laravelOther, `SELECT`, nil, "0"},
		{"Laravel: the ID itself", l, l.pool, laravelID, `SELECT`, nil, "0"},
		{"Laravel: another MAC", l, l.pool, strings.Replace(lCookie["old"], "WFj", "WFk", 1) + "x", `SELECT`, nil, "0"},
		{"Laravel: as it was", l, l.pool, lCookie["old"], `UPDATE sessions SET user_id = 42`, nil, "42"},
		{"Laravel: a visitor", l, l.pool, lCookie["old"], `UPDATE sessions SET user_id = NULL`, nil, "0"},
		{"Laravel: expired", l, l.pool, lCookie["old"], `UPDATE sessions SET user_id = 42, last_activity = last_activity - 7300`, nil, "0"},
	} {
		exec(t, tt.pool, tt.sql, tt.args...)
		if got := (browser{"old": tt.cookie}).get(t, newProgram(t, tt.old), "/"); got != tt.want {
			t.Errorf("%s: got user %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Whatever a client sends as a cookie of Laravel's is refused, and nothing breaks.
func TestLaravelCookies(t *testing.T) {
	t.Parallel()
	l := laravel{key: []byte(laravelKey), name: "laravel_session"}
	if got := l.id(laravelCookie); got != laravelID {
		t.Errorf("got %q, want %q", got, laravelID)
	}
	for i := range laravelCookie {
		cut, bent := laravelCookie[:i], []byte(laravelCookie)
		bent[i] ^= 1
		if l.id(cut) != "" {
			t.Errorf("cut at %d: got an ID", i)
		}
		if got := l.id(string(bent)); got != "" && got != laravelID { // spare bits of base64
			t.Errorf("changed at %d: got %q", i, got)
		}
	}
}

// Who has planted a session in a browser does not get its user's login.
func TestCarryOverIntoAPlantedSession(t *testing.T) {
	t.Parallel()
	old, victim := openDjango(t)
	h := newProgram(t, old)
	planted := browser{}
	planted.get(t, h, "/cart")
	if len(planted) != 1 {
		t.Fatalf("cookies: got %d, want a visitor's", len(planted))
	}
	maps.Copy(victim, planted)
	if got := victim.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if got := planted.get(t, h, "/"); got != "0" {
		t.Errorf("the planted cookie: got user %s, want nobody", got)
	}
}

// gathered is an old program that answers when all have asked.
type gathered struct{ all *sync.WaitGroup }

func (g gathered) user(context.Context, string) (int64, error) {
	g.all.Done()
	g.all.Wait()
	return 42, nil
}

func (gathered) end(context.Context, string) error { return nil }

// A visitor's browser with a cart sends four requests at once: with Config.UserKey each
// is answered for the user.
func TestCarryOverAtOnce(t *testing.T) {
	t.Parallel()
	const requests = 4
	for _, tt := range []struct{ key, want string }{{"userID", "42 42 42 42"}, {"", "409 409 409 42"}} {
		m, err := session.New(session.NewMemoryStore(), session.Config{
			Secret: "kq7Vw2mT9xB4nR8sL1cZ6yH3pD5gJ0fa", UserKey: tt.key, DisablePrune: true, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		h := programOf(m, gathered{&all})
		visitor := browser{}
		visitor.get(t, h, "/cart")
		visitor["old"] = "cookie"
		all.Add(requests)
		var done sync.WaitGroup
		got := make([]string, requests)
		for i := range got {
			b := maps.Clone(visitor)
			done.Go(func() { got[i] = b.get(t, h, "/") })
		}
		done.Wait()
		slices.Sort(got)
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("UserKey %q: got %s, want %s", tt.key, got, tt.want)
		}
	}
}

// leaving is an old program whose user's request ends when it is asked.
type leaving struct {
	leave context.CancelFunc
	ended *bool
}

func (l leaving) user(context.Context, string) (int64, error) {
	l.leave()
	return 42, nil
}

func (l leaving) end(ctx context.Context, _ string) error {
	*l.ended = ctx.Err() == nil
	return ctx.Err()
}

// A request that ends while it is carried over is so all the same, and its old session
// ends.
func TestCarryOverOfARequestThatEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ended := false
	h := programOf(sessiontest.NewManager(t), leaving{cancel, &ended})
	b := browser{"old": "cookie"}
	b.get(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r.WithContext(ctx)) }), "/")
	if !ended {
		t.Error("the old session goes on")
	}
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
}

// An outage of the old table is no logout: the browser keeps its cookie.
func TestCarryOverOutage(t *testing.T) {
	t.Parallel()
	d, b := openDjango(t)
	exec(t, d.pool, `ALTER TABLE django_session RENAME TO away`)
	h := newProgram(t, d)
	if got := b.get(t, h, "/"); got != "503" {
		t.Errorf("down: got %s, want 503", got)
	}
	exec(t, d.pool, `ALTER TABLE away RENAME TO django_session`)
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("up again: got user %s, want 42", got)
	}
}

// Who has an old cookie while a user is here, after a week of the old program again or
// from a login in another tab, loses it: it would undo a logout.
func TestOldCookieBesideAUser(t *testing.T) {
	t.Parallel()
	d, old := openDjango(t)
	h := newProgram(t, d)
	b := maps.Clone(old)
	b.get(t, h, "/")
	exec(t, d.pool, `UPDATE django_session SET expire_date = now() + interval '14 days'`) // the login again
	maps.Copy(b, old)
	if got := b.get(t, h, "/"); got != "42" {
		t.Errorf("got user %s, want 42", got)
	}
	if b["old"] != "" {
		t.Error("the old cookie is still there")
	}
	var ends bool
	if err := d.pool.QueryRow(t.Context(), `SELECT expire_date <= now() + interval '1 minute' FROM django_session`).Scan(&ends); err != nil || !ends {
		t.Errorf("the old session: got it kept (%v), want a minute at most", err)
	}
	b.get(t, h, "/logout")
	if got := b.get(t, h, "/"); got != "0" {
		t.Errorf("after the logout: got user %s, want nobody", got)
	}
}

func TestStaticPage(t *testing.T) {
	t.Parallel()
	bridgetest.StaticPage(t, func(next http.Handler) http.Handler {
		return carryOver(gathered{}, http.Cookie{Name: "old", Path: "/"}, next)
	})
}

func TestPrefixedCookies(t *testing.T) {
	t.Parallel()
	d, old := openDjango(t)
	for _, cookie := range bridgetest.Prefixed {
		h := sessiontest.NewManager(t).Handler(carryOver(d, cookie, http.NotFoundHandler()))
		cookie.Value = old["old"]
		bridgetest.Ends(t, h, cookie)
	}
}
