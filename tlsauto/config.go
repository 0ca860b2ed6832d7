package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config is what a [Manager] is made of. At least one of Names, Groups, Files and OnDemand is needed.
type Config struct {
	// Names get a certificate each: domain names, "*.example.com" and IP addresses, the latter two from
	// issuers that can. The certificate of a wildcard stands in for a name that has none yet.
	// International names may be given in Unicode; events and status have the form of [NormalizeName].
	Names []string

	// Groups get one certificate for all names of a group, at most 100. A name that fails keeps the
	// others of its group from being renewed. A group of other names is another certificate: after a
	// name is added, the others are served what the Store has for them until that has been issued, for as
	// long as it is valid.
	Groups [][]string

	// Files are pairs of PEM files, which win over Names and Groups for the names that they have: one of a
	// wildcard does not win over a name of its own. They are read again whenever they change. The first
	// pair is also for clients that name no server, or one that nobody knows.
	Files []Files

	// OnDemand decides whether a certificate is ordered for a name that is in none of the above when a
	// client asks for it: an error refuses. nil refuses all. It is asked again before each renewal. It
	// may take until ctx ends, after 10 s, for which a handshake does not wait longer than WaitFirst. It
	// is called by several goroutines at once, at most 16, and its answers are remembered for a minute.
	OnDemand func(ctx context.Context, name string) error

	// OnDemandPerMinute is how many certificates may be ordered on demand in a minute, over all names;
	// default 10. MaxOnDemand is how many there may be at the same time; default 10,000.
	OnDemandPerMinute int
	MaxOnDemand       int

	// Issuers are tried in order: after three failures of one the next has its turn. Default: an
	// [Autocert] for Let's Encrypt with Email and AgreeTOS.
	Issuers []Issuer

	// Email is where the default issuer may write to; optional.
	Email string

	// AgreeTOS tells the default issuer that its terms of service are agreed to. It must be set
	// wherever it is used.
	AgreeTOS bool

	// Store keeps certificates, keys, accounts and what is planned. It is needed unless there are only
	// Files: without it each restart would order everything again, and authorities allow few orders.
	// Any autocert.Cache is one. With several processes it should be a [Leaser], too.
	Store Store

	// DefaultName is whose certificate clients get that name no server; default: that of the first of
	// Files, Names and Groups.
	DefaultName string

	// NoFallback refuses handshakes while there is no certificate, with the alert internal_error. Otherwise
	// they get a self-signed one.
	NoFallback bool

	// WaitFirst is how long a handshake waits for the first certificate of its name while the first
	// attempt is under way; default 500 ms, negative: not at all. A name on demand may wait that long for OnDemand, too.
	WaitFirst time.Duration

	// KeyType is that of new private keys; default P256.
	KeyType KeyType

	// ReuseKey keeps the private key of a certificate when that is renewed. Not for Autocert.
	ReuseKey bool

	// AdoptDelay is how long the old certificate is still served after a new one has come, for clients
	// whose clock is slow; default 1 h if the new one lives for more than 30 days, or else 0. Negative:
	// none. It is at most half of what is left of the old one, and none when an authority wants that to
	// be renewed early: then other processes find the new one within two minutes, too, unless it is on demand.
	AdoptDelay time.Duration

	// AttemptTimeout is the most time that an attempt to obtain a certificate takes; default 5 min. A
	// certificate that is still valid limits attempts to a quarter of its remaining time, but not below
	// 10 s.
	AttemptTimeout time.Duration

	// Backoff returns the pause after so many failures in a row, 1 or more. Default: 1, 2, 5, 10, 20, 30
	// and 60 min, then 2, 4 and 6 h. A pause is varied by a fifth, is halved when a tenth of the life is
	// left, and is never longer than an eighth of what is left of a valid certificate, or 10 s. Where
	// the Retry-After of an authority is longer, that counts, up to a day, unless there is another issuer.
	// After a certificate that was issued but cannot be used it is 6 h, unless one that is valid is about to
	// expire.
	Backoff func(failures int) time.Duration

	// FilesInterval is how often Files and ClientCAFile are looked at; default 10 s. A change counts once it
	// has stayed the same for a second.
	FilesInterval time.Duration

	// ClientAuth and ClientCAFile ask clients for certificates, as on the hop from a proxy: the PEM file
	// has the authorities, and is read again when it changes. ClientAuth must then be
	// [tls.VerifyClientCertIfGiven] or [tls.RequireAndVerifyClientCert]. An authority cannot validate by
	// TLS-ALPN-01 where a certificate is required.
	ClientAuth   tls.ClientAuthType
	ClientCAFile string

	// HTTPSPort is where [Manager.HTTPHandler] sends clients to; default 443.
	HTTPSPort int

	// Events is told what happens, in order, by one goroutine at a time, which waits for it: it should
	// return soon. It must not call Run.
	Events func(Event)

	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // wall clock; default time.Now
}

// Files is a pair of PEM files: the certificate with its intermediates, and its private key. They may
// be replaced in any way: overwritten, renamed over, or behind a symbolic link that is changed, as
// certbot and Kubernetes do it. A pair that is damaged, does
// not fit together, has expired or is not valid yet is refused, and the one before stays in service unless it is
// no better.
type Files struct {
	Cert string
	Key  string
}

// A KeyType is a kind of private key.
type KeyType int

// The key types.
const (
	P256    KeyType = iota // ECDSA on P-256
	P384                   // ECDSA on P-384; not for Autocert
	RSA2048                // for clients that are older than 2015
)

// String names the type, such as P-256.
func (t KeyType) String() string {
	switch t {
	case P256:
		return "P-256"
	case P384:
		return "P-384"
	case RSA2048:
		return "RSA-2048"
	}
	return fmt.Sprintf("KeyType(%d)", int(t))
}

const (
	maxGroup       = 100 // names in a certificate, the limit of Let's Encrypt
	issuerFailures = 3   // in a row, until the next issuer has its turn
)

// complete fills in the defaults and reports all mistakes.
func (c *Config) complete() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	managed := len(c.Names) > 0 || len(c.Groups) > 0 || c.OnDemand != nil
	if !managed && len(c.Files) == 0 {
		bad("one of Names, Groups, Files and OnDemand is needed")
	}
	c.completeNames(bad)
	for i, f := range c.Files {
		if f.Cert == "" || f.Key == "" {
			bad("Files[%d]: Cert and Key are both needed", i)
		}
	}
	if managed {
		c.completeIssuers(bad)
	} else if len(c.Issuers) > 0 {
		bad("Issuers have no Names, Groups or OnDemand")
	}
	if c.KeyType < P256 || c.KeyType > RSA2048 {
		bad("KeyType %d is unknown", int(c.KeyType))
	}
	if c.HTTPSPort < 0 || c.HTTPSPort > 65535 {
		bad("HTTPSPort %d is not a port", c.HTTPSPort)
	}
	if c.OnDemandPerMinute < 0 || c.MaxOnDemand < 0 {
		bad("OnDemandPerMinute or MaxOnDemand is negative")
	}
	if c.AttemptTimeout < 0 || c.FilesInterval < 0 {
		bad("AttemptTimeout or FilesInterval is negative")
	}
	verifies := c.ClientAuth == tls.VerifyClientCertIfGiven || c.ClientAuth == tls.RequireAndVerifyClientCert
	switch {
	case c.ClientAuth != tls.NoClientCert && !verifies:
		bad("ClientAuth %s does not verify", c.ClientAuth)
	case verifies && c.ClientCAFile == "":
		bad("ClientAuth needs ClientCAFile")
	case !verifies && c.ClientCAFile != "":
		bad("ClientCAFile needs ClientAuth")
	}

	def(&c.OnDemandPerMinute, 10)
	def(&c.MaxOnDemand, 10_000)
	def(&c.WaitFirst, 500*time.Millisecond)
	def(&c.AttemptTimeout, 5*time.Minute)
	def(&c.FilesInterval, 10*time.Second)
	def(&c.HTTPSPort, 443)
	def(&c.Logger, slog.Default())
	if c.Backoff == nil {
		c.Backoff = defaultBackoff
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return errors.Join(errs...)
}

// completeNames brings all names to their one form, in slices of their own.
func (c *Config) completeNames(bad func(format string, args ...any)) {
	seen := map[string]string{}
	normalize := func(place, name string) string {
		n, err := NormalizeName(name)
		if err != nil {
			bad("%s: %w", place, err)
			return name
		}
		if other := seen[n]; other != "" {
			bad("%s: %s is in %s, too", place, n, other)
		}
		seen[n] = place
		return n
	}
	c.Names = slices.Clone(c.Names)
	for i, name := range c.Names {
		c.Names[i] = normalize(fmt.Sprintf("Names[%d]", i), name)
	}
	c.Groups = slices.Clone(c.Groups)
	for i, group := range c.Groups {
		if len(group) == 0 || len(group) > maxGroup {
			bad("Groups[%d]: %d names, want 1 to %d", i, len(group), maxGroup)
		}
		c.Groups[i] = slices.Clone(group)
		for j, name := range group {
			c.Groups[i][j] = normalize(fmt.Sprintf("Groups[%d][%d]", i, j), name)
		}
	}
	if c.DefaultName != "" {
		n, err := NormalizeName(c.DefaultName)
		if err != nil {
			bad("DefaultName: %w", err)
		} else if seen[n] == "" && len(c.Files) == 0 {
			bad("DefaultName: %s is none of Names and Groups", n)
		}
		c.DefaultName = n
	}
}

// checker is an issuer that knows what it cannot do.
type checker interface {
	// check returns an error for each thing that it could not do for this configuration.
	check(c *Config) []error
}

func (c *Config) completeIssuers(bad func(format string, args ...any)) {
	if c.Store == nil {
		bad("Store is needed")
	}
	if len(c.Issuers) == 0 {
		c.Issuers = []Issuer{&Autocert{Directory: Directory{Email: c.Email, AgreeTOS: c.AgreeTOS}}}
	} else if c.Email != "" || c.AgreeTOS {
		bad("Email and AgreeTOS are for the default issuer: those of Issuers have their own")
	}
	ids := map[string]int{}
	for i, issuer := range c.Issuers {
		if issuer == nil {
			bad("Issuers[%d] is nil", i)
			continue
		}
		if known, ok := issuer.(checker); ok {
			for _, err := range known.check(c) {
				bad("Issuers[%d]: %w", i, err)
			}
		}
		if other, ok := ids[issuer.ID()]; ok {
			bad("Issuers[%d] has the ID of Issuers[%d]: %s", i, other, issuer.ID())
		}
		ids[issuer.ID()] = i
	}
}

// certificates lists the names of each certificate to obtain, those of a certificate together.
func (c *Config) certificates() [][]string {
	var all [][]string
	for _, name := range c.Names {
		all = append(all, []string{name})
	}
	return append(all, c.Groups...)
}

// anyName reports whether a name for which a certificate is wanted satisfies is.
func (c *Config) anyName(is func(name string) bool) bool {
	return slices.ContainsFunc(c.certificates(), func(names []string) bool { return slices.ContainsFunc(names, is) })
}

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

func isIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
