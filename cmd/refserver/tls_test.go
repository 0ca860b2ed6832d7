package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
	"github.com/bedplate/bedplate/tlsauto"
)

// A standIn is an authority that issues what another one should.
type standIn struct {
	*tlsauto.DevCA
	id string
}

func (s standIn) ID() string { return s.id }

// downURL is a directory where nobody answers.
func downURL(t *testing.T) string {
	t.Helper()
	return "https://127.0.0.1:" + strconv.Itoa(idlePort(t)) + "/directory"
}

// obtain stores a certificate as the server does when its authority answers.
func obtain(t *testing.T, config string) (root *x509.CertPool) {
	t.Helper()
	conf, err := settingsOf(t, "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	options, errs := conf.certificates()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ca := &tlsauto.DevCA{Dir: t.TempDir()}
	options.Issuers = []tlsauto.Issuer{standIn{ca, options.Issuers[0].ID()}}
	text, _, err := ca.Root()
	if err != nil {
		t.Fatal(err)
	}
	root = x509.NewCertPool()
	root.AppendCertsFromPEM(text)
	p := &program{t.Context(), strings.NewReader(""), newBuffer(), newBuffer()}
	if err := conf.openAll(p, func(db *sqlite.DB) error {
		store, pool, err := conf.openStore(t.Context(), db)
		if err != nil {
			return err
		}
		defer pool.Close()
		options.Store, options.Logger = store, logger(newBuffer(), slog.LevelInfo)
		m, err := tlsauto.New(options)
		if err != nil {
			return err
		}
		for _, name := range conf.managedNames() {
			if err := m.Renew(name); err != nil { // whatever has failed before
				return err
			}
		}
		ctx, end := context.WithTimeout(t.Context(), 2*patience)
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		until(t, "stored certificates", func() bool {
			for _, names := range conf.TLS.ACME.Names {
				if _, err := tlsauto.StoredCertificate(ctx, store, options.Issuers, names...); err != nil {
					return false
				}
			}
			return true
		})
		end()
		return <-ended
	}); err != nil {
		t.Fatal(err)
	}
	return root
}

// An authority that is down costs trust, not service; a certificate of the store is served at once.
func TestServeACME(t *testing.T) {
	t.Parallel()
	config, data := backedUpConfig(t, `
tls:
  mode: acme
  acme: {domains: [Site.example., Bücher.example], agree_tos: true, directory: '`+downURL(t)+`'}
`)
	if _, err := tryCommand(t, config, "", "tls", "export", "site.example", t.TempDir()); err == nil || !strings.Contains(err.Error(), "start the server once") {
		t.Errorf("export before there is a server: %v", err)
	}
	start := func(args ...string) *running {
		return startHere(t, "listening", append([]string{"serve", "--listen=127.0.0.1:0", "--config", config}, args...)...)
	}
	s := start("--tls-require-ready=1h")
	ready := func(config *tls.Config) (int, string) {
		t.Helper()
		config.ServerName = "site.example"
		status, body, state, err := fetch(t, s.url+"/readyz", config)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.logs)
		}
		return status, body + " " + state.PeerCertificates[0].Subject.CommonName
	}
	anybody := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // there is nothing to verify yet
	if status, body := ready(anybody()); status != http.StatusServiceUnavailable || !strings.Contains(body, "waiting for certificates") || !strings.Contains(body, "self-signed") {
		t.Errorf("at first: %d %s", status, body)
	}
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}
	s = start("--tls-require-ready=1s")
	until(t, "readiness", func() bool {
		status, _ := ready(anybody())
		return status == http.StatusOK
	})
	until(t, "the alarm", func() bool {
		_, err := tryCommand(t, config, "", "tls", "status")
		return err != nil && strings.Contains(err.Error(), "alarm: site.example: there is no certificate of an authority yet") &&
			strings.Contains(err.Error(), "connection refused")
	})
	if out, err := tryCommand(t, config, "", "tls", "export", "site.example", t.TempDir()); err == nil || !strings.Contains(err.Error(), "there is no certificate for site.example yet") {
		t.Errorf("export without a certificate: %q, %v", out, err)
	}
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}

	roots := obtain(t, config)
	s = start("--tls-require-ready")
	trusting := func() *tls.Config { return &tls.Config{RootCAs: roots} }
	until(t, "the certificate of the store", func() bool {
		config := trusting()
		config.ServerName = "site.example"
		status, _, _, err := fetch(t, s.url+"/readyz", config)
		return err == nil && status == http.StatusOK
	})
	testExport(t, config, roots)

	// The server reads what it is asked, once a minute: the request is in the store until then.
	for _, name := range []string{"SITE.example", "bücher.example.", "xn--bcher-kva.example"} {
		if out := command(t, config, "", "tls", "renew", name); !strings.Contains(out, "within a minute") {
			t.Errorf("renew %s: %s", name, out)
		}
	}
	if _, err := tryCommand(t, config, "", "tls", "renew", "other.example"); err == nil || !strings.Contains(err.Error(), `no certificate for "other.example"`) {
		t.Errorf("renew of another name: %v", err)
	}
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}

	// Nobody gets at the table through a record API.
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"_tls", "main._tls", "_TLS"} {
		write(t, config, strings.Replace(string(text), "table_name: things", "table_name: "+table, 1))
		if err := startRefused(t, "serve", "--config", config); !strings.Contains(err.Error(), "is internal") {
			t.Errorf("a record API of %s: %v", table, err)
		}
	}
	write(t, config, string(text))
	if strings.Contains(command(t, config, "", "openapi")+command(t, config, "", "types", "--lang=go"), "_tls") {
		t.Error("the table is told of")
	}

	// Without its key nothing of it is lost.
	key := filepath.Join(data, "secrets", "master.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if err := startRefused(t, "serve", "--config", config); !strings.Contains(err.Error(), "master.key") {
		t.Errorf("without the master key: %v", err)
	}
}

// Certificates come back with the database, without the authority. A standby needs the master key for that.
func TestCertificatesAreReplicated(t *testing.T) {
	t.Parallel()
	replica := "file://" + filepath.Join(t.TempDir(), "replica")
	config, data := backedUpConfig(t, `
backup: {replica: {url: '`+replica+`', sync_interval: 100ms, lease_ttl: 10s, drill_interval: 0s}}
tls:
  mode: acme
  acme: {domains: [site.example], agree_tos: true, directory: '`+downURL(t)+`'}
`)
	if err := startRefused(t, "standby", "--config", config); !strings.Contains(err.Error(), "the master key is not in the replica") {
		t.Errorf("a standby without the master key: %v", err)
	}
	start := func() *running {
		return startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	}
	end := func(s *running) {
		t.Helper()
		if err := s.end(t); err != nil {
			t.Fatalf("%v\n%s", err, s.logs)
		}
	}
	s := start()
	if !strings.Contains(s.logs.String(), "master.key") {
		t.Errorf("the master key is not mentioned:\n%s", s.logs)
	}
	until(t, "an attempt", func() bool {
		_, err := tryCommand(t, config, "", "tls", "status")
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
	end(s)
	roots := obtain(t, config)
	s = start()
	proven(t, data)
	end(s)
	lose(t, data)
	s = start()
	until(t, "the certificate of the replica", func() bool {
		_, _, _, err := fetch(t, s.url+"/livez", &tls.Config{RootCAs: roots, ServerName: "site.example"})
		return err == nil
	})
	end(s)
}

func testExport(t *testing.T, config string, roots *x509.CertPool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new")
	out := command(t, config, "", "tls", "export", "Site.Example.", dir)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if out != cert+"\n"+key+"\n" {
		t.Errorf("export: %s", out)
	}
	verify := func() {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "site.example"}); err != nil {
			t.Error(err)
		}
	}
	verify()
	for _, file := range []string{cert, key} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
	}
	write(t, key, "precious")
	if _, err := tryCommand(t, config, "", "tls", "export", "site.example", dir); err == nil || !strings.Contains(err.Error(), "--force replaces it") {
		t.Errorf("over files: %v", err)
	}
	if text, _ := os.ReadFile(key); string(text) != "precious" {
		t.Errorf("replaced by %s", text)
	}
	command(t, config, "", "tls", "export", "site.example", dir, "--force")
	verify()
	for _, name := range []string{"bücher.example", "xn--bcher-kva.example"} {
		command(t, config, "", "tls", "export", name, t.TempDir())
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("in the directory: %v, %v", entries, err)
	}
}

// What is old, or of a certificate that somebody should look after, is an error.
func TestTLSStatusProblems(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	of := func(c tlsauto.CertificateStatus) tlsStatus {
		c.Names = []string{"x.example"}
		return tlsStatus{Time: now, Status: tlsauto.Status{Certificates: []tlsauto.CertificateStatus{c}}}
	}
	began, ends := now.Add(-80*24*time.Hour), now.Add(10*24*time.Hour)
	for name, tt := range map[string]struct {
		s           tlsStatus
		gone, alarm string
	}{
		"fine":     {of(tlsauto.CertificateStatus{State: tlsauto.Trusted, NotBefore: began, NotAfter: now.Add(20 * 24 * time.Hour)}), "", ""},
		"old":      {tlsStatus{Time: now.Add(-time.Hour)}, "hangs", ""},
		"future":   {tlsStatus{Time: now.Add(time.Hour)}, "clock", ""},
		"ended":    {tlsStatus{Time: now, Ended: true}, "it ended", ""},
		"expiring": {of(tlsauto.CertificateStatus{State: tlsauto.Trusted, NotBefore: began, NotAfter: ends}), "", "x.example: it expires soon"},
		"expired":  {of(tlsauto.CertificateStatus{State: tlsauto.Expired, NotBefore: began, NotAfter: began}), "", "it has expired"},
		"fallback": {of(tlsauto.CertificateStatus{State: tlsauto.Fallback}), "", "no certificate of an authority"},
		"standing": {of(tlsauto.CertificateStatus{State: tlsauto.Fallback, StandIns: []string{"y.example"}, StandInsNotAfter: ends}), "", "yet; until 2026-01-25T12:00:00Z stored ones stand in for y.example"},
		"none":     {of(tlsauto.CertificateStatus{State: tlsauto.None}), "", "no certificate of an authority"},
		"failing":  {of(tlsauto.CertificateStatus{State: tlsauto.Trusted, NotBefore: began, NotAfter: now.Add(20 * 24 * time.Hour), LastError: "dread\x1bful"}), "", `dread\x1bful`},
		"stored":   {of(tlsauto.CertificateStatus{State: tlsauto.Trusted, NotBefore: began, NotAfter: now.Add(20 * 24 * time.Hour), NotStored: "full"}), "", "could not be stored: full"},
		"file":     {of(tlsauto.CertificateStatus{State: tlsauto.Trusted, NotBefore: began, NotAfter: now.Add(20 * 24 * time.Hour), File: &tlsauto.FileStatus{LastError: "torn"}}), "", "refused: torn"},
		"clients":  {tlsStatus{Time: now, Status: tlsauto.Status{ClientCAs: &tlsauto.FileStatus{LastError: "torn"}}}, "", "authorities of clients: the file is refused: torn"},
	} {
		for want, err := range map[string]error{tt.gone + "|": tt.s.gone(now), "|" + tt.alarm: tt.s.alarms(now)} {
			want = strings.Trim(want, "|")
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
	if _, err := tryCommand(t, writeConfig(t, "server: {}\n"), "", "tls", "status"); err == nil || !strings.Contains(err.Error(), "no server with HTTPS has run") {
		t.Errorf("without a server: %v", err)
	}
}

// The probe finds a server that an authority could use, and tells what is wrong with others.
func TestTLSCheck(t *testing.T) {
	t.Parallel()
	config, _ := backedUpConfig(t, `
tls:
  mode: acme
  http_redirect_address: 127.0.0.1:0
  acme: {domains: [site.example], agree_tos: true, directory: '`+downURL(t)+`'}
`)
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
	httpPort, httpsPort := portIn(t, s.awaitURL(t, "redirecting")), portIn(t, s.url)
	closed := portIn(t, downURL(t))
	here := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	}
	var out bytes.Buffer
	for name, tt := range map[string]struct {
		p    probe
		good bool
		want string
	}{
		"both":               {probe{httpPort: httpPort, httpsPort: httpsPort, lookup: here}, true, "127.0.0.1 (authorities of the Internet do not reach it)"},
		"tls-alpn-01":        {probe{httpPort: closed, httpsPort: httpsPort, lookup: here}, true, "ok  tls-alpn-01"},
		"http-01":            {probe{httpPort: httpPort, httpsPort: closed, lookup: here}, true, "ok  http-01"},
		"not the only one":   {probe{httpPort: closed, httpsPort: httpsPort, lookup: here, challenge: challengeHTTP}, false, "NO  http-01"},
		"nothing":            {probe{httpPort: closed, httpsPort: closed, lookup: here}, false, "connection refused"},
		"the wrong protocol": {probe{httpPort: httpsPort, httpsPort: httpPort, lookup: here}, false, "400 for a challenge"},
		"no address":         {probe{lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }}, false, "has no address"},
	} {
		out.Reset()
		tt.p.out = &out
		if good := tt.p.try(t.Context(), "site.example"); good != tt.good || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: %t, want %t and %q:\n%s", name, good, tt.good, tt.want, &out)
		}
	}
	args := []string{"tls", "check", "127.0.0.1", "--http-port", strconv.Itoa(httpPort), "--https-port", strconv.Itoa(httpsPort)}
	if text := command(t, config, "", args...); strings.Count(text, "ok ") != 2 || !strings.Contains(text, "NO  certificate") {
		t.Errorf("the command:\n%s", text)
	}
	if _, _, err := tryBare(t, "tls", "check", "--data-dir", t.TempDir()); err == nil || !strings.Contains(err.Error(), "which names") {
		t.Errorf("without names: %v", err)
	}
}

func portIn(t *testing.T, url string) int {
	t.Helper()
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
