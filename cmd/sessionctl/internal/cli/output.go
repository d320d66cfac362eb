package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// printJSON prints a value as the command's answer.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable prints rows of cells, aligned.
func (a *app) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// say prints a line for people.
func (a *app) say(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.Out, format+"\n", args...)
	}
}

// note says something beside the answer, on standard error.
func (a *app) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if a.json {
		_ = json.NewEncoder(a.Err).Encode(map[string]string{"note": text})
		return
	}
	fmt.Fprintln(a.Err, text)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colours of a terminal. They are equally long, so that columns stay aligned.
const (
	plain  = "\x1b[39m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	blue   = "\x1b[36m"
)

// colour colours text on a terminal whose user has not asked for none
// (https://no-color.org).
func (a *app) colour(colour, text string) string {
	if !isTerminal(a.Out) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return colour + text + plain
}

// number writes thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes a number and what it counts.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// narrow reports whether the answer goes to a terminal of less than so many columns.
func (a *app) narrow(wide int) bool {
	f, ok := a.Out.(*os.File)
	if !ok {
		return false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return err == nil && width > 0 && width < wide
}

func bytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d kB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/(1<<20))
}

// instant is a time for people, to the second.
func instant(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// moment is a time for JSON, null for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

// progress says how far a long command is, on its standard error: a bar on a
// terminal, else a line for each tenth.
type progress struct {
	w           io.Writer
	verb        string
	total, said int64
	bar         *progressbar.ProgressBar
}

func (a *app) progress(verb string, total int64) *progress {
	p := &progress{w: a.Err, verb: verb, total: total}
	if isTerminal(a.Err) && total > 0 {
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(a.Err), progressbar.OptionSetDescription(verb),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(50*time.Millisecond),
			progressbar.OptionUseANSICodes(false), progressbar.OptionSetWidth(30), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetElapsedTime(false))
	}
	return p
}

// set says that done is done. More than the total may be: others go on making
// work.
func (p *progress) set(done int64) {
	switch {
	case p.bar != nil:
		_ = p.bar.Set64(min(done, p.total)) // a terminal that has gone is no reason to stop
	case p.total > 0 && done >= p.said+max(p.total/10, 1):
		p.said = done
		fmt.Fprintf(p.w, "%s %s of %s\n", p.verb, number(done), number(max(done, p.total)))
	}
}

// end leaves the bar as it is and goes to a line of its own.
func (p *progress) end() {
	if p.bar != nil {
		fmt.Fprintln(p.w)
	}
}
