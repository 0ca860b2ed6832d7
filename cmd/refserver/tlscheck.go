package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

type tlsCheck struct {
	where
	tlsFlags
	Names     []string `arg:"" optional:"" help:"Names to try; default those of --acme-domains."`
	HTTPPort  int      `name:"http-port" default:"80" help:"Port that an authority uses for http-01 (default ${default})."`
	HTTPSPort int      `name:"https-port" default:"443" help:"Port that it uses for tls-alpn-01 (default ${default})."`

	DryRun    bool          `name:"dry-run" help:"Order certificates from a staging directory instead, for --acme-domains or those of them that are given, and throw them away."`
	Directory string        `placeholder:"URL" help:"With --dry-run: the staging directory (default acme.staging of the configuration file, or letsencrypt-staging if certificates are from letsencrypt)."`
	Listen    string        `env:"BEDPLATE_LISTEN" placeholder:"ADDR" help:"With --dry-run: the address that the server listens on, where this command answers while no server does (${env}; default 127.0.0.1:4000)."`
	Timeout   time.Duration `default:"2m" help:"With --dry-run: how long all of it may take (default ${default})."`
}

func (c *tlsCheck) Run(p *program) error {
	conf, err := c.load()
	if err != nil {
		return err
	}
	if err := c.applyTLS(conf); err != nil {
		return err
	}
	if c.DryRun {
		return c.dryRun(p, conf)
	}
	if c.Directory != "" {
		return errors.New("--directory is for --dry-run: nothing is ordered without it")
	}
	probe := probe{
		out: p.stdout, httpPort: c.HTTPPort, httpsPort: c.HTTPSPort, challenge: conf.TLS.ACME.Challenge,
		lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
	}
	if conf.TLS.ACME.CAFile != "" {
		if probe.roots, err = readRoots(conf.TLS.ACME.CAFile); err != nil {
			return err
		}
	}
	names := c.Names
	if len(names) == 0 {
		names = conf.managedNames()
	}
	if len(names) == 0 {
		return errors.New("which names: as arguments, or with --tls-mode acme as --acme-domains")
	}
	bad := 0
	for _, name := range names {
		if !probe.try(p.ctx, plainName(name)) {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d names would not be proved, as far as can be seen from this machine", bad, len(names))
	}
	return p.ctx.Err()
}

// A probe does what an authority does, from this machine.
type probe struct {
	out       io.Writer
	httpPort  int
	httpsPort int
	challenge string // the only one, or ""
	roots     *x509.CertPool
	lookup    func(ctx context.Context, name string) ([]netip.Addr, error)
}

const (
	probeTimeout = 5 * time.Second
	maxAddresses = 8 // of a name
)

// try tells what becomes of a name, and reports whether all of its addresses can be used.
func (p *probe) try(ctx context.Context, name string) bool {
	fmt.Fprintln(p.out, printable(name))
	addrs, err := p.addresses(ctx, name)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	if err != nil {
		p.find("DNS", false, "%s", printable(err.Error()))
		return false
	}
	good := true
	for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
		note := ""
		if addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() {
			note = " (authorities of the Internet do not reach it)"
		}
		fmt.Fprintf(p.out, "  %s%s\n", addr, note)
		byHTTP := p.tryHTTP(ctx, name, addr)
		byTLS := p.tryTLSALPN(ctx, name, addr)
		p.tryCertificate(ctx, name, addr)
		switch p.challenge {
		case challengeHTTP:
			good = good && byHTTP
		case challengeTLSALPN:
			good = good && byTLS
		default:
			good = good && (byHTTP || byTLS)
		}
	}
	return good
}

func (p *probe) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addrs, err := p.lookup(ctx, name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

func (p *probe) find(what string, good bool, format string, args ...any) bool {
	printFinding(p.out, what, good, format, args...)
	return good
}

func printFinding(to io.Writer, what string, good bool, format string, args ...any) {
	mark := "ok"
	if !good {
		mark = "NO"
	}
	fmt.Fprintf(to, "    %s  %-11s  %s\n", mark, what, fmt.Sprintf(format, args...))
}

// tryHTTP asks for a challenge that nobody has made.
func (p *probe) tryHTTP(ctx context.Context, name string, addr netip.Addr) bool {
	address := net.JoinHostPort(addr.String(), strconv.Itoa(p.httpPort))
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	host := name
	if strings.Contains(name, ":") {
		host = "[" + name + "]"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/.well-known/acme-challenge/"+rand.Text(), nil)
	if err != nil {
		return p.find(challengeHTTP, false, "%s", printable(err.Error()))
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return p.find(challengeHTTP, false, "port %d: %s", p.httpPort, printable(err.Error()))
	}
	_ = response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusNotFound:
		return p.find(challengeHTTP, true, "port %d: 404 for a challenge that nobody has made, as it should be", p.httpPort)
	case code >= 300 && code < 400:
		return p.find(challengeHTTP, false, "port %d: challenges are sent on to %s", p.httpPort, printable(response.Header.Get("Location")))
	case code >= 200 && code < 300:
		return p.find(challengeHTTP, false, "port %d: %d for a challenge that nobody has made: another server answers", p.httpPort, code)
	default:
		return p.find(challengeHTTP, false, "port %d: %d for a challenge that nobody has made, not 404", p.httpPort, code)
	}
}

// tryTLSALPN begins a challenge that nobody has made.
func (p *probe) tryTLSALPN(ctx context.Context, name string, addr netip.Addr) bool {
	conn, err := p.handshake(ctx, name, addr, "acme-tls/1")
	if err == nil {
		_ = conn.Close()
	}
	var untrusted *tls.CertificateVerificationError
	switch {
	case err == nil || errors.As(err, &untrusted):
		return p.find(challengeTLSALPN, false, "port %d: a certificate for a challenge that nobody has made: another server answers, or one in front of this", p.httpsPort)
	case strings.Contains(err.Error(), "unrecognized name"):
		return p.find(challengeTLSALPN, true, "port %d: a challenge that nobody has made is refused, as it should be", p.httpsPort)
	case strings.Contains(err.Error(), "no application protocol"):
		return p.find(challengeTLSALPN, false, "port %d: the protocol acme-tls/1 is not known there", p.httpsPort)
	default:
		return p.find(challengeTLSALPN, false, "port %d: %s", p.httpsPort, printable(err.Error()))
	}
}

// tryCertificate tells what clients get now, which need not be good yet.
func (p *probe) tryCertificate(ctx context.Context, name string, addr netip.Addr) {
	conn, err := p.handshake(ctx, name, addr, "http/1.1")
	var leaf *x509.Certificate
	var untrusted *tls.CertificateVerificationError
	switch {
	case err == nil:
		leaf = conn.ConnectionState().PeerCertificates[0]
		_ = conn.Close()
	case errors.As(err, &untrusted) && len(untrusted.UnverifiedCertificates) > 0:
		leaf = untrusted.UnverifiedCertificates[0]
	default:
		p.find("certificate", false, "%s", printable(err.Error()))
		return
	}
	text := fmt.Sprintf("of %s, until %s", printable(leaf.Issuer.String()), moment(leaf.NotAfter))
	if untrusted != nil {
		p.find("certificate", false, "%s: %s", text, printable(untrusted.Err.Error()))
		return
	}
	p.find("certificate", true, "%s", text)
}

func (p *probe) handshake(ctx context.Context, name string, addr netip.Addr, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(p.httpsPort)))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: name, RootCAs: p.roots, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS12})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}
