package sessionadmin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/gate"
)

const (
	mostListed   = 1000     // by Manager.Sessions
	mostSearched = 200      // bytes of a value, by Key.Is
	maxFormSize  = 64 << 10 // bytes
)

// handlePattern is what handles look like: half a SHA-256.
var handlePattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// query names sessions: those in which a key has a value, or the one of a handle,
// without a key.
type query struct {
	Key, Value string
}

// filter takes the value as text, which is all the same to Key.Is: 42 is "42".
func (q query) filter() session.Filter {
	if q.Key == "" {
		return session.Everyone().Handle(q.Value) // an empty handle is an error
	}
	return session.Key[string](q.Key).Is(q.Value)
}

// address is where the search is shown, from any of our pages, with a receipt unless
// that is empty.
func (q query) address(receipt string) string {
	v := url.Values{"key": {q.Key}, "value": {q.Value}}
	if receipt != "" {
		v.Set("ended", receipt)
	}
	return "search?" + v.Encode()
}

// parse takes a query from what was typed, or writes why it cannot. A key's value
// keeps the spaces at its ends, which are part of it.
func (h *Handler) parse(w http.ResponseWriter, key, value string) (query, bool) {
	q := query{key, value}
	if q.Key == "" {
		q.Value = strings.TrimSpace(value) // a handle, as it was pasted
	}
	if q.Key != "" && !slices.Contains(h.opts.Keys, q.Key) {
		h.fail(w, http.StatusBadRequest, "No such key", "Sessions can be searched by the keys that the application has named.", "")
		return q, false
	}
	return q, true
}

type results struct {
	frame
	Asked    bool
	Blank    bool // asked without a value
	Trimmed  bool // of the spaces around what was typed, which no session has
	Query    query
	Sessions []session.Info
	Full     bool   // there may be more
	Ended    string // what has just been done
}

func (h *Handler) search(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	v := results{frame: h.frame("Find sessions", "search")}
	v.Page, v.Blank = "find", form.Has("value")
	if !v.Blank {
		h.render(w, http.StatusOK, "search.html", v)
		return
	}
	q, ok := h.parse(w, form.Get("key"), form.Get("value"))
	if !ok {
		return
	}
	v.Find.Key = q.Key
	if q.Value == "" {
		h.render(w, http.StatusOK, "search.html", v)
		return
	}
	v.Page, v.Asked = "search", true
	if err := h.find(r.Context(), &v, q); err != nil {
		h.failed(w, r, q, "The sessions could not be listed", "sessionadmin: sessions could not be listed", err)
		return
	}
	if !strings.ContainsFunc(v.Query.Value, unicode.IsControl) { // a field would leave them out
		v.Find.Value = v.Query.Value
	}
	v.Full = len(v.Sessions) == mostListed
	// They come by their expiry, which is another order where idle timeouts differ.
	slices.SortStableFunc(v.Sessions, func(a, b session.Info) int { return b.LastSeenAt.Compare(a.LastSeenAt) })
	if n, ok := h.receipted(q, form.Get("ended")); ok {
		v.Ended = plural(n, "session was ended.", "sessions were ended.")
		if n == 0 {
			v.Ended = "Nothing was ended: there was nothing left to end."
		}
	}
	h.render(w, http.StatusOK, "search.html", v)
}

// find lists what a query names. Where there is none, and the value has spaces at
// its ends, they may have come with what was pasted.
func (h *Handler) find(ctx context.Context, v *results, q query) (err error) {
	ctx, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	v.Query = q
	v.Sessions, err = h.opts.Manager.Sessions(ctx, q.filter())
	bare := strings.TrimSpace(q.Value)
	if err != nil && !errors.Is(err, session.ErrInvalid) || len(v.Sessions) > 0 || bare == q.Value || bare == "" {
		return err
	}
	trimmed := query{q.Key, bare}
	found, again := h.opts.Manager.Sessions(ctx, trimmed.filter())
	if again != nil {
		return again
	}
	if err != nil || len(found) > 0 {
		v.Query, v.Sessions, v.Trimmed = trimmed, found, true
	}
	return nil
}

// revoke ends the sessions of a query, or one of them.
func (h *Handler) revoke(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(gate.Bottom(w), r.Body, maxFormSize)
	if err := r.ParseForm(); err != nil {
		h.fail(w, http.StatusBadRequest, "Not understood", "The form did not arrive whole. Nothing was ended.", "")
		return
	}
	// Escaped, for a browser writes the ends of lines in a field anew.
	value, err := url.QueryUnescape(r.PostForm.Get("value"))
	if err != nil {
		h.fail(w, http.StatusBadRequest, "Not understood", "The form has a value that is not escaped. Nothing was ended.", "")
		return
	}
	q, ok := h.parse(w, r.PostForm.Get("key"), value)
	if !ok {
		return
	}
	filter, handle := q.filter(), r.PostForm.Get("handle")
	if q.Key == "" {
		handle = q.Value
	} else if handle != "" {
		filter = filter.Handle(handle)
	}
	// A browser that goes away takes nothing back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.opts.Timeout)
	defer cancel()
	n, err := h.opts.Manager.Revoke(ctx, filter)
	h.endings.Add(1) // so that the overview tells
	// Before an error some may have ended, too.
	if n > 0 || err == nil {
		record := []slog.Attr{slog.String("key", q.Key), slog.Int64("sessions", n)}
		if handlePattern.MatchString(handle) { // not whatever else was typed
			record = append(record, slog.String("handle", handle))
		}
		h.opts.Logger.LogAttrs(r.Context(), slog.LevelInfo, "sessionadmin: sessions ended", record...)
	}
	if err != nil {
		title, message := notEnded(n, err)
		h.failed(w, r, q, title, message, err)
		return
	}
	redirect(w, q.address(h.receipt(q, n, time.Now())))
}

// notEnded says what an ending that failed has done: n sessions have ended all the
// same.
func notEnded(n int64, err error) (title, message string) {
	uncertain := errors.Is(err, session.ErrUncertain) // it may still happen
	some := plural(n, "session was ended", "sessions were ended")
	switch {
	case uncertain && n > 0:
		title = some + ", and it is not known whether others were: look again in a moment"
	case uncertain:
		title = "It is not known whether the sessions were ended: look again in a moment"
	case n > 0:
		title = some + ", others were not"
	default:
		title = "The sessions could not be ended"
	}
	if uncertain {
		return title, "sessionadmin: not known whether sessions were ended"
	}
	return title, "sessionadmin: sessions could not be ended"
}

// failed says why a search or an ending did not work.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, q query, title, message string, err error) {
	if errors.Is(err, session.ErrInvalid) {
		h.fail(w, http.StatusBadRequest, title, q.wrong(), "")
		return
	}
	h.opts.Logger.ErrorContext(r.Context(), message, slog.Any("error", err)) // #nosec G706 -- message is one of ours
	h.fail(w, http.StatusServiceUnavailable, title, "The database did not answer in time. The log has the error. Try again in a moment.", q.address(""))
}

// wrong says what is wrong with a query that the library refuses.
func (q query) wrong() string {
	switch {
	case q.Key == "" && q.Value == "":
		return "No handle was given."
	case len(q.Value) > mostSearched:
		return fmt.Sprintf("The value has %s bytes. Sessions can be found by values of %d bytes at most.", group(int64(len(q.Value))), mostSearched)
	case !utf8.ValidString(q.Value) || strings.ContainsAny(q.Value, "\x00\u2028\u2029"):
		return "The value has a character that sessions cannot be found by: NUL, a line separator of Unicode, or what is not UTF-8."
	}
	return "By this key sessions cannot be found: of encrypted ones only by the application's Config.UserKey, and never by a key of the library's own."
}
