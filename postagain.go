package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pgsession/session/internal/gate"
)

// The most that a form may have which is posted again. A signed SAML response with
// many attributes has tens of kilobytes.
const (
	postAgainBytes  = 512 << 10
	postAgainFields = 100
)

// PostAgain is for the page that another site sends the browser back to by a form: a
// login with Apple, or any provider with OpenID Connect's response_mode form_post or
// SAML's POST binding, and some payments. A browser sends no SameSite=Lax cookie with
// such a POST, so next would see neither the login that it began nor the session that the
// user has; and a session that it began would replace that one's cookie.
//
// What comes from another site is answered with a small page that posts the same fields
// to the same URL again, from this site, by a script or the user's click. next sees
// that request only, with the cookies. What comes from this site, and anything but a
// POST, goes to next at once.
//
//	mux.Handle("POST /login/callback", session.PostAgain(http.HandlerFunc(callback)))
//
// It takes the protection against forged requests away from next: whoever makes a
// browser post to it gets a request that looks like this site's own. So next must
// demand a secret that the session holds and the other site sends back, as the state
// of OpenID Connect or SAML's InResponseTo, and nothing that is not such a callback may
// be behind it. A [http.CrossOriginProtection] outside of it needs the path as a
// bypass.
//
// A form has at most 512 KiB and 100 fields of UTF-8 (413, 400), and comes
// urlencoded (415). Where another site asks by other means than a form in the window, as by a
// script, the answer is 403. Browsers say by Sec-Fetch-Site where a request comes
// from, in secure contexts and since 2023; one that does not gets to next at once,
// as without PostAgain. PostAgain uses no session, keeps nothing and is safe for concurrent
// use.
func PostAgain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Sec-Fetch-Site") != "cross-site" {
			next.ServeHTTP(w, r)
			return
		}
		page, code := againPage(w, r)
		h := w.Header()
		gate.ForbidCaching(h)
		h.Set("Cache-Control", "no-store") // the fields may log somebody in
		h.Set("X-Content-Type-Options", "nosniff")
		if code != http.StatusOK {
			http.Error(w, http.StatusText(code), code)
			return
		}
		h.Set("Content-Security-Policy", againPolicy)
		h.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
}

// againPage returns the page that posts the form of r again, or the status of a
// refusal.
func againPage(w http.ResponseWriter, r *http.Request) (page []byte, code int) {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "navigate" {
		return nil, http.StatusForbidden
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, http.StatusUnsupportedMediaType
	}
	r.Body = http.MaxBytesReader(gate.Bottom(w), r.Body, postAgainBytes)
	if err := r.ParseForm(); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return nil, http.StatusRequestEntityTooLarge
		}
		return nil, http.StatusBadRequest
	}
	// r.PostForm holds the body's fields alone: those of the URL stay there.
	names := make([]string, 0, len(r.PostForm))
	for name := range r.PostForm {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	b.WriteString(againBegin)
	fields := 0
	for _, name := range names {
		for _, value := range r.PostForm[name] {
			if fields++; fields > postAgainFields || !canBePosted(name) || !canBePosted(value) {
				return nil, http.StatusBadRequest
			}
			b.WriteString(`<input type="hidden" name="`)
			_, _ = againEscaper.WriteString(&b, name)
			b.WriteString(`" value="`)
			_, _ = againEscaper.WriteString(&b, value)
			b.WriteString("\">\n")
		}
	}
	b.WriteString(againEnd)
	return b.Bytes(), http.StatusOK
}

// canBePosted reports whether a browser that reads a text in a page posts the same: it
// replaces a NUL and what is no UTF-8 (HTML, section 13.2.5).
func canBePosted(text string) bool {
	return utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

// againEscaper writes a text into an attribute in double quotes. A browser that reads a
// page makes one line feed of the two characters that end a line in a form, unless
// they are written so.
var againEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "\r", "&#13;", "\n", "&#10;")

// The page. The form has no action, so it goes to the page's own URL, whatever a proxy
// has made of that: nothing of the request is in the page but the fields. A field may
// be called submit, so the script takes the method from where no field is.
const (
	againBegin = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>One moment</title>
<form method="post">
`
	againEnd = `<button>Continue</button>
</form>
<script>` + againScript + `</script>
`
	againScript = `HTMLFormElement.prototype.submit.call(document.forms[0])`
)

// againPolicy lets that one script run and nothing else, and no other site put the page
// into a frame. It says nothing of where forms go: the page has one, and Chromium
// would hold the redirect that follows it to this as well.
var againPolicy = "default-src 'none'; script-src '" + hashOf(againScript) + "'; base-uri 'none'; frame-ancestors 'self'"

// hashOf returns the hash of a script as a policy has it (CSP 3, section 2.3.1).
func hashOf(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
