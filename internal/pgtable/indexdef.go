package pgtable

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	// sqlValue is the value of a key as text, with the key for %[4]s and the
	// name of its hash for %[5]s. PostgreSQL reads no member of an object that
	// has \u0000, half a surrogate pair or a character that the database's
	// encoding lacks anywhere, so every escape but those of ASCII becomes \u001a
	// first: one such record must not stop all others from being found. A
	// backslash that is itself escaped begins no escape. The length keeps a long
	// value from being too long for the index.
	sqlValue = `pg_catalog.left(COALESCE(` + sqlReadable + ` OPERATOR(pg_catalog.->>) %[5]s, ` + sqlReadable + ` OPERATOR(pg_catalog.->>) %[4]s), 255)`

	sqlReadable = `(CASE WHEN pg_catalog.strpos(sess::pg_catalog.text, E'\\u') OPERATOR(pg_catalog.=) 0 THEN sess::pg_catalog.%[2]s
		ELSE pg_catalog.regexp_replace(sess::pg_catalog.text, E'(?<!\\\\)((\\\\\\\\)*)\\\\u(0000|00[89a-fA-F].|0[1-9a-fA-F]..|[1-9a-fA-F]...)', E'\\1\\\\u001a', 'g')::pg_catalog.%[2]s END)`
)

// Value returns the expression of a key's value, the same in every statement,
// for an index is only used for its own. (One that was made when the operators
// were not qualified is the same: PostgreSQL keeps what they were found to be.)
func (t *Table) Value(key string) string {
	return strings.NewReplacer("%[2]s", t.SessType, "%[4]s", literal(key), "%[5]s", literal(t.FindPrefix+key)).
		Replace(strings.Join(strings.Fields(sqlValue), " "))
}

// literal quotes a string for PostgreSQL, whatever standard_conforming_strings
// says.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(text) + "'"
}

// IndexSQL returns the statement that makes the index of a key, unless it is there.
func (t *Table) IndexSQL(key string) string { return t.indexSQL(t.indexName(key), key) }

func (t *Table) indexSQL(name, key string) string {
	concurrently := "CONCURRENTLY "
	if t.info.kind == "p" { // PostgreSQL cannot
		concurrently = ""
	}
	return fmt.Sprintf("CREATE INDEX %sIF NOT EXISTS %s ON %s ((%s))", concurrently, pgx.Identifier{name}.Sanitize(), t.Quoted(), t.Value(key))
}

// indexName returns a name that fits; of long ones a hash tells them apart.
func (t *Table) indexName(key string) string {
	return t.fit("idx_"+t.Name+"_key_"+key, "idx_session_key_")
}

// freeName returns a name that nothing in the schema has: a table that has been
// replaced keeps its indexes, by their names.
func (t *Table) freeName(ctx context.Context, c *pgx.Conn, name string) string {
	free := name
	for n := 2; n < 10; n++ {
		var taken bool
		err := c.QueryRow(ctx, qualify(`SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = $1::name AND c.relname = $2::name)`), t.Schema, free).Scan(&taken)
		if err != nil || !taken {
			return free
		}
		free = t.fit(fmt.Sprintf("%s_%d", name, n), "idx_session_")
	}
	return free
}

// index is one whose first part is an expression.
type index struct {
	schema, name string
	valid        bool
	def          string // of the expression
}

func (i index) quoted() string { return pgx.Identifier{i.schema, i.name}.Sanitize() }

// sqlKeyIndexes lists those that could be a key's: without a condition, for
// equality, of nothing but PostgreSQL's own functions and operators.
var sqlKeyIndexes = qualify(`SELECT n.nspname::text, c.relname::text, i.indisvalid, pg_catalog.pg_get_indexdef(i.indexrelid, 1, false)
	FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_am m ON m.oid = c.relam
	WHERE i.indrelid = $1::int8::oid AND i.indkey[0] = 0 AND i.indpred IS NULL AND m.amname::text = ANY (ARRAY['btree', 'hash'])
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass::oid AND d.objid = i.indexrelid
			AND d.refclassid = ANY (ARRAY['pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass]::oid[]) AND d.refobjid >= 16384::oid)
	ORDER BY i.indexrelid`)

// keyIndexes returns the indexes that hold the values of a key, whatever their
// names: a valid one, if there is one, and those that are not.
func (t *Table) keyIndexes(ctx context.Context, c *pgx.Conn, key string) (valid bool, invalid []index, err error) {
	rows, err := c.Query(ctx, sqlKeyIndexes, t.info.oid)
	if err != nil {
		return false, nil, err
	}
	want := canonical(t.Value(key))
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i index, err error) {
		return i, row.Scan(&i.schema, &i.name, &i.valid, &i.def)
	})
	for _, i := range all {
		switch {
		case canonical(i.def) != want:
		case i.valid:
			valid = true
		default:
			invalid = append(invalid, i)
		}
	}
	return valid, invalid, err
}

// canonical returns what two ways of writing an expression have in common:
// PostgreSQL gives an index's back with its own parentheses and casts, and
// qualifies what the search path hides. Texts keep every byte.
func canonical(expr string) string {
	var b strings.Builder
	word := func(c byte) bool {
		return c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for i := 0; i < len(expr); {
		c := expr[i]
		switch {
		case c == '\'' || c == 'E' && strings.HasPrefix(expr[i+1:], "'"):
			escapes := c == 'E'
			if escapes {
				i++
			}
			var text string
			text, i = textAt(expr, i+1, escapes)
			fmt.Fprintf(&b, "%q ", text)
		case strings.HasPrefix(expr[i:], "::"): // a cast: to its end
			for i += 2; i < len(expr) && (word(expr[i]) || expr[i] == '"' || strings.HasPrefix(expr[i:], " varying")); i++ {
				if expr[i] == ' ' {
					i += len(" varying") - 1
				}
			}
		case word(c):
			start := i
			for i < len(expr) && word(expr[i]) {
				i++
			}
			switch name := strings.ToLower(strings.TrimPrefix(expr[start:i], "pg_catalog.")); name {
			case "operator", "":
			default:
				b.WriteString(name + " ")
			}
		case strings.IndexByte(" \t\n()\"", c) >= 0:
			i++
		default: // of an operator
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

// textAt reads the text whose first byte after the quote is at i, and returns
// where it ends.
func textAt(expr string, i int, escapes bool) (text string, end int) {
	var b strings.Builder
	for ; i < len(expr); i++ {
		switch {
		case escapes && expr[i] == '\\' && i+1 < len(expr):
			i++
		case expr[i] == '\'' && strings.HasPrefix(expr[i+1:], "'"):
			i++
		case expr[i] == '\'':
			return b.String(), i + 1
		}
		b.WriteByte(expr[i])
	}
	return b.String(), i
}
