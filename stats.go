package session

// Stats are counts since the Manager was made, for a person on call.
type Stats struct {
	Loads       uint64 // records asked for
	Misses      uint64 // of these, not found: expired, destroyed or unknown
	Creates     uint64 // new sessions stored
	Saves       uint64 // existing sessions changed, renewals included
	Conflicts   uint64 // saves that met another request's and were merged
	Renewals    uint64 // IDs changed
	Touches     uint64 // expiries moved without other changes
	Destroys    uint64 // records deleted at an application's wish
	Pruned      uint64 // expired records deleted, and marks of renewed IDs
	BadCookies  uint64 // session cookies and tokens that did not verify
	StoreErrors uint64 // failures that the store reported; what it mended by itself is not among them
	Refused     uint64 // of these, refused at once because the store was down

	// ReadsDown and WritesDown say that the store is down now: it has stopped
	// answering, and all but one request at a time are refused. Only a
	// [PostgresStore] knows.
	ReadsDown, WritesDown bool

	Bound     uint64 // keys of devices registered
	Refreshed uint64 // proofs of such a key that a new bound cookie was sent for
	Unproven  uint64 // proofs that did not verify, and requests of a bound session that brought none

	EventsDropped uint64 // events that Config.OnEvent was too slow for
}

// Stats returns the counts so far. It is safe for concurrent use, and suits
// expvar.Func.
func (m *Manager) Stats() Stats {
	c := &m.engine.stats
	var readsDown, writesDown bool
	if s, ok := m.store.(interface{ down() (reads, writes bool) }); ok {
		readsDown, writesDown = s.down()
	}
	return Stats{
		Loads: c.loads.Load(), Misses: c.misses.Load(), Creates: c.creates.Load(), Saves: c.saves.Load(),
		Conflicts: c.conflicts.Load(), Renewals: c.renewals.Load(), Touches: c.touches.Load(),
		Destroys: c.destroys.Load(), Pruned: c.pruned.Load(), BadCookies: c.badCookies.Load(),
		StoreErrors: c.storeErrors.Load(), Refused: c.refused.Load(), ReadsDown: readsDown, WritesDown: writesDown,
		Bound: c.bound.Load(), Refreshed: c.refreshed.Load(), Unproven: c.unproven.Load(),
		EventsDropped: m.engine.events.count(),
	}
}
