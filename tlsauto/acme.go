package tlsauto

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

// ACME is an [Issuer] that speaks with an authority itself (RFC 8555): several names in a certificate,
// wildcards by DNS-01, addresses (RFC 8738), profiles, and a choice of challenges. The certificates have
// no common name.
type ACME struct {
	Directory

	// Profile is the kind of certificate, of those that the authority has; "": its default.
	Profile string

	// Challenges are those to use, in order of preference: "tls-alpn-01", "http-01" and "dns-01".
	// Default: all of them, in that order, but HTTP-01 only where [Manager.HTTPHandler] is in use, and
	// DNS-01 only with DNS. Each name has one of them in a call of Issue, as authorities allow few
	// failures. For the same names the next call begins with what has worked last, or else with what
	// has not failed, as far as this process remembers.
	Challenges []string

	// DNS sets the records for DNS-01.
	DNS DNSProvider

	accounts    accounts
	preferences preferences
	pauses      []time.Duration // of finalize; nil: finalizePauses
}

// A DNSProvider sets TXT records for the challenge DNS-01 (RFC 8555, section 8.4). It is called by
// several goroutines at once.
type DNSProvider interface {
	// Present adds a TXT record, of a name like "_acme-challenge.example.com." with its final dot, and
	// returns when all servers of the zone have it. There may be several at a name. That name may be an
	// alias (CNAME), which the provider has to follow if it should.
	Present(ctx context.Context, fqdn, value string) error

	// CleanUp removes it. It is also called when Present has failed, has 10 s, and an error of it is
	// logged only.
	CleanUp(ctx context.Context, fqdn, value string) error
}

// The challenges.
const (
	challengeTLSALPN01 = "tls-alpn-01"
	challengeHTTP01    = "http-01"
	challengeDNS01     = "dns-01"
)

// ID is the URL of the directory, and "#" with the profile if there is one.
func (a *ACME) ID() string {
	if a.Profile != "" {
		return a.url() + "#" + a.Profile
	}
	return a.url()
}

// challenges lists those that are to be used, in order.
func (a *ACME) challenges() []string {
	if len(a.Challenges) > 0 {
		return a.Challenges
	}
	if a.DNS != nil {
		return []string{challengeTLSALPN01, challengeHTTP01, challengeDNS01}
	}
	return []string{challengeTLSALPN01, challengeHTTP01}
}

func (a *ACME) check(c *Config) []error {
	errs := a.Directory.check()
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i, typ := range a.Challenges {
		switch typ {
		case challengeTLSALPN01, challengeHTTP01, challengeDNS01:
		default:
			bad("Challenges[%d]: %q is none of tls-alpn-01, http-01 and dns-01", i, typ)
		}
		if slices.Contains(a.Challenges[:i], typ) {
			bad("Challenges[%d]: %q is there twice", i, typ)
		}
	}
	byDNS := slices.Contains(a.challenges(), challengeDNS01)
	if byDNS != (a.DNS != nil) {
		bad("DNS and dns-01 in Challenges go together")
	}
	if c.anyName(isWildcard) && !byDNS {
		bad("wildcards need dns-01")
	}
	if c.anyName(isIP) && slices.Equal(a.challenges(), []string{challengeDNS01}) {
		bad("addresses need tls-alpn-01 or http-01")
	}
	if c.ClientAuth == tls.RequireAndVerifyClientCert && slices.Contains(a.challenges(), challengeTLSALPN01) {
		bad("Challenges must be others than tls-alpn-01, for which an authority has no client certificate")
	}
	if strings.ContainsFunc(a.Profile, func(r rune) bool { return r <= ' ' || r > '~' }) || len(a.Profile) > 64 {
		bad("Profile %q is no name of one", a.Profile)
	}
	return errs
}

// Issue implements [Issuer]. It retries one thing all the same: to fetch what has been issued, for a
// minute and a half.
func (a *ACME) Issue(ctx context.Context, order *Order) (*tls.Certificate, error) {
	l := a.connect(context.WithoutCancel(ctx)) // it clears up when ctx has ended
	defer l.close()
	client, err := a.accounts.open(ctx, &a.Directory, l, order)
	if err != nil {
		return nil, err
	}
	options, err := a.options(ctx, client)
	if err != nil {
		return nil, err
	}
	key := order.Key
	if key == nil {
		if key, err = newKey(order.KeyType); err != nil {
			return nil, err
		}
	}

	t := &attempt{
		acme: a, client: client, order: order, key: key, options: options,
		challenges: a.preferences.of(order.Names, a.challenges()),
	}
	cert, err := t.run(ctx)
	if isNoAccount(err) {
		if err := a.accounts.forget(ctx, order); err != nil {
			order.Logger.WarnContext(ctx, "tlsauto: the account could not be forgotten", "error", err)
		}
	}
	return cert, err
}

// options are those of the orders: the profile, which must be one of the authority's.
func (a *ACME) options(ctx context.Context, client *acme.Client) ([]acme.OrderOption, error) {
	if a.Profile == "" {
		return nil, nil
	}
	dir, err := client.Discover(ctx) // which accounts.open has done
	if err != nil {
		return nil, issueError(ctx, "read the directory "+a.url(), err)
	}
	if _, ok := dir.Profiles[acme.ProfileName(a.Profile)]; !ok {
		var names []string
		for _, name := range slices.Sorted(maps.Keys(dir.Profiles)) {
			names = append(names, string(name))
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("the authority has no profiles, and so not %s", a.Profile)
		}
		return nil, fmt.Errorf("the authority has no profile %s, but: %s", a.Profile, printable(strings.Join(names, ", ")))
	}
	return []acme.OrderOption{acme.WithOrderIssuanceProfile(acme.ProfileName(a.Profile))}, nil
}

// An attempt is one order.
type attempt struct {
	acme       *ACME
	client     *acme.Client
	order      *Order
	key        crypto.Signer
	options    []acme.OrderOption
	challenges []string // kinds, the one to begin with first
}

// run makes the order.
func (t *attempt) run(ctx context.Context) (cert *tls.Certificate, err error) {
	if err := t.impossible(); err != nil {
		return nil, err
	}
	var ids []acme.AuthzID
	for _, name := range t.order.Names {
		if isIP(name) {
			ids = append(ids, acme.IPIDs(name)...)
		} else {
			ids = append(ids, acme.DomainIDs(name)...)
		}
	}
	o, err := t.client.AuthorizeOrder(ctx, ids, t.options...)
	if err != nil {
		return nil, issueError(ctx, "order a certificate", err)
	}
	if o.URI == "" || len(o.AuthzURLs) > len(ids) {
		return nil, errors.New("order a certificate: the authority's answer is not one to that order")
	}
	defer func() {
		if err != nil {
			deactivate(ctx, t.client, o.AuthzURLs)
		}
	}()
	if o.Status == acme.StatusPending {
		if err := t.authorize(ctx, o.AuthzURLs); err != nil {
			return nil, err
		}
		ready, err := t.client.WaitOrder(ctx, o.URI)
		if err != nil {
			return nil, issueError(ctx, "wait for the order", err)
		}
		ready.URI = o.URI // whatever header this answer had
		o = ready
	}
	csr, err := t.request()
	if err != nil {
		return nil, err
	}
	chain, err := t.finalize(ctx, o, csr)
	if err != nil {
		return nil, issueError(ctx, "fetch the certificate", err)
	}
	return t.certificate(chain)
}

// request makes the request for the certificate (RFC 8555, section 7.4).
func (t *attempt) request() ([]byte, error) {
	template := &x509.CertificateRequest{}
	for _, name := range t.order.Names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, t.key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return csr, nil
}

// certificate checks what has come: what is behind the leaf, too, as clients get all of it.
func (t *attempt) certificate(chain [][]byte) (*tls.Certificate, error) {
	for i, der := range chain {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("read certificate %d of the chain: %w", i, err)
		}
	}
	return checkedCertificate(&tls.Certificate{Certificate: chain, PrivateKey: t.key}, t.order.Names)
}

// deactivateTimeout is short: it may be the end of the process that is held up.
const deactivateTimeout = 2 * time.Second

// deactivate gives up the authorizations of an order that are still pending, as authorities allow few
// of them. It goes on when ctx has ended, but not when the authority does not answer.
func deactivate(ctx context.Context, client *acme.Client, urls []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deactivateTimeout)
	defer cancel()
	for _, url := range urls {
		z, err := client.GetAuthorization(ctx, url)
		if err == nil && z.Status == acme.StatusPending {
			err = client.RevokeAuthorization(ctx, url)
		}
		if err != nil {
			return
		}
	}
}

// newKey makes a private key.
func newKey(t KeyType) (key crypto.Signer, err error) {
	switch t {
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key of type %s: %w", t, err)
	}
	return key, nil
}
