package tlsauto

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// StoredCertificate returns the certificate for exactly these names, in any order, that a [Manager] with
// the same Issuers has stored last, or, if that has expired, one that has not: for another program that is
// to have it, with its private key. The error wraps [ErrNotFound] if there is none.
func StoredCertificate(ctx context.Context, store Store, issuers []Issuer, names ...string) (*tls.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("tlsauto: read a certificate: no name is given")
	}
	normal := make([]string, len(names))
	for i, name := range names {
		var err error
		if normal[i], err = NormalizeName(name); err != nil {
			return nil, fmt.Errorf("tlsauto: read a certificate: %w", err)
		}
	}
	var newest *certificate
	var errs []error
	for _, issuer := range issuers {
		c, err := storedOf(ctx, partOf(store, issuer.ID()), certificateID(normal), normal)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			errs = append(errs, fmt.Errorf("of %s: %w", issuer.ID(), err))
		case isBetter(c, newest, time.Now()):
			newest = c
		}
	}
	if newest != nil {
		return newest.tls, nil // however the others are
	}
	if len(errs) == 0 {
		errs = append(errs, ErrNotFound)
	}
	return nil, fmt.Errorf("tlsauto: read the certificate for %s: %w", names[0], errors.Join(errs...))
}

// storedOf returns a certificate that an issuer's part of a store has, which must be for all names. The error is
// ErrNotFound if it is not there.
func storedOf(ctx context.Context, part Store, id string, names []string) (*certificate, error) {
	data, err := get(ctx, part, certificateKey+id)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, ErrNotFound
	}
	c, err := decodeCertificate(data)
	if err != nil {
		return nil, err
	}
	if c, err = checkedCertificate(c, names); err != nil {
		return nil, err
	}
	return &certificate{tls: c, obtained: decodeObtained(data)}, nil
}
