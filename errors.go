package session

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Errors of a [Store]. A store may wrap them; callers compare with [errors.Is].
var (
	// ErrNotFound says that there is no live record: it never existed, was
	// deleted or renewed, or has expired.
	ErrNotFound = errors.New("session: no such session")

	// ErrRenewed says that the session of this ID was renewed, a quarter of an
	// hour ago at most: it has another ID now. It is an [ErrNotFound] of a store,
	// and to an application an [ErrDestroyed], with more known: what was to be
	// changed came with a cookie from before a login in another tab, say. Nothing
	// was written; a browser that has the new ID's cookie by now can come again.
	ErrRenewed error = renewedError{}

	// ErrExpired says that the session's time is over: it is what ends a stream
	// ([Session.Watch]), where it is an [ErrDestroyed] with more known, and what a
	// [Watcher] says of a record that has expired and is still there.
	ErrExpired error = expiredError{}

	// ErrExists says that a record of this ID is there already; it was not
	// overwritten.
	ErrExists = errors.New("session: session ID exists already")

	// ErrConflict says that the stored data is no longer the data the change
	// was made from, or that the record is gone. Nothing was written. The
	// manager loads again and merges; an application sees it only from [SaveTx],
	// where it is answered with 409 by default.
	ErrConflict = errors.New("session: session was changed meanwhile")

	// ErrUncertain says that the connection died before the store's answer to
	// a write came: it may have happened or not. The manager finds out by
	// loading; an application sees it only where there was no time left to.
	ErrUncertain = errors.New("session: no answer from the store, the write may have happened")
)

// Errors of a [Session], as [Session.Err], [Session.Save] and
// [Config.ErrorHandler] see them. Every error that is none of these came from
// the store, or says that a request brought a token beside a session cookie, which
// is answered with 400 ([Session.UseToken]).
var (
	// ErrDestroyed says that the session was destroyed, renewed or expired
	// while the request ran. Nothing was written and no cookie was sent: the
	// session stays dead. [ErrRenewed] is one: there it lives on under another
	// ID. By default it is answered with 409 Conflict.
	ErrDestroyed = errors.New("session: session has ended meanwhile")

	// ErrInvalid says that the handler asked for something that cannot be
	// stored: a value that does not encode as JSON, a reserved key, too much
	// data, a function of [Key.Update] that changes its own key, saves or
	// reloads. Nothing was saved. By default it is answered with 500.
	ErrInvalid = errors.New("session: cannot be stored")

	// ErrHeaderSent says that a new session or a renewal came after the first
	// byte of the response, or at a Hijack, when its cookie could no longer be
	// sent. Nothing that was still to be saved was, and a response that has
	// begun is cut off. At a Hijack it is answered with 500.
	ErrHeaderSent = errors.New("session: response header already sent")

	// ErrUnproven says that the browser could not prove the key that its session is
	// bound to ([Config.DeviceBound]), as it says itself because it did not reach
	// the server: an outage and no logout. Nothing was changed. By default it is
	// answered with 503. It also ends a stream ([Session.Watch]) whose request's
	// proof is not good any more; the browser brings a new one when it comes again.
	ErrUnproven = errors.New("session: the device's key is not proven")

	// ErrFinished says that a session was changed, or first used, after its
	// handler had returned, or saved after one that has panicked. The change was
	// dropped; nothing was loaded.
	ErrFinished = errors.New("session: request already finished")
)

// errBoth is an error of the client's: whatever is done for it would be done for the
// wrong session.
var errBoth = errors.New("session: the request brings a session cookie and a token, or wants one, or has two Authorization headers")

// answerBoth answers it, and reports whether err is it. The error handler, which
// answers what went wrong here, is not asked.
func answerBoth(w http.ResponseWriter, err error) bool {
	if !errors.Is(err, errBoth) {
		return false
	}
	http.Error(w, "Bring either a session cookie or one session token, not both.", http.StatusBadRequest)
	return true
}

// renewedError is ErrRenewed.
type renewedError struct{}

func (renewedError) Error() string { return "session: session was renewed meanwhile" }

func (renewedError) Is(target error) bool { return target == ErrNotFound || target == ErrDestroyed }

// expiredError is ErrExpired.
type expiredError struct{}

func (expiredError) Error() string { return "session: session has expired" }

func (expiredError) Is(target error) bool { return target == ErrNotFound || target == ErrDestroyed }

// opError says in which operation an error came up. Its text has the package's
// name once, however often what it wraps says it.
type opError struct {
	op  string
	err error
}

func (e *opError) Error() string {
	return "session: " + e.op + ": " + strings.ReplaceAll(e.err.Error(), "session: ", "")
}

func (e *opError) Unwrap() error { return e.err }

// invalid returns an [ErrInvalid] that says of what and why.
func invalid(op, format string, args ...any) error {
	return &opError{op, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
}

// answerError is the default of Config.ErrorHandler.
func answerError(w http.ResponseWriter, _ *http.Request, err error) {
	code := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, ErrDestroyed), errors.Is(err, ErrConflict):
		code = http.StatusConflict
	case errors.Is(err, ErrInvalid), errors.Is(err, ErrHeaderSent):
		code = http.StatusInternalServerError
	default:
		w.Header().Set("Retry-After", "5")
	}
	http.Error(w, http.StatusText(code), code)
}
