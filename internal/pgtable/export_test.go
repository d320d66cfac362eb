package pgtable

import "time"

// SetPatience sets how long a start waits for others where indexes are made.
func (t *Table) SetPatience(d time.Duration) { t.patience = d }

// Canonical is canonical.
var Canonical = canonical
