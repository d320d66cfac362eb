// Package otelsession publishes the counts of a [session.Manager], as
// [session.Manager.Stats] returns them, as OpenTelemetry metrics:
//
//	if _, err := otelsession.Register(sessions); err != nil { log.Fatal(err) }
//
// All but two are counters since the start of the program, named session. and the
// field of [session.Stats] in snake case:
//
//	metric                 unit        what it counts
//	session.loads          {record}    records asked for by requests
//	session.misses         {record}    of these, not found: expired, destroyed or unknown
//	session.creates        {session}   new sessions stored
//	session.saves          {session}   existing sessions changed, renewals included
//	session.conflicts      {session}   saves that met another request's and were merged
//	session.renewals       {session}   IDs changed
//	session.touches        {session}   expiries moved without other changes
//	session.destroys       {session}   records deleted because the application said so
//	session.pruned         {record}    expired records and marks of renewed IDs deleted
//	session.bad_cookies    {cookie}    session cookies that did not verify
//	session.store_errors   {error}     failures that the store reported
//	session.refused        {error}     of these, refused at once because the store was down
//	session.bound          {key}       keys of devices registered
//	session.refreshed      {proof}     proofs of a device's key that were good
//	session.unproven       {request}   proofs that were not, and requests without one
//	session.events_dropped {event}     events that Config.OnEvent was too slow for
//	session.reads_down     {store}     a gauge: 1 while reads get no answer and are refused
//	session.writes_down    {store}     a gauge: 1 while writes do
//
// Prometheus calls them session_loads_total and so on. Names, units and the
// attribute of [WithName] are part of this package's API. No metric holds a
// session ID or data. docs/operations.md says when to look at which, and
// docs/grafana-session.json is a dashboard of them.
//
// # Traces
//
// Spans of the statements need nothing of this package: give the pool a tracer,
// such as [github.com/exaring/otelpgx], and start the request's span outside of
// [session.Manager.Handler], as in the package's example. Statements keep the
// values, and so the span, of the context with which the request entered that
// Handler; a span that begins further inside is not their parent. otelpgx names
// spans after a statement's first word: SELECT, INSERT, UPDATE, and WITH for
// the saves, touches and deletes that requests may share.
//
// Where requests share a statement, its span belongs to the one that asked
// first. The others' traces show no statement, unless they had to repeat it alone,
// and where that first request is not sampled there is no span at all. With
// [session.PostgresOptions].DisableBatching each request has spans of its own,
// for the price of the speed that sharing gives. Pruning belongs to no request
// and has no spans.
//
// Leave out otelpgx.WithIncludeQueryParameters: it writes session IDs and data
// into spans.
package otelsession

import (
	"context"
	"errors"
	"fmt"
	"math"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/pgsession/session"
)

const (
	scopeName = "github.com/pgsession/session/otelsession"

	attributeName = "session.manager"
)

// counters and gauges are the metrics, one for each field of session.Stats.
var counters = []struct {
	name, unit, description string
	count                   func(session.Stats) uint64
}{
	{"session.loads", "{record}", "Records asked for by requests.", func(s session.Stats) uint64 { return s.Loads }},
	{"session.misses", "{record}", "Records asked for and not found: expired, destroyed or unknown.", func(s session.Stats) uint64 { return s.Misses }},
	{"session.creates", "{session}", "New sessions stored.", func(s session.Stats) uint64 { return s.Creates }},
	{"session.saves", "{session}", "Existing sessions changed, renewals included.", func(s session.Stats) uint64 { return s.Saves }},
	{"session.conflicts", "{session}", "Saves that met another request's and were merged.", func(s session.Stats) uint64 { return s.Conflicts }},
	{"session.renewals", "{session}", "Session IDs changed.", func(s session.Stats) uint64 { return s.Renewals }},
	{"session.touches", "{session}", "Expiries moved without other changes.", func(s session.Stats) uint64 { return s.Touches }},
	{"session.destroys", "{session}", "Records deleted because the application said so.", func(s session.Stats) uint64 { return s.Destroys }},
	{"session.pruned", "{record}", "Expired records and marks of renewed IDs deleted.", func(s session.Stats) uint64 { return s.Pruned }},
	{"session.bad_cookies", "{cookie}", "Session cookies that did not verify.", func(s session.Stats) uint64 { return s.BadCookies }},
	{"session.store_errors", "{error}", "Failures that the store reported.", func(s session.Stats) uint64 { return s.StoreErrors }},
	{"session.refused", "{error}", "Failures that the store reported at once, without trying, because it was down.", func(s session.Stats) uint64 { return s.Refused }},
	{"session.bound", "{key}", "Keys of devices registered.", func(s session.Stats) uint64 { return s.Bound }},
	{"session.refreshed", "{proof}", "Proofs of a device's key that a new bound cookie was sent for.", func(s session.Stats) uint64 { return s.Refreshed }},
	{"session.unproven", "{request}", "Proofs that did not verify, and requests of a bound session that brought none.", func(s session.Stats) uint64 { return s.Unproven }},
	{"session.events_dropped", "{event}", "Events that Config.OnEvent was too slow for.", func(s session.Stats) uint64 { return s.EventsDropped }},
}

var gauges = []struct {
	name, unit, description string
	is                      func(session.Stats) bool
}{
	{"session.reads_down", "{store}", "Whether reads get no answer and are refused.", func(s session.Stats) bool { return s.ReadsDown }},
	{"session.writes_down", "{store}", "Whether writes get no answer and are refused.", func(s session.Stats) bool { return s.WritesDown }},
}

// Option changes what [Register] does.
type Option func(*options)

type options struct {
	provider   metric.MeterProvider
	attributes []attribute.KeyValue
}

// WithMeterProvider publishes to p. Default [otel.GetMeterProvider].
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(o *options) { o.provider = p }
}

// WithName adds the attribute session.manager to every count, to tell the
// Managers of a program apart. Default: no attribute.
func WithName(name string) Option {
	return func(o *options) { o.attributes = []attribute.KeyValue{attribute.String(attributeName, name)} }
}

// Register publishes the counts of m until the returned registration is
// unregistered, which is not needed at the end of the program. Counts are
// read when the provider collects; nothing is added to a request.
//
// Where a provider gets several Managers, give each a name ([WithName]), or they
// are counted together. Register is safe for concurrent use.
func Register(m *session.Manager, opts ...Option) (metric.Registration, error) {
	if m == nil {
		return nil, errors.New("otelsession: Register: the manager is nil")
	}
	o := options{provider: otel.GetMeterProvider()}
	for _, opt := range opts {
		opt(&o)
	}
	meter := o.provider.Meter(scopeName)
	var instruments []metric.Int64Observable
	var observables []metric.Observable
	for _, c := range counters {
		instrument, err := meter.Int64ObservableCounter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description))
		if err != nil {
			return nil, fmt.Errorf("otelsession: Register: %s: %w", c.name, err)
		}
		instruments, observables = append(instruments, instrument), append(observables, instrument)
	}
	for _, g := range gauges {
		instrument, err := meter.Int64ObservableGauge(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.description))
		if err != nil {
			return nil, fmt.Errorf("otelsession: Register: %s: %w", g.name, err)
		}
		instruments, observables = append(instruments, instrument), append(observables, instrument)
	}
	attributes := metric.WithAttributeSet(attribute.NewSet(o.attributes...))
	registration, err := meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		stats := m.Stats()
		for i, c := range counters {
			to.ObserveInt64(instruments[i], int64(min(c.count(stats), math.MaxInt64)), attributes)
		}
		for i, g := range gauges {
			var is int64
			if g.is(stats) {
				is = 1
			}
			to.ObserveInt64(instruments[len(counters)+i], is, attributes)
		}
		return nil
	}, observables...)
	if err != nil {
		return nil, fmt.Errorf("otelsession: Register: %w", err)
	}
	return registration, nil
}
