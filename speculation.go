package session

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/pgsession/session/internal/gate"
)

// errSpeculative is what a change of the session is in a request that a browser makes
// on speculation: a prefetch, a prerendering. Its user has not come, and may never;
// so the response is declined and the browser asks again when they do.
var errSpeculative = errors.New("session: a request on speculation (Sec-Purpose: prefetch) changes no session; the browser comes again when its user does")

// headerPurpose is set by browsers alone: no script can (Fetch, forbidden request-header).
const headerPurpose = "Sec-Purpose"

// isSpeculative reports whether a browser makes the request before its user has asked
// for the page: Sec-Purpose has the token prefetch, with or without the parameter
// prerender (Fetch, section 3.8; HTML, speculative loading).
func isSpeculative(h http.Header) bool {
	for _, line := range h[headerPurpose] {
		for member := range strings.SplitSeq(line, ",") {
			token, _, _ := strings.Cut(member, ";")
			if strings.EqualFold(strings.TrimSpace(token), "prefetch") {
				return true
			}
		}
	}
	return false
}

// answerSpeculative declines a request. It is no failure, so the error handler does not
// hear of it.
func answerSpeculative(ctx context.Context, w http.ResponseWriter, log *slog.Logger) {
	log.LogAttrs(ctx, slog.LevelDebug, "session: request on speculation declined")
	http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
}

// dropSpeculations tells the browser to forget the pages that it holds in reserve: it
// would show them after the logout without asking, no-store or not (Clear Site Data;
// HTML, speculative loading). What the application clears itself stays, and browsers
// that do not know these two types ignore them. They count in secure contexts only.
func dropSpeculations(h http.Header) {
	const header = "Clear-Site-Data"
	for _, what := range []string{`"prefetchCache"`, `"prerenderCache"`} {
		if !gate.HeaderHas(h, header, what) {
			h.Add(header, what)
		}
	}
}
