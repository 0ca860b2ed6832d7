package tlsauto

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const maxDevFile = 64 << 10

// openDevRoot reads the root in a directory, or makes one for domains. The files are written in the
// order key, certificate, each complete or not at all and never over another. So of processes that do
// this at once one makes the key, one of them a certificate for it, and all read the same two; and one
// that ends in between leaves a key for which the next makes a certificate.
func openDevRoot(dir string, domains []string, now time.Time) (*devRoot, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if err := checkMode("the directory", info, 0o022); err != nil { // others might put a root there
		return nil, err
	}
	certFile, keyFile := filepath.Join(dir, "root.pem"), filepath.Join(dir, "root-key.pem")
	if _, err := os.Lstat(certFile); errors.Is(err, fs.ErrNotExist) {
		err := createFile(keyFile, 0o600, newDevRootKey)
		if err != nil {
			return nil, err
		}
	}
	key, err := readDevKey(keyFile)
	if err != nil {
		return nil, err
	}
	if err := createFile(certFile, 0o644, func() ([]byte, error) { return newDevRootCertificate(key, domains, now) }); err != nil {
		return nil, err
	}
	cert, err := readDevCertificate(certFile)
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("root-key.pem is not the key of root.pem")
	}
	return &devRoot{cert: cert, key: key, path: certFile}, nil
}

func newDevRootKey() ([]byte, error) {
	key, err := newKey(P256)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodePEM("PRIVATE KEY", der), nil
}

func newDevRootCertificate(key crypto.Signer, domains []string, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: nil, // a random one
		// Two roots must not have the same name: clients look for an issuer by that.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Development root %s %s", now.Format(time.DateOnly), strings.ToLower(rand.Text()[:6]))},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(devRootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it has no other authorities below it
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, // not for mail, code or clients

		PermittedDNSDomainsCritical: true, // all of the constraints
		PermittedDNSDomains:         domains,
	}
	for _, network := range devNetworks() {
		template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{
			IP:   network.Addr().AsSlice(),
			Mask: net.CIDRMask(network.Bits(), network.Addr().BitLen()),
		})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return encodePEM("CERTIFICATE", der), nil
}

func readDevKey(path string) (crypto.Signer, error) {
	der, err := readDevFile(path, 0o077, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("root-key.pem is damaged") // err might tell of the key
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("root-key.pem has a %T, want one of ECDSA", key)
	}
	return signer, nil
}

func readDevCertificate(path string) (*x509.Certificate, error) {
	der, err := readDevFile(path, 0o002, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("root.pem is damaged: %w", err)
	}
	// A foreign one might be for everything.
	if !cert.IsCA || !cert.PermittedDNSDomainsCritical || len(cert.PermittedDNSDomains) == 0 || len(cert.PermittedIPRanges) == 0 {
		return nil, errors.New("root.pem is not a root with constraints")
	}
	return cert, nil
}

// readDevFile returns the one block of a PEM file, which others must not have the access of the mode
// forbidden to.
func readDevFile(path string, forbidden fs.FileMode, kind string) ([]byte, error) {
	name := filepath.Base(path)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if err := checkMode(name, info, forbidden); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDevFile))
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("%s is damaged: it is not one PEM block of the type %s", name, kind)
	}
	return block.Bytes, nil
}

// checkMode refuses what others than its owner may do more with than they should.
func checkMode(what string, info fs.FileInfo, forbidden fs.FileMode) error {
	if mode := info.Mode().Perm(); mode&forbidden != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s has mode %#o, should have %#o", what, mode, mode&^forbidden)
	}
	return nil
}

// createFile writes a file that is complete when it appears; when there is one already, it stays.
func createFile(path string, mode fs.FileMode, content func() ([]byte, error)) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	data, err := content()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".root-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a renaming, a link replaces nothing.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
