package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{key: key, pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "ca.pem")}
	a.cert = sign(t, template, template, key, key)
	a.pool.AddCert(a.cert)
	writePEM(t, a.file, "CERTIFICATE", a.cert.Raw)
	return a
}

// A filePair is the names of two files.
type filePair struct{ cert, key string }

// issue puts a certificate and its key into a directory.
func (a *authority) issue(t *testing.T, dir string, names ...string) filePair {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf := sign(t, template, a.cert, key, a.key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := filePair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writePEM(t, pair.key, "PRIVATE KEY", der)
	writePEM(t, pair.cert, "CERTIFICATE", leaf.Raw)
	return pair
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

// fetch makes a request on a connection of its own. The connection is that of the answer.
func fetch(t *testing.T, url string, config *tls.Config) (status int, body string, state *tls.ConnectionState, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), response.TLS, err
}

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// HTTPS starts by itself, and a new pair is served soon: after a signal, or without one.
func TestServeFiles(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]string{"signal": "1h", "poll": "20ms"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A signal that comes when no server waits for it must not end the test.
			guard := make(chan os.Signal, 1)
			signal.Notify(guard, syscall.SIGHUP)
			t.Cleanup(func() { signal.Stop(guard) })

			config, data := backedUpConfig(t, "tls: {mode: files, files_interval: "+interval+", hsts: 1h}\n")
			old, young := newAuthority(t, "old"), newAuthority(t, "young")
			certs := filepath.Join(data, "secrets", "certs")
			old.issue(t, certs, "127.0.0.1", "localhost")
			s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--config", config)
			status, _, state, err := fetch(t, s.url+"/readyz", &tls.Config{RootCAs: old.pool})
			if err != nil || status != http.StatusOK || state.Version != tls.VersionTLS13 {
				t.Fatalf("%d, %+v, %v\n%s", status, state, err, s.logs)
			}
			young.issue(t, certs, "127.0.0.1", "localhost")
			until(t, "the new certificate", func() bool {
				if name == "signal" {
					self, err := os.FindProcess(os.Getpid())
					if err == nil {
						err = self.Signal(syscall.SIGHUP)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				_, _, _, err := fetch(t, s.url+"/readyz", &tls.Config{RootCAs: young.pool})
				return err == nil
			})
			until(t, "the event in the status", func() bool {
				out, err := tryCommand(t, config, "", "tls", "status", "--json")
				var st tlsStatus
				return err == nil && json.Unmarshal([]byte(out), &st) == nil && st.Mode == modeFiles && st.Certificates[0].File.Reloads == 1
			})
			if out := command(t, config, "", "tls", "status"); !strings.Contains(out, "127.0.0.1") || !strings.Contains(out, filepath.Join(certs, "cert.pem")) {
				t.Errorf("status:\n%s", out)
			}
			info, err := os.Stat(filepath.Join(data, "tls", "status.json"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the file of the status: %v, %v", info, err)
			}
			for _, name := range []string{"renew", "export"} {
				args := []string{"tls", name, "localhost"}
				if name == "export" {
					args = append(args, t.TempDir())
				}
				if _, err := tryCommand(t, config, "", args...); err == nil || !strings.Contains(err.Error(), "is in a file") {
					t.Errorf("%s: %v", name, err)
				}
			}
			if err := s.end(t); err != nil {
				t.Errorf("%v\n%s", err, s.logs)
			}
			if _, err := tryCommand(t, config, "", "tls", "status"); err == nil || !strings.Contains(err.Error(), "it ended at") {
				t.Errorf("status after the end: %v", err)
			}
		})
	}
}

// The settings of a server with a certificate of files, and its authority.
func filesServer(t *testing.T, more string) (*running, *authority) {
	t.Helper()
	config, data := backedUpConfig(t, "tls: {mode: files"+more+"}\n")
	ca := newAuthority(t, "ca")
	ca.issue(t, filepath.Join(data, "secrets", "certs"), "127.0.0.1", "localhost")
	return startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--http-redirect-address=127.0.0.1:0", "--config", config), ca
}

func TestServeAsksClients(t *testing.T) {
	t.Parallel()
	clients, strangers := newAuthority(t, "clients"), newAuthority(t, "strangers")
	certificate := func(of *authority) []tls.Certificate {
		pair := of.issue(t, t.TempDir(), "client")
		c, err := tls.LoadX509KeyPair(pair.cert, pair.key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	for auth, bareMay := range map[string]bool{"": false, ", client_auth: require": false, ", client_auth: optional": true} {
		t.Run(auth, func(t *testing.T) {
			t.Parallel()
			s, ca := filesServer(t, ", client_ca: '"+clients.file+"'"+auth)
			for name, tt := range map[string]struct {
				certificates []tls.Certificate
				may          bool
			}{"none": {nil, bareMay}, "ours": {certificate(clients), true}, "another's": {certificate(strangers), false}} {
				config := &tls.Config{RootCAs: ca.pool}
				if tt.certificates != nil { // even if the server does not ask for that authority
					config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tt.certificates[0], nil }
				}
				if _, _, _, err := fetch(t, s.url+"/livez", config); (err == nil) != tt.may {
					t.Errorf("%s: %v, want success %t", name, err, tt.may)
				}
			}
		})
	}
}

func TestServeRedirects(t *testing.T) {
	t.Parallel()
	s, ca := filesServer(t, ", hsts: 24h")
	plain := s.awaitURL(t, "redirecting")
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host, path string
		status     int
		location   string
	}{
		{"localhost", "/a?b=c", 308, "https://localhost:" + port + "/a?b=c"},
		{"127.0.0.1:80", "/", 308, "https://127.0.0.1:" + port + "/"},
		{"evil.example", "/a", 421, ""},
		{"localhost", "/.well-known/acme-challenge/x", 404, ""},
	} {
		request := newRequest(t, http.MethodGet, plain+tt.path, "")
		request.Host = tt.host
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.status || response.Header.Get("Location") != tt.location {
			t.Errorf("%s%s: %d %s, want %d %s", tt.host, tt.path, response.StatusCode, response.Header.Get("Location"), tt.status, tt.location)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}}}
	defer client.CloseIdleConnections()
	response, err := client.Do(newRequest(t, http.MethodGet, "https://localhost:"+port+"/livez", ""))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got := response.Header.Get("Strict-Transport-Security"); got != "max-age=86400" {
		t.Errorf("Strict-Transport-Security %q", got)
	}
	if err := s.end(t); err != nil {
		t.Errorf("%v\n%s", err, s.logs)
	}
	if err := startRefused(t, "serve", "--tls-mode=selfsigned", "--data-dir", t.TempDir(), "--http-redirect-address=256.0.0.1:0"); err == nil {
		t.Error("an address that is none is taken")
	}
}

// A development authority's certificates are good for those who trust its root.
func TestServeSelfSigned(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--data-dir", data, "--tls-mode=selfsigned", "--tls-require-ready")
	root := filepath.Join(data, "secrets", "devca", "root.pem")
	pool, err := readRoots(root)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "readiness", func() bool {
		status, _, _, err := fetch(t, s.url+"/readyz", &tls.Config{RootCAs: pool})
		return err == nil && status == http.StatusOK
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	if status, body, _, err := fetch(t, "https://localhost:"+port+"/api/records/v1/messier/31", &tls.Config{RootCAs: pool}); err != nil || status != http.StatusOK {
		t.Errorf("%d %s, %v", status, body, err)
	}
	s.stdout.await(t, root)
	if !strings.Contains(s.stdout.String(), s.url+"/api/records") {
		t.Errorf("the banner has another address than %s:\n%s", s.url, s.stdout)
	}
	if _, err := os.Stat(filepath.Join(data, "secrets", "master.key")); err == nil {
		t.Error("there is a master key that nothing needs")
	}
	if _, _, err := tryBare(t, "tls", "export", "localhost", t.TempDir(), "--data-dir", data, "--tls-mode=selfsigned"); err == nil || !strings.Contains(err.Error(), "kept nowhere") {
		t.Errorf("export: %v", err)
	}
}

// A standby speaks HTTPS, too, if the certificate does not come with the database.
func TestStandbyServesFiles(t *testing.T) {
	t.Parallel()
	replica := "file://" + filepath.Join(t.TempDir(), "replica")
	config, data := backedUpConfig(t, "backup: {replica: {url: '"+replica+"', sync_interval: 100ms, drill_interval: 0s}}\ntls: {mode: files}\n")
	ca := newAuthority(t, "ca")
	ca.issue(t, filepath.Join(data, "secrets", "certs"), "127.0.0.1")
	s := startHere(t, "standing by", "standby", "--listen=127.0.0.1:0", "--config", config)
	if status, body, _, err := fetch(t, s.url+"/readyz", &tls.Config{RootCAs: ca.pool}); err != nil || status != 503 || body != "standby\n" {
		t.Errorf("%d %q, %v\n%s", status, body, err, s.logs)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// A standby has no certificates from an authority yet, and no use for a signal to look at them. It goes on.
func testHangup(t *testing.T, binary string) {
	data, replica := filepath.Join(t.TempDir(), "data"), "file://"+filepath.Join(t.TempDir(), "replica")
	keyFile := filepath.Join(data, "secrets", "master.key")
	if err := errors.Join(os.MkdirAll(filepath.Dir(keyFile), 0o700), os.WriteFile(keyFile, []byte(strings.Repeat("k", 32)), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := start(t, binary, "standby", "--listen=127.0.0.1:0", "--data-dir", data, "--replica-url", replica,
		"--tls-mode=acme", "--acme-domains=site.example", "--acme-agree-tos", "--acme-directory", downURL(t))
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-s.ended; err != nil {
		t.Errorf("%v\n%s", err, s.logs)
	}
}
