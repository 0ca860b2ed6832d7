package tlsauto

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
)

// parsePair reads a pair of files. What is in the key file is never part of an error.
func parsePair(f Files, cert, key []byte) (*tls.Certificate, error) {
	chain, err := parseCertificates(cert)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", f.Cert, err)
	}
	// X509KeyPair quotes the types of the blocks when there is no key.
	if err := findKey(key); err != nil {
		return nil, fmt.Errorf("parse %s: %w", f.Key, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("use %s for %s: %w", f.Key, f.Cert, err)
	}
	pair.Leaf = chain[0] // which X509KeyPair need not set
	return &pair, nil
}

// parseCertificates reads the certificates of a PEM file, of which there must be one. Blocks that are
// damaged, which the decoder skips, count: one may be missing at the end of a file that is being written.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block := range blocks(data) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	switch begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); {
	case len(certs) < begun:
		return nil, errors.New("a certificate in it is damaged")
	case len(certs) == 0:
		return nil, errors.New("there is no certificate in it")
	}
	return certs, nil
}

// findKey looks for a private key that needs no password.
func findKey(data []byte) error {
	for block := range blocks(data) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return errors.New("the private key is encrypted")
		case block.Type == "PRIVATE KEY", strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
	}
	return errors.New("there is no private key in it")
}

func blocks(data []byte) iter.Seq[*pem.Block] {
	return func(yield func(*pem.Block) bool) {
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil || !yield(block) {
				return
			}
		}
	}
}

// parseAuthorities reads a bundle of authorities' certificates. A certificate of something else is
// refused, as trusting it is hardly what was meant.
func parseAuthorities(path string, data []byte) ([]*x509.Certificate, error) {
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	for i, cert := range certs {
		if !cert.IsCA {
			return nil, fmt.Errorf("parse %s: certificate %d is not that of an authority", path, i+1)
		}
	}
	return certs, nil
}

// chainDoubts says why clients may refuse a certificate for what is in its file.
func chainDoubts(pair *tls.Certificate, now time.Time) []error {
	var doubts []error
	doubt := func(format string, args ...any) { doubts = append(doubts, fmt.Errorf(format, args...)) }

	leaf := pair.Leaf
	if len(certificateNames(leaf)) == 0 {
		doubt("the certificate has no names of servers")
	}
	if len(pair.Certificate) == 1 {
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			doubt("the certificate is self-signed")
		} else {
			doubt("the certificate of its issuer is missing: %.100q", leaf.Issuer.String())
		}
	}
	below := leaf
	for i, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			break // parsePair has seen that there is none
		}
		if now.After(cert.NotAfter) {
			doubt("certificate %d has expired on %s", i+2, cert.NotAfter.UTC().Format(time.DateOnly))
		}
		if err := below.CheckSignatureFrom(cert); err != nil {
			doubt("certificate %d has not issued the one before it", i+2)
			break
		}
		below = cert
	}
	return doubts
}
