package session

import "context"

// near reports whether a new ID is where that of a renewal should be: in the shard of
// the old one, or the renewal would have to commit on two workers. A worker that dies
// between the two phases leaves the session without a row for as long as Citus takes
// to find out.
func (s *PostgresStore) near(ctx context.Context, old string) func(id string) bool {
	if !s.table.Distributed {
		return nil
	}
	if s.shards.old() {
		s.warnShards(s.shards.read(ctx, s.table))
	}
	return s.nearKnown(old)
}

func (s *PostgresStore) warnShards(err error) {
	if err != nil {
		s.opts.Logger.Warn("session: the shards could not be read, and are taken for what they were", "error", err)
	}
}

// nearKnown is near by the shards as they were last read.
func (s *PostgresStore) nearKnown(old string) func(id string) bool {
	if !s.table.Distributed {
		return nil
	}
	ranges := s.shards.ranges.Load()
	of := ranges.Of(s.sid(old))
	return func(id string) bool { return ranges.Of(s.sid(id)) == of }
}
