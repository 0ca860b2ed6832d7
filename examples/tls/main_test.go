package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

func TestServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := &tlsauto.DevCA{Dir: filepath.Join(dir, "devca")}
	secure, plain := listen("127.0.0.1:0"), listen("127.0.0.1:0")
	cfg := tlsauto.Config{
		Names: []string{"localhost", "127.0.0.1"}, Issuers: []tlsauto.Issuer{ca},
		Store: autocert.DirCache(filepath.Join(dir, "certs")), HTTPSPort: secure.Addr().(*net.TCPAddr).Port,
		WaitFirst: time.Minute, // on a busy machine, too, the first client gets a certificate that it trusts
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, cfg, secure, plain) }()

	text, _, err := ca.Root()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	dialer := &net.Dialer{}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, strings.Replace(address, "localhost", "127.0.0.1", 1))
		},
	}
	client := &http.Client{Transport: transport}
	securePort, plainPort := secure.Addr().String()[len("127.0.0.1"):], plain.Addr().String()[len("127.0.0.1"):]
	for _, tt := range []struct{ url, want string }{
		{"https://localhost" + securePort, "Hello from localhost" + securePort + " over HTTP/2.0.\n"},
		{"https://127.0.0.1" + securePort, "Hello from 127.0.0.1" + securePort + " over HTTP/2.0.\n"},
		{"http://localhost" + plainPort + "/a?b=c", "Hello from localhost" + securePort + " over HTTP/2.0.\n"}, // redirected
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != tt.want {
			t.Errorf("%s: %q (%v), want %q", tt.url, body, err, tt.want)
		}
	}
	unknown := &tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "unknown.test"}}
	if conn, err := unknown.DialContext(t.Context(), "tcp", secure.Addr().String()); err == nil {
		conn.Close()
		t.Error("an unknown name is served")
	}

	transport.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}
