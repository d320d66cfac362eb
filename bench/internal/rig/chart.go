package rig

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// chartStyle keeps charts readable on light and dark pages: a card of its own, with
// the colours of the browser's scheme.
const chartStyle = `<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.card { fill: #ffffff; stroke: #d8dee4 }
.title { font-size: 16px; font-weight: 600 }
.sub, .axis { fill: #59636e; font-size: 12px }
.value { font-weight: 600 }
.grid { stroke: #e6eaef }
.bar { fill: #aab4bf }
.limit { fill: #ffffff; stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 4 3 }
.ours { fill: #1f7a8c }
.oursText { fill: #12606f; font-weight: 600 }
.line { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round }
.c0 { stroke: #1f7a8c } .c1 { stroke: #6e7781 } .c2 { stroke: #d1495b } .c3 { stroke: #8959c7 } .c4 { stroke: #b7791f } .c5 { stroke: #4a7dd6 } .c6 { stroke: #b0578d }
.f0 { fill: #1f7a8c } .f1 { fill: #6e7781 } .f2 { fill: #d1495b } .f3 { fill: #8959c7 } .f4 { fill: #b7791f } .f5 { fill: #4a7dd6 } .f6 { fill: #b0578d }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.card { fill: #0d1117; stroke: #30363d }
.sub, .axis { fill: #9198a1 }
.grid { stroke: #21262d }
.bar { fill: #57606a }
.limit { fill: #0d1117; stroke: #8b949e }
.ours { fill: #35a7bd }
.oursText { fill: #6cd0e2 }
.c0 { stroke: #45b8ce } .c1 { stroke: #9198a1 } .c2 { stroke: #f0808f } .c3 { stroke: #b794f4 } .c4 { stroke: #e0aa4e } .c5 { stroke: #79a7f5 } .c6 { stroke: #e08fc1 }
.f0 { fill: #45b8ce } .f1 { fill: #9198a1 } .f2 { fill: #f0808f } .f3 { fill: #b794f4 } .f4 { fill: #e0aa4e } .f5 { fill: #79a7f5 } .f6 { fill: #e08fc1 }
}
</style>`

const (
	chartWidth  = 760
	chartMargin = 24
	chartHead   = 72 // above the drawing
)

// Bar is one bar of a BarChart.
type Bar struct {
	Label string
	Value float64
	Text  string // the value as people read it, and what it means
	Ours  bool
	Limit bool // drawn as an outline: no competitor, but a limit
}

// BarChart returns an SVG of horizontal bars, in their order.
func BarChart(title, subtitle string, bars []Bar) string {
	const (
		row, thick = 30, 18
		left       = 250
		right      = 150 // room for a value beside the longest bar
	)
	height := chartHead + row*len(bars) + chartMargin
	top := 0.0
	for _, b := range bars {
		top = max(top, b.Value)
	}
	var s strings.Builder
	chartOpen(&s, title, subtitle, height)
	for i, b := range bars {
		y := chartHead + i*row
		width := 0.0
		if top > 0 {
			width = b.Value / top * (chartWidth - left - right)
		}
		width = max(width, 2)
		class, text := "bar", ""
		switch {
		case b.Ours:
			class, text = "ours", ` class="oursText"`
		case b.Limit:
			class = "limit"
		}
		mid := y + thick/2 + 5
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end"%s>%s</text>`+"\n", left-12, mid, text, html.EscapeString(b.Label))
		fmt.Fprintf(&s, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="3"/>`+"\n", class, left, y, width, thick)
		value, note, _ := strings.Cut(b.Text, "|")
		fmt.Fprintf(&s, `<text x="%.1f" y="%d"><tspan class="value">%s</tspan>`, left+width+10, mid, html.EscapeString(value))
		if note != "" {
			fmt.Fprintf(&s, `<tspan class="sub" dx="7">%s</tspan>`, html.EscapeString(note))
		}
		s.WriteString("</text>\n")
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// Series is one line of a LineChart.
type Series struct {
	Label  string
	Values []float64 // one for each step; NaN: none
	Colour int       // 0 is this library's
}

// LineChart returns an SVG of lines over named steps. log draws the values on a
// logarithmic scale; format writes those on the axis.
func LineChart(title, subtitle string, steps []string, series []Series, log bool, format func(float64) string) string {
	const (
		plot  = 250
		left  = 78
		right = 232 // room for the lines' names
	)
	height := chartHead + plot + 52
	var s strings.Builder
	chartOpen(&s, title, subtitle, height)
	scale := newScale(series, log)
	x := func(i int) float64 {
		if len(steps) < 2 {
			return left
		}
		return left + float64(i)*float64(chartWidth-left-right)/float64(len(steps)-1)
	}
	y := func(v float64) float64 { return chartHead + plot - scale.at(v)*plot }
	for _, tick := range scale.ticks {
		fmt.Fprintf(&s, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+"\n", left, chartWidth-right, y(tick), y(tick))
		fmt.Fprintf(&s, `<text class="axis" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-10, y(tick)+4, html.EscapeString(format(tick)))
	}
	for i, step := range steps {
		fmt.Fprintf(&s, `<text class="axis" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(i), chartHead+plot+22, html.EscapeString(step))
	}
	names := chartNames(series, y)
	for i := range slices.Backward(series) { // ours last, on top
		chartLine(&s, series[i], x, y, names[i], chartWidth-right+12)
	}
	s.WriteString("</svg>\n")
	return s.String()
}

func chartOpen(s *strings.Builder, title, subtitle string, height int) {
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n",
		chartWidth, height, chartWidth, height, html.EscapeString(title))
	fmt.Fprintf(s, "<title>%s</title>\n%s\n", html.EscapeString(title), chartStyle)
	fmt.Fprintf(s, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="10"/>`+"\n", chartWidth-1, height-1)
	fmt.Fprintf(s, `<text class="title" x="%d" y="32">%s</text>`+"\n", chartMargin, html.EscapeString(title))
	fmt.Fprintf(s, `<text class="sub" x="%d" y="52">%s</text>`+"\n", chartMargin, html.EscapeString(subtitle))
}

func chartLine(s *strings.Builder, l Series, x func(int) float64, y func(float64) float64, name float64, nameX int) {
	var path strings.Builder
	verb := "M"
	for i, v := range l.Values {
		if math.IsNaN(v) {
			verb = "M"
			continue
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, x(i), y(v))
		verb = "L"
	}
	fmt.Fprintf(s, `<path class="line c%d" d="%s"/>`+"\n", l.Colour, path.String())
	for i, v := range l.Values {
		if !math.IsNaN(v) {
			fmt.Fprintf(s, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n", l.Colour, x(i), y(v))
		}
	}
	weight := ""
	if l.Colour == 0 {
		weight = ` class="oursText"`
	}
	fmt.Fprintf(s, `<circle class="f%d" cx="%d" cy="%.1f" r="3.5"/><text x="%d" y="%.1f"%s>%s</text>`+"\n",
		l.Colour, nameX, name, nameX+9, name+4, weight, html.EscapeString(l.Label))
}

// chartNames returns the height of each line's name: beside its end, but not over
// another.
func chartNames(series []Series, y func(float64) float64) []float64 {
	const gap = 17
	at := make([]float64, len(series))
	order := make([]int, len(series))
	for i, l := range series {
		order[i], at[i] = i, chartHead
		for _, v := range l.Values {
			if !math.IsNaN(v) {
				at[i] = y(v) // the last
			}
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, at[a]-at[b])) })
	for i := 1; i < len(order); i++ {
		at[order[i]] = max(at[order[i]], at[order[i-1]]+gap)
	}
	return at
}

// scale is the vertical axis.
type scale struct {
	low, high float64
	log       bool
	ticks     []float64
}

func newScale(series []Series, log bool) scale {
	low, high := math.Inf(1), 0.0
	for _, l := range series {
		for _, v := range l.Values {
			if !math.IsNaN(v) && v > 0 {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if high == 0 {
		return scale{high: 1, ticks: []float64{0, 1}}
	}
	if log {
		s := scale{log: true, low: math.Pow(10, math.Floor(math.Log10(low))), high: math.Pow(10, math.Ceil(math.Log10(high)))}
		if s.high <= s.low {
			s.high = s.low * 10
		}
		for t := s.low; t <= s.high*1.001; t *= 10 {
			s.ticks = append(s.ticks, t)
		}
		return s
	}
	step := math.Pow(10, math.Floor(math.Log10(high/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if high/(step*m) <= 5 {
			step *= m
			break
		}
	}
	s := scale{high: math.Ceil(high/step) * step}
	for t := 0.0; t <= s.high+step/2; t += step {
		s.ticks = append(s.ticks, t)
	}
	return s
}

// at returns where v is, from 0 to 1.
func (s scale) at(v float64) float64 {
	if s.log {
		return (math.Log10(max(v, s.low)) - math.Log10(s.low)) / (math.Log10(s.high) - math.Log10(s.low))
	}
	return v / s.high
}
