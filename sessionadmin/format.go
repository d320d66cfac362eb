package sessionadmin

import (
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgsession/session"
)

var functions = template.FuncMap{
	"group": group[int64], "groupu": group[uint64], "bytes": sizeText, "share": share,
	"stamp": stamp, "ago": func(t time.Time) string { return ago(t, time.Now()) }, "machine": machine,
	"plural": plural, "pieces": pieces, "escaped": url.QueryEscape, "holder": holder,
	"past":     past,
	"isHandle": handlePattern.MatchString,
	"len64":    func(list []session.Info) int64 { return int64(len(list)) },
	"sum":      func(a, b int64) int64 { return a + b },
}

// group writes a number with its digits in threes.
func group[T int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// short writes a number of an axis.
func short(v float64) string {
	for _, u := range []struct {
		size float64
		unit string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return strconv.FormatFloat(v/u.size, 'g', 3, 64) + u.unit
		}
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// sizeText writes a number of bytes.
func sizeText(n int64) string {
	v, units := float64(n), []string{"bytes", "KB", "MB", "GB", "TB"}
	for v >= 1000 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if v < 10 && units[0] != "bytes" {
		return fmt.Sprintf("%.1f %s", v, units[0])
	}
	return fmt.Sprintf("%.0f %s", v, units[0])
}

// share writes a part of a whole in percent: never 0 % or 100 % of what is not
// nothing or all.
func share(part, whole int64) string {
	if whole == 0 {
		return "–"
	}
	p := 100 * float64(part) / float64(whole)
	switch {
	case part > 0 && p < 0.1:
		return "< 0.1 %"
	case part < whole && p > 99.9:
		return "> 99.9 %"
	case p > 0 && p < 10 || p > 99 && p < 100:
		return fmt.Sprintf("%.1f %%", p)
	}
	return fmt.Sprintf("%.0f %%", p)
}

// stamp writes a time for people.
func stamp(t time.Time) string {
	t = t.UTC()
	if t.Year() != time.Now().UTC().Year() {
		return t.Format("2 Jan 2006, 15:04")
	}
	return t.Format("2 Jan, 15:04")
}

func machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ago says how far a time is from now.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	text := lasting(d.Abs())
	switch {
	case d.Abs() < time.Second:
		return "just now"
	case d < 0:
		return "in " + text
	}
	return text + " ago"
}

// lasting rounds a duration down to one unit.
func lasting(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		size time.Duration
		unit string
		from time.Duration
	}{{day, "days", 2 * day}, {time.Hour, "h", time.Hour}, {time.Minute, "min", time.Minute}, {time.Second, "s", 0}} {
		if d >= u.from {
			return fmt.Sprintf("%d %s", int64(math.Floor(float64(d)/float64(u.size))), u.unit)
		}
	}
	return ""
}

// plural writes a number and what it counts.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(n) + " " + many
}

// past leaves out a time that is to come: what was last seen then has an expiry
// that somebody else has set.
func past(t time.Time) time.Time {
	if time.Until(t) > time.Minute {
		return time.Time{}
	}
	return t
}

// piece is a part of a value: text, or the sign for what nobody would see.
type piece struct {
	Text, Sign string
}

// longestShown is how many bytes of a value a page shows.
const longestShown = 240

// pieces splits a value so that a page can show all of it: spaces at its ends,
// control characters, and what turns the direction of the text behind it.
func pieces(s string) (all []piece) {
	whole := len(s)
	if whole > longestShown {
		s = strings.ToValidUTF8(s[:longestShown], "")
	}
	first := len(s) - len(strings.TrimLeftFunc(s, unicode.IsSpace))
	last := len(strings.TrimRightFunc(s, unicode.IsSpace))
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		atEnd := unicode.IsSpace(r) && (i < first || i >= last)
		switch {
		case r == utf8.RuneError && size == 1:
			all = append(all, piece{Sign: fmt.Sprintf("byte %02X", s[i])})
		case r == ' ' && atEnd:
			all = append(all, piece{Sign: "␣"})
		case r != ' ' && unicode.IsSpace(r), unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			all = append(all, piece{Sign: fmt.Sprintf("U+%04X", r)})
		case len(all) > 0 && all[len(all)-1].Sign == "":
			all[len(all)-1].Text += s[i : i+size]
		default:
			all = append(all, piece{Text: s[i : i+size]})
		}
		i += size
	}
	if whole > longestShown {
		all = append(all, piece{Sign: "… " + group(int64(whole)) + " bytes"})
	}
	return all
}

// holder says what the client of a session holds.
func holder(i session.Info) string {
	// Every record that can be read has a cookie object, a token's too.
	_, readable := session.Key[any]("cookie").Of(i)
	switch {
	case i.Token:
		return "a token"
	case i.Bound:
		return "a cookie, bound to its device"
	case readable:
		return "a cookie"
	}
	return ""
}
