package main

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// plainName is a name in the form in which package tlsauto tells it: lower case, ASCII, without a dot at
// the end. What is no name stays as it is, for the library to say so.
func plainName(name string) string {
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil { // with brackets as in URLs
		return addr.Unmap().String()
	}
	rest, star := strings.CutPrefix(strings.TrimSuffix(name, "."), "*.")
	ascii, err := idna.Lookup.ToASCII(rest)
	switch {
	case err != nil:
		return name
	case star:
		return "*." + ascii
	}
	return ascii
}

// plainNames brings all names of certificates to that form.
func (c *acmeConfig) plainNames() {
	for _, names := range c.Names {
		for i, name := range names {
			names[i] = plainName(name)
		}
	}
}
