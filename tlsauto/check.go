package tlsauto

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// checkedCertificate returns what is used of a certificate that an issuer or the store has given: the
// chain, the key and Leaf. It fails if they do not fit together, do not parse, or are not for all names.
func checkedCertificate(c *tls.Certificate, names []string) (*tls.Certificate, error) {
	if c == nil || len(c.Certificate) == 0 {
		return nil, errors.New("there is no certificate")
	}
	size := 0
	for _, der := range c.Certificate {
		size += len(der)
	}
	if len(c.Certificate) > maxChain || size > maxStored/2 {
		return nil, fmt.Errorf("a chain of %d certificates, %d bytes, is too long", len(c.Certificate), size)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("parse the certificate: %w", err)
	}
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("there is no private key")
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the private key does not belong to the certificate")
	}
	if !leaf.NotAfter.After(leaf.NotBefore) {
		return nil, errors.New("the certificate is never valid")
	}
	has := certificateNames(leaf)
	for _, name := range names {
		if !isCovered(name, has) {
			return nil, fmt.Errorf("the certificate is not for %s", name)
		}
	}
	return &tls.Certificate{Certificate: slices.Clone(c.Certificate), PrivateKey: c.PrivateKey, Leaf: leaf}, nil
}

// isCovered reports whether a certificate with the names has is valid for name, one of which may be a
// wildcard for it.
func isCovered(name string, has []string) bool {
	if slices.Contains(has, name) {
		return true
	}
	_, parent, ok := strings.Cut(name, ".")
	return ok && !isWildcard(name) && !isIP(name) && slices.Contains(has, "*."+parent)
}

// checkNew checks what is asked of a certificate that has just been issued, beyond what is asked of all.
func checkNew(c *tls.Certificate, keyType KeyType, reused crypto.Signer, now time.Time) error {
	switch {
	case !now.Before(c.Leaf.NotAfter):
		return fmt.Errorf("the certificate has expired, on %s", c.Leaf.NotAfter.Format(time.RFC3339))
	case c.Leaf.NotBefore.After(now.Add(clockBehind)):
		return fmt.Errorf("the certificate is not valid before %s", c.Leaf.NotBefore.Format(time.RFC3339))
	case !isOfType(c.PrivateKey, keyType):
		return fmt.Errorf("the private key is a %T, not of type %s", c.PrivateKey, keyType)
	}
	if reused != nil && !bytes.Equal(publicBytes(reused.Public()), c.Leaf.RawSubjectPublicKeyInfo) {
		return errors.New("the certificate is not for the private key of the one before")
	}
	return nil
}

// isOfType reports whether a key is of a type, or a longer one of its kind.
func isOfType(key crypto.PrivateKey, t KeyType) bool {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		bits := key.Curve.Params().BitSize
		return t == P256 && bits >= 256 || t == P384 && bits >= 384
	case *rsa.PrivateKey:
		return t == RSA2048 && key.N.BitLen() >= 2048
	}
	return false
}

func publicBytes(public crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil
	}
	return der
}

// doubtTime returns why the clock may be wrong, or nil.
func doubtTime(c *certificate, now time.Time) error {
	switch {
	case c.tls.Leaf.NotBefore.After(now.Add(clockTolerance)):
		return fmt.Errorf("the certificate is not valid before %s: is the clock right?", c.tls.Leaf.NotBefore.Format(time.RFC3339))
	case cameLate(c, now):
		return errors.New("the certificate was due already when it came: is the clock right?")
	}
	return nil
}

// doubt returns why some clients may refuse a certificate, or nil. It does not look for a root that
// they trust: which ones they do is not known here.
func doubt(c *tls.Certificate, now time.Time) error {
	child := c.Leaf
	for i, der := range c.Certificate[1:] {
		parent, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate %d of the chain does not parse: %w", i+1, err)
		}
		if err := child.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("certificate %d of the chain has not signed the one before: %w", i+1, err)
		}
		if now.After(parent.NotAfter) {
			return fmt.Errorf("certificate %d of the chain has expired, on %s", i+1, parent.NotAfter.Format(time.RFC3339))
		}
		child = parent
	}
	if len(c.Certificate) == 1 && !bytes.Equal(child.RawIssuer, child.RawSubject) {
		return errors.New("the certificate comes without an intermediate")
	}
	return nil
}
