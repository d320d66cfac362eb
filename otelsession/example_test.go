package otelsession_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	prometheusexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/pgsession/session"
	"github.com/pgsession/session/otelsession"
)

// Metrics and traces of the sessions and of the pool, to the global providers,
// which are set up as for any program that uses OpenTelemetry.
func Example() {
	ctx := context.Background()
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	cfg.ConnConfig.Tracer = otelpgx.NewTracer() // spans of the statements, without their parameters
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	if err := otelpgx.RecordStats(pool); err != nil { // pgxpool.*
		log.Fatal(err)
	}

	sessions, err := session.Open(ctx, pool)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()
	if _, err := otelsession.Register(sessions); err != nil { // session.*
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, session.From(r.Context()).Keys())
	})
	// The request's span begins outside of the sessions' Handler.
	log.Print(http.ListenAndServe(":8080", otelhttp.NewHandler(sessions.Handler(mux), "server")))
}

// What Prometheus gets after one login and one read.
func ExampleRegister() {
	registry := prometheus.NewRegistry()
	exporter, err := prometheusexporter.New(prometheusexporter.WithRegisterer(registry), prometheusexporter.WithoutScopeInfo())
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.New(session.NewMemoryStore(), session.Config{
		Secret:       "an example only: keep a random one in SESSION_SECRET",
		DisablePrune: true,
		Logger:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = otelsession.Register(sessions,
		otelsession.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(exporter))),
		otelsession.WithName("users"))
	if err != nil {
		log.Fatal(err)
	}

	login := httptest.NewRecorder()
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		userID.Set(session.From(r.Context()), 42)
	})).ServeHTTP(login, httptest.NewRequest("POST", "/login", nil))
	read := httptest.NewRequest("GET", "/account", nil)
	read.AddCookie(login.Result().Cookies()[0])
	sessions.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		userID.Get(session.From(r.Context()))
	})).ServeHTTP(httptest.NewRecorder(), read)

	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if strings.HasPrefix(line, "session_") {
			fmt.Print(line)
		}
	}
	// Output:
	// session_bad_cookies_total{session_manager="users"} 0
	// session_bound_total{session_manager="users"} 0
	// session_conflicts_total{session_manager="users"} 0
	// session_creates_total{session_manager="users"} 1
	// session_destroys_total{session_manager="users"} 0
	// session_events_dropped_total{session_manager="users"} 0
	// session_loads_total{session_manager="users"} 1
	// session_misses_total{session_manager="users"} 0
	// session_pruned_total{session_manager="users"} 0
	// session_reads_down{session_manager="users"} 0
	// session_refreshed_total{session_manager="users"} 0
	// session_refused_total{session_manager="users"} 0
	// session_renewals_total{session_manager="users"} 0
	// session_saves_total{session_manager="users"} 0
	// session_store_errors_total{session_manager="users"} 0
	// session_touches_total{session_manager="users"} 0
	// session_unproven_total{session_manager="users"} 0
	// session_writes_down{session_manager="users"} 0
}
