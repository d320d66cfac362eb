package otelsession_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/exaring/otelpgx"
	"github.com/prometheus/client_golang/prometheus"
	prometheusexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/pgtest"
	"github.com/pgsession/session/otelsession"
)

// dashboard is what this test knows of Grafana's format.
type dashboard struct {
	Title      string
	Templating struct{ List []variable }
	Panels     []panel
}

type variable struct {
	Name, Type string
	Query      json.RawMessage
	Datasource source
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	Datasource  source
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		RefID, Expr string
		Datasource  source
	}
}

type source struct{ Type, UID string }

// readDashboard reads a file outside of the module, whose changes Go's test cache
// does not see: use -count=1.
func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	b, err := os.ReadFile("../docs/grafana-session.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// exported are the metrics that Prometheus gets: of a registered manager, and of
// its pool by otelpgx. The value is Prometheus's type.
func exported(t *testing.T) map[string]string {
	t.Helper()
	registry := prometheus.NewRegistry()
	exporter, err := prometheusexporter.New(prometheusexporter.WithRegisterer(registry))
	if err != nil {
		t.Fatal(err)
	}
	provider := sdk.NewMeterProvider(sdk.WithReader(exporter))
	m := newManager(t, session.NewMemoryStore(), eachUse)
	if _, err := otelsession.Register(m, otelsession.WithMeterProvider(provider), otelsession.WithName("users")); err != nil {
		t.Fatal(err)
	}
	if err := otelpgx.RecordStats(pgtest.Pool(t), otelpgx.WithStatsMeterProvider(provider)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, f := range families {
		types[f.GetName()] = f.GetType().String()
	}
	return types
}

// fromPostgresExporter are the metrics of the last row, which prometheus-community's
// postgres_exporter has by default (its collector stat_user_tables).
var fromPostgresExporter = map[string]string{
	"pg_stat_user_tables_n_live_tup":    "GAUGE",
	"pg_stat_user_tables_n_dead_tup":    "GAUGE",
	"pg_stat_user_tables_n_tup_upd":     "COUNTER",
	"pg_stat_user_tables_n_tup_hot_upd": "COUNTER",
}

var (
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{`)
	label    = regexp.MustCompile(`label_values\((\w+)`)
)

// Every metric that the dashboard asks for exists, under the name and type that
// the real exporter gives it, and every count of session.Stats is on a panel.
func TestDashboardUsesWhatIsExported(t *testing.T) {
	metrics := exported(t)
	for name, kind := range fromPostgresExporter {
		metrics[name] = kind
	}
	d := readDashboard(t)
	used := map[string]bool{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			names := selector.FindAllStringSubmatchIndex(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("panel %q: %q asks for no metric", p.Title, target.Expr)
			}
			for _, at := range names {
				name, before := target.Expr[at[2]:at[3]], target.Expr[:at[2]]
				used[name] = true
				kind, ok := metrics[name]
				if !ok {
					t.Errorf("panel %q asks for %s, which nobody exports", p.Title, name)
				}
				rated := strings.HasSuffix(before, "rate(") || strings.HasSuffix(before, "increase(")
				if ok && rated != (kind == "COUNTER") {
					t.Errorf("panel %q: %s is a %s, in a rate: %t", p.Title, name, kind, rated)
				}
			}
		}
	}
	for _, v := range d.Templating.List {
		for _, m := range label.FindAllStringSubmatch(string(v.Query), -1) {
			if metrics[m[1]] == "" {
				t.Errorf("variable %s asks for %s, which nobody exports", v.Name, m[1])
			}
		}
	}
	for name := range fields(session.Stats{}) {
		name = strings.ReplaceAll(name, ".", "_") + "_total"
		if metrics[name] != "COUNTER" {
			t.Errorf("%s: got the type %q from the exporter, want COUNTER", name, metrics[name])
		}
		if !used[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
	for _, name := range states {
		if name = strings.ReplaceAll(name, ".", "_"); metrics[name] != "GAUGE" || !used[name] {
			t.Errorf("%s: got the type %q from the exporter, on a panel: %t; want a GAUGE that is", name, metrics[name], used[name])
		}
	}
	for name := range fromPostgresExporter {
		if !used[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// Grafana can show it: every question goes to the data source that is chosen,
// panels have numbers of their own and do not lie on top of each other.
func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	chosen := source{"prometheus", "${datasource}"}
	if v := d.Templating.List; len(v) == 0 || v[0].Name != "datasource" || v[0].Type != "datasource" || string(v[0].Query) != `"prometheus"` {
		t.Error("the first variable is not the choice of a Prometheus data source")
	}
	for _, v := range d.Templating.List[1:] {
		if v.Datasource != chosen {
			t.Errorf("variable %s: got the data source %v, want the chosen one", v.Name, v.Datasource)
		}
	}
	var ids []int
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		ids = append(ids, p.ID)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("panel %q lies over %q or outside of the 24 columns, at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("panel %q: got %d questions to %v, described by %q, want some to the chosen one", p.Title, len(p.Targets), p.Datasource, p.Description)
		}
		var refs []string
		for _, target := range p.Targets {
			if target.Datasource != chosen || slices.Contains(refs, target.RefID) {
				t.Errorf("panel %q, question %s: got %v and the names %v before, want the chosen source and a name of its own", p.Title, target.RefID, target.Datasource, refs)
			}
			refs = append(refs, target.RefID)
		}
	}
	slices.Sort(ids)
	if len(ids) < 10 || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("panel numbers: got %v, want ten or more, each once", ids)
	}
}
