// Package zone tells which TimeZone a connection has and who has set it. In a
// column of type timestamp it decides what is expired: with another one than
// the programs', live sessions look expired.
package zone

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Zone is a connection's TimeZone.
type Zone struct {
	Name    string
	Source  string // of pg_settings: "client" for what came with the connection
	offsets string
}

// Same reports whether two zones agree over the next two years.
func (z Zone) Same(other Zone) bool { return z.offsets == other.offsets }

// Asked reports whether the connection came with a TimeZone of its own.
func (z Zone) Asked() bool { return z.Source == "client" || z.Source == "session" }

// Querier is a connection or a pool.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const sqlZone = `SELECT pg_catalog.current_setting('TimeZone'), (SELECT source FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'TimeZone'),
	(SELECT pg_catalog.string_agg(extract(timezone FROM pg_catalog.to_timestamp(s::double precision))::pg_catalog.text, ' ' ORDER BY s)
		FROM pg_catalog.generate_series(%[1]d::bigint, %[2]d::bigint, 864000::bigint) s)`

// Read asks the server for a connection's zone.
func Read(ctx context.Context, q Querier) (z Zone, err error) {
	now := time.Now()
	sql := fmt.Sprintf(sqlZone, now.Unix(), now.AddDate(2, 0, 0).Unix())
	// No name for a pooler to mix up.
	return z, q.QueryRow(ctx, sql, pgx.QueryExecModeExec).Scan(&z.Name, &z.Source, &z.offsets)
}

// Plain connects as cfg does, but with the TimeZone that the database gives to
// programs that do not ask for one.
func Plain(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	cfg = cfg.Copy()
	drop(cfg.RuntimeParams)
	return pgx.ConnectConfig(ctx, cfg)
}

// drop takes every setting of TimeZone out of what comes with a connection.
func drop(params map[string]string) {
	for name, value := range params {
		switch {
		case strings.EqualFold(name, "timezone"):
			delete(params, name)
		case name == "options":
			if params[name], _ = Strip(value); params[name] == "" {
				delete(params, name)
			}
		}
	}
}

// environment is where a shell has what the programs need not have.
var environment = []string{"PGTZ", "PGOPTIONS", "PGSERVICE", "PGSERVICEFILE"}

// NotOfEnvironment takes out of cfg the settings of TimeZone that came from the
// environment and not from the URL that cfg was parsed from. What the URL says
// itself the programs have too. own reports whether the URL has options with a
// TimeZone, which Express follows as well; what else it has is pgx's alone.
func NotOfEnvironment(url string, cfg *pgx.ConnConfig) (own bool) {
	for _, name := range environment {
		if value, set := os.LookupEnv(name); set {
			os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	drop(cfg.RuntimeParams)
	of, err := pgx.ParseConfig(url)
	if err != nil {
		return false // it names a service that only the environment has
	}
	for name, value := range of.RuntimeParams {
		if strings.EqualFold(name, "timezone") || name == "options" {
			cfg.RuntimeParams[name] = value
		}
	}
	_, own = Strip(of.RuntimeParams["options"])
	return own
}

// withArgument are PostgreSQL's one-letter options that take an argument.
const withArgument = "BCcDdfhkNprStvW-"

// Strip takes the settings of TimeZone out of server options, which it reads as
// PostgreSQL does. found reports whether there were any.
func Strip(options string) (rest string, found bool) {
	var kept []string
	words := split(options)
	for i := 0; i < len(words); i++ {
		raw := []string{words[i]}
		word := unescape(words[i])
		setting, begun := "", strings.HasPrefix(word, "-")
		for at := 1; begun && at < len(word); at++ { // several may stand together
			if !strings.Contains(withArgument, word[at:at+1]) {
				continue
			}
			argument := word[at+1:]
			if argument == "" && i+1 < len(words) {
				i++
				raw = append(raw, words[i])
				argument = unescape(words[i])
			}
			if word[at] == 'c' || word[at] == '-' {
				setting = argument
			}
			break
		}
		name, _, _ := strings.Cut(setting, "=")
		if strings.EqualFold(strings.TrimSpace(strings.ReplaceAll(name, "-", "_")), "timezone") {
			found = true
			continue
		}
		kept = append(kept, raw...)
	}
	if !found {
		return options, false
	}
	return strings.Join(kept, " "), true
}

// split separates words at white space that no backslash stands before.
func split(options string) (words []string) {
	word, escaped := strings.Builder{}, false
	end := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for i := range len(options) {
		c := options[i]
		if !escaped && strings.IndexByte(" \t\n\v\f\r", c) >= 0 {
			end()
			continue
		}
		word.WriteByte(c)
		escaped = c == '\\' && !escaped
	}
	end()
	return words
}

func unescape(word string) string {
	b := strings.Builder{}
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+1 < len(word) {
			i++
		}
		b.WriteByte(word[i])
	}
	return b.String()
}

const (
	// sampled is how many rows of each end are compared with their cookies.
	sampled = 500

	// early is how much sooner than its cookie a row must expire: zones differ by
	// quarters of an hour at least.
	early = 14 * time.Minute
)

// The beginning of a row's data holds its cookie, and that its expiry in UTC.
var expires = regexp.MustCompile(`"cookie"\s*:\s*\{[^{}]*"expires"\s*:\s*"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"`)

const sqlRows = `SELECT data, extract(epoch FROM LEAST(GREATEST(expire, '0001-01-02'), '9999-12-30')::timestamp with time zone)::double precision
	FROM ((SELECT pg_catalog.left(sess::pg_catalog.text, 2000) AS data, expire FROM %[1]s WHERE expire IS NOT NULL ORDER BY expire LIMIT %[2]d)
		UNION (SELECT pg_catalog.left(sess::pg_catalog.text, 2000), expire FROM %[1]s WHERE expire IS NOT NULL ORDER BY expire DESC LIMIT %[2]d)) rows`

// Contradicted compares rows with their cookies, which say in UTC when they expire.
// Use makes a row expire later than its cookie says, never sooner: of many rows a
// few may (their timeout was shortened), and more only if whoever wrote them has
// another zone, one in which it is earlier than in the connection's. It returns how
// many rows it compared, and how many of them expire too soon for their cookies.
func Contradicted(ctx context.Context, q Querier, table string) (sooner, compared int, err error) {
	rows, err := q.Query(ctx, fmt.Sprintf(sqlRows, table, sampled), pgx.QueryExecModeExec)
	if err != nil {
		return 0, 0, err
	}
	var data string
	var epoch float64
	_, err = pgx.ForEachRow(rows, []any{&data, &epoch}, func() error {
		m := expires.FindStringSubmatch(data)
		if m == nil {
			return nil
		}
		said, err := time.Parse(time.RFC3339, m[1])
		if err != nil {
			return nil // 30 February: no evidence
		}
		compared++
		if float64(said.Unix())-epoch > early.Seconds() {
			sooner++
		}
		return nil
	})
	return sooner, compared, err
}

// TooMany reports whether rows that expire sooner than their cookies say are too
// many for a few shortened timeouts.
func TooMany(sooner, compared int) bool { return sooner*20 > compared }
