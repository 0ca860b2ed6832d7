package tlsauto

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253 // characters of a domain name
	maxLabel = 63  // and of what is between its dots
)

// NormalizeName brings the name of a server to the one form in which events, status and the store have it:
// lower case, ASCII, no dot at the end. IP addresses, also in brackets as in URLs, and a leading "*." are names,
// too.
func NormalizeName(name string) (string, error) {
	if isTooLong(name) {
		return "", fmt.Errorf("%.40q... is not a name of a server: it is too long", name)
	}
	if addr, ok := parseAddr(name); ok {
		if addr.Zone() != "" {
			return "", fmt.Errorf("address %q has a zone", name)
		}
		return addr.Unmap().String(), nil
	}
	rest, star := strings.CutPrefix(strings.TrimSuffix(name, "."), "*.")
	ascii, err := idna.Lookup.ToASCII(rest)
	if star {
		ascii = "*." + ascii
	}
	if err != nil || !utf8.ValidString(rest) || !isDNSName(strings.TrimPrefix(ascii, "*.")) || len(ascii) > maxName || star && strings.Count(ascii, ".") < 2 {
		return "", fmt.Errorf("%q is not a name of a server", name)
	}
	return ascii, nil
}

// isTooLong spares us the work on what is no name, which grows with the square of the length of a label.
func isTooLong(name string) bool {
	if len(name) > 4*maxName { // bytes, of which a character in Unicode has no more than 4
		return true
	}
	for label := range strings.SplitSeq(name, ".") {
		if utf8.RuneCountInString(label) > maxLabel {
			return true
		}
	}
	return false
}

// parseAddr accepts an IPv6 address in brackets, too, as it is in URLs.
func parseAddr(s string) (netip.Addr, bool) {
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' && strings.Contains(s, ":") {
		s = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(s)
	return addr, err == nil
}

// isDNSName reports whether s is a domain name as hosts have them (RFC 1123, section 2.1), in lower
// case, which an address is not. Within a label there may be "_", as there is in practice.
func isDNSName(s string) bool {
	if len(s) > maxName {
		return false
	}
	start, digits := 0, true // of the label
	for i := 0; ; i++ {
		if i == len(s) || s[i] == '.' {
			if i == start || i-start > maxLabel || isJoiner(s[start]) || isJoiner(s[i-1]) {
				return false
			}
			if i == len(s) {
				return !digits // a number at the end is that of an address
			}
			start, digits = i+1, true
			continue
		}
		switch c := s[i]; {
		case '0' <= c && c <= '9':
		case 'a' <= c && c <= 'z' || isJoiner(c):
			digits = false
		default:
			return false
		}
	}
}

// isJoiner reports whether c may be in a label, but neither first nor last.
func isJoiner(c byte) bool { return c == '-' || c == '_' }

// lookupName is NormalizeName for what clients send, which is ASCII (RFC 6066, section 3) and mostly in
// that form already, and for what certificates of files have. It returns "" for what is no name, and for
// wildcards. It lets through what a wildcard may be for although no authority issues a certificate for
// it, such as "a_b.example.com".
func lookupName(name string) string {
	if isDNSName(name) {
		return name
	}
	if len(name) > maxName+1 {
		return ""
	}
	if lower := strings.TrimSuffix(asciiLower(name), "."); isDNSName(lower) {
		return lower
	}
	if addr, ok := parseAddr(name); ok && addr.Zone() == "" {
		return addr.Unmap().String()
	}
	return ""
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// hostName is the name in a Host header, or "".
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return lookupName(host)
}
