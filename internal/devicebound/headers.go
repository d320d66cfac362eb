package devicebound

import (
	"encoding/json"
	"strings"
)

// Names of the header fields, as net/http writes them.
const (
	HeaderRegistration = "Secure-Session-Registration" // response
	HeaderChallenge    = "Secure-Session-Challenge"    // response
	HeaderResponse     = "Secure-Session-Response"     // request
	HeaderIdentifier   = "Sec-Secure-Session-Id"       // request
	HeaderSkipped      = "Secure-Session-Skipped"      // request
)

// maxHeaderBytes bounds a header field that is read here.
const maxHeaderBytes = 4096

// FormatRegistration returns a [HeaderRegistration]: a list of one inner list
// (RFC 9651, section 3.1). Of the algorithms ES256 alone is offered: devices have
// it, and one is enough. Path and challenge have no quotes and no backslashes.
func FormatRegistration(path, challenge string) string {
	return `(ES256);path="` + path + `";challenge="` + challenge + `"`
}

// FormatChallenge returns a [HeaderChallenge]. Neither value has quotes or
// backslashes.
func FormatChallenge(challenge, identifier string) string {
	return `"` + challenge + `";id="` + identifier + `"`
}

// ParseString reads a header field that is a string (RFC 9651, section 3.3.3),
// or the bare text that Chromium sends in its place. ok is false for anything
// else, and where it is empty.
func ParseString(value string) (s string, ok bool) {
	value = strings.Trim(value, " ")
	if value == "" || len(value) > maxHeaderBytes {
		return "", false
	}
	if value[0] == '"' {
		s, rest, ok := quoted(value)
		return s, ok && s != "" && rest == ""
	}
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == ';' || c == ',' {
			return "", false
		}
	}
	return value, true
}

// Skipped reports whether the lines of a [HeaderSkipped] say that the browser
// could not prove the key of identifier: it has not reached the server, was
// answered with an error, or may not sign so often. Lines that do not parse
// (RFC 9651, section 4.2) say nothing. Anybody can send this header.
func Skipped(lines []string, identifier string) bool {
	rest := strings.Trim(strings.Join(lines, ","), " ")
	if rest == "" || len(rest) > maxHeaderBytes {
		return false
	}
	named := false
	for {
		reason, id, tail, ok := skippedMember(rest)
		if !ok {
			return false
		}
		switch reason {
		case "unreachable", "server_error", "quota_exceeded":
			named = named || id == identifier
		}
		tail = strings.TrimLeft(tail, " \t")
		if tail == "" {
			return named
		}
		if tail[0] != ',' {
			return false
		}
		if rest = strings.TrimLeft(tail[1:], " \t"); rest == "" { // a comma at the end
			return false
		}
	}
}

// skippedMember reads a token and its parameters.
func skippedMember(s string) (reason, id, rest string, ok bool) {
	if reason, rest = token(s); reason == "" {
		return "", "", "", false
	}
	for strings.HasPrefix(rest, ";") {
		var name, value string
		name, rest = token(strings.TrimLeft(rest[1:], " "))
		if name == "" {
			return "", "", "", false
		}
		if strings.HasPrefix(rest, "=") { // else it is true
			rest = rest[1:]
			if strings.HasPrefix(rest, `"`) {
				if value, rest, ok = quoted(rest); !ok {
					return "", "", "", false
				}
			} else if value, rest = token(rest); value == "" {
				return "", "", "", false
			}
		}
		if name == "session_identifier" {
			id = value
		}
	}
	return reason, id, rest, true
}

// token reads the characters of a token or a key from the beginning of s; it may
// begin with any of them, as a number would.
func token(s string) (t, rest string) {
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~:/?@", s[i]) >= 0) {
		i++
	}
	return s[:i], s[i:]
}

// quoted reads a string from the beginning of s, whose first byte is a quote.
func quoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
			b.WriteByte(s[i])
		case c < ' ' || c >= 0x7f:
			return "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// credential is what a session configuration says of a cookie.
type credential struct {
	Type       string `json:"type"`
	Name       string `json:"name"`
	Attributes string `json:"attributes"`
}

// Configuration returns the JSON that answers a registration: the browser is to
// keep a cookie of this name and these attributes, and to prove its key at path
// whenever it is not there, for requests of this origin.
func Configuration(identifier, path, cookie, attributes string) []byte {
	var c struct {
		Identifier string `json:"session_identifier"`
		RefreshURL string `json:"refresh_url"`
		Scope      struct {
			IncludeSite bool `json:"include_site"`
		} `json:"scope"`
		Credentials []credential `json:"credentials"`
	}
	c.Identifier, c.RefreshURL = identifier, path
	c.Credentials = []credential{{"cookie", cookie, attributes}}
	return marshal(c)
}

// End returns the JSON that makes a browser forget a session. Without the
// identifier Chromium takes it for a fault.
func End(identifier string) []byte {
	return marshal(struct {
		Identifier string `json:"session_identifier"`
		Continue   bool   `json:"continue"`
	}{identifier, false})
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and booleans
	}
	return b
}
