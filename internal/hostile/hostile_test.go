package hostile_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgsession/session/internal/hostile"
)

// The rig is worth what it catches: each statement that a stranger could answer
// is refused with the name of the twin, and its qualified form is not.
func TestTwinsAreCaught(t *testing.T) {
	db := hostile.New(t)
	const both, last = "both", "last"
	for _, tt := range []struct{ sql, want, paths string }{
		// Better matches than what pg_catalog has.
		{`SELECT 'a'::varchar = 'b'::text`, "=(character varying, text)", both},
		{`SELECT 'a'::varchar OPERATOR(pg_catalog.=) 'b'::pg_catalog.text`, "", both},
		{`SELECT strpos('a'::varchar, 'b')`, "strpos(character varying, text)", both},
		{`SELECT count('a'::varchar)`, "count(character varying)", both},
		{`SELECT 1::int = ANY (ARRAY[1::numeric])`, "=(integer, numeric)", both},
		{`SELECT CASE 'a'::varchar WHEN 'b'::pg_catalog.text THEN 1 END`, "=(character varying, text)", both},
		{`SELECT NULLIF('a'::varchar, 'b'::pg_catalog.text)`, "=(character varying, text)", both},
		{`SELECT * FROM unnest(ARRAY['a'::pg_catalog.text])`, "unnest(text[])", both},
		{`SELECT * FROM pg_catalog.unnest(ARRAY['a'::pg_catalog.text])`, "", both},
		{`SELECT 1 FROM (SELECT 'a'::varchar AS x) a JOIN (SELECT 'b'::pg_catalog.text AS x) b USING (x)`, "=(character varying, text)", both},
		{`SELECT format('%s', 'a'::pg_catalog.text)`, "format(text, text)", both},
		{`SELECT string_agg('a'::varchar, ',')`, "string_agg(character varying, text)", both},
		{`SELECT 'a'::varchar = 'b'::pg_catalog.text WHERE false`, "=(character varying, text)", both},
		{`SELECT 1 FROM pg_catalog.pg_class WHERE relname OPERATOR(pg_catalog.=) 'none' AND relname = 'a'::pg_catalog.text`, "=(name, text)", last},

		// The very same, where pg_catalog comes after public.
		{`SELECT now()`, "now()", last},
		{`SELECT pg_catalog.now()`, "", both},
		{`SELECT CURRENT_TIMESTAMP`, "", both},
		{`SELECT 1 = 1`, "=(integer, integer)", last},
		{`SELECT count(*) FROM pg_catalog.pg_class`, "count()", last},
		{`SELECT pg_catalog.count(*) FROM pg_catalog.pg_class`, "", both},
		{`SELECT row_number() OVER ()`, "row_number()", last},
		{`SELECT 'a'::text`, "the type text", last},
		{`SELECT NULL::text`, "the type text", last},
		{`SELECT 1 FROM pg_class`, "the relation pg_class", last},
		{`SELECT 1 FROM pg_catalog.pg_class`, "", both},
		{`SELECT max('a'::pg_catalog.text)`, "max(text)", last},
		{`SELECT CURRENT_TIMESTAMP IS NOT DISTINCT FROM CURRENT_TIMESTAMP`, "=(timestamp with time zone, timestamp with time zone)", last},
		{`SELECT make_interval(0, 0, 0, 0, 0, 0, 1::double precision)`, "make_interval(integer, integer, integer, integer, integer, integer, double precision)", last},
		{`SELECT make_interval(secs => 1::double precision)`, "function make_interval(secs => double precision) is not unique", last},
		{`SELECT pg_catalog.make_interval(secs => 1::double precision)`, "", both},
		{`SELECT * FROM json_each_text('{}'::pg_catalog.json)`, "json_each_text(json)", last},
		{`SELECT - 1::int`, "-(, integer)", last},
	} {
		for _, path := range hostile.Paths {
			want := ""
			if tt.want != "" && (tt.paths == both || path == hostile.Last) {
				want = tt.want
				if !strings.Contains(want, "not unique") {
					want = "hostile twin of " + want
				}
			}
			t.Run(path+"/"+tt.sql, func(t *testing.T) {
				conn, err := pgx.Connect(t.Context(), db.URL(path))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(t.Context())
				_, err = conn.Exec(t.Context(), tt.sql)
				if got := hostile.Twin(err); got != want || (err != nil) != (want != "") {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			})
		}
	}
}

// Keyword types and what a test prepares find no twin.
func TestCleanFindsNone(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), hostile.New(t).Clean())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `CREATE TABLE public.session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)`)
	if err == nil {
		_, err = conn.Exec(t.Context(), `INSERT INTO public.session SELECT 'a'::text || 1, '{}', now() + interval '1 day'`)
	}
	if err != nil {
		t.Errorf("got %v, want the table made and filled", err)
	}
}

// A program that hides the error does not hide the call. The fault is kept from
// this test by a stand-in.
func TestPoolReportsHiddenCalls(t *testing.T) {
	db := hostile.New(t)
	spy := &recorder{TB: t}
	pool := db.Pool(spy, hostile.Last)
	_, _ = pool.Exec(t.Context(), "SELECT now()")
	if _, err := pool.Exec(t.Context(), "SELECT pg_catalog.now()"); err != nil {
		t.Error(err)
	}
	if spy.faults != 1 {
		t.Errorf("got %d faults, want 1", spy.faults)
	}
}

type recorder struct {
	testing.TB
	faults int
}

func (r *recorder) Errorf(string, ...any) { r.faults++ }
