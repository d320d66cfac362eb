package main

import (
	"fmt"

	"github.com/pgsession/session/bench/internal/rig"
)

func (r *Report) table(open bool) string {
	t := rig.Table{Head: []string{"record"}}
	figures := []struct {
		name   string
		format func(*Cell) string
	}{
		{"heap-only", func(c *Cell) string { return rig.Int(100*rig.Median(c.HeapOnly)) + " %" }},
		{"log a save, bytes", func(c *Cell) string { return rig.Int(rig.Median(c.WAL)) }},
		{"PostgreSQL's CPU a save, µs", func(c *Cell) string { return rig.Int(rig.Median(c.CPU)) }},
		{"table MB at first", func(c *Cell) string { return rig.Fixed(rig.Median(c.Before)/1e6, 2) }},
		{"table MB at last", func(c *Cell) string { return rig.Fixed(rig.Median(c.TableBytes)/1e6, 2) }},
	}
	seen := make(map[int]bool)
	var kinds []kind
	for _, c := range r.Cells {
		if !seen[c.Factor] {
			seen[c.Factor] = true
			t.Head = append(t.Head, fmt.Sprint(c.Factor))
		}
		if len(kinds) == 0 || kinds[len(kinds)-1] != c.Kind {
			kinds = append(kinds, c.Kind)
		}
	}
	done := make(map[kind]bool)
	for _, k := range kinds {
		if done[k] {
			continue
		}
		done[k] = true
		for _, f := range figures {
			row := []string{k.String() + ": " + f.name}
			for _, c := range r.Cells {
				if c.Kind == k && c.Open == open {
					row = append(row, f.format(c))
				}
			}
			t.Add(row...)
		}
	}
	return t.String()
}

func (r *Report) part() string {
	return fmt.Sprintf("%s sessions, each saved %d times by `Key.Update` in an order of chance, 32 at once; columns are fillfactors. PostgreSQL %s, %s.\n\n%s\n"+
		"Beside a transaction that stays open while %d %% of the sessions are saved, then the next:\n\n%s",
		rig.Int(float64(r.Rows)), r.Saves, r.Postgres, r.Date(), r.table(false), r.Held, r.table(true))
}

// Output implements [rig.Reporter].
func (r *Report) Output() rig.Output {
	return rig.Output{
		Name: "fillfactor", Title: "Room in the pages", Text: r.part(),
		Parts: map[string]string{"fillfactor": r.part()},
	}
}
