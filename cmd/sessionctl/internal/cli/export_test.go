package cli

import "time"

// SetSlice changes how long the library prunes between two words about progress.
func SetSlice(d time.Duration) (undo func()) {
	was := slice
	slice = d
	return func() { slice = was }
}
