package tlsauto

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// DevCA is an Issuer for development and for private networks: an authority of its own, whose root is
// to be trusted by the few machines that use it, as [DevCA.TrustHint] says. It issues for 30 days, so
// that renewals are seen.
//
// The root is made when it is first needed, such as by [New], and is kept in Dir: the certificate in
// root.pem, the private key in root-key.pem, which nobody else may read. Several processes may begin
// with the same empty directory. It is valid for ten years, and by critical constraints (RFC 5280,
// section 4.2.1.10) for these names alone: localhost, all that ends in .localhost, .test, .example,
// .local, .internal or .home.arpa, the loopback and private addresses, and Domains. So whoever gets hold
// of the key cannot pretend to be any other site. A root that is damaged, does not have all Domains or
// expires within two months is refused; remove both files to have another one, which then
// must be trusted anew.
//
// It must not be copied after its first use.
type DevCA struct {
	Dir     string   // must be set; is made with mode 0700 if it is missing
	Domains []string // more names, each with all below it: only what is your own

	mu   sync.Mutex
	root *devRoot // nil: it has not been needed yet
}

const (
	devRootLife   = 10 * 365 * 24 * time.Hour
	devRootMargin = 60 * 24 * time.Hour // what must be left of it
	devLeafLife   = 30 * 24 * time.Hour
)

// devDomains are those that are nobody's on the Internet (RFC 6761, RFC 6762, RFC 8375, and ICANN's
// reservation of .internal).
func devDomains() []string {
	return []string{"localhost", "test", "example", "local", "internal", "home.arpa"}
}

// devNetworks are the addresses that are nobody's on the Internet (RFC 1122, RFC 1918, RFC 4193).
func devNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// ID has a hash of the root: what another one has issued is not used.
func (d *DevCA) ID() string {
	root, err := d.open(time.Now)
	if err != nil {
		return "devca" // check has said why
	}
	return "devca:" + shortHash(string(root.cert.Raw))
}

// Root returns the certificate of the root in PEM, and the file that has it.
func (d *DevCA) Root() (pem []byte, path string, err error) {
	root, err := d.open(time.Now)
	if err != nil {
		return nil, "", fmt.Errorf("tlsauto: %w", err)
	}
	return encodePEM("CERTIFICATE", root.cert.Raw), root.path, nil
}

// TrustHint returns a text for people: what to type, on this operating system, to have the root
// trusted. Nothing of that is done by this package.
func (d *DevCA) TrustHint() string {
	root, err := d.open(time.Now)
	if err != nil {
		return fmt.Sprintf("There is no development root to trust: %v\n", err)
	}
	return trustHint(runtime.GOOS, root.path, root.cert.Subject.CommonName)
}

// Issue signs a certificate for the names of an order.
func (d *DevCA) Issue(ctx context.Context, order *Order) (*tls.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := d.usable(order.Now)
	if err != nil {
		return nil, err
	}
	for _, name := range order.Names {
		if err := root.permits(name); err != nil {
			return nil, err
		}
	}
	key := order.Key
	if key == nil {
		if key, err = newKey(order.KeyType); err != nil {
			return nil, err
		}
	}
	return root.sign(order.Names, key, order.Now())
}

// check makes the root, too.
func (d *DevCA) check(c *Config) []error {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	root, err := d.usable(now)
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, names := range c.certificates() {
		for _, name := range names {
			if err := root.permits(name); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// usable is open for a root that is to sign.
func (d *DevCA) usable(now func() time.Time) (*devRoot, error) {
	root, err := d.open(now)
	if err != nil {
		return nil, err
	}
	if err := root.usable(now()); err != nil {
		return nil, fmt.Errorf("development root in %q: %w", d.Dir, err)
	}
	return root, nil
}

// open reads the root, or makes it.
func (d *DevCA) open(now func() time.Time) (*devRoot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root == nil {
		root, err := d.load(now())
		if err != nil {
			return nil, fmt.Errorf("development root in %q: %w", d.Dir, err)
		}
		d.root = root
	}
	return d.root, nil
}

func (d *DevCA) load(now time.Time) (*devRoot, error) {
	domains, err := d.domains()
	if err != nil {
		return nil, err
	}
	root, err := openDevRoot(d.Dir, domains, now)
	if err != nil {
		return nil, err
	}
	for _, name := range domains {
		if err := root.permits(name); err != nil {
			return nil, fmt.Errorf("it is older than Domains: %w; remove root.pem and root-key.pem to have another one", err)
		}
	}
	return root, nil
}

// domains are all that the root is to be for, in their one form.
func (d *DevCA) domains() ([]string, error) {
	all := devDomains()
	var errs []error
	if d.Dir == "" {
		errs = append(errs, errors.New("no Dir is given"))
	}
	for i, domain := range d.Domains {
		name, err := NormalizeName(domain)
		if err == nil && (isWildcard(name) || isIP(name)) {
			err = fmt.Errorf("%q is not a domain", domain)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("in Domains[%d]: %w", i, err))
			continue
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, errors.Join(errs...)
}

// A devRoot is the root of a DevCA.
type devRoot struct {
	cert *x509.Certificate
	key  crypto.Signer
	path string // of the certificate, absolute
}

// usable returns an error for a root that soon is none.
func (r *devRoot) usable(now time.Time) error {
	switch left := r.cert.NotAfter.Sub(now); {
	case left < devRootMargin:
		return fmt.Errorf("root.pem expires on %s: remove it and root-key.pem to have another one", r.cert.NotAfter.Format(time.DateOnly))
	case now.Before(r.cert.NotBefore):
		return fmt.Errorf("root.pem is not valid before %s, which is in the future: is the clock right?", r.cert.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// permits returns an error for a name that the constraints of the root do not let it sign. They are
// read from the certificate, since it is they that clients go by.
func (r *devRoot) permits(name string) error {
	if ip := net.ParseIP(name); ip != nil {
		if slices.ContainsFunc(r.cert.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) }) {
			return nil
		}
		return fmt.Errorf("address %s is neither a loopback nor a private one", name)
	}
	host := strings.TrimPrefix(name, "*.")
	for _, domain := range r.cert.PermittedDNSDomains {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return nil
		}
	}
	return fmt.Errorf("%s is not among the domains of the root: %s", name, strings.Join(r.cert.PermittedDNSDomains, ", "))
}

// sign returns a certificate with the root behind it, since it is needed to check the signature.
func (r *devRoot) sign(names []string, key crypto.Signer, now time.Time) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          nil, // a random one
		Subject:               pkix.Name{Organization: []string{"development certificate"}},
		NotBefore:             now.Add(-5 * time.Minute),
		NotAfter:              now.Add(devLeafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	template.DNSNames, template.IPAddresses = splitNames(names)
	der, err := x509.CreateCertificate(rand.Reader, template, r.cert, key.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, r.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
