package idp

import (
	"fmt"
	"net/netip"
	"syscall"
)

// publicOnly is a [net.Dialer.Control] that lets connections to public
// addresses pass. It sees the address that is about to be connected to, after
// all lookups.
func publicOnly(network, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" || !public(target.Addr()) {
		return fmt.Errorf("%w: %s is not a public address", ErrRefused, address)
	}
	return nil
}

// public reports whether an address is one of the internet's (the special
// ones are in IANA's registries, RFC 6890).
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return !in(a, special4[:])
	}
	if nat64.Contains(a) { // RFC 6052: the last four bytes are an IPv4 address
		b := a.As16()
		return public(netip.AddrFrom4([4]byte(b[12:])))
	}
	return global6.Contains(a) && !in(a, special6[:])
}

func in(a netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

var (
	special4 = [...]netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // this host
		netip.MustParsePrefix("10.0.0.0/8"),      // private
		netip.MustParsePrefix("100.64.0.0/10"),   // carrier-grade NAT
		netip.MustParsePrefix("127.0.0.0/8"),     // loopback
		netip.MustParsePrefix("169.254.0.0/16"),  // link-local, metadata of clouds
		netip.MustParsePrefix("172.16.0.0/12"),   // private
		netip.MustParsePrefix("192.0.0.0/24"),    // protocols
		netip.MustParsePrefix("192.0.2.0/24"),    // documentation
		netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
		netip.MustParsePrefix("192.168.0.0/16"),  // private
		netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // documentation
		netip.MustParsePrefix("203.0.113.0/24"),  // documentation
		netip.MustParsePrefix("224.0.0.0/3"),     // multicast, reserved, broadcast
	}
	global6  = netip.MustParsePrefix("2000::/3") // all that is given out
	special6 = [...]netip.Prefix{
		netip.MustParsePrefix("2001::/23"),     // protocols, Teredo
		netip.MustParsePrefix("2001:db8::/32"), // documentation
		netip.MustParsePrefix("2002::/16"),     // 6to4, which embeds IPv4 addresses
		netip.MustParsePrefix("3fff::/20"),     // documentation
	}
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)
