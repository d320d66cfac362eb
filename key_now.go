package session

import (
	"context"
	"reflect"
)

// UpdateNow is [Key.Update] and [Session.Save] in one, and returns the value that is
// stored: for numbers that must be final when they are used, such as that of an
// invoice. What [Key.Get] says after Update is not: f runs again at the commit where
// another request got there first, and two requests would both have drawn 5. Each call
// of UpdateNow gets a number of its own, whatever request, goroutine or program it is of.
//
// f may run several times, and its last result need not be what is stored; so it
// must depend on its argument alone and do nothing but compute. What is returned is
// what was stored in any case. An error says that nothing is known to be stored: a
// number may have been drawn all the same ([ErrUncertain], or ctx has ended), and is
// then a gap, for nobody else gets it.
//
// Whatever else the request has changed is saved with it, a session without a record
// is created, and errors are those of Save: they stick, ctx bounds only the wait. After
// [Session.Detach], and in a function of Update, it is an error: [ErrInvalid].
func (k Key[T]) UpdateNow(ctx context.Context, s *Session, f func(T) T) (value T, err error) {
	var now stored // not looked at where ctx ends first
	err = s.await(ctx, "UpdateNow", func() error {
		s.lockLoaded(use{"UpdateNow", string(k)})
		s.mu.Unlock()
		// No other commit of the request in between: it would carry this change too,
		// and two goroutines would be told of one value.
		if err := s.lockSaving(); err != nil {
			return err
		}
		defer s.unlockSaving()
		k.Update(s, f)
		n := stored{key: string(k)}
		if err := s.commitSaving(moment{early: true, now: &n}); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case !n.known && s.err != nil:
			return s.err
		case !n.known:
			return invalid("UpdateNow", "nothing is saved after Detach, nor in an error handler")
		case s.rec == nil:
			return &opError{"UpdateNow", ErrDestroyed} // by another goroutine of the request
		}
		now = n
		return nil
	})
	if err != nil {
		return value, err
	}
	value, _, err = decode[T](now.value)
	if err != nil {
		return value, invalid(k.op(), "UpdateNow of a %v that does not decode as what it was encoded from", reflect.TypeFor[T]())
	}
	return value, nil
}
