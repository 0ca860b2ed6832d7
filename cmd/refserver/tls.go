package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
	"github.com/bedplate/bedplate/tlsauto"
)

// tlsCommand is the commands about certificates.
type tlsCommand struct {
	Status tlsStatusCommand `cmd:"" help:"Tell how the certificates of the running server do. Fails if there is an alarm, or no server."`
	Renew  tlsRenew         `cmd:"" help:"Ask the server to order the certificate of a name anew, within a minute."`
	Export tlsExport        `cmd:"" help:"Write the certificate of a name, and its private key, to files."`
	Check  tlsCheck         `cmd:"" help:"Try whether an authority would reach the server by its names. Fails if it would not."`
}

type tlsRenew struct {
	where
	tlsFlags
	Name string `arg:"" help:"Any name of the certificate."`
}

func (c *tlsRenew) Run(p *program) error {
	return c.withStore(p, c.where, c.Name, func(conf *config, store tlsauto.Store, _ []tlsauto.Issuer) error {
		if err := tlsauto.RequestRenewal(p.ctx, store, c.Name); err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, "The server is asked to, and looks within a minute. How it went is told by: refserver tls status")
		return nil
	})
}

// withStore opens the store of a server, which may be running, and calls fn.
func (f *tlsFlags) withStore(p *program, w where, name string, fn func(*config, tlsauto.Store, []tlsauto.Issuer) error) error {
	conf, err := w.load()
	if err != nil {
		return err
	}
	if err := f.applyTLS(conf); err != nil {
		return err
	}
	switch conf.TLS.Mode {
	case modeACME:
	case modeSelfSigned:
		return errors.New("the certificates of a development authority are kept nowhere: a restart of the server makes others")
	case modeFiles:
		return fmt.Errorf("the certificate is in a file, %s, which another program renews", conf.TLS.Cert)
	default:
		return errors.New("there is no HTTPS: --tls-mode is off")
	}
	if !slices.Contains(conf.managedNames(), plainName(name)) {
		return fmt.Errorf("there is no certificate for %q, but for %s", name, strings.Join(conf.managedNames(), ", "))
	}
	options, errs := conf.certificates()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := exists(conf.keyFile()); err != nil {
		return fmt.Errorf("start the server once, or name its --data-dir: %w", err)
	}
	return conf.openAll(p, func(db *sqlite.DB) error {
		store, pool, err := conf.openStore(p.ctx, db)
		if err != nil {
			return err
		}
		return errors.Join(fn(conf, store, options.Issuers), pool.Close())
	})
}

type tlsExport struct {
	where
	tlsFlags
	Name  string `arg:"" help:"Any name of the certificate."`
	Dir   string `arg:"" help:"Directory to write cert.pem and key.pem to."`
	Force bool   `help:"Replace files that are there."`
}

func (c *tlsExport) Run(p *program) error {
	return c.withStore(p, c.where, c.Name, func(conf *config, store tlsauto.Store, issuers []tlsauto.Issuer) error {
		cert, err := tlsauto.StoredCertificate(p.ctx, store, issuers, conf.namesWith(c.Name)...)
		if errors.Is(err, tlsauto.ErrNotFound) {
			return fmt.Errorf("there is no certificate for %s yet", c.Name)
		}
		if err != nil {
			return err
		}
		return c.write(p, cert)
	})
}

// namesWith are the names of the certificate that has name.
func (conf *config) namesWith(name string) []string {
	for _, names := range conf.TLS.ACME.Names {
		if slices.Contains(names, plainName(name)) {
			return names
		}
	}
	return nil
}

func (c *tlsExport) write(p *program, cert *tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(c.Dir, "cert.pem"), filepath.Join(c.Dir, "key.pem")
	for _, file := range []string{certFile, keyFile} {
		if _, err := os.Lstat(file); err == nil && !c.Force {
			return fmt.Errorf("%s is there: --force replaces it", file)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := writePrivate(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), c.Force); err != nil {
		return err
	}
	if err := writePrivate(certFile, chain.Bytes(), c.Force); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s\n%s\n", certFile, keyFile)
	return nil
}

// writePrivate writes a file that only its owner can read, and that nobody ever sees in part.
func writePrivate(path string, text []byte, replace bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeFile(f.Name())) }()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if replace {
		return os.Rename(f.Name(), path)
	}
	return os.Link(f.Name(), path) // which replaces nothing
}
