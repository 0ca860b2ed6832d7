package acmetest

import (
	"testing"
)

// TestRotate renews a certificate several times, by both challenges that need no DNS.
func TestRotate(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		for challenge, http01 := range map[string]bool{"TLS-ALPN-01": false, "HTTP-01": true} {
			t.Run(issuer+" by "+challenge, func(t *testing.T) {
				t.Parallel()
				c := setup{names: []string{nameA}, http01: http01}
				rotates(t, managed(issuer), c, 4)
			})
		}
	}
}
