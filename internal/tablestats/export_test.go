package tablestats

// SetSampleBytes changes how much of a table ReadAges reads.
func SetSampleBytes(n float64) (undo func()) {
	old := sampleBytes
	sampleBytes = n
	return func() { sampleBytes = old }
}
