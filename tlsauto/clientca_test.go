package tlsauto_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A clientSite asks its clients for certificates.
type clientSite struct {
	m       *tlsauto.Manager
	events  *recorder
	server  *testCA
	caFile  string
	address string
}

func newClientSite(t *testing.T, auth tls.ClientAuthType, bundle ...*testCA) *clientSite {
	t.Helper()
	dir := t.TempDir()
	s := &clientSite{server: newTestCA(t, "server"), caFile: filepath.Join(dir, "clients.pem")}
	writePair(t, filesIn(dir), s.server.issue(t, nil, fileHost))
	writeFile(t, s.caFile, bundleOf(bundle...))
	s.m, s.events = runManager(t, tlsauto.Config{Files: []tlsauto.Files{filesIn(dir)}, ClientAuth: auth, ClientCAFile: s.caFile})
	s.address = serveTLS(t, s.m.TLSConfig())
	return s
}

func bundleOf(authorities ...*testCA) []byte {
	var bundle []byte
	for _, ca := range authorities {
		bundle = append(bundle, certPEM(ca.cert)...)
	}
	return bundle
}

// client is the configuration of a client with these certificates, whatever the server asks for.
func (s *clientSite) client(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs:    s.server.pool(),
		ServerName: fileHost,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certs) > 0 {
				return &certs[0], nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

// replace changes the authorities and waits until they count.
func (s *clientSite) replace(t *testing.T, bundle ...*testCA) {
	t.Helper()
	before := len(s.events.of(tlsauto.Reloaded))
	writeFile(t, s.caFile+".new", bundleOf(bundle...))
	noError(t, os.Rename(s.caFile+".new", s.caFile))
	s.events.await(t, tlsauto.Reloaded, before+1)
}

func TestClientCAs(t *testing.T) {
	t.Parallel()
	first, second := newTestCA(t, "first"), newTestCA(t, "second")
	tests := []struct {
		auth                    tls.ClientAuthType
		before                  []*testCA
		none, ofFirst, ofSecond bool // who is let in
		after                   []*testCA
		thenFirst, thenSecond   bool
	}{
		{tls.RequireAndVerifyClientCert, []*testCA{first}, false, true, false, []*testCA{second}, false, true},
		{tls.VerifyClientCertIfGiven, []*testCA{first}, true, true, false, []*testCA{second}, false, true},
		{tls.RequireAndVerifyClientCert, []*testCA{first, second}, false, true, true, []*testCA{second}, false, true},
		{tls.RequireAndVerifyClientCert, []*testCA{first}, false, true, false, []*testCA{first, second}, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.auth.String(), func(t *testing.T) {
			t.Parallel()
			s := newClientSite(t, tt.auth, tt.before...)
			nobody, a, b := s.client(), s.client(first.client(t)), s.client(second.client(t))
			check := func(client *tls.Config, who string, want bool) {
				t.Helper()
				if _, err := greet(s.address, client); (err == nil) != want {
					t.Errorf("%s: %v, let in: want %t", who, err, want)
				}
			}
			check(nobody, "nobody", tt.none)
			check(a, "a client of the first", tt.ofFirst)
			check(b, "a client of the second", tt.ofSecond)
			s.replace(t, tt.after...)
			check(nobody, "nobody, then", tt.none)
			check(a, "a client of the first, then", tt.thenFirst)
			check(b, "a client of the second, then", tt.thenSecond)
			if file := s.m.Status().ClientCAs; file == nil || file.Path != s.caFile || file.Reloads != 1 {
				t.Errorf("the status is %+v", file)
			}
		})
	}
}

// A session is resumed as long as its client's authority is there, and not a moment longer.
func TestClientCAsResumption(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, auth := range []tls.ClientAuthType{tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven} {
			t.Run(tls.VersionName(version)+" "+auth.String(), func(t *testing.T) {
				t.Parallel()
				first, second := newTestCA(t, "first"), newTestCA(t, "second")
				s := newClientSite(t, auth, first)
				client := s.client(first.client(t))
				client.MaxVersion = version
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				connect := func(when string, resumed bool) {
					t.Helper()
					state, err := greet(s.address, client)
					if err != nil || state.DidResume != resumed {
						t.Errorf("%s: %v, resumed: %t, want %t", when, err, state.DidResume, resumed)
					}
				}
				connect("the first time", false)
				connect("again", true)
				s.replace(t, first, second)
				connect("with one more authority", true)
				s.replace(t, second)
				if _, err := greet(s.address, client); err == nil {
					t.Error("a client whose authority is gone is let in by its session")
				}
				// As a client that has lost its certificate would, or never had it.
				client.GetClientCertificate = s.client().GetClientCertificate
				state, err := greet(s.address, client)
				if allowed := auth == tls.VerifyClientCertIfGiven; (err == nil) != allowed || state.DidResume {
					t.Errorf("without a certificate: %v, resumed: %t", err, state.DidResume)
				}
			})
		}
	}
}

func TestClientCAsRefused(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "clients")
	tests := map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"garbage":   {func(t *testing.T, path string) { writeFile(t, path, []byte("garbage")) }, "there is no certificate in it"},
		"empty":     {func(t *testing.T, path string) { writeFile(t, path, nil) }, "there is no certificate in it"},
		"a key":     {func(t *testing.T, path string) { writeFile(t, path, ca.issue(t, nil, "client").key) }, "there is no certificate in it"},
		"a client":  {func(t *testing.T, path string) { writeFile(t, path, ca.issue(t, nil, "client").cert) }, "certificate 1 is not that of an authority"},
		"too large": {func(t *testing.T, path string) { writeFile(t, path, make([]byte, 1<<20+1)) }, "larger than 1 MiB"},
		"missing":   {func(t *testing.T, path string) { noError(t, os.Remove(path)) }, "no such file"},
		"half": {func(t *testing.T, path string) {
			bundle := bundleOf(ca, ca)
			writeFile(t, path, bundle[:len(bundle)-100])
		}, "a certificate in it is damaged"},
		"damaged": {func(t *testing.T, path string) {
			writeFile(t, path, append(bundleOf(ca), "-----BEGIN CERTIFICATE-----\nU0VDUkVU\n-----END CERTIFICATE-----\n"...))
		}, "certificate 2: x509"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newClientSite(t, tls.RequireAndVerifyClientCert, ca)
			tt.spoil(t, s.caFile)
			e := s.events.awaitRefusal(t, tt.want)
			if e.Issuer != s.caFile {
				t.Errorf("the event is of %s, want %s", e.Issuer, s.caFile)
			}
			if _, err := greet(s.address, s.client(ca.client(t))); err != nil {
				t.Errorf("the authorities before do not count any more: %v", err)
			}
			if _, err := greet(s.address, s.client()); err == nil {
				t.Error("a client without a certificate is let in")
			}
			if file := s.m.Status().ClientCAs; file.Failures == 0 || file.LastError != e.Err.Error() {
				t.Errorf("the status is %+v", *file)
			}

			cfg := tlsauto.Config{Files: []tlsauto.Files{filesIn(filepath.Dir(s.caFile))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAFile: s.caFile}
			if _, err := tlsauto.New(cfg); err == nil || !strings.Contains(err.Error(), "ClientCAFile: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want ClientCAFile and %q", err, tt.want)
			}

			s.replace(t, ca, newTestCA(t, "another"))
			if file := s.m.Status().ClientCAs; file.LastError != "" {
				t.Errorf("the status is %+v", *file)
			}
		})
	}
}

func TestClientCAsDoubtful(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "clients")
	template := *ca.cert
	template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	old := &testCA{cert: ca.sign(t, ca.key, &template), key: ca.key}
	s := newClientSite(t, tls.RequireAndVerifyClientCert, old)
	if e := s.events.await(t, tlsauto.Doubtful, 1); !strings.Contains(e.Err.Error(), `"CN=clients" has expired on`) {
		t.Errorf("the doubt is %v", e.Err)
	}
}
