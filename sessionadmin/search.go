package sessionadmin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgsession/session"
	"github.com/pgsession/session/internal/gate"
)

const (
	mostListed  = 1000     // by Manager.Sessions
	maxFormSize = 64 << 10 // bytes
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

// address is where the search is shown, from any of our pages.
func (q query) address(ended int64) string {
	v := url.Values{"key": {q.Key}, "value": {q.Value}}
	if ended >= 0 {
		v.Set("ended", strconv.FormatInt(ended, 10))
	}
	return "search?" + v.Encode()
}

// parse takes a query from a form, or writes why it cannot.
func (h *Handler) parse(w http.ResponseWriter, form url.Values) (query, bool) {
	q := query{form.Get("key"), strings.TrimSpace(form.Get("value"))}
	if q.Key != "" && !slices.Contains(h.opts.Keys, q.Key) {
		h.fail(w, http.StatusBadRequest, "No such key", "Sessions can be searched by the keys that the application has named.")
		return q, false
	}
	return q, true
}

type results struct {
	frame
	Asked    bool
	Query    query
	Sessions []session.Info
	Full     bool   // there may be more
	Ended    string // what has just been done
}

func (h *Handler) search(w http.ResponseWriter, r *http.Request) {
	form := r.URL.Query()
	v := results{frame: h.frame("Find sessions", "search")}
	if !form.Has("value") {
		h.render(w, http.StatusOK, "search.html", v)
		return
	}
	q, ok := h.parse(w, form)
	if !ok {
		return
	}
	v.Query, v.Find.Key, v.Find.Value = q, q.Key, q.Value
	if q.Value == "" {
		h.render(w, http.StatusOK, "search.html", v)
		return
	}
	v.Asked = true
	var err error
	ctx, cancel := context.WithTimeout(r.Context(), h.opts.Timeout)
	defer cancel()
	if v.Sessions, err = h.opts.Manager.Sessions(ctx, q.filter()); err != nil {
		h.failed(w, r, "The sessions could not be listed", "sessionadmin: sessions could not be listed", err)
		return
	}
	v.Full = len(v.Sessions) == mostListed
	// They come by their expiry, which is another order where idle timeouts differ.
	slices.SortStableFunc(v.Sessions, func(a, b session.Info) int { return b.LastSeenAt.Compare(a.LastSeenAt) })
	if n, err := strconv.ParseUint(form.Get("ended"), 10, 32); err == nil {
		v.Ended = plural(int64(n), "session was ended.", "sessions were ended.")
		if n == 0 {
			v.Ended = "Nothing was ended: it was gone already."
		}
	}
	h.render(w, http.StatusOK, "search.html", v)
}

// revoke ends the sessions of a query, or one of them.
func (h *Handler) revoke(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(gate.Bottom(w), r.Body, maxFormSize)
	if err := r.ParseForm(); err != nil {
		h.fail(w, http.StatusBadRequest, "Not understood", "The form did not arrive whole. Nothing was ended.")
		return
	}
	q, ok := h.parse(w, r.PostForm)
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
	switch {
	case errors.Is(err, session.ErrUncertain): // it may still happen
		h.failed(w, r, "It is not known whether the sessions were ended: look again in a moment", "sessionadmin: not known whether sessions were ended", err)
		return
	case err != nil:
		h.failed(w, r, "The sessions could not be ended", "sessionadmin: sessions could not be ended", err)
		return
	}
	h.last.Store(nil) // so that the overview tells
	record := []slog.Attr{slog.String("key", q.Key), slog.Int64("sessions", n)}
	if handlePattern.MatchString(handle) { // not whatever else was typed
		record = append(record, slog.String("handle", handle))
	}
	h.opts.Logger.LogAttrs(r.Context(), slog.LevelInfo, "sessionadmin: sessions ended", record...)
	redirect(w, q.address(n))
}

// failed says why a search or an ending did not work.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, title, message string, err error) {
	if errors.Is(err, session.ErrInvalid) {
		h.fail(w, http.StatusBadRequest, title, "Such a key or value cannot be searched: a value has 200 bytes at most, and of encrypted sessions only the application's Config.UserKey can be found.")
		return
	}
	h.opts.Logger.ErrorContext(r.Context(), message, slog.Any("error", err))
	h.fail(w, http.StatusServiceUnavailable, title, "The database did not answer in time. The log has the error. Try again in a moment.")
}
