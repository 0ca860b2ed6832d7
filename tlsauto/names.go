package tlsauto

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// normalizeName brings a name to the one form in which it is compared: lower case, ASCII, no dot at
// the end. IP addresses and a leading "*." are names, too.
func normalizeName(name string) (string, error) {
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		if addr.Zone() != "" {
			return "", fmt.Errorf("address %q has a zone", name)
		}
		return addr.Unmap().String(), nil
	}
	rest := strings.TrimSuffix(name, ".")
	star := isWildcard(rest)
	rest = strings.TrimPrefix(rest, "*.")
	ascii, err := idna.Lookup.ToASCII(rest)
	if err != nil || !isDNSName(ascii) || star && !strings.Contains(ascii, ".") {
		return "", fmt.Errorf("%q is not a name of a server", name)
	}
	if star {
		return "*." + ascii, nil
	}
	return ascii, nil
}

// isDNSName reports whether s is a domain name as hosts have them (RFC 1123, section 2.1), in lower
// case.
func isDNSName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}

// lookupName is normalizeName for what clients send, which is mostly in that form already. It returns
// "" for what is no name.
func lookupName(name string) string {
	if isDNSName(name) && !isDigit(name[len(name)-1]) {
		return name
	}
	n, err := normalizeName(name)
	if err != nil || isWildcard(n) {
		return ""
	}
	return n
}

// An address ends in a digit, and so may a name.
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// hostName is the name in a Host header, or "".
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return lookupName(host)
}
