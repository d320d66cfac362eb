package session

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"time"
	"unicode/utf8"

	"github.com/pgsession/session/internal/jsonobj"
	"github.com/pgsession/session/internal/row"
)

// Key is the name of a value of type T in a session, declared once:
//
//	const userID = session.Key[int64]("userId")
//
// Values are stored as JSON beside each other in one object, as Express keeps
// them: req.session.userId is this key. T can be anything encoding/json can
// encode and decode again. Names that Express or this package reserve, such as
// "cookie" or "id", are refused by every change ([ErrInvalid]). Integers
// over 2^53 lose digits once Express rewrites the record, which is logged once
// for each key with the format [FormatExpress]; store them as strings.
type Key[T any] string

// Get returns a copy of the value. ok is false if there is none, if it is JSON
// null and T cannot hold that, or if it is not a T, which is logged once with
// the key's name.
func (k Key[T]) Get(s *Session) (value T, ok bool) {
	s.lockLoaded(use{"Get", string(k)})
	raw := s.getLocked(string(k))
	s.mu.Unlock()
	value, ok, err := decode[T](raw)
	if err != nil {
		k.mismatch(s)
	}
	return value, ok
}

// Set stores v. It is encoded at once, so later changes of what v points to do
// not count. A value that was there when the session was loaded costs no write,
// only another load, which tells whether it still is. One that cannot be encoded
// is an error of the session: [ErrInvalid].
func (k Key[T]) Set(s *Session, v T) {
	raw, err := k.encode(v) // unlocked: a MarshalJSON may use the session
	k.warnDigits(s, raw)
	if !s.lockForChange(use{"Set", string(k)}) {
		return
	}
	defer s.mu.Unlock()
	if err != nil {
		s.failLocked(err)
		return
	}
	s.putLocked(change{name: string(k), value: raw})
}

// Update stores f of the value, f of T's zero value if there is none: for
// counters, carts and whatever else several requests change at once. f runs at
// once, and again on the stored value when another request got there first, so
// it should do nothing but compute. It may read the session, and what it changes
// of other keys counts when it runs first; one that changes its own key, saves or
// reloads is an error of the session: [ErrInvalid]. So is a stored value that is
// not a T, which is left alone.
func (k Key[T]) Update(s *Session, f func(T) T) {
	ran := false
	update := func(old []byte) (raw []byte, err error) { // unlocked: f may use the session
		s.calls.Do(call{key: string(k), rerun: ran}, func() {
			var v T
			if v, _, err = decode[T](old); err != nil {
				err = invalid(k.op(), "Update of a stored value that is not a %v", reflect.TypeFor[T]())
				return
			}
			raw, err = k.encode(f(v))
		})
		return raw, err
	}
	for start := time.Now(); ; {
		if !s.lockForChange(use{"Update", string(k)}) {
			return
		}
		old := s.getLocked(string(k))
		s.mu.Unlock()
		raw, err := update(old)
		k.warnDigits(s, raw)
		if !s.lockForChange(use{"Update", string(k)}) {
			return
		}
		overtaken := !bytes.Equal(old, s.getLocked(string(k))) // by another goroutine of this request
		switch {
		case overtaken && time.Since(start) < s.m.cfg.StoreTimeout:
			s.mu.Unlock()
			continue
		case overtaken:
			s.failLocked(&opError{k.op() + ": other goroutines of the request change it all the while", context.DeadlineExceeded})
		case err != nil:
			s.failLocked(err)
		default:
			ran = true
			s.putLocked(change{name: string(k), value: raw, update: update})
		}
		s.mu.Unlock()
		return
	}
}

// Take returns the value and deletes it: for messages that are shown once. One
// that is absent is no change. What is not a T is absent, as to [Key.Get], and
// left alone. Two requests of one session that overlap may both get it: what must be used once, such as
// a nonce or a challenge, is claimed by [Key.UpdateNow].
func (k Key[T]) Take(s *Session) (value T, ok bool) {
	for start := time.Now(); ; {
		s.lockLoaded(use{"Take", string(k)})
		raw := s.getLocked(string(k))
		s.mu.Unlock()
		value, ok, err := decode[T](raw) // unlocked: an UnmarshalJSON may use the session
		if err != nil {
			k.mismatch(s)
		}
		if err != nil || raw == nil {
			return value, ok
		}
		s.lockLoaded(use{"Take", string(k)})
		overtaken := !bytes.Equal(raw, s.getLocked(string(k))) // by another goroutine of this request, or by T's UnmarshalJSON
		switch {
		case overtaken && time.Since(start) < s.m.cfg.StoreTimeout:
			s.mu.Unlock()
			continue
		case s.rejectChangeLocked(use{"Take", string(k)}):
		case overtaken:
			s.failLocked(&opError{k.op() + ": other goroutines of the request change it all the while", context.DeadlineExceeded})
		default:
			if err := k.check(); err != nil {
				s.failLocked(err)
			} else {
				s.putLocked(change{name: string(k)})
			}
		}
		s.mu.Unlock()
		return value, ok
	}
}

// Delete removes the value. If there was none when the session was loaded that
// costs no write, only another load, which tells whether another request has
// stored one meanwhile.
func (k Key[T]) Delete(s *Session) {
	if !s.lockForChange(use{"Delete", string(k)}) {
		return
	}
	defer s.mu.Unlock()
	if err := k.check(); err != nil {
		s.failLocked(err)
		return
	}
	s.putLocked(change{name: string(k)})
}

func (k Key[T]) op() string { return fmt.Sprintf("Key(%q)", string(k)) }

func (k Key[T]) check() error {
	if row.Reserved(string(k)) || !utf8.ValidString(string(k)) {
		return invalid(k.op(), "the name is empty, not UTF-8, or reserved by Express or this package; use another")
	}
	return nil
}

// encode never lets a value into its error: a MarshalJSON may have put it into
// its own.
func (k Key[T]) encode(v T) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	raw, err := jsonobj.Marshal(v)
	if err != nil {
		return nil, invalid(k.op(), "a %v that does not encode as JSON (try json.Marshal on it)", reflect.TypeFor[T]())
	}
	return raw, nil
}

// decode decodes a stored value. ok is false if there is none.
func decode[T any](raw []byte) (value T, ok bool, err error) {
	if raw == nil {
		return value, false, nil
	}
	if string(raw) == "null" {
		switch reflect.TypeFor[T]().Kind() {
		case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		default:
			return value, false, nil
		}
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		var zero T
		return zero, false, err
	}
	return value, true, nil
}

func (k Key[T]) mismatch(s *Session) {
	if _, before := s.m.warned.LoadOrStore(string(k), true); !before {
		s.m.cfg.Logger.LogAttrs(s.x.below(), slog.LevelWarn, "session: stored value has another type than its key, treated as absent",
			slog.String("key", string(k)), slog.String("type", reflect.TypeFor[T]().String()))
	}
}

// rounded is the kind of Manager.warned that warnDigits uses.
type rounded string

// warnDigits logs, once for each key, that a value has an integer which Express
// would round when it rewrites the record. s is not locked: the log may read it.
func (k Key[T]) warnDigits(s *Session, raw []byte) {
	if s.m.cfg.Cookie.Format != FormatExpress || !jsonobj.LosesDigits(raw) {
		return
	}
	if _, before := s.m.warned.LoadOrStore(rounded(k), true); !before {
		s.m.cfg.Logger.LogAttrs(s.x.below(), slog.LevelWarn, "session: stored an integer over 2^53, which Express rounds when it rewrites the record; store it as a string",
			slog.String("key", string(k)), slog.String("type", reflect.TypeFor[T]().String()))
	}
}
