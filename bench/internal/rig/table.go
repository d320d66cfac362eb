package rig

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Table is a Markdown table. The first column is text, the others are figures.
type Table struct {
	Head []string
	Rows [][]string
}

// Add adds a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// String returns the table, its columns aligned.
func (t *Table) String() string {
	width := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)), 3)
		}
	}
	var s strings.Builder
	line := func(row []string) {
		for i := range t.Head {
			c := ""
			if i < len(row) {
				c = row[i]
			}
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i > 0 {
				c = pad + c
			} else {
				c += pad
			}
			s.WriteString("| " + c + " ")
		}
		s.WriteString("|\n")
	}
	line(t.Head)
	for i, w := range width {
		rule := strings.Repeat("-", w+2)
		if i > 0 {
			rule = rule[1:] + ":"
		}
		s.WriteString("|" + rule)
	}
	s.WriteString("|\n")
	for _, row := range t.Rows {
		line(row)
	}
	return s.String()
}

// Int writes a figure with commas: 12,345.
func Int(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	s := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v < 0 && s != "0" {
		s = "-" + s
	}
	return s
}

// Fixed writes a figure with so many digits after the point.
func Fixed(v float64, digits int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// Ms writes a duration as milliseconds, with three significant digits.
func Ms(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 100:
		return Fixed(ms, 0)
	case ms >= 10:
		return Fixed(ms, 1)
	}
	return Fixed(ms, 2)
}

// Milliseconds returns a duration as a figure.
func Milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// Microseconds returns a duration as a figure.
func Microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// MedianOf returns the median of a figure of each of all, NaN if there are none.
func MedianOf[T any](all []T, figure func(T) float64) float64 {
	var v []float64
	for _, one := range all {
		v = append(v, figure(one))
	}
	return Median(v)
}

// Median returns the middle of values, NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
