package otelsession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/outage"
	"github.com/pgsession/session/otelsession"
	"github.com/pgsession/session/sessiontest"
)

const userID = session.Key[int64]("userId")

var errStore = errors.New("the test's store is down")

// store is a memory store that fails or meets another request when it is told to.
type store struct {
	*session.MemoryStore
	down      atomic.Bool
	refuses   atomic.Bool
	conflicts atomic.Int64 // updates still to be refused
	pruned    int64
}

func (s *store) Load(ctx context.Context, id string) (session.Record, error) {
	if s.down.Load() {
		return session.Record{}, errStore
	}
	if s.refuses.Load() {
		return session.Record{}, &outage.Refused{Kind: "read", For: time.Second, Cause: errStore}
	}
	return s.MemoryStore.Load(ctx, id)
}

func (s *store) Update(ctx context.Context, id string, c session.Change) error {
	if s.conflicts.Add(-1) >= 0 {
		return session.ErrConflict
	}
	return s.MemoryStore.Update(ctx, id, c)
}

func (s *store) Prune(ctx context.Context, within time.Duration) (int64, error) {
	_, err := s.MemoryStore.Prune(ctx, within) // which says what has expired
	return s.pruned, err
}

// eachUse is the touch interval at which each use of a session is a touch.
const eachUse = time.Nanosecond

func newManager(t *testing.T, s session.Store, touch time.Duration) *session.Manager {
	t.Helper()
	m, err := session.New(s, session.Config{
		Secret:        "for tests only: 7Kq2mVx9Lr4TzPw8Hn3Jc6Yb5Gd1Fs0A",
		TouchInterval: touch,
		StoreTimeout:  2 * time.Minute, // longer than any test waits
		DisablePrune:  true,
		Cookie:        session.CookieConfig{Secure: session.SecureAlways},
		DeviceBound:   session.DeviceBoundConfig{Refresh: 10 * time.Minute},
		Logger:        slog.New(slog.DiscardHandler),
		OnEvent:       func(session.Event) { <-t.Context().Done() }, // the first waits, and all others behind it
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// visit runs f in a handler of m, with a cookie, and returns the cookie for the
// next visit.
func visit(t *testing.T, m *session.Manager, cookie string, f func(*session.Session)) string {
	t.Helper()
	r := httptest.NewRequest("POST", "/", nil)
	if cookie != "" {
		r.AddCookie(&http.Cookie{Name: "session", Value: cookie})
	}
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		f(session.From(r.Context()))
	})).ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Name == "session" {
			return c.Value
		}
	}
	return cookie
}

func set(s *session.Session)     { userID.Set(s, time.Now().UnixNano()) }
func get(s *session.Session)     { userID.Get(s) }
func renew(s *session.Session)   { s.Renew() }
func destroy(s *session.Session) { s.Destroy() }

// exercise brings every count to a value of its own.
func exercise(t *testing.T, m *session.Manager, s *store) {
	t.Helper()
	cookie := ""
	repeat := func(n int, f func()) {
		for range n {
			f()
		}
	}
	repeat(3, func() { cookie = visit(t, m, "", set) })
	gone := visit(t, m, "", set)
	visit(t, m, gone, destroy)
	repeat(14, func() { visit(t, m, gone, get) })
	repeat(7, func() { cookie = visit(t, m, cookie, renew) })
	repeat(9, func() { visit(t, m, cookie, get) })
	s.conflicts.Store(3)
	repeat(3, func() { visit(t, m, cookie, set) })
	repeat(11, func() { visit(t, m, "forged", get) })
	s.down.Store(true)
	repeat(12, func() { visit(t, m, cookie, get) })
	s.down.Store(false)
	s.refuses.Store(true)
	repeat(16, func() { visit(t, m, cookie, get) })
	s.refuses.Store(false)
	bound := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if set(s); r.URL.Path == "/login" {
			s.Bind()
		}
	}))
	var d *sessiontest.Device
	repeat(2, func() { d = sessiontest.NewDevice(t, bound); d.Get("/login") })
	repeat(23, func() { d.Expire(); d.Get("/") })
	repeat(5, func() { thief := d.Copy(); thief.Expire(); thief.Get("/") })
	s.pruned = 13
	for i := range 1200 { // more events than may wait
		if err := s.Create(t.Context(), fmt.Sprint("expired", i), session.Record{Data: []byte(`{}`), TTL: -time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// states are the metrics that are no counts.
var states = []string{"session.reads_down", "session.writes_down"}

// fields are the counts by their metric's name.
func fields(stats session.Stats) map[string]int64 {
	counts := map[string]int64{}
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		if v.Field(i).CanUint() {
			counts[metricName(v.Type().Field(i).Name)] = int64(v.Field(i).Uint())
		}
	}
	return counts
}

var capital = regexp.MustCompile(`\B[A-Z]`)

// metricName is the rule of the package's documentation.
func metricName(field string) string {
	return "session." + strings.ToLower(capital.ReplaceAllString(field, "_$0"))
}

// collect returns the metrics of this package that a reader gets, by name.
func collect(t *testing.T, reader sdk.Reader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		if scope.Scope.Name != "github.com/pgsession/session/otelsession" {
			t.Errorf("scope: got %q, want the package's", scope.Scope.Name)
		}
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// points are the values of a metric by its attributes.
func points(t *testing.T, m metricdata.Metrics) map[attribute.Distinct]int64 {
	t.Helper()
	sum, ok := m.Data.(metricdata.Sum[int64])
	if !ok || !sum.IsMonotonic || sum.Temporality != metricdata.CumulativeTemporality {
		t.Fatalf("%s: got %T, want a monotonic cumulative sum of int64", m.Name, m.Data)
	}
	values := map[attribute.Distinct]int64{}
	for _, p := range sum.DataPoints {
		values[p.Attributes.Equivalent()] = p.Value
	}
	return values
}

var none = attribute.NewSet()

func TestRegisterPublishesEveryCount(t *testing.T) {
	s := &store{MemoryStore: session.NewMemoryStore()}
	m := newManager(t, s, eachUse)
	reader := sdk.NewManualReader()
	if _, err := otelsession.Register(m, otelsession.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader)))); err != nil {
		t.Fatal(err)
	}
	exercise(t, m, s)
	want := fields(m.Stats())
	taken := map[int64]string{}
	for name, n := range want {
		if other := taken[n]; n == 0 || other != "" {
			t.Fatalf("the test makes %s and %q both %d, so it could not tell them apart", name, other, n)
		}
		taken[n] = name
	}
	got := collect(t, reader)
	for name, n := range want {
		values := points(t, got[name])
		if v, ok := values[none.Equivalent()]; !ok || v != n || len(values) != 1 {
			t.Errorf("%s: got %d in %d series, want %d in one without attributes", name, v, len(values), n)
		}
	}
	for _, name := range states {
		gauge, ok := got[name].Data.(metricdata.Gauge[int64])
		if !ok || len(gauge.DataPoints) != 1 || gauge.DataPoints[0].Value != 0 {
			t.Errorf("%s: got %+v, want a gauge that is 0", name, got[name].Data)
		}
	}
	if len(got) != len(want)+len(states) {
		t.Errorf("metrics: got %d, want one for each of the %d fields of session.Stats", len(got), len(want))
	}
	// The next collection sees what has happened since.
	visit(t, m, "", set)
	if got := points(t, collect(t, reader)["session.creates"])[none.Equivalent()]; got != want["session.creates"]+1 {
		t.Errorf("session.creates after one more: got %d, want %d", got, want["session.creates"]+1)
	}
}

// Names, units and descriptions are as OpenTelemetry's conventions have them: no
// name is the namespace of another, units are singular annotations.
func TestMetricsFollowTheNamingRules(t *testing.T) {
	reader := sdk.NewManualReader()
	m := newManager(t, session.NewMemoryStore(), eachUse)
	if _, err := otelsession.Register(m, otelsession.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader)))); err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^session\.[a-z]+(_[a-z]+)*$`)
	unit := regexp.MustCompile(`^\{[a-z]+[^s]\}$`)
	metrics := collect(t, reader)
	for _, m := range metrics {
		if !name.MatchString(m.Name) || strings.HasSuffix(m.Name, "_total") {
			t.Errorf("name: got %q, want session. and words", m.Name)
		}
		if !unit.MatchString(m.Unit) {
			t.Errorf("unit of %s: got %q, want a singular annotation", m.Name, m.Unit)
		}
		if !strings.HasSuffix(m.Description, ".") {
			t.Errorf("description of %s: got %q, want a sentence", m.Name, m.Description)
		}
		for other := range metrics {
			if strings.HasPrefix(other, m.Name+".") {
				t.Errorf("%s is the namespace of %s", m.Name, other)
			}
		}
	}
	if len(metrics) == 0 {
		t.Error("got no metrics")
	}
}

func TestRegisterDefaultProvider(t *testing.T) {
	before := otel.GetMeterProvider()
	t.Cleanup(func() { otel.SetMeterProvider(before) })
	reader := sdk.NewManualReader()
	otel.SetMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader)))
	m := newManager(t, session.NewMemoryStore(), eachUse)
	if _, err := otelsession.Register(m); err != nil {
		t.Fatal(err)
	}
	visit(t, m, "", set)
	if got := points(t, collect(t, reader)["session.creates"])[none.Equivalent()]; got != 1 {
		t.Errorf("session.creates: got %d, want 1", got)
	}
}

// Two managers of one program are told apart by their names.
func TestWithName(t *testing.T) {
	reader := sdk.NewManualReader()
	provider := otelsession.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader)))
	for n, name := range []string{"users", "admins"} {
		m := newManager(t, session.NewMemoryStore(), eachUse)
		if _, err := otelsession.Register(m, provider, otelsession.WithName(name)); err != nil {
			t.Fatal(err)
		}
		for range n + 1 {
			visit(t, m, "", set)
		}
	}
	got := points(t, collect(t, reader)["session.creates"])
	for name, want := range map[string]int64{"users": 1, "admins": 2} {
		series := attribute.NewSet(attribute.String("session.manager", name))
		if n, ok := got[series.Equivalent()]; !ok || n != want {
			t.Errorf("session.creates of %s: got %d, %t, want %d", name, n, ok, want)
		}
	}
	if len(got) != 2 {
		t.Errorf("series of session.creates: got %d, want 2", len(got))
	}
}

func TestUnregister(t *testing.T) {
	reader := sdk.NewManualReader()
	m := newManager(t, session.NewMemoryStore(), eachUse)
	registration, err := otelsession.Register(m, otelsession.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader))))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(collect(t, reader)); got == 0 {
		t.Fatal("before: got no metrics")
	}
	for range 2 {
		if err := registration.Unregister(); err != nil {
			t.Errorf("Unregister: got %v, want nil", err)
		}
	}
	if got := collect(t, reader); len(got) != 0 {
		t.Errorf("afterwards: got %d metrics, want none", len(got))
	}
}

func TestRegisterNil(t *testing.T) {
	registration, err := otelsession.Register(nil)
	if err == nil || registration != nil {
		t.Errorf("got %v, %v, want an error", registration, err)
	}
}
