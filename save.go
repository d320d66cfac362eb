package session

import (
	"context"
	"errors"
)

// Save commits now what would be committed at the first byte of the response:
// for long streams, or to handle a failure oneself. It returns [Session.Err];
// the response is still the error handler's if the header has not been sent, and
// cut off at its end if it has. A cookie that becomes due is sent with the header.
// In a function of [Key.Update] it is an error: [ErrInvalid]. So it is where the
// handler has panicked and left changes behind: [ErrFinished].
//
// ctx bounds only the wait: when it ends Save returns its error and the commit
// goes on, bounded by [Config.StoreTimeout].
func (s *Session) Save(ctx context.Context) error {
	return s.await(ctx, "Save", func() error {
		if err := s.saveTooLate(); err != nil {
			return err
		}
		return s.commit(moment{early: true})
	})
}

// await calls f, which saves, and returns when it or ctx has ended. f goes on then.
func (s *Session) await(ctx context.Context, op string, f func() error) error {
	if err := s.declineSave(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return f()
	}
	s.mu.Lock()
	refused := s.mayNotSaveLocked()
	err := s.err
	s.mu.Unlock()
	if refused {
		return err
	}
	type result struct {
		err      error
		panicked any
	}
	done := make(chan result, 1)
	go func() {
		res := result{err: errPanic}
		defer func() {
			res.panicked = recover() // or it would end the program
			done <- res
		}()
		res.err = f()
	}()
	select {
	case res := <-done:
		if res.panicked != nil {
			panic(res.panicked)
		}
		return res.err
	case <-ctx.Done():
		return &opError{op, context.Cause(ctx)}
	}
}

// declineSave is declineLocked for Save, which says so at once.
func (s *Session) declineSave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.response < refused && s.declineLocked() {
		return s.err
	}
	return nil
}

// Reload fetches the record again, keeping changes that are not committed yet:
// for streams and sockets that outlive other requests. It returns
// [ErrDestroyed] if the session has ended meanwhile, [ErrRenewed] (which is one)
// if it was renewed; from then on it is empty and refuses changes. A response that
// has begun may then end as usual, unless a change was lost: one that was not
// saved yet, or one that came after Reload. Any other error leaves the session as
// it was and does not stick. Functions of [Key.Update] run again. Reload does not
// extend the session's life; a commit does. Without a record it does nothing.
//
// ctx bounds the load, besides [Config.StoreTimeout]; a commit of this request
// that is under way comes first.
func (s *Session) Reload(ctx context.Context) error {
	s.lockLoaded(use{call: "Reload"})
	rec, err, offline := s.rec, s.err, s.response >= refused
	s.mu.Unlock()
	if err != nil || rec == nil || offline {
		return err
	}
	// Not while a commit changes the ID or the data.
	if err := s.lockSaving(); err != nil {
		return err
	}
	defer s.unlockSaving()
	if err := s.settleHanded(); err != nil {
		return err
	}
	s.mu.Lock()
	rec, err = s.rec, s.err
	s.mu.Unlock()
	if rec == nil || err != nil {
		return err
	}
	lctx, cancel := context.WithTimeout(ctx, s.m.cfg.StoreTimeout)
	defer cancel()
	now, err := s.m.engine.fetch(lctx, rec.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.rec != rec: // destroyed by this request itself
		return nil
	case errors.Is(err, ErrNotFound):
		s.endedByReload = s.err == nil && s.next == nil
		s.endedLocked()
		ended := ErrDestroyed
		if errors.Is(err, ErrRenewed) {
			ended = ErrRenewed
		}
		s.failLocked(&opError{"Reload", ended})
		return s.err
	case err != nil:
		return &opError{"Reload", err}
	}
	s.rec = &view{rec.id, now}
	return s.replayLocked()
}
