package main

import "github.com/bedplate/bedplate/tlsauto"

// plainName is a name in the form in which package tlsauto tells it. What is no name stays as it is, for
// the library to say so.
func plainName(name string) string {
	plain, err := tlsauto.NormalizeName(name)
	if err != nil {
		return name
	}
	return plain
}

// plainNames brings all names of certificates to that form.
func (c *acmeConfig) plainNames() {
	for _, names := range c.Names {
		for i, name := range names {
			names[i] = plainName(name)
		}
	}
}
