package tlsauto

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tableCert makes a certificate for names, as a file or an authority would bring it. What it is called
// is in Subject.CommonName.
func tableCert(t testing.TB, called string, key crypto.Signer, names ...string) *tls.Certificate {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: called},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = splitNames(names)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// tableManaged is a managed certificate that has come if it is called something.
func tableManaged(t testing.TB, called string, names ...string) *managed {
	t.Helper()
	for i, name := range names {
		n, err := NormalizeName(name)
		if err != nil {
			t.Fatal(err)
		}
		names[i] = n
	}
	mc, err := newManaged(names, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if called != "" {
		mc.cert = &certificate{tls: tableCert(t, called, nil, names...)}
	}
	return mc
}

// tableManager has a table of just these. It does not run.
func tableManager(t testing.TB, cfg Config, pairs []*tls.Certificate, all ...*managed) *Manager {
	t.Helper()
	cfg.Names, cfg.Issuers, cfg.Store = []string{"replaced.test"}, []Issuer{nobody{}}, NewMemoryStore()
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.managed = all
	m.table.Store(newTable(m.cfg, pairs, all))
	return m
}

// nobody issues nothing.
type nobody struct{}

func (nobody) ID() string { return "nobody" }

func (nobody) Issue(context.Context, *Order) (*tls.Certificate, error) {
	return nil, errors.New("nobody issues")
}

// addressed is a connection to an address of the server.
type addressed struct {
	net.Conn
	local net.Addr
}

func (c addressed) LocalAddr() net.Addr { return c.local }

func TestFind(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "b" // 253 characters
	pairs := []*tls.Certificate{
		tableCert(t, "first file", nil, "files.example", "Both.Example"),
		tableCert(t, "wildcard file", nil, "*.wild.example", "a_b.underscore.example", "r3---x.example"),
		tableCert(t, "shadow file", nil, "both.example", "files.example"),
	}
	managed := func() []*managed {
		return []*managed{
			tableManaged(t, "plain", "example.com"),
			tableManaged(t, "wildcard", "*.example.com"),
			tableManaged(t, "own", "own.example.com"),
			tableManaged(t, "", "waits.example.com"),
			tableManaged(t, "", "waits.example.net"),
			tableManaged(t, "idn", "Bücher.example"),
			tableManaged(t, "v4", "192.0.2.1"),
			tableManaged(t, "v6", "2001:db8::1"),
			tableManaged(t, "long", long),
			tableManaged(t, "beaten", "files.example", "unbeaten.example"),
			tableManaged(t, "exact", "exact.wild.example"),
			tableManaged(t, "digits", "host1", "r2.d2"),
		}
	}
	bare := newTable(Config{}, nil, managed())
	filed := newTable(Config{}, pairs, managed())
	defaults := func(name string) *table { return newTable(Config{DefaultName: name}, pairs[1:2], managed()) }

	local := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 443} }
	for _, tt := range []struct {
		table      *table
		serverName string
		local      net.Addr
		want       string // what the certificate is called; "?": none has come; "": none is known
	}{
		{bare, "example.com", nil, "plain"},
		{bare, "EXAMPLE.com", nil, "plain"},
		{bare, "example.com.", nil, "plain"},
		{bare, "ExAmple.COM.", nil, "plain"},
		{bare, "example.com..", nil, ""},
		{bare, ".example.com", nil, ""},
		{bare, "a..example.com", nil, ""},
		{bare, ".", nil, ""},
		{bare, "com", nil, ""},
		{bare, "a.example.com", nil, "wildcard"},
		{bare, "A.Example.com.", nil, "wildcard"},
		{bare, "a_b.example.com", nil, "wildcard"},
		{bare, "A_b.example.com", nil, "wildcard"},
		{bare, "r3---sn.example.com", nil, "wildcard"},
		{bare, "1.example.com", nil, "wildcard"},
		{bare, "a.b.example.com", nil, ""}, // one label only
		{bare, "*.example.com", nil, ""},
		{bare, "-a.example.com", nil, ""},
		{bare, "a b.example.com", nil, ""},
		{bare, "a\x00.example.com", nil, ""},
		{bare, "own.example.com", nil, "own"},
		{bare, "waits.example.com", nil, "wildcard"}, // until its own has come
		{bare, "waits.example.net", nil, "?"},
		{bare, "bücher.example", nil, ""}, // clients must not send it like that
		{bare, "xn--bcher-kva.example", nil, "idn"},
		{bare, "XN--BCHER-KVA.example", nil, "idn"},
		{bare, "host1", nil, "digits"},
		{bare, "R2.D2", nil, "digits"},
		{bare, long, nil, "long"},
		{bare, long + ".", nil, "long"},
		{bare, long + "b", nil, ""}, // 254
		{bare, strings.Repeat("a.", 30_000) + "example.com", nil, ""},
		{bare, strings.Repeat("ü", 30_000), nil, ""},

		{bare, "192.0.2.1", nil, "v4"}, // which RFC 6066 forbids, and some clients do
		{bare, "::ffff:192.0.2.1", nil, "v4"},
		{bare, "2001:DB8:0::1", nil, "v6"},
		{bare, "[2001:db8::1]", nil, "v6"},
		{bare, "192.0.2.2", nil, ""},
		{bare, "", local("192.0.2.1"), "v4"},
		{bare, "", local("::ffff:192.0.2.1"), "v4"},
		{bare, "", local("2001:db8::1"), "v6"},
		{bare, "", &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Zone: "eth0"}, "v6"},
		{bare, "", local("192.0.2.2"), "plain"},
		{bare, "", &net.UnixAddr{Name: "192.0.2.1"}, "plain"},
		{bare, "", &net.TCPAddr{}, "plain"},
		{bare, "", nil, "plain"},
		{bare, "example.com", local("192.0.2.1"), "plain"},

		{filed, "files.example", nil, "first file"},
		{filed, "both.example", nil, "first file"},
		{filed, "a.wild.example", nil, "wildcard file"},
		{filed, "a_b.underscore.example", nil, "wildcard file"},
		{filed, "r3---x.example", nil, "wildcard file"},
		{filed, "exact.wild.example", nil, "exact"},
		{filed, "unbeaten.example", nil, "beaten"},
		{filed, "example.com", nil, "plain"},
		{filed, "", nil, "first file"},
		{filed, "", local("192.0.2.1"), "v4"},
		{filed, "unknown.example", nil, ""},

		{defaults("example.com"), "", nil, "plain"},
		{defaults("a.example.com"), "", nil, "wildcard"},
		{defaults("*.example.com"), "", nil, "wildcard"},
		{defaults("192.0.2.1"), "", nil, "v4"},
		{defaults("unknown.example"), "", nil, "wildcard file"},
		{newTable(Config{}, nil, nil), "", nil, ""},
		{newTable(Config{}, nil, nil), "example.com", nil, ""},
	} {
		hello := &tls.ClientHelloInfo{ServerName: tt.serverName}
		if tt.local != nil {
			hello.Conn = addressed{local: tt.local}
		}
		got := ""
		if s := tt.table.find(hello); s != nil {
			got = "?"
			if c := s.certificate(hello); c != nil {
				got = c.Leaf.Subject.CommonName
			}
		}
		if got != tt.want {
			t.Errorf("%.80q at %v: %q, want %q", tt.serverName, tt.local, got, tt.want)
		}
	}
	if filed.unknown == nil || bare.unknown != nil {
		t.Errorf("unknown names are refused unless there are files, got %v and %v", filed.unknown, bare.unknown)
	}
}

// pipeHandshake returns what a client gets that verifies nothing, over a connection in memory.
func pipeHandshake(m *Manager, config *tls.Config) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	config.InsecureSkipVerify = true
	client, server := tls.Client(a, config), tls.Server(b, m.TLSConfig())
	refused := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err != nil {
			b.Close()
		}
		refused <- err
	}()
	err := client.Handshake()
	if err != nil {
		a.Close()
	}
	return client.ConnectionState(), errors.Join(err, <-refused)
}

// servedName is what the certificate is called that a client with this configuration gets, or the error.
func servedName(m *Manager, config *tls.Config) string {
	state, err := pipeHandshake(m, config)
	if err != nil {
		return err.Error()
	}
	return state.PeerCertificates[0].Subject.CommonName
}

func TestHandshakeRefused(t *testing.T) {
	t.Parallel()
	m := tableManager(t, Config{WaitFirst: -1, NoFallback: true}, nil, tableManaged(t, "own", "example.com"), tableManaged(t, "", "waits.example"))
	for _, tt := range []struct {
		config *tls.Config
		want   string // part of the client's error, or what the certificate is called
	}{
		{&tls.Config{ServerName: "example.com"}, "own"},
		{&tls.Config{ServerName: "unknown.example"}, "remote error: tls: unrecognized name"},
		{&tls.Config{ServerName: "unknown.example", MaxVersion: tls.VersionTLS12}, "remote error: tls: unrecognized name"},
		{&tls.Config{ServerName: "waits.example"}, "remote error: tls: internal error"},
		{&tls.Config{ServerName: "example.com", NextProtos: []string{"acme-tls/1"}}, "remote error: tls: unrecognized name"},
		{&tls.Config{ServerName: "example.com", NextProtos: []string{"acme-tls/1", "h2"}}, "own"},
		{&tls.Config{ServerName: "example.com", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, "protocol version not supported"},
	} {
		if got := servedName(m, tt.config); !strings.Contains(got, tt.want) {
			t.Errorf("%s %v: %s, want %s", tt.config.ServerName, tt.config.NextProtos, got, tt.want)
		}
	}
	for reason, want := range map[HandshakeError]uint64{UnknownName: 2, NoCertificate: 1, UnknownChallenge: 1, TooMany: 0} {
		if got := m.counts.handshakeErrors.of(reason).Load(); got != want {
			t.Errorf("%s: counted %d, want %d", reason, got, want)
		}
	}
}

// Where there are files, their first pair is for everybody.
func TestHandshakeUnknownWithFiles(t *testing.T) {
	t.Parallel()
	m := tableManager(t, Config{WaitFirst: -1}, []*tls.Certificate{tableCert(t, "file", nil, "files.example")})
	for _, name := range []string{"files.example", "unknown.example", ""} {
		if got := servedName(m, &tls.Config{ServerName: name}); got != "file" {
			t.Errorf("%q: %s", name, got)
		}
	}
}

// Of two pairs for a name the client gets one that it supports, and so do clients that name no server.
func TestHandshakeKeyTypes(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	m := tableManager(t, Config{WaitFirst: -1}, []*tls.Certificate{
		tableCert(t, "ecdsa", nil, "files.example"),
		tableCert(t, "rsa", key, "files.example"),
	})
	for _, name := range []string{"files.example", "unknown.example", ""} {
		old := &tls.Config{ServerName: name, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
		if got := servedName(m, old); got != "rsa" {
			t.Errorf("%q without ECDSA: %s", name, got)
		}
		if got := servedName(m, &tls.Config{ServerName: name}); got != "ecdsa" {
			t.Errorf("%q: %s", name, got)
		}
	}
}

// A client that names no server gets the certificate of the address that it has connected to.
func TestHandshakeAddress(t *testing.T) {
	t.Parallel()
	m := tableManager(t, Config{WaitFirst: -1}, nil, tableManaged(t, "name", "example.com"), tableManaged(t, "address", "127.0.0.1"))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", m.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		served <- conn.(*tls.Conn).HandshakeContext(t.Context())
	}()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != "address" {
		t.Errorf("got the certificate of the %s", got)
	}
	if err := errors.Join(<-served, listener.Close()); err != nil {
		t.Error(err)
	}
}

const selfSignedName = "no certificate yet (self-signed)"

// The first certificate is waited for, but not for long, and only while the first attempt is under way.
func TestWaitFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		wait     time.Duration
		comes    time.Duration // 0: it does not
		fails    time.Duration // 0: it does not
		fallback bool
		want     string
		after    time.Duration
	}{
		{"it comes", 500 * time.Millisecond, 200 * time.Millisecond, 0, true, "own", 200 * time.Millisecond},
		{"it comes late", 500 * time.Millisecond, 700 * time.Millisecond, 0, true, selfSignedName, 500 * time.Millisecond},
		{"it comes late, no fallback", 500 * time.Millisecond, 700 * time.Millisecond, 0, false, "internal error", 500 * time.Millisecond},
		{"it fails", 500 * time.Millisecond, 0, 100 * time.Millisecond, true, selfSignedName, 100 * time.Millisecond},
		{"it fails, no fallback", 500 * time.Millisecond, 0, 100 * time.Millisecond, false, "internal error", 100 * time.Millisecond},
		{"nothing happens", 2 * time.Second, 0, 0, true, selfSignedName, 2 * time.Second},
		{"no waiting", -1, time.Second, 0, true, selfSignedName, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				mc := tableManaged(t, "", "example.com")
				m := tableManager(t, Config{WaitFirst: tt.wait, NoFallback: !tt.fallback}, nil, mc)
				own := &certificate{tls: tableCert(t, "own", nil, "example.com")}
				switch {
				case tt.comes > 0:
					time.AfterFunc(tt.comes, func() {
						m.mu.Lock()
						mc.cert = own
						m.table.Store(newTable(m.cfg, nil, m.managed))
						m.mu.Unlock()
						close(mc.first)
					})
				case tt.fails > 0:
					time.AfterFunc(tt.fails, func() { close(mc.first) })
				}
				start := time.Now()
				if got := servedName(m, &tls.Config{ServerName: "example.com"}); !strings.Contains(got, tt.want) || time.Since(start) != tt.after {
					t.Errorf("%s after %v, want %s after %v", got, time.Since(start), tt.want, tt.after)
				}

				time.Sleep(10 * time.Second) // by now all has happened
				start = time.Now()
				want := selfSignedName
				switch {
				case tt.comes > 0:
					want = "own"
				case !tt.fallback:
					want = "internal error"
				}
				if tt.comes == 0 && tt.fails == 0 {
					return // it would wait again
				}
				if got := servedName(m, &tls.Config{ServerName: "example.com"}); !strings.Contains(got, want) || time.Since(start) != 0 {
					t.Errorf("later: %s after %v, want %s at once", got, time.Since(start), want)
				}
			})
		})
	}
}

// A client that leaves does not keep its goroutine until the end of WaitFirst.
func TestWaitFirstEndsWithClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := tableManager(t, Config{WaitFirst: time.Hour}, nil, tableManaged(t, "", "example.com"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a, b := net.Pipe()
		defer a.Close()
		left := make(chan error, 1)
		go func() {
			left <- tls.Server(b, m.TLSConfig()).HandshakeContext(ctx)
			b.Close()
		}()
		start := time.Now()
		if err := tls.Client(a, &tls.Config{ServerName: "example.com"}).Handshake(); err == nil {
			t.Error("the handshake has succeeded")
		}
		if err := <-left; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// Handshakes take no lock: not even the one that is held while certificates are exchanged.
func TestHandshakeTakesNoLock(t *testing.T) {
	t.Parallel()
	m := tableManager(t, Config{WaitFirst: -1}, []*tls.Certificate{tableCert(t, "file", nil, "*.files.example")},
		tableManaged(t, "own", "example.com"), tableManaged(t, "wildcard", "*.example.com"), tableManaged(t, "", "waits.example"))
	if err := m.admit("demanded.example"); err != nil {
		t.Fatal(err)
	}
	demanded := m.managed[len(m.managed)-1]
	demanded.cert = &certificate{tls: tableCert(t, "demanded", nil, "demanded.example")}
	m.mu.Lock()
	m.installOneLocked(demanded)
	m.mu.Unlock()

	m.mu.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for name, want := range map[string]string{
			"example.com": "own", "a.example.com": "wildcard", "a.files.example": "file", "": "file",
			"demanded.example": "demanded", "waits.example": selfSignedName,
		} {
			if got := servedName(m, &tls.Config{ServerName: name}); got != want {
				t.Errorf("%q: %s, want %s", name, got, want)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Error("a handshake waits for the lock")
	}
	m.mu.Unlock()
	<-done
}

func TestCertificateNames(t *testing.T) {
	t.Parallel()
	leaf := &x509.Certificate{
		DNSNames:    []string{"Example.com", "*.Example.com", "a_b.example.com", "*", "*.*.example.com", "a b", "", "1.2.3.4", "xn--bcher-kva.example"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1"), nil},
	}
	want := []string{"example.com", "*.example.com", "a_b.example.com", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1"}
	if got := certificateNames(leaf); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The usual handshake leaves nothing to collect.
func TestGetCertificateAllocates(t *testing.T) { // nothing; not parallel, as others would be counted
	m := tableManager(t, Config{WaitFirst: -1}, []*tls.Certificate{tableCert(t, "file", nil, "files.example")},
		tableManaged(t, "own", "example.com"), tableManaged(t, "wildcard", "*.example.com"))
	for _, name := range []string{"example.com", "a.example.com", "files.example"} {
		hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"h2", "http/1.1"}}
		if n := testing.AllocsPerRun(100, func() {
			if c, err := m.GetCertificate(hello); c == nil || err != nil {
				t.Fatal(c, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
