package zone_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/cmd/sessionctl/internal/zone"
	"github.com/pgsession/session/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// ways are options with and without a TimeZone.
var ways = []struct {
	options, rest string
	zone          bool
}{
	{"", "", false},
	{"-c timezone=Asia/Tokyo", "", true},
	{"-ctimezone=Asia/Tokyo", "", true},
	{"--timezone=Asia/Tokyo", "", true},
	{"--TimeZone=Asia/Tokyo", "", true},
	{"  -c   TIMEZONE=Asia/Tokyo\t", "", true},
	{`-c timezone=Asia\/Tokyo`, "", true},
	{`-c time\zone=Asia/Tokyo`, "", true},
	{"-c work_mem=8MB -c timezone=Asia/Tokyo -c geqo=off", "-c work_mem=8MB -c geqo=off", true},
	{"-ec timezone=Asia/Tokyo -c timezone=UTC", "", true},
	{`-c application_name=timezone=Asia/Tokyo`, `-c application_name=timezone=Asia/Tokyo`, false},
	{`-c application_name=a\ -ctimezone=Asia/Tokyo`, `-c application_name=a\ -ctimezone=Asia/Tokyo`, false},
	{"-c timezone_abbreviations=Default", "-c timezone_abbreviations=Default", false},
	{"-c search_path=timezone", "-c search_path=timezone", false},
}

// Options are read as the server reads them: it is asked.
func TestStrip(t *testing.T) {
	url := pgtest.URL(t)
	for _, tt := range ways {
		t.Run(tt.options, func(t *testing.T) {
			rest, found := zone.Strip(tt.options)
			if rest != tt.rest && found || found != tt.zone {
				t.Errorf("got %q, %t, want %q, %t", rest, found, tt.rest, tt.zone)
			}
			cfg, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal("the URL cannot be parsed")
			}
			cfg.RuntimeParams["options"] = tt.options
			conn, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			z, err := zone.Read(t.Context(), conn)
			if err != nil || z.Asked() != tt.zone {
				t.Errorf("the server: got %+v, %v, want it asked for: %t", z, err, tt.zone)
			}
			plain, err := zone.Plain(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close(t.Context())
			if z, err := zone.Read(t.Context(), plain); err != nil || z.Asked() {
				t.Errorf("a plain connection: got %+v, %v, want the database's own", z, err)
			}
		})
	}
}

// What the shell has, the programs need not have; what the URL has, they have.
func TestNotOfEnvironment(t *testing.T) {
	service := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(service, []byte("[app]\nhost=h\noptions=-c timezone=Asia/Tokyo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, url         string
		env               map[string]string
		options, timezone string
		own               bool
	}{
		{"nothing", "postgres://h/timezone", nil, "", "", false},
		{"PGTZ", "postgres://h/timezone", map[string]string{"PGTZ": "Asia/Tokyo"}, "", "", false},
		{"PGOPTIONS", "postgres://timezone@h/d", map[string]string{"PGOPTIONS": "-c timezone=Asia/Tokyo"}, "", "", false},
		{"PGOPTIONS with more", "", map[string]string{"PGHOST": "h", "PGOPTIONS": "-c geqo=off --timezone=Asia/Tokyo"}, "-c geqo=off", "", false},
		{"a service of the environment", "", map[string]string{"PGSERVICEFILE": service, "PGSERVICE": "app"}, "", "", false},
		{"the URL's options", "postgres://h/d?options=-ctimezone%3DAsia/Tokyo", map[string]string{"PGTZ": "UTC"}, "-ctimezone=Asia/Tokyo", "", true},
		{"the URL's options beside PGOPTIONS", "host=h options='-c geqo=off'", map[string]string{"PGOPTIONS": "-c timezone=Asia/Tokyo"}, "-c geqo=off", "", false},
		{"the URL's parameter", "postgres://h/d?timezone=Asia/Tokyo", map[string]string{"PGTZ": "UTC"}, "", "Asia/Tokyo", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			cfg, err := pgx.ParseConfig(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			own := zone.NotOfEnvironment(tt.url, cfg)
			if p := cfg.RuntimeParams; p["options"] != tt.options || p["timezone"] != tt.timezone || own != tt.own {
				t.Errorf("got options %q, timezone %q, %t, want %q, %q, %t", p["options"], p["timezone"], own, tt.options, tt.timezone, tt.own)
			}
			for name, value := range tt.env {
				if os.Getenv(name) != value {
					t.Errorf("%s: got %q, want it as it was", name, os.Getenv(name))
				}
			}
		})
	}
}
