package tlsauto_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
	"golang.org/x/crypto/acme"
)

// A challengeIssuer answers one challenge, until the test is over, and never issues anything.
type challengeIssuer struct {
	answer   *tls.Certificate
	answered chan error
}

func (i *challengeIssuer) ID() string { return "challenge" }

func (i *challengeIssuer) Issue(ctx context.Context, order *tlsauto.Order) (*tls.Certificate, error) {
	remove, err := order.Challenges.TLSALPN01(ctx, order.Names[0], i.answer)
	i.answered <- err
	if err != nil {
		return nil, err
	}
	defer remove()
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestChallengeHandshake(t *testing.T) {
	t.Parallel()
	const name = "challenged.example"
	ca := newTestCA(t, "clients")
	answer := newTestCA(t, "answer").client(t)
	tests := map[string]struct {
		auth   tls.ClientAuthType
		change func(*tls.Config)
		cert   bool // the validation comes with a client's certificate
		want   bool // it sees the answer
	}{
		"as it is":        {want: true},
		"other protocols": {change: func(c *tls.Config) { c.NextProtos = []string{"h2"} }, want: true},
		"other certificates": {change: func(c *tls.Config) {
			c.NextProtos = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }
		}, want: true},
		"certificate if given":                  {auth: tls.VerifyClientCertIfGiven, want: true},
		"certificate if given, other protocols": {auth: tls.VerifyClientCertIfGiven, change: func(c *tls.Config) { c.NextProtos = nil }, want: true},
		"certificate required":                  {auth: tls.RequireAndVerifyClientCert},
		"certificate required, other protocols": {auth: tls.RequireAndVerifyClientCert, change: func(c *tls.Config) { c.NextProtos = nil }},
		"certificate required and given":        {auth: tls.RequireAndVerifyClientCert, cert: true, want: true},
		"certificate required, demands removed": {auth: tls.RequireAndVerifyClientCert, change: func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }},
		"certificate required by somebody else": {change: func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool() }},
		"connections refused by somebody else":  {change: func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") } }},
	}
	for called, tt := range tests {
		t.Run(called, func(t *testing.T) {
			t.Parallel()
			issuer := &challengeIssuer{answer: &answer, answered: make(chan error, 1)}
			cfg := tlsauto.Config{Names: []string{name}, Issuers: []tlsauto.Issuer{issuer}, Store: tlsauto.NewMemoryStore(), ClientAuth: tt.auth}
			if tt.auth != tls.NoClientCert {
				cfg.ClientCAFile = filepath.Join(t.TempDir(), "clients.pem")
				writeFile(t, cfg.ClientCAFile, bundleOf(ca))
			}
			m, _ := runManager(t, cfg)
			select {
			case err := <-issuer.answered:
				noError(t, err)
			case <-time.After(patience):
				t.Fatal("nothing is ordered")
			}
			config := m.TLSConfig()
			if tt.change != nil {
				tt.change(config)
			}
			client := &tls.Config{ServerName: name, NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true} // as validations do
			if tt.cert {
				client.Certificates = []tls.Certificate{ca.client(t)}
			}
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			address := serveTLS(t, config)
			state, err := greet(address, client)
			if !tt.want {
				if err == nil {
					t.Error("the client is let in")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if state.NegotiatedProtocol != acme.ALPNProto || !state.PeerCertificates[0].Equal(answer.Leaf) {
				t.Errorf("%q and a certificate of %s are served", state.NegotiatedProtocol, state.PeerCertificates[0].Subject)
			}
			if state, err := greet(address, client); err != nil || state.DidResume {
				t.Errorf("again: %v, resumed: %t, which validates nothing", err, state.DidResume)
			}
		})
	}
}

// What the caller makes of the configuration counts where clients are asked for certificates, too.
func TestTLSConfigChanged(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "clients")
	s := newClientSite(t, tls.VerifyClientCertIfGiven, ca)
	config := s.m.TLSConfig()
	config.MinVersion = tls.VersionTLS13
	client := s.client()
	client.MaxVersion = tls.VersionTLS12
	if _, err := greet(serveTLS(t, config), client); err == nil {
		t.Error("the least version of the caller does not count")
	}
}

// An HTTP server makes a clone of its configuration.
func TestTLSConfigHTTP(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "clients")
	for _, auth := range []tls.ClientAuthType{tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert} {
		t.Run(auth.String(), func(t *testing.T) {
			t.Parallel()
			s := newClientSite(t, auth, ca)
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			noError(t, err)
			server := &http.Server{
				TLSConfig:         s.m.TLSConfig(),
				ReadHeaderTimeout: patience,
				ErrorLog:          log.New(io.Discard, "", 0),
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = fmt.Fprintf(w, "%s %d", r.Proto, len(r.TLS.VerifiedChains))
				}),
			}
			served := make(chan error, 1)
			go func() { served <- server.ServeTLS(listener, "", "") }()
			t.Cleanup(func() {
				_ = server.Close()
				<-served
			})
			get := func(config *tls.Config, http2 bool) (string, error) {
				transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport, Timeout: patience}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+listener.Addr().String(), nil)
				noError(t, err)
				response, err := client.Do(request)
				if err != nil {
					return "", err
				}
				defer func() { _ = response.Body.Close() }()
				body, err := io.ReadAll(response.Body)
				return string(body), err
			}
			for _, tt := range []struct {
				http2 bool
				want  string
			}{{true, "HTTP/2.0 1"}, {false, "HTTP/1.1 1"}} {
				if got, err := get(s.client(ca.client(t)), tt.http2); err != nil || got != tt.want {
					t.Errorf("with a certificate: %q, %v, want %q", got, err, tt.want)
				}
			}
			if got, err := get(s.client(), true); (err == nil) != (auth == tls.VerifyClientCertIfGiven) {
				t.Errorf("without a certificate: %q, %v", got, err)
			}
		})
	}
}
