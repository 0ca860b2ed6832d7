package tlsauto

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"
)

// An Issuer obtains certificates. [Autocert], [ACME] and [DevCA] are issuers.
type Issuer interface {
	// ID tells issuers apart. What is stored of one, certificates and accounts, is not used for
	// another, as a test certificate is not for production. An ACME issuer has the URL of its
	// directory, and its profile.
	ID() string

	// Issue obtains a certificate, with Leaf set and its intermediates in order. It must return when
	// ctx ends and retry nothing that fails: that is for the Manager. An error that is, or wraps, a
	// [*RetryAfterError] says how long. It is called by several goroutines at once.
	Issue(ctx context.Context, order *Order) (*tls.Certificate, error)
}

// An Order is what an [Issuer] is asked for. But for Key, nothing in it is nil.
type Order struct {
	Names   []string // normalized; see Config.Names
	KeyType KeyType

	// Key is the private key to use; nil: a new one.
	Key crypto.Signer

	// Store is the issuer's own part of the Manager's Store, as for its account.
	Store Store

	Challenges Challenges
	Logger     *slog.Logger
	Now        func() time.Time
}

// Challenges is where an [Issuer] puts its answers to the challenges of an authority, which then are
// given by all processes that share the Store. They must be removed by the func that is returned, which
// takes 2 s at most and may be called more than once.
type Challenges interface {
	// HTTP01 answers GET /.well-known/acme-challenge/token (RFC 8555, section 8.3).
	HTTP01(ctx context.Context, token string, answer []byte) (remove func(), err error)

	// ServesHTTP01 reports whether HTTPHandler has been called, without which nobody answers there.
	ServesHTTP01() bool

	// TLSALPN01 answers handshakes with the protocol acme-tls/1 alone (RFC 8737). The name is that in
	// the handshake: a domain name, or that of an address in in-addr.arpa or ip6.arpa (RFC 8738).
	TLSALPN01(ctx context.Context, name string, cert *tls.Certificate) (remove func(), err error)
}

// A RetryAfterError is the error of an authority that wants to be left alone for a time.
type RetryAfterError struct {
	After time.Duration // 0 or less: not said; at most a day counts
	Err   error         // what was refused
}

// Error is that of Err.
func (e *RetryAfterError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// A RenewalAdviser is an [Issuer] that says when a certificate should be renewed, as ACME authorities
// do (RFC 9773). It is asked now and then, and a certificate that it wants to be renewed is renewed
// before its time.
type RenewalAdviser interface {
	// RenewalInfo advises on a certificate of this issuer; parent is what has signed it, nil if that is
	// not known. The error is [errors.ErrUnsupported] when the authority gives no advice.
	RenewalInfo(ctx context.Context, leaf, parent *x509.Certificate) (*RenewalInfo, error)
}

// RenewalInfo is the advice of an authority (RFC 9773, section 4.2).
type RenewalInfo struct {
	Start, End     time.Time     // a time between them is chosen; in the past: now
	ExplanationURL string        // optional
	AskAgain       time.Duration // from Retry-After; 0: not said
}
