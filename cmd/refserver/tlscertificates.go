package main

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/tlsauto"
)

// checkTLS reports the mistakes in the settings of the mode that was chosen.
func (conf *config) checkTLS() error {
	t := &conf.TLS
	if !t.on() {
		return nil
	}
	var errs []error
	bad := func(flag, format string, args ...any) { errs = append(errs, conf.tlsMistake(flag, format, args...)) }
	switch t.Mode {
	case modeFiles:
		if t.Cert == "" || t.Key == "" {
			given := "tls-cert"
			if t.Cert == "" {
				given = "tls-key"
			}
			bad(given, "certificate and key are needed both: --tls-cert and --tls-key")
			return errors.Join(errs...)
		}
	case modeACME:
		conf.checkACME(bad)
	}
	switch {
	case t.ClientAuth != "" && t.ClientAuth != clientAuthOptional && t.ClientAuth != clientAuthRequire:
		bad("tls-client-auth", "%q is neither optional nor require", string(t.ClientAuth))
		t.ClientAuth = clientAuthRequire
	case t.ClientAuth != "" && t.ClientCA == "":
		bad("tls-client-auth", "clients can be asked for certificates only with --tls-client-ca")
	case t.ClientAuth == "" && t.ClientCA != "":
		t.ClientAuth = clientAuthRequire
	}
	if _, _, err := net.SplitHostPort(t.RedirectAddress); t.RedirectAddress != "" && err != nil {
		bad("http-redirect-address", "%v", err)
	}
	if t.ClientCA == "" {
		t.ClientAuth = ""
	}
	return errors.Join(append(errs, conf.tryTLS()...)...)
}

func (conf *config) checkACME(bad func(flag, format string, args ...any)) {
	t := &conf.TLS
	c := &t.ACME
	if len(c.Names) == 0 {
		bad("acme-domains", "the names to order certificates for are needed")
	}
	for _, names := range c.Names {
		for _, name := range names {
			if strings.HasPrefix(name, "*.") {
				bad("acme-domains", "%q can be proved by the challenge dns-01 only, which this server has not: see package tlsauto for a program of one's own", name)
			}
		}
	}
	switch u, err := parseDirectory(c.Directory); {
	case err != nil:
		bad("acme-directory", "%v", err)
		c.Directory = ""
	case !c.AgreeTOS:
		bad("acme-agree-tos", "it has to be agreed to the terms of service of %s", u.Host)
	}
	if c.Staging != "" {
		if err := c.checkStaging(c.Staging); err != nil {
			bad(stagingSetting, "%v", err)
		}
	}
	if (c.EABKeyID == "") != (c.EABFile == "") {
		given := "acme-eab-kid"
		if c.EABKeyID == "" {
			given = "acme-eab-hmac-file"
		}
		bad(given, "--acme-eab-kid and --acme-eab-hmac-file are needed both or not at all")
		c.EABKeyID, c.EABFile = "", ""
	}
	requires := t.ClientCA != "" && t.ClientAuth != clientAuthOptional
	switch {
	case c.Challenge != "" && c.Challenge != challengeTLSALPN && c.Challenge != challengeHTTP:
		bad("acme-challenge", "%q is neither tls-alpn-01 nor http-01", c.Challenge)
		c.Challenge = ""
	case requires && c.Challenge == challengeTLSALPN:
		bad("acme-challenge", "authorities have no certificate to show, as clients here need it: only http-01 is possible")
		c.Challenge = ""
	case (requires || c.Challenge == challengeHTTP) && t.RedirectAddress == "":
		bad("acme-challenge", "http-01 is answered at --http-redirect-address, which is needed")
	}
	if requires {
		c.Challenge = challengeHTTP
	}
}

const (
	challengeTLSALPN = "tls-alpn-01"
	challengeHTTP    = "http-01"
)

func (c *acmeConfig) directoryURL() string { return directoryURL(c.Directory) }

// directoryURL is that of a directory with a name, or itself a URL.
func directoryURL(directory string) string {
	switch directory {
	case "", "letsencrypt":
		return tlsauto.LetsEncrypt
	case "letsencrypt-staging":
		return tlsauto.LetsEncryptStaging
	}
	return directory
}

func parseDirectory(directory string) (*url.URL, error) {
	u, err := url.Parse(directoryURL(directory))
	if err != nil || u.Host == "" || u.Scheme != "https" {
		return nil, fmt.Errorf("%q is none of letsencrypt, letsencrypt-staging and a URL of https", directory)
	}
	return u, nil
}

// tryTLS returns the mistakes that only the files and the library know. It makes no file.
func (conf *config) tryTLS() []error {
	options, errs := conf.certificates()
	switch conf.TLS.Mode {
	case modeSelfSigned:
		return errs // the library would make its root
	case modeACME:
		if len(conf.TLS.ACME.Names) == 0 {
			return errs
		}
		options.Store = tlsauto.NewMemoryStore()
	}
	options.Logger = slog.New(slog.DiscardHandler)
	_, err := tlsauto.New(options)
	if err == nil {
		return errs
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the prefix, there may be several
	}
	for _, err := range flatten(err) {
		errs = append(errs, conf.tlsMistake(conf.TLS.settingOf(err.Error()), "%v", err))
	}
	return errs
}

// settingOf is what an error of the library is about.
func (t *tlsConfig) settingOf(text string) string {
	about := "tls-mode"
	for _, known := range []struct{ text, flag string }{
		{"Client", "tls-client-ca"}, {"Files[", "tls-cert"},
		{"rofile", "acme-profile"}, {"EAB", "acme-eab-kid"}, {"hallenge", "acme-challenge"},
		{"Email", "acme-email"}, {"URL", "acme-directory"}, {"Names", "acme-domains"}, {"Groups", "acme-domains"},
		{"wildcards", "acme-domains"}, {"addresses", "acme-domains"},
	} {
		if strings.Contains(text, known.text) {
			about = known.flag
			break
		}
	}
	if _, given := t.given[about]; !given && t.Mode == modeACME {
		about = "acme-domains"
	}
	return about
}

// certificates is the configuration of the library, but for what only a running server has.
func (conf *config) certificates() (c tlsauto.Config, errs []error) {
	t := &conf.TLS
	c.FilesInterval = t.FilesInterval
	c.ClientAuth, c.ClientCAFile = t.ClientAuth.policy(), t.ClientCA
	c.HTTPSPort = portOf(conf.SiteURL)
	switch t.Mode {
	case modeFiles:
		c.Files = []tlsauto.Files{{Cert: t.Cert, Key: t.Key}}
	case modeSelfSigned:
		c.Groups = [][]string{conf.ownNames()}
		c.Issuers = []tlsauto.Issuer{&tlsauto.DevCA{Dir: filepath.Join(conf.DataDir, "secrets", "devca"), Domains: conf.ownDomains()}}
	case modeACME:
		var issuer tlsauto.Issuer
		issuer, errs = conf.issuer()
		c.Issuers = []tlsauto.Issuer{issuer}
		for _, names := range t.ACME.Names {
			if len(names) == 1 {
				c.Names = append(c.Names, names[0])
			} else {
				c.Groups = append(c.Groups, names)
			}
		}
	}
	return c, errs
}

// issuer is the simplest one that can do what is wanted.
func (conf *config) issuer() (tlsauto.Issuer, []error) {
	c := &conf.TLS.ACME
	d := tlsauto.Directory{URL: c.directoryURL(), Email: c.Email, AgreeTOS: true, EABKeyID: c.EABKeyID} // checkACME sees to it
	var errs []error
	var err error
	if c.EABFile != "" {
		if d.EABKey, err = readEABKey(c.EABFile); err != nil {
			errs = append(errs, conf.tlsMistake("acme-eab-hmac-file", "%v", err))
			d.EABKeyID = ""
		}
	}
	if c.CAFile != "" {
		if d.Roots, err = readRoots(c.CAFile); err != nil {
			errs = append(errs, conf.tlsMistake("acme-ca-file", "%v", err))
		}
	}
	if !c.needsACME() {
		return &tlsauto.Autocert{Directory: d}, errs
	}
	issuer := &tlsauto.ACME{Directory: d, Profile: c.Profile}
	if c.Challenge != "" {
		issuer.Challenges = []string{c.Challenge}
	}
	return issuer, errs
}

// needsACME reports whether there is something that autocert cannot do.
func (c *acmeConfig) needsACME() bool {
	return c.Profile != "" || c.Challenge != "" || slices.ContainsFunc(c.Names, func(names []string) bool {
		_, err := netip.ParseAddr(names[0])
		return len(names) != 1 || err == nil || !strings.Contains(names[0], ".")
	})
}

func readEABKey(path string) ([]byte, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, fmt.Errorf("%s is not base64url", path) // and err would tell of the key
	}
	return key, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSmall {
		return nil, fmt.Errorf("%s is not a file, or larger than %d bytes", path, maxSmall)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}

// ownNames are those of this machine, and that of the site.
func (conf *config) ownNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host := hostOf(conf.SiteURL); host != "" && !slices.Contains(names, host) {
		names = append(names, host)
	}
	return names
}

// ownDomains are those that a development authority would not sign for by itself.
func (conf *config) ownDomains() []string {
	host := hostOf(conf.SiteURL)
	if _, err := netip.ParseAddr(host); host == "" || host == "localhost" || err == nil {
		return nil
	}
	return []string{host}
}

// managedNames are all names that there are certificates for, but for those in files.
func (conf *config) managedNames() []string {
	switch conf.TLS.Mode {
	case modeACME:
		return slices.Concat(conf.TLS.ACME.Names...)
	case modeSelfSigned:
		return conf.ownNames()
	}
	return nil
}

// publicURL is where clients reach the server, if nothing is said about it, and it listens at local.
func (conf *config) publicURL(local string) string {
	t := &conf.TLS
	switch {
	case !t.on():
		return local
	case t.Mode == modeACME:
		host := t.ACME.Names[0][0]
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "https://" + host
	}
	return t.scheme() + strings.TrimPrefix(local, "http")
}

func hostOf(site string) string {
	u, err := url.Parse(site)
	if err != nil {
		return ""
	}
	return plainName(u.Hostname())
}

// portOf is the port of a site with HTTPS, or 0 if it is the usual one.
func portOf(site string) int {
	u, err := url.Parse(site)
	if err != nil || u.Scheme != "https" {
		return 0
	}
	port, _ := strconv.Atoi(u.Port()) // none is 0
	return port
}
