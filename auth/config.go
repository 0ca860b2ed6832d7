package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Config configures [New]. The zero value signs people in with e-mail address
// and password, logs what would be mailed and limits attempts.
type Config struct {
	// SiteURL is the public address of the application, scheme and host, as in
	// "https://app.example.com". Links in mails, redirects and callbacks of
	// identity providers begin with it; what a request says about hosts is
	// never believed. Needed with Mailer and Providers; default
	// "http://localhost:4000".
	SiteURL string

	// AppName is shown in mails and authenticator apps; default "Bedplate".
	AppName string

	// Prefix is the path of the handler as clients see it, for links and
	// callbacks; default "/api/auth/v1". PagesPrefix is the same for [Service.PagesAt];
	// default "/_/auth".
	Prefix      string
	PagesPrefix string

	// KeyFile is the file of the master key that seals what the database must
	// not reveal. It is made when it does not exist, unless the database
	// already holds sealed values. Default: the database's path with "-key"
	// added. Key is 32 secret bytes to use instead of a file.
	KeyFile string
	Key     []byte

	// Identifier says what users are known by; default [OnlyEmail].
	Identifier Identifier

	// NoPasswords closes registration with a password. Anonymous and OTP open
	// sign-in without an account and by a mailed code.
	NoPasswords bool
	Anonymous   bool
	OTP         bool

	// Password is what passwords must be like; Argon2 what a hash costs.
	Password PasswordPolicy
	Argon2   Argon2

	// AccessTTL is the life of an auth token; default 1 h, at least 2 min.
	// RefreshTTL and AnonymousTTL are those of a session, counted from
	// sign-in; default 30 and 90 days.
	AccessTTL    time.Duration
	RefreshTTL   time.Duration
	AnonymousTTL time.Duration

	// FreshTTL is how long after showing credentials a session may do what
	// changes them: change the address, add or remove factors and identities,
	// make API keys; default 10 min.
	FreshTTL time.Duration

	// KeyTTL is how long a signing key signs before the next one takes over;
	// default 90 days.
	KeyTTL time.Duration

	// RedirectURIs and RedirectSchemes allow redirects beyond paths of the
	// site: exact URIs and, for native clients, schemes other than http and
	// https.
	RedirectURIs    []string
	RedirectSchemes []string

	// TrustedOrigins are further origins whose pages may send requests with
	// cookies; see [http.CrossOriginProtection].
	TrustedOrigins []string

	// Proxies is how many reverse proxies stand before the application, and
	// TrustedProxies their addresses if these are known: together they tell
	// which entry of X-Forwarded-For is the client. Default none.
	Proxies        int
	TrustedProxies []netip.Prefix

	// Limits bound attempts; the zero value is the default of each.
	Limits Limits

	// Mailer sends mails. With nil none is sent, and Logger gets a line for
	// each; auth/mail has one that logs the whole text. Templates
	// replaces some or all of their texts.
	Mailer    Mailer
	Templates fs.FS

	// SignInMails tells users by mail of a sign-in from a browser or address
	// that their account has not seen before.
	SignInMails bool

	// Providers are where people may sign in from. Issuers are whose bearer
	// tokens are accepted; ProvisionUsers makes an account for a subject of
	// theirs that has none.
	Providers      []IdentityProvider
	Issuers        []Issuer
	ProvisionUsers bool

	// Hooks are the application's.
	Hooks Hooks

	// Logger gets what no client is told; default slog.Default(). No secret
	// is written to it.
	Logger *slog.Logger

	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Identifier says what users are known by when they register.
type Identifier int

// The policies of the contract.
const (
	OnlyEmail               Identifier = iota // an address, no name
	RequireEmail                              // an address, perhaps a name
	OnlyUsername                              // a name, no address
	RequireUsername                           // a name, perhaps an address
	RequireEmailAndUsername                   // both
)

// PasswordPolicy says what new passwords must be like. The zero value asks for
// 8 bytes that are not among the 10,000 most common passwords.
type PasswordPolicy struct {
	MinLength   int // bytes; default 8, at most 64
	MixedCase   bool
	Digits      bool
	Special     bool
	AllowCommon bool
}

// Argon2 is the cost of a password hash (RFC 9106).
type Argon2 struct {
	Memory  uint32 // KiB; default 19456
	Time    uint32 // passes; default 2
	Threads uint8  // default 1
	Slots   int    // hashes at the same time; default one for each processor
	Queue   int    // requests that wait for a slot; default 64, beyond it 429
}

// A Limit allows Events in each Per, and not more than Burst at once (0:
// Events). The zero value stands for the default; Events below zero for no
// limit.
type Limit struct {
	Events int
	Per    time.Duration
	Burst  int
}

// Limits are how often something may be tried. They are kept in the database.
type Limits struct {
	// Failures bounds wrong passwords and codes for one account, from all
	// devices that have not signed in to it before; default 40 in an hour, 10
	// at once. A device that has signed in has the same again for itself, so
	// that others cannot lock it out.
	Failures Limit

	// SecondFactors bounds wrong second factors for one account, by who has
	// shown the first one; default 20 in an hour, 10 at once.
	SecondFactors Limit

	// AddressFailures bounds them from one address (IPv6: one /64) for all
	// accounts; default 300 in an hour, 100 at once.
	AddressFailures Limit

	// GlobalFailures bounds them in all, for devices that have not signed in
	// before; default 20,000 in an hour, 2,000 at once.
	GlobalFailures Limit

	// Registrations bounds new accounts from one address, anonymous ones
	// included; default 60 in an hour, 20 at once.
	Registrations Limit

	// Mails bounds mails to one recipient that strangers can ask for, by a
	// registration too; default 5 in an hour.
	// AddressMails those asked for from one address, default 30 in an hour;
	// GlobalMails those in all, default 2,000 in an hour.
	Mails        Limit
	AddressMails Limit
	GlobalMails  Limit
}

// Hooks are functions of the application's. A hook that panics or returns an
// error fails its request only. An error that is a *[Error] is shown to the
// client, any other becomes status 500.
type Hooks struct {
	// BeforeCreate is called in the transaction that makes a user, before it
	// is inserted, and may change u or refuse. It must not wait for anything
	// but tx.
	BeforeCreate func(ctx context.Context, tx *sqlite.Tx, u *NewUser) error

	// AfterLogin is called behind the commit that began a session.
	AfterLogin func(ctx context.Context, u *User)

	// Claims returns further claims for the auth tokens of u. They can be
	// read by the client and come back in User.Claims. Names of the contract
	// cannot be replaced.
	Claims func(ctx context.Context, u *User) (map[string]any, error)
}

// A NewUser is an account that is about to be made.
type NewUser struct {
	Email     string // not yet verified unless Provider is set
	Username  string
	Provider  *Provider // where it comes from; nil: registered here
	Anonymous bool
	Admin     bool
}

func (c *Config) setDefaults(path string) {
	def(&c.SiteURL, "http://localhost:4000")
	def(&c.AppName, "Bedplate")
	def(&c.Prefix, "/api/auth/v1")
	def(&c.PagesPrefix, "/_/auth")
	if c.Key == nil {
		def(&c.KeyFile, path+"-key")
	}
	def(&c.Password.MinLength, 8)
	def(&c.AccessTTL, time.Hour)
	def(&c.RefreshTTL, 30*24*time.Hour)
	def(&c.AnonymousTTL, 90*24*time.Hour)
	def(&c.FreshTTL, 10*time.Minute)
	def(&c.KeyTTL, 90*24*time.Hour)
	l := &c.Limits
	def(&l.Failures, Limit{40, time.Hour, 10})
	def(&l.SecondFactors, Limit{20, time.Hour, 10})
	def(&l.AddressFailures, Limit{300, time.Hour, 100})
	def(&l.GlobalFailures, Limit{20000, time.Hour, 2000})
	def(&l.Registrations, Limit{60, time.Hour, 20})
	def(&l.Mails, Limit{5, time.Hour, 5})
	def(&l.AddressMails, Limit{30, time.Hour, 30})
	def(&l.GlobalMails, Limit{2000, time.Hour, 2000})
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// validate reports all mistakes of a configuration before its defaults.
func (c Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: "+format, args...)) }

	if c.SiteURL == "" && (c.Mailer != nil || len(c.Providers) > 0) {
		bad("SiteURL is needed for links in mails and for the callbacks of providers")
	}
	if c.SiteURL != "" {
		if _, err := origin(c.SiteURL); err != nil {
			bad("SiteURL %q: %v", c.SiteURL, err)
		}
	}
	for _, p := range []string{c.Prefix, c.PagesPrefix} {
		if p != "" && (p[0] != '/' || strings.HasSuffix(p, "/") || strings.ContainsAny(p, " {}?#")) {
			bad("prefix %q must begin with a slash and not end in one", p)
		}
	}
	if c.Key != nil && len(c.Key) != 32 {
		bad("Key has %d bytes, want 32", len(c.Key))
	}
	if c.Key != nil && c.KeyFile != "" {
		bad("at most one of Key and KeyFile can be given")
	}
	if c.Identifier < OnlyEmail || c.Identifier > RequireEmailAndUsername {
		bad("Identifier %d is unknown", c.Identifier)
	}
	if n := c.Password.MinLength; n < 0 || n > 64 {
		bad("Password.MinLength %d is not between 0 and 64", n)
	}
	if c.AccessTTL != 0 && c.AccessTTL < 2*time.Minute {
		bad("AccessTTL %v is less than 2 minutes: clients refresh a minute before the end", c.AccessTTL)
	}
	if c.RefreshTTL < 0 || c.AnonymousTTL < 0 || c.FreshTTL < 0 || c.KeyTTL < 0 {
		bad("RefreshTTL, AnonymousTTL, FreshTTL or KeyTTL is negative")
	}
	if c.KeyTTL != 0 && c.KeyTTL < c.AccessTTL {
		bad("KeyTTL is shorter than AccessTTL")
	}
	for _, s := range c.RedirectSchemes {
		if !schemeName.MatchString(s) || s == "http" || s == "https" || s == "javascript" || s == "data" || s == "vbscript" || s == "file" || s == "blob" {
			bad("redirect scheme %q is not one for a native client", s)
		}
	}
	for _, s := range c.RedirectURIs {
		if u, err := url.Parse(s); err != nil || !u.IsAbs() || u.Host == "" || u.Fragment != "" {
			bad("redirect URI %q is not an absolute URI", s)
		}
	}
	check := new(http.CrossOriginProtection)
	for _, o := range c.TrustedOrigins {
		if err := check.AddTrustedOrigin(o); err != nil {
			bad("trusted origin: %v", err)
		}
	}
	if c.Proxies < 0 {
		bad("Proxies is negative")
	}
	providers := map[string]bool{}
	for _, p := range c.Providers {
		d := p.Provider()
		if !providerName.MatchString(d.Name) || d.Issuer == "" {
			bad("provider %q needs a name of letters, digits, '-' and '_', and an issuer", d.Name)
		}
		if providers[d.Name] || providers["issuer "+d.Issuer] {
			bad("provider %q is listed twice, by name or issuer", d.Name)
		}
		providers[d.Name], providers["issuer "+d.Issuer] = true, true
	}
	issuers := map[string]bool{}
	for _, i := range c.Issuers {
		if i.Name() == "" || issuers[i.Name()] {
			bad("issuer %q is without a name or listed twice", i.Name())
		}
		issuers[i.Name()] = true
	}
	return errors.Join(errs...)
}

var (
	schemeName   = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)
	providerName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
)

// origin parses a URL that is a scheme and a host, and nothing else.
func origin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil:
		return nil, errors.New("write it as http://host or https://host")
	case s != u.Scheme+"://"+u.Host || s != strings.ToLower(s):
		return nil, errors.New("write scheme and host in lower case and nothing behind them")
	}
	return u, nil
}
