package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgsession/session/internal/tablestats"
)

// measured is the answer of stats.
type measured struct {
	Table           string       `json:"table"`
	Live            int64        `json:"live"`
	Expired         int64        `json:"expired"`
	Marks           int64        `json:"marks"` // of renewed IDs, expired ones too
	TableBytes      int64        `json:"tableBytes"`
	IndexBytes      int64        `json:"indexBytes"`
	ToastBytes      int64        `json:"toastBytes"`
	Uncounted       bool         `json:"uncounted"` // track_counts is off, or a shard does not answer: what follows, up to lastAutovacuum, is not known
	DeadRows        int64        `json:"deadRows"`
	Updates         int64        `json:"updates"`
	HeapOnlyUpdates int64        `json:"heapOnlyUpdates"`
	LastVacuum      *time.Time   `json:"lastVacuum"`
	LastAutovacuum  *time.Time   `json:"lastAutovacuum"`
	OldestExpiry    *time.Time   `json:"oldestExpiry"`
	NewestExpiry    *time.Time   `json:"newestExpiry"`
	Expiries        []bucket     `json:"expiries"`
	Created         *creationAge `json:"created"`
}

// bucket counts the sessions that expire in FromSeconds or more and less than
// UntilSeconds; the expired have neither, the last no UntilSeconds.
type bucket struct {
	Label        string `json:"label"`
	FromSeconds  int64  `json:"fromSeconds"`
	UntilSeconds int64  `json:"untilSeconds"`
	Rows         int64  `json:"rows"`
}

// creationAge says when the live sessions were created.
type creationAge struct {
	Hours   []int64 `json:"hours"` // the last hour, the one before, …
	Days    []int64 `json:"days"`  // the last 24 hours, …
	Older   int64   `json:"older"`
	Unknown int64   `json:"unknown"`
	Share   float64 `json:"share"` // of the table that was read
}

func (a *app) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Count sessions, and measure the table",
		Long: `Count live and expired sessions, by when they expire and when they were created,
and measure the table. A million rows take some seconds.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer d.close()
			if err := d.mustBeOurs(cmd.Context()); err != nil {
				return err
			}
			s, err := tablestats.Read(cmd.Context(), d.pool, a.schema, a.table)
			if err != nil {
				return err
			}
			ages, err := tablestats.ReadAges(cmd.Context(), d.pool, a.schema, a.table)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(a.measured(&s, &ages))
			}
			return a.printStats(&s, &ages)
		},
	}
}

func (a *app) measured(s *tablestats.Stats, ages *tablestats.Ages) measured {
	m := measured{
		Table: a.name(), Live: s.Live, Expired: s.Expired, Marks: s.Marks,
		TableBytes: s.TableBytes, IndexBytes: s.IndexBytes, ToastBytes: s.ToastBytes,
		Uncounted: s.Uncounted, DeadRows: s.DeadRows, Updates: s.Updates, HeapOnlyUpdates: s.HeapOnlyUpdates,
		LastVacuum: moment(s.LastVacuum), LastAutovacuum: moment(s.LastAutovacuum),
		OldestExpiry: moment(s.OldestExpiry), NewestExpiry: moment(s.NewestExpiry),
		Created: &creationAge{ages.Hours[:], ages.Days[:], ages.Older, ages.Unknown, ages.Share},
	}
	for _, e := range s.Expiries {
		m.Expiries = append(m.Expiries, bucket{e.Label, int64(e.From.Seconds()), int64(e.Until.Seconds()), e.Rows})
	}
	return m
}

func (a *app) printStats(s *tablestats.Stats, ages *tablestats.Ages) error {
	heapOnly, dead, vacuums := "-", number(s.DeadRows), instant(s.LastVacuum)+", "+instant(s.LastAutovacuum)
	if s.Uncounted {
		dead, vacuums = "not known: track_counts is off, or a shard does not answer", "not known"
	} else if share, ok := s.HeapOnlyShare(); ok {
		heapOnly = fmt.Sprintf("%.0f%% of %s updates", 100*share, number(s.Updates))
	}
	rows := [][]string{
		{"table", a.name()},
		{"live sessions", number(s.Live)},
		{"expired, not pruned yet", number(s.Expired)},
		{"marks of renewed IDs", number(s.Marks)},
		{"oldest, newest expiry", instant(s.OldestExpiry) + ", " + instant(s.NewestExpiry)},
		{"rows, indexes, out of line", bytes(s.TableBytes) + ", " + bytes(s.IndexBytes) + ", " + bytes(s.ToastBytes)},
		{"dead row versions", dead},
		{"updates that left the indexes alone", heapOnly},
		{"last vacuum, autovacuum", vacuums},
		{""},
		{"EXPIRE IN", "SESSIONS"},
	}
	var most int64 = 1
	for _, e := range s.Expiries {
		most = max(most, e.Rows)
	}
	for _, e := range s.Expiries {
		rows = append(rows, []string{e.Label, number(e.Rows) + "\t" + barOf(e.Rows, most)})
	}
	rows = append(rows, []string{""}, []string{"CREATED", "LIVE SESSIONS"})
	var week, month int64
	for i, n := range ages.Days {
		if i < 7 {
			week += n
		}
		month += n
	}
	for _, age := range []struct {
		label string
		n     int64
	}{
		{"in the last hour", ages.Hours[0]},
		{"in the last 24 hours", ages.Days[0]},
		{"in the last 7 days", week},
		{"in the last 30 days", month},
		{"before", ages.Older},
		{"not known (by Express)", ages.Unknown},
	} {
		rows = append(rows, []string{age.label, number(age.n)})
	}
	if ages.Share < 1 {
		rows = append(rows, []string{fmt.Sprintf("(estimated from %.1f%% of the table)", 100*ages.Share)})
	}
	return a.printTable(rows)
}

// barOf draws n beside the most.
func barOf(n, most int64) string {
	const width = 40
	length := int(n * width / most)
	if n > 0 {
		length = max(length, 1)
	}
	return strings.Repeat("▇", length)
}
