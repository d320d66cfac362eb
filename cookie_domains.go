package session

import (
	"net/netip"
	"strings"
)

// maxDomainBytes bounds a domain name, and with it what a request's host costs.
const maxDomainBytes = 253

// domains are those of CookieConfig.Domains; nil without any.
type domains map[string]struct{}

func newDomains(list []string) domains {
	if len(list) == 0 {
		return nil
	}
	d := make(domains, len(list))
	for _, name := range list {
		d[name] = struct{}{}
	}
	return d
}

// of returns the domain for a request to host: host itself, else the nearest domain
// above it that is listed. "" is none: the cookie is for that host alone. What a
// client has sent is only looked up, never returned.
func (d domains) of(host string) string {
	for name := hostName(host); d != nil && name != ""; _, name, _ = strings.Cut(name, ".") {
		if _, listed := d[name]; listed {
			return name
		}
	}
	return ""
}

// above returns the listed domains that are above one: there a browser may have
// cookies that it sends as well.
func (d domains) above(domain string) (all []string) {
	for {
		_, parent, deeper := strings.Cut(domain, ".")
		if !deeper {
			return all
		}
		if domain = d.of(parent); domain == "" {
			return all
		}
		all = append(all, domain)
	}
}

// hostName returns the name in a Host header, in lower case and without its port. It
// is "" for what no domain cookie can be set on: an IPv6 address, and nonsense. A
// name with a dot at its end stays as it is, and is in no list: to browsers that is
// another host.
func hostName(host string) string {
	name, port, _ := strings.Cut(host, ":")
	if len(name) > maxDomainBytes || strings.Contains(port, ":") || strings.HasPrefix(name, "[") {
		return ""
	}
	return strings.ToLower(name)
}

// lowerDomains returns a copy of the list, as browsers compare names.
func lowerDomains(list []string) []string {
	lower := make([]string, 0, len(list))
	for _, name := range list {
		lower = append(lower, strings.ToLower(name))
	}
	return lower
}

// wrongDomain says what browsers would refuse about a domain in lower case, as far
// as it can be known without a list of public suffixes. "" is nothing.
func wrongDomain(name string) string {
	bare := strings.Trim(name, ".")
	labels := strings.Split(bare, ".")
	_, notIP := netip.ParseAddr(strings.Trim(name, "[]"))
	last := labels[len(labels)-1]
	switch {
	case strings.ContainsAny(name, ":/") && notIP != nil:
		return "must be a name alone, without scheme, port and path"
	case notIP == nil || last != "" && strings.Trim(last, "0123456789") == "":
		return "is an address: browsers set a cookie with a Domain on names alone; leave it out"
	case bare != name:
		return "must not begin or end with a dot: all hosts below it are meant anyway"
	case strings.ContainsFunc(name, func(r rune) bool { return r > 127 }):
		return "must be written as browsers send it: xn--, Punycode"
	case len(name) > maxDomainBytes:
		return "is longer than a domain name can be: 253 bytes"
	case len(labels) < 2:
		return "has no dot: browsers take no cookie for all of a top-level domain"
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label || strings.ContainsFunc(label, notInLabel) {
			return "is not a domain name"
		}
	}
	return ""
}

func notInLabel(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
}
