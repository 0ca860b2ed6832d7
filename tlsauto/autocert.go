package tlsauto

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

// Directories of Let's Encrypt. What the staging one issues is for tests: nobody trusts it, and much
// more of it may be ordered.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// A Directory is an ACME authority and the account there.
type Directory struct {
	URL      string // default LetsEncrypt
	Email    string // where the authority may write to; optional
	AgreeTOS bool   // to its terms of service; must be set

	// EABKeyID and EABKey bind the account to one that exists at the authority otherwise (RFC 8555,
	// section 7.3.4); for those that demand it.
	EABKeyID string
	EABKey   []byte

	// Roots are those of the authority's own server; nil: those of the system.
	Roots *x509.CertPool

	// Client makes the requests to the authority; nil: one with timeouts and Roots.
	Client *http.Client
}

// Autocert is an Issuer that uses golang.org/x/crypto/acme/autocert.
type Autocert struct {
	Directory
}

func (a *Autocert) ID() string { return a.URL }

func (a *Autocert) Issue(ctx context.Context, order *Order) (*tls.Certificate, error) {
	return nil, nil
}
