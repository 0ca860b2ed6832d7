package httpx

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientIP finds the address that a request came from, behind reverse proxies
// too. The zero value takes the TCP peer and looks at no header, which is
// right when there is no proxy. It is safe for concurrent use.
//
// A reverse proxy appends the address of its own peer to X-Forwarded-For. So
// with N proxies in a row the client is the Nth entry from the right;
// everything left of it was in the request when it reached the outermost
// proxy, and is whatever the client cared to write. No other header
// (X-Real-IP, True-Client-IP, Forwarded and the like) is ever looked at.
type ClientIP struct {
	// Proxies is the number of reverse proxies in front of this process, each
	// of which appends an entry. With 0 or less there are none.
	Proxies int

	// Trusted, unless empty, are the networks that the nearest proxy is in.
	// From any other peer, which must have come past the proxy, the header
	// is ignored. Networks of IPv4 are written as such, not as ::ffff:0:0/96.
	Trusted []netip.Prefix
}

// Of returns the address of the client, without zone, and an IPv4 address as
// such even if it was written as ::ffff:192.0.2.1.
//
// It is the TCP peer when the header has fewer entries than there are
// proxies, or its entry is no address: at worst all clients of a wrongly set
// up proxy count as one, but nobody can choose an address.
//
// A peer without an IP address, as on a Unix socket, is the zero
// [netip.Addr]. It is in no network, so with Trusted set it stays that.
func (c ClientIP) Of(r *http.Request) netip.Addr {
	peer := parseAddr(r.RemoteAddr)
	if c.Proxies <= 0 || !c.trusts(peer) {
		return peer
	}
	entry, ok := fromRight(r.Header["X-Forwarded-For"], c.Proxies)
	if !ok {
		return peer
	}
	if addr := parseAddr(entry); addr.IsValid() {
		return addr
	}
	return peer
}

func (c ClientIP) trusts(peer netip.Addr) bool {
	if len(c.Trusted) == 0 {
		return true
	}
	for _, network := range c.Trusted {
		if network.Contains(peer) {
			return true
		}
	}
	return false
}

// fromRight returns the nth entry from the right, counted from 1, of the list
// that all lines together are. Empty entries count: if they were skipped, a
// proxy that appends one would move the count on to what the client wrote.
// It looks at no more than it counts.
func fromRight(lines []string, n int) (entry string, ok bool) {
	for i := len(lines) - 1; i >= 0; i-- {
		line := lines[i]
		for {
			comma := strings.LastIndexByte(line, ',')
			n--
			if n == 0 {
				return line[comma+1:], true
			}
			if comma < 0 {
				break
			}
			line = line[:comma]
		}
	}
	return "", false
}

// maxAddr is more than the longest address in brackets with a zone and a
// port. Longer texts are not looked at.
const maxAddr = 128

// parseAddr reads an address with or without port, as in 192.0.2.1:80,
// [2001:db8::1]:80, [2001:db8::1] and 2001:db8::1. For any other text it
// returns the zero Addr.
func parseAddr(s string) netip.Addr {
	s = strings.Trim(s, " \t")
	if len(s) > maxAddr {
		return netip.Addr{}
	}
	var addr netip.Addr
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		addr = withPort.Addr()
	} else if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		addr, _ = netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if addr.Is4() {
			return netip.Addr{}
		}
	} else {
		addr, _ = netip.ParseAddr(s)
	}
	return addr.Unmap().WithZone("")
}

// Bucket returns the network that limits count an address by: the address
// itself for IPv4, and for IPv6 the /64 that is handed to a single customer,
// who can pick any address in it. The zero Addr, for peers without address,
// is in the zero Prefix, which they share.
func Bucket(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	a = a.Unmap()
	bits := 64
	if a.Is4() {
		bits = 32
	}
	network, _ := a.Prefix(bits) // without the zone; fails only for too many bits
	return network
}
