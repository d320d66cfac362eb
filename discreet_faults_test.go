package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
)

// discreetProgram is a program: a server over PostgreSQL whose every word is kept.
type discreetProgram struct {
	t       *testing.T
	o       *output
	pool    *pgxpool.Pool // the store's
	admin   *pgxpool.Pool
	store   *session.PostgresStore
	m       *session.Manager
	handler http.HandlerFunc
	server  *httptest.Server
}

const privateKey = session.Key[string]("note")

func newDiscreetProgram(t *testing.T, format session.CookieFormat, encrypt bool) *discreetProgram {
	t.Helper()
	rig := &discreetProgram{t: t, o: &output{}}
	url := pgtest.URL(t)
	rig.admin = openPool(t, url)
	rig.pool = openPool(t, url, maxConns(4), func(cfg *pgxpool.Config) {
		cfg.ConnConfig.RuntimeParams["application_name"] = "discreet"
	})
	rig.o.add("password", rig.pool.Config().ConnConfig.Password)
	rig.store = rig.openStore(rig.pool)
	watched := &hookedStore{Store: rig.store}
	watched.on("*", rig.watch)
	cfg := session.Config{
		Secret: rig.secret("secret"), OldSecrets: []string{rig.secret("old secret")}, Encrypt: encrypt,
		UserKey: string(privateKey), MaxPerUser: 3,
		StoreTimeout: 4 * time.Second, AbsoluteTimeout: 300 * 24 * time.Hour, DisablePrune: true, Logger: slog.New(rig.o),
		OnEvent: func(e session.Event) {
			e.User = "" // whose session it is, is meant to be seen
			rig.o.show(e)
			slog.New(rig.o).Info("event", "event", e)
		},
		Cookie: session.CookieConfig{Format: format, Name: "s"},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			rig.o.show(err)
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	}
	rig.m = newManager(t, watched.whole(), cfg)
	rig.o.show(cfg, &cfg, rig.m)
	slog.New(rig.o).Info("look", "config", cfg, "manager", rig.m)
	rig.server = httptest.NewUnstartedServer(rig.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rig.o.show(r.Context(), session.From(r.Context()))
		rig.handler(w, r)
		rig.o.show(session.From(r.Context()), session.From(r.Context()).Err())
	})))
	rig.server.Config.ErrorLog = log.New(rig.o, "", 0)
	rig.server.Start()
	t.Cleanup(rig.server.Close)
	return rig
}

func (rig *discreetProgram) openStore(pool *pgxpool.Pool) *session.PostgresStore {
	rig.t.Helper()
	store := newStore(rig.t, pool, session.PostgresOptions{Logger: slog.New(rig.o)})
	return store
}

// watch notes what is in play, and prints what is handed to a store.
func (rig *discreetProgram) watch(_ context.Context, c *storeCall, do func() error) error {
	switch c.op {
	case "Create":
		rig.note(c.record, c.id, c.record.Data)
	case "Update":
		rig.note(c.change, c.id, c.change.Old, c.change.New)
		rig.note(c.change, c.change.NewID)
	case "DeleteFound":
		rig.note(c.query, c.query.Except)
	}
	err := do()
	switch c.op {
	case "Load":
		rig.note(c.record, c.id, c.record.Data)
	case "Find":
		rig.note(c.query, c.query.Except)
		for _, r := range c.found {
			rig.note(r, r.ID, r.Data)
		}
	}
	return err
}

var sealedBox = regexp.MustCompile(`"__sealed":"([^"]+)"`)

func (rig *discreetProgram) note(v any, id string, data ...[]byte) {
	rig.o.add("session ID", id)
	for _, d := range data {
		if m := sealedBox.FindSubmatch(d); m != nil {
			rig.o.add("sealed data", string(m[1]))
		}
	}
	rig.o.show(v)
}

// secret returns something random that must not be shown.
func (rig *discreetProgram) secret(kind string) string {
	s := rand.Text() + rand.Text()
	rig.o.add(kind, s)
	return s
}

func (rig *discreetProgram) value() string { return rig.secret("stored value") }

// ask makes a request and returns the cookie to go on with.
func (rig *discreetProgram) ask(cookie string, h http.HandlerFunc) string {
	rig.handler = h
	req, err := http.NewRequestWithContext(rig.t.Context(), http.MethodPost, rig.server.URL, nil)
	if err != nil {
		rig.t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-Proto", "https")
	if cookie != "" {
		req.Header.Set("Cookie", "s="+cookie)
	}
	rig.o.add("cookie", cookie)
	resp, err := rig.server.Client().Do(req)
	if err != nil { // aborted, as asked for
		fmt.Fprintln(rig.o, err)
		return cookie
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for _, c := range resp.Cookies() {
		cookie = c.Value
		rig.o.add("cookie", cookie)
	}
	resp.Header.Del("Set-Cookie")
	fmt.Fprintln(rig.o, resp.Status, resp.Header, string(body))
	return cookie
}

// use makes a request whose handler does f with its session.
func (rig *discreetProgram) use(cookie string, f func(*session.Session)) string {
	return rig.ask(cookie, func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })
}

// login returns the cookie of a session with a value, and the value.
func (rig *discreetProgram) login() (cookie, value string) {
	value = rig.value()
	return rig.use("", func(s *session.Session) { privateKey.Set(s, value) }), value
}

func (rig *discreetProgram) exec(sql string, args ...any) { execSQL(rig.t, rig.admin, sql, args...) }

func (rig *discreetProgram) set(cookie string) string {
	value := rig.value()
	return rig.use(cookie, func(s *session.Session) { privateKey.Set(s, value) })
}

// faultsThatSpeak each make the library say something, want among it. Some need
// a format or Encrypt.
var faultsThatSpeak = []struct {
	name   string
	format session.CookieFormat // of a rig that has it; -1: all
	sealed int                  // 1: with Encrypt only, 0: without only, -1: both
	fault  func(rig *discreetProgram, cookie string)
	want   string
}{
	{"forged cookies", -1, -1, func(rig *discreetProgram, cookie string) {
		forged := rig.secret("cookie")
		for _, c := range []string{forged, "x" + cookie, cookie[:len(cookie)-1], "s:" + forged + "." + forged} {
			rig.use(c, func(s *session.Session) { privateKey.Get(s) })
		}
		rig.o.show(rig.m.Stats())
	}, "BadCookies:4"},
	{"an ID without a record", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.use(cookie, func(s *session.Session) { s.Destroy() })
		rig.use(cookie, func(s *session.Session) { privateKey.Get(s); s.Destroy() })
	}, ""},
	{"a conflict", -1, -1, func(rig *discreetProgram, cookie string) {
		mine, other := rig.value(), rig.value()
		rig.use(cookie, func(s *session.Session) {
			privateKey.Get(s)
			rig.beside(cookie, func(s *session.Session) { privateKey.Set(s, other) })
			privateKey.Set(s, mine)
		})
		rig.o.show(rig.m.Stats())
	}, "Conflicts:1"},
	{"ended meanwhile", -1, -1, func(rig *discreetProgram, cookie string) {
		value := rig.value()
		rig.use(cookie, func(s *session.Session) {
			privateKey.Get(s)
			rig.beside(cookie, (*session.Session).Destroy)
			rig.o.show(s.Reload(rig.t.Context()))
			privateKey.Set(s, value)
		})
	}, "session has ended meanwhile"},
	{"another type", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.use(cookie, func(s *session.Session) { session.Key[int]("note").Get(s) })
		rig.use(cookie, func(s *session.Session) { session.Key[int]("note").Update(s, func(n int) int { return n }) })
		rig.use(cookie, func(s *session.Session) { session.Key[time.Time]("note").Take(s) })
	}, "another type than its key"},
	{"does not encode", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.use(cookie, func(s *session.Session) { session.Key[talkative]("note").Set(s, talkative(rig.value())) })
		rig.use(cookie, func(s *session.Session) { session.Key[string]("note").Set(s, rig.value()+"\xff") })
		rig.use(cookie, func(s *session.Session) { session.Key[any]("note").Set(s, []any{rig.value(), func() {}}) })
	}, "does not encode as JSON"},
	{"too large", -1, -1, func(rig *discreetProgram, cookie string) {
		value := strings.Repeat(rig.value(), 5000)
		rig.use(cookie, func(s *session.Session) { privateKey.Set(s, value) })
	}, "Config.MaxBytes is"},
	{"a reserved key", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.use(cookie, func(s *session.Session) { session.Key[string]("cookie").Set(s, rig.value()) })
	}, "reserved by Express"},
	{"too late", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.ask(cookie, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "page")
			session.From(r.Context()).Renew()
		})
		var kept *session.Session
		rig.use(cookie, func(s *session.Session) { kept = s; privateKey.Get(s) })
		rig.set(cookie)
		privateKey.Set(kept, rig.value())
		rig.o.show(kept, kept.Err())
	}, "changed after its handler has returned"},
	{"a panic", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.use(cookie, func(s *session.Session) {
			privateKey.Update(s, func(string) string { panic(s) })
		})
	}, "http: panic serving"},
	{"a row that is no session", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("UPDATE schema_system.session SET sess = to_json($1::text)", rig.value())
		rig.use(cookie, func(s *session.Session) { privateKey.Get(s) })
	}, "a record cannot be read"},
	{"bad attributes in the row", session.FormatExpress, -1, func(rig *discreetProgram, cookie string) {
		for _, name := range []string{"domain", "path", "priority", "sameSite"} {
			rig.exec(`UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, ARRAY['cookie',$1], to_jsonb($2::text))::json`, name, rig.value()+";\n")
			rig.exec("UPDATE schema_system.session SET expire = now() + interval '1 hour'")
			rig.use(cookie, func(s *session.Session) { privateKey.Get(s) }) // touches
			cookie, _ = rig.login()
		}
	}, "cookie attributes in the record are not usable"},
	{"an integer too large for Express", session.FormatExpress, -1, func(rig *discreetProgram, cookie string) {
		rig.o.add("stored value", "9223372036854775807")
		rig.use(cookie, func(s *session.Session) { session.Key[int64]("n").Set(s, 9223372036854775807) })
	}, "integer over 2^53"},
	{"data that does not open", -1, 1, func(rig *discreetProgram, cookie string) {
		rig.exec(`UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{__sealed}', to_jsonb($1::text))::json`, rig.value())
		rig.use(cookie, func(s *session.Session) { privateKey.Get(s) })
	}, "encrypted record does not open"},
	{"a check refuses it", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("ALTER TABLE schema_system.session ADD CONSTRAINT c CHECK (length(sess::text) < 5) NOT VALID")
		rig.set(cookie)
		rig.set("")
	}, "SQLSTATE 23514"},
	{"a value that must be unique", -1, 0, func(rig *discreetProgram, cookie string) {
		rig.exec("CREATE UNIQUE INDEX one ON schema_system.session ((sess->>'note'))")
		value := rig.value()
		rig.use(cookie, func(s *session.Session) { privateKey.Set(s, value) })
		rig.use("", func(s *session.Session) { privateKey.Set(s, value) })
	}, "SQLSTATE 23505"},
	{"a trigger refuses it, and says why", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec(`CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = NEW; END $$;
			CREATE TRIGGER f BEFORE INSERT OR UPDATE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.f()`)
		rig.set(cookie)
		rig.set("")
	}, "refused"},
	{"a column of another type", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("ALTER TABLE schema_system.session ALTER COLUMN sess TYPE bytea USING '\\x00'")
		rig.set(cookie)
		rig.set("")
	}, "SQLSTATE 42"},
	{"a locked row", -1, -1, func(rig *discreetProgram, cookie string) {
		release := holdOpen(rig.t, rig.admin, "SELECT FROM schema_system.session FOR UPDATE")
		defer release()
		rig.set(cookie)
	}, "no answer in time"},
	{"a terminated connection", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'discreet'")
		rig.set(cookie)
	}, ""},
	{"a failing source of IDs", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.m.SetRandom(strings.NewReader("short"))
		defer rig.m.SetRandom(rand.Reader)
		rig.use(cookie, (*session.Session).Renew)
		rig.set("")
	}, "no randomness"},
	{"over its absolute timeout, and not to be deleted", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec(`UPDATE schema_system.session SET sess = jsonb_set(sess::jsonb, '{__created}', '1')::json;
			CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = OLD; END $$;
			CREATE TRIGGER f BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.f()`)
		rig.use(cookie, func(s *session.Session) { privateKey.Get(s) })
	}, "absolute timeout could not be deleted"},
	{"pruning fails", -1, -1, func(rig *discreetProgram, _ string) {
		rig.exec("UPDATE schema_system.session SET expire = now() - interval '1 day'")
		rig.exec(`CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = OLD; END $$;
			CREATE TRIGGER f BEFORE DELETE ON schema_system.session FOR EACH ROW EXECUTE FUNCTION public.f()`)
		_, err := rig.m.Prune(rig.t.Context())
		rig.o.show(err)
	}, "pruning failed"},
	{"a touch fails", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("UPDATE schema_system.session SET expire = now() + interval '1 hour'")
		rig.exec("ALTER TABLE schema_system.session ADD CONSTRAINT c CHECK (expire < now() + interval '1 hour') NOT VALID")
		rig.use(cookie, func(s *session.Session) { privateKey.Get(s) })
	}, "expiry not moved"},
	{"finding, and not finding", -1, -1, func(rig *discreetProgram, cookie string) {
		value := rig.value()
		rig.use(cookie, func(s *session.Session) {
			privateKey.Set(s, value)
			rig.o.show(s.Save(rig.t.Context()))
			for _, f := range []session.Filter{
				privateKey.Is(value), privateKey.Is(strings.Repeat(value, 5)), session.Key[string]("other").Is(value),
				session.Key[[]string]("note").Is([]string{value}), session.Everyone().Except(s), session.Everyone().Handle(value),
				{},
			} {
				infos, err := rig.m.Sessions(rig.t.Context(), f)
				rig.o.show(f, infos, err)
				slog.New(rig.o).Info("look", "filter", f, "infos", infos)
				_, err = rig.m.Revoke(rig.t.Context(), f)
				rig.o.show(err)
			}
		})
		rig.exec("ALTER TABLE schema_system.session ALTER COLUMN sess TYPE bytea USING '\\x00'")
		_, err := rig.m.Revoke(rig.t.Context(), privateKey.Is(value))
		rig.o.show(err)
	}, "names no sessions"},
	{"no table", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.exec("DROP TABLE schema_system.session")
		rig.set(cookie)
		rig.set("")
	}, "SQLSTATE 42P01"},
	{"wrong configurations", -1, -1, func(rig *discreetProgram, _ string) {
		secret := rig.secret("secret")[:20]
		for _, cfg := range []session.Config{
			{Secret: secret, OldSecrets: []string{secret}, IdleTimeout: -1},
			{Secret: secret, Cookie: session.CookieConfig{Format: session.FormatExpress, Path: "x"}},
		} {
			_, err := session.New(nil, cfg)
			rig.o.show(err)
		}
		rig.t.Setenv("SESSION_SECRET", secret)
		rig.t.Setenv("SESSION_SECRET_OLD", secret+" "+secret)
		rig.t.Setenv("SESSION_TIMEOUT", "often")
		cfg, err := session.ConfigFromEnv()
		rig.o.show(cfg, err)
		refused, err := pgxpool.New(rig.t.Context(), "postgres://u:"+rig.secret("password")+"@127.0.0.1:1/d?connect_timeout=1")
		if err != nil {
			rig.t.Fatal(err)
		}
		defer refused.Close()
		ctx, cancel := context.WithTimeout(rig.t.Context(), time.Second) // it waits for a database that refuses
		defer cancel()
		_, err = session.NewPostgresStore(ctx, refused, session.PostgresOptions{Logger: slog.New(rig.o)})
		rig.o.show(err)
	}, "SESSION_TIMEOUT"},
	{"a closed pool", -1, -1, func(rig *discreetProgram, cookie string) {
		rig.pool.Close()
		rig.set(cookie)
		rig.set("")
		rig.use(cookie, (*session.Session).Destroy)
	}, "closed pool"},
}

// beside makes a request beside the one under way, whose handler it leaves in
// its place.
func (rig *discreetProgram) beside(cookie string, f func(*session.Session)) {
	useSession(rig.m, "s="+cookie, f)
}

// talkative puts its value into the error.
type talkative string

func (v talkative) MarshalJSON() ([]byte, error) {
	return nil, errors.New("cannot encode " + string(v))
}
