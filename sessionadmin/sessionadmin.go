// Package sessionadmin shows what a table of sessions is doing, in a browser, and
// ends sessions: an [http.Handler] to mount in an application.
//
// It lets everybody in who reaches it. Mount it behind the application's own
// authorization, as the example does, or on an address that only operators
// reach. Whoever gets in can log out any user.
//
// It shows counts, times and handles ([session.Info]), and a value only as
// somebody typed it into the search: never a session ID, never stored data.
// A search is a GET, so that value is in the address, and in the access log of
// whatever keeps one. After an ending the address says for a minute how many
// sessions that were, to the [Handler] that has ended them. Pages are rendered on the server, without scripts, under a
// content security policy that they bring along; ending sessions is a POST that
// [http.CrossOriginProtection] guards.
//
// The overview counts the rows by an index and reads the ages of a sample, at most
// 64 MB of the table. For a million sessions that is a second of the database's
// processor after a vacuum, four if a quarter has been touched since. A
// measurement serves everybody for fifty times as long as it took, a minute at
// most, and not after the next ending on these pages; what takes longer than
// [Options.Timeout] is left out.
package sessionadmin

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgsession/session"
)

// DefaultTimeout is the default of [Options.Timeout].
const DefaultTimeout = 5 * time.Second

// Options are the options of [New]. Manager and Pool must be set.
type Options struct {
	_ struct{}

	// Manager is the application's, over a store on the table below.
	Manager *session.Manager

	// Pool reaches the database of that table. It may be the store's own; a
	// page takes one connection.
	Pool *pgxpool.Pool

	// Schema and Table name the table, as in [session.PostgresOptions].
	// Defaults "schema_system" and "session".
	Schema, Table string

	// Keys are the keys that sessions can be searched by, such as "userId". One
	// without an index ([session.PostgresOptions.IndexKeys]) reads the whole
	// table; with [session.Config.Encrypt] only the UserKey can be searched.
	// Default none: sessions can be found by their handle.
	Keys []string

	// Timeout bounds each of the two measurements that the overview takes of
	// the table, each search, and each ending by a handle alone. The Manager's
	// [session.Config.StoreTimeout] bounds a search, too, and in its place each
	// ending by a key. Default 5 s; negative is an error.
	Timeout time.Duration

	// Logger gets errors, and a record for every ending of sessions: the key's
	// name, the handle and the count, not the value. The request's context goes
	// with it, for a handler that adds who it was. Default [slog.Default].
	Logger *slog.Logger
}

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	opts      Options
	protected http.Handler // revoke, from our own pages only
	key       []byte       // of receipts
	history   *history
	stop      context.CancelFunc

	measuring sync.Mutex // one measurement of the table at a time
	last      atomic.Pointer[measurement]
	endings   atomic.Uint64 // of sessions so far, those that failed too
}

// New returns the pages of one manager. Every minute until [Handler.Close] they
// note down its [session.Stats], for the pictures: those of this process, for a
// day, in 200 KB of memory.
//
// Links are relative, so they can be mounted anywhere, with [http.StripPrefix]:
//
//	mux.Handle("/admin/sessions/", onlyAdmins(http.StripPrefix("/admin/sessions", pages)))
func New(opts Options) (*Handler, error) {
	var errs []error
	if opts.Manager == nil {
		errs = append(errs, errors.New("sessionadmin: Options.Manager is nil"))
	}
	if opts.Pool == nil {
		errs = append(errs, errors.New("sessionadmin: Options.Pool is nil"))
	}
	if opts.Timeout < 0 {
		errs = append(errs, errors.New("sessionadmin: Options.Timeout is negative"))
	}
	if slices.Contains(opts.Keys, "") {
		errs = append(errs, errors.New("sessionadmin: Options.Keys has an empty key"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if opts.Schema == "" {
		opts.Schema = "schema_system"
	}
	if opts.Table == "" {
		opts.Table = "session"
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	opts.Keys = slices.Clone(opts.Keys)
	ctx, stop := context.WithCancel(context.Background())
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // it never fails
	h := &Handler{opts: opts, key: key, history: newHistory(opts.Manager.Stats), stop: stop}
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, http.StatusForbidden, "Not from here", "Sessions are ended from these pages only. This request came from another site, so nothing was done.", "")
	}))
	h.protected = protection.Handler(http.HandlerFunc(h.revoke))
	go h.history.run(ctx)
	return h, nil
}

// Close ends the noting of counts. The pages go on, with what they have. It is
// idempotent, and returns nil.
func (h *Handler) Close() error {
	h.stop()
	<-h.history.ended
	return nil
}

//go:embed web
var web embed.FS

var (
	style, _ = web.ReadFile("web/style.css")

	// A new style has a new address, so it can be kept for long.
	styleLink = func() string {
		sum := sha256.Sum256(style)
		return "style.css?" + base64.RawURLEncoding.EncodeToString(sum[:9])
	}()

	pages = template.Must(template.New("").Funcs(functions).ParseFS(web, "web/*.html"))
)

// policy allows the style sheet and our own forms. With it nothing that slipped
// through the templates' escaping could run or be sent anywhere.
const policy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, header := range [][2]string{
		{"Cache-Control", "no-store"},
		{"Content-Security-Policy", policy},
		{"X-Content-Type-Options", "nosniff"},
		{"X-Frame-Options", "DENY"},
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Cross-Origin-Resource-Policy", "same-origin"},
		// Not no-referrer: with it a browser that sends no Sec-Fetch-Site, as
		// over plain HTTP, sends "Origin: null" and could not end anything.
		{"Referrer-Policy", "same-origin"},
	} {
		w.Header().Set(header[0], header[1])
	}
	name, get := strings.TrimPrefix(r.URL.Path, "/"), true
	var serve http.HandlerFunc
	switch name {
	case "":
		serve = h.overview
	case "search":
		serve = h.search
	case "revoke":
		serve, get = h.protected.ServeHTTP, false
	case "style.css":
		serve = serveStyle
	default:
		h.fail(w, http.StatusNotFound, "No such page", "There is an overview, and a search.", "")
		return
	}
	switch allowed := map[bool]string{true: "GET, HEAD", false: "POST"}[get]; {
	case !slices.Contains(strings.Split(allowed, ", "), r.Method):
		w.Header().Set("Allow", allowed)
		h.fail(w, http.StatusMethodNotAllowed, "Not like this", "This address answers "+allowed+" only.", "")
	case r.URL.Path == "" && !strings.HasSuffix(requested(r), "/"):
		// Mounted without a slash at the end, where relative links go astray.
		redirect(w, path.Base(requested(r))+"/")
	default:
		serve(w, r)
	}
}

// requested is the path that the browser asked for: r.URL.Path has lost its
// prefix.
func requested(r *http.Request) string {
	p, _, _ := strings.Cut(r.RequestURI, "?")
	return p
}

// redirect sends the browser to a relative address, as it stands:
// http.Redirect would make it absolute, without the prefix.
func redirect(w http.ResponseWriter, address string) {
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(style)
}

// frame is what every page has.
type frame struct {
	Title string
	Style string
	Table string
	Find  form
	Page  string // overview, search, or find: the page that is nothing but the form
}

// form is the search form, as it was filled in.
type form struct {
	Keys       []string
	Key, Value string
}

func (h *Handler) frame(title, page string) frame {
	f := frame{Title: title, Style: styleLink, Table: h.opts.Schema + "." + h.opts.Table, Page: page, Find: form{Keys: h.opts.Keys}}
	if len(h.opts.Keys) > 0 {
		f.Find.Key = h.opts.Keys[0]
	}
	return f
}

// render writes a page, once it is whole.
func (h *Handler) render(w http.ResponseWriter, code int, name string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		h.opts.Logger.Error("sessionadmin: a page could not be rendered", slog.Any("error", err))
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// fail writes a page that says what is wrong, and where to try again if that helps.
func (h *Handler) fail(w http.ResponseWriter, code int, title, text, again string) {
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	h.render(w, code, "fail.html", struct {
		frame
		Code        int
		Text, Again string
	}{h.frame(title, ""), code, text, again})
}
