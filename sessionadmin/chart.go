package sessionadmin

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/tablestats"
)

// Charts have no width of their own: across they are measured in percent, so that
// they fit a telephone with letters of the same size, and down in pixels.

// chart is a picture and what it says in words.
type chart struct {
	Name, Title string
	Text        string  // what there is to see
	Unit        string  // what is counted
	Height      float64 // with the labels below
	Grid        []mark  // lines across, labelled at their left
	Ticks       []mark  // labels below
	Bars        []bar
	Before      float64    // percent of the width that nothing is known of
	Since       string     // when what is known begins, if that is inside
	Said        string     // where there is nothing to draw
	Head        []string   // the same as a table
	Rows        [][]string // of it
}

type mark struct {
	At    float64 // percent across, or pixels down
	Label string
	End   string // start, middle or end of the label is there
}

type bar struct {
	X, Y, W, H float64
	Class, Tip string
}

const (
	plotHeight = 190.0
	plotTop    = 8.0
	below      = 24.0 // room for labels
)

// columns is a chart of upright bars, up from zero and down from it.
type columns struct {
	up, down []stack
	labels   []string // of the bins, for tips and the table
}

// stack is one of the quantities in a bin.
type stack struct {
	name, class string
	values      []float64
}

// draw scales the columns and lays them out.
func (c *columns) draw(ch *chart) {
	bins := len(c.labels)
	most := func(stacks []stack) (most float64) {
		for i := range bins {
			sum := 0.0
			for _, s := range stacks {
				sum += s.values[i]
			}
			most = max(most, sum)
		}
		return most
	}
	up, down := most(c.up), most(c.down)
	step := nice((up + down) / 3)
	up = max(up, 1)
	scale := (plotHeight - plotTop) / (up + down)
	zero := plotTop + up*scale
	for v := -math.Floor(down/step) * step; v <= up; v += step {
		ch.Grid = append(ch.Grid, mark{At: round(zero - v*scale), Label: short(math.Abs(v))})
	}
	ch.Height = plotHeight + below
	width := 100 / float64(bins)
	for i := range bins {
		for side, stacks := range [][]stack{c.up, c.down} {
			at := 0.0
			for _, s := range stacks {
				v := s.values[i]
				if v == 0 {
					continue
				}
				y := zero - (at+v)*scale
				if side == 1 {
					y = zero + at*scale
				}
				at += v
				ch.Bars = append(ch.Bars, bar{
					X: round((float64(i) + 0.12) * width), W: round(0.76 * width), Y: round(y), H: round(max(v*scale, 1)),
					Class: s.class, Tip: c.labels[i] + ": " + group(int64(v)) + " " + s.name,
				})
			}
		}
	}
	c.table(ch)
}

// table says the same in rows.
func (c *columns) table(ch *chart) {
	stacks := append(append([]stack{}, c.up...), c.down...)
	for _, s := range stacks {
		ch.Head = append(ch.Head, s.name)
	}
	for i, label := range c.labels {
		row := []string{label}
		for _, s := range stacks {
			row = append(row, group(int64(s.values[i])))
		}
		ch.Rows = append(ch.Rows, row)
	}
}

// flowChart shows sessions created and ended, and rows pruned, as this process has
// counted them.
func flowChart(s series) chart {
	floats := func(of func(session.Stats) uint64) []float64 {
		var f []float64
		for _, n := range s.each(of) {
			f = append(f, float64(n))
		}
		return f
	}
	total := func(of func(session.Stats) uint64) int64 { return int64(min(s.total(of), math.MaxInt64)) }
	created := func(s session.Stats) uint64 { return s.Creates }
	ended := func(s session.Stats) uint64 { return s.Destroys }
	pruned := func(s session.Stats) uint64 { return s.Pruned }
	ch := chart{
		Name: "flow", Title: "Created and ended", Unit: "sessions created, sessions ended, and rows pruned, per " + s.Per + ", by UTC",
		Text: fmt.Sprintf("In the last %s this process created %s, ended %s, and pruned %s.", s.Text,
			plural(total(created), "session", "sessions"), group(s.total(ended)),
			plural(total(pruned), "expired record or mark of a renewed ID", "expired records and marks of renewed IDs")),
		Head: []string{"From, UTC"},
	}
	c := columns{
		up:   []stack{{"created", "created", floats(created)}},
		down: []stack{{"ended", "ended", floats(ended)}, {"expired records and marks, pruned", "pruned", floats(pruned)}},
	}
	every := map[time.Duration]time.Duration{time.Minute: 10 * time.Minute, 5 * time.Minute: time.Hour, 30 * time.Minute: 4 * time.Hour}[s.bin]
	for i, at := range s.At {
		at = at.UTC()
		c.labels = append(c.labels, at.Format("15:04"))
		x := round(100 * float64(i) / float64(s.bins))
		if at.Truncate(every).Equal(at) && x > 4 && x < 96 {
			ch.Ticks = append(ch.Ticks, mark{x, at.Format("15:04"), "middle"})
		}
		if at.Add(s.bin).Before(s.Began) {
			ch.Before = round(100 * float64(i+1) / float64(s.bins))
		}
	}
	c.draw(&ch)
	if ch.Before > 0 {
		ch.Since = s.Began.UTC().Format("15:04")
	}
	if len(ch.Bars) == 0 {
		ch.Said = "Nothing was created or ended"
	}
	return ch
}

// ageChart shows when the live sessions began, by the table.
func ageChart(a *tablestats.Ages) chart {
	ch := chart{Name: "ages", Title: "When the live sessions began", Unit: "live sessions by day", Head: []string{"Began"}}
	c := columns{up: []stack{{"live sessions", "live", nil}}}
	sum := int64(0)
	for i := range a.Days {
		day := len(a.Days) - 1 - i
		label := "last 24 h"
		if day > 0 {
			label = fmt.Sprintf("%d–%d h ago", 24*day, 24*(day+1))
		}
		if day > 2 {
			label = fmt.Sprintf("%d–%d days ago", day, day+1)
		}
		c.labels = append(c.labels, label)
		c.up[0].values = append(c.up[0].values, float64(a.Days[day]))
		sum += a.Days[day]
	}
	ch.Ticks = []mark{{0, "30 days ago", "start"}, {33.33, "20", "middle"}, {66.67, "10", "middle"}, {100, "now", "end"}}
	c.draw(&ch)
	ch.Text = fmt.Sprintf("%s of the live sessions began in the last 24 hours, %s in the last 30 days.", group(a.Days[0]), group(sum))
	if sum+a.Older+a.Unknown == 0 {
		ch.Text = "There is no live session."
	}
	if a.Older > 0 {
		ch.Text += fmt.Sprintf(" %s older.", plural(a.Older, "is", "are"))
	}
	if a.Unknown > 0 {
		ch.Text += fmt.Sprintf(" Express made %s, when is not known.", group(a.Unknown))
	}
	if a.Share < 1 {
		ch.Text += fmt.Sprintf(" Estimated from %.2g %% of the table.", 100*a.Share)
	}
	if len(ch.Bars) == 0 {
		ch.Said = "No live session began in these days"
	}
	return ch
}

// expiryChart shows in how long the rows expire.
func expiryChart(s *tablestats.Stats) chart {
	const line = 26.0
	ch := chart{
		Name: "expiries", Title: "Time left", Unit: "records by the time until they expire",
		Head: []string{"Time left", "records"},
	}
	most, hour := int64(1), int64(0)
	for _, e := range s.Expiries {
		most = max(most, e.Rows)
		if e.Until > 0 && e.Until <= time.Hour {
			hour += e.Rows
		}
	}
	for i, e := range s.Expiries {
		class := "live"
		if e.Until == 0 && e.From == 0 {
			class = "expired"
		}
		width := 62 * float64(e.Rows) / float64(most)
		if e.Rows > 0 {
			width = max(width, 0.5)
		}
		y := float64(i) * line
		ch.Bars = append(ch.Bars, bar{W: round(width), Y: y + 4, H: line - 8, Class: class, Tip: group(e.Rows)})
		ch.Ticks = append(ch.Ticks, mark{At: y + line/2, Label: e.Label})
		ch.Rows = append(ch.Rows, []string{e.Label, group(e.Rows)})
	}
	ch.Height = line * float64(len(s.Expiries))
	switch {
	case s.Live == 0:
		ch.Text = "There is no live session."
	case s.Live == 1 && hour == 1:
		ch.Text = "If nobody uses it, the one live session expires within the hour."
	case s.Live == 1:
		ch.Text = "The one live session expires later than in an hour."
	default:
		ch.Text = fmt.Sprintf("If nobody uses them, %s of %s live sessions expire within the hour.", group(hour), group(s.Live))
	}
	if s.Expired > 0 {
		ch.Text += fmt.Sprintf(" %s expired.", plural(s.Expired, "has", "have"))
	}
	return ch
}

// spark is a line without axes, 100 wide and 24 high.
func spark(values []uint64) (line, area string) {
	most := uint64(1)
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for i, v := range values {
		x := 100 * float64(i) / float64(max(len(values)-1, 1))
		fmt.Fprintf(&b, " L%.2f,%.2f", x, 22-20*float64(v)/float64(most))
	}
	points := strings.TrimPrefix(b.String(), " L")
	return "M" + points, "M0,24 L" + points + " L100,24 Z"
}

// nice rounds down to 1, 2 or 5 times a power of ten, at least 1.
func nice(step float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(step, 1))))
	for _, m := range []float64{5, 2} {
		if m*power <= step {
			return m * power
		}
	}
	return power
}

func round(v float64) float64 { return math.Round(100*v) / 100 }
