package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/sqlite"
	"github.com/bedplate/bedplate/tlsauto"
)

// dryRun orders certificates as the server would, but from a staging directory.
func (c *tlsCheck) dryRun(p *program, conf *config) error {
	override(&conf.Listen, c.Listen, defaultListen)
	if conf.TLS.Mode != modeACME {
		return fmt.Errorf("--dry-run orders certificates, and there is nothing to order: the mode is %s", conf.TLS.Mode)
	}
	if c.Timeout <= 0 {
		return errors.New("--timeout must be positive")
	}
	staging, err := conf.TLS.ACME.stagingURL(c.Directory)
	if err != nil {
		return err
	}
	sets, err := conf.certificatesWith(c.Names)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, c.Timeout)
	defer cancel()
	limited := &program{ctx, p.stdin, p.stdout, p.stderr}
	fmt.Fprintf(p.stdout, "Ordering from %s\n", printable(staging))
	return conf.withChallenges(limited, func(store tlsauto.Store, server *tlsStatus) error {
		d := &dryRun{program: limited, conf: conf, server: server}
		if err := d.open(store, staging, c.Timeout); err != nil {
			return err
		}
		defer d.close()
		return d.run(sets)
	})
}

// stagingURL is the directory that a dry run may use. given comes before what is configured.
func (c *acmeConfig) stagingURL(given string) (string, error) {
	staging := cmp.Or(given, c.Staging)
	switch {
	case staging != "":
		return directoryURL(staging), c.checkStaging(staging)
	case c.directoryURL() == tlsauto.LetsEncrypt, c.directoryURL() == tlsauto.LetsEncryptStaging:
		return tlsauto.LetsEncryptStaging, nil
	}
	return "", fmt.Errorf("which staging directory: none is known for %s; give --directory, or acme.staging in the configuration file", printable(c.Directory))
}

// checkStaging refuses directories whose limits, and certificates, count.
func (c *acmeConfig) checkStaging(staging string) error {
	u, err := parseDirectory(staging)
	if err != nil {
		return err
	}
	const letsEncrypt = "https://acme-v02.api.letsencrypt.org"
	if sameDirectory(&url.URL{Scheme: u.Scheme, Host: u.Host}, letsEncrypt) {
		return fmt.Errorf("%q is for production: a dry run is to spare its limits", staging)
	}
	if directoryURL(staging) != tlsauto.LetsEncryptStaging && sameDirectory(u, c.directoryURL()) {
		return fmt.Errorf("%q is where certificates are ordered: a dry run is to spare its limits", staging)
	}
	return nil
}

// sameDirectory reports whether two URLs are the same but for the way that they are written.
func sameDirectory(u *url.URL, other string) bool {
	v, err := url.Parse(other)
	if err != nil {
		return false
	}
	plain := func(u *url.URL) [4]string {
		host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		return [4]string{host, cmp.Or(u.Port(), "443"), path.Clean("/" + u.Path), u.RawQuery}
	}
	return plain(u) == plain(v)
}

// certificatesWith lists the names of each certificate that has one of names, or of all if there are none.
func (conf *config) certificatesWith(names []string) ([][]string, error) {
	if len(names) == 0 {
		return conf.TLS.ACME.Names, nil
	}
	var sets [][]string
	for _, name := range names {
		set := conf.namesWith(name)
		if set == nil {
			return nil, fmt.Errorf("there is no certificate for %q, but for %s", name, strings.Join(conf.managedNames(), ", "))
		}
		if !slices.ContainsFunc(sets, func(other []string) bool { return slices.Equal(other, set) }) {
			sets = append(sets, set)
		}
	}
	return sets, nil
}

// withChallenges calls fn with a store in which the server of this data directory finds the answers to challenges, and
// what that server last told. When none runs, nobody needs to find them: the store is in memory, and server nil.
func (conf *config) withChallenges(p *program, fn func(store tlsauto.Store, server *tlsStatus) error) error {
	server := new(tlsStatus)
	err := readSmall(conf.tlsStatusFile(), server)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil || server.Mode != modeACME || server.gone(time.Now()) != nil:
		return fn(tlsauto.NewMemoryStore(), nil)
	}
	return conf.openAll(p, func(db *sqlite.DB) error {
		store, pool, err := conf.openStore(p.ctx, db)
		if err != nil {
			return err
		}
		return errors.Join(fn(store, server), pool.Close())
	})
}

// A dryRun obtains certificates that nobody gets to see.
type dryRun struct {
	*program
	conf   *config
	server *tlsStatus // that answers challenges, too; nil: none does

	manager *tlsauto.Manager // does not run
	issuer  tlsauto.Issuer   // a staging directory
	account tlsauto.Store    // of issuer; nobody keeps it
	servers []*http.Server   // that answer challenges in this process
	work    sync.WaitGroup
}

// open answers challenges wherever nobody else does, until close.
func (d *dryRun) open(store tlsauto.Store, staging string, timeout time.Duration) error {
	options, errs := d.conf.certificates()
	there := *d.conf
	there.TLS.ACME.Directory = staging
	issuer, more := there.issuer()
	if err := errors.Join(append(errs, more...)...); err != nil {
		return err
	}
	options.Store, options.AttemptTimeout, options.NoFallback = store, timeout, true
	options.Logger = logger(d.stderr, slog.LevelWarn)
	var err error
	if d.manager, err = tlsauto.New(options); err != nil {
		return err
	}
	d.issuer, d.account = issuer, tlsauto.NewMemoryStore()

	busy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "There is no server yet.", http.StatusServiceUnavailable)
	})
	d.answer("https", d.conf.Listen, d.manager.TLSConfig(), busy)
	if address := d.conf.TLS.RedirectAddress; address != "" {
		d.answer("http", address, nil, d.manager.HTTPHandler(busy))
	}
	return nil
}

// answer listens, if that is possible, and tells who answers.
func (d *dryRun) answer(what, address string, config *tls.Config, handler http.Handler) {
	listener, err := new(net.ListenConfig).Listen(d.ctx, "tcp", address)
	switch {
	case err == nil:
		printFinding(d.stdout, what, true, "%s: this command answers", listener.Addr())
	case d.server != nil:
		printFinding(d.stdout, what, true, "%s: the server with process ID %d answers", address, d.server.PID)
		return
	default:
		printFinding(d.stdout, what, false, "%s; no server with this data directory orders certificates", printable(err.Error()))
		return
	}
	srv := &http.Server{
		Handler: handler, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	d.servers = append(d.servers, srv)
	d.work.Go(func() {
		if config != nil {
			err = srv.ServeTLS(listener, "", "")
		} else {
			err = srv.Serve(listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(d.stderr, "serve %s: %v\n", address, err)
		}
	})
}

func (d *dryRun) close() {
	for _, srv := range d.servers {
		_ = srv.Close() // of the listener, which is of no use any more
	}
	d.work.Wait()
}

func (d *dryRun) run(sets [][]string) error {
	bad := 0
	for _, names := range sets {
		fmt.Fprintln(d.stdout, printable(strings.Join(names, " ")))
		if !d.try(names) {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d certificates could not be obtained", bad, len(sets))
	}
	return nil
}

// try tells what becomes of an order, and reports whether there is a certificate.
func (d *dryRun) try(names []string) bool {
	if d.ctx.Err() != nil {
		printFinding(d.stdout, "certificate", false, "it was not tried: %v", d.ctx.Err())
		return false
	}
	if strange := d.unanswered(names); len(strange) > 0 {
		printFinding(d.stdout, "certificate", false, "it was not tried: the server with process ID %d was started without %s, and answers no challenge for that",
			d.server.PID, printable(strings.Join(strange, " ")))
		return false
	}
	began := time.Now()
	for range d.attempts() {
		trial, err := d.manager.Try(d.ctx, d.issuer, d.account, names...)
		if err == nil {
			d.tell(trial, time.Since(began))
			return true
		}
		d.tellError(err)
		if len(trial.Challenges) == 0 || d.ctx.Err() != nil { // so another challenge would not help
			break
		}
	}
	return false
}

// unanswered lists the names that nobody answers challenges for: those which the server does not have, unless this
// command answers, too.
func (d *dryRun) unanswered(names []string) []string {
	if d.server == nil || len(d.servers) > 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(d.server.Certificates, func(c tlsauto.CertificateStatus) bool { return slices.Contains(c.Names, name) })
	})
}

// attempts is how many it takes until all kinds of challenges were tried.
func (d *dryRun) attempts() int {
	if _, one := d.issuer.(*tlsauto.ACME); one && d.conf.TLS.ACME.Challenge == "" && d.conf.TLS.RedirectAddress != "" {
		return 2
	}
	return 1
}

func (d *dryRun) tell(trial tlsauto.Trial, took time.Duration) {
	proved := "the authority wanted none"
	kind := "challenge"
	if n := len(trial.Challenges); n > 0 {
		kind, proved = trial.Challenges[n-1], "proved"
	}
	printFinding(d.stdout, kind, true, "%s", proved)
	leaf := trial.Certificate.Leaf
	printFinding(d.stdout, "certificate", true, "of %s, until %s, after %s", printable(leaf.Issuer.String()), moment(leaf.NotAfter), took.Round(10*time.Millisecond))
	for _, der := range trial.Certificate.Certificate[1:] {
		if above, err := x509.ParseCertificate(der); err == nil { // else it would have been refused
			printFinding(d.stdout, "chain", true, "%s, of %s", printable(above.Subject.String()), printable(above.Issuer.String()))
		}
	}
	if len(trial.Certificate.Certificate) == 1 {
		printFinding(d.stdout, "chain", false, "there is none: most clients need the intermediate certificate, too")
	}
}

func (d *dryRun) tellError(err error) {
	pause := ""
	if wait, ok := errors.AsType[*tlsauto.RetryAfterError](err); ok && wait.After > 0 {
		pause = fmt.Sprintf(" (it wants to be left alone for %s)", wait.After)
	}
	if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the prefix
	}
	for i, line := range strings.Split(err.Error(), "; ") {
		if i == 0 {
			line += pause
		}
		printFinding(d.stdout, "certificate", false, "%s", printable(line))
	}
}
