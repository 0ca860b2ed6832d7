package tlsauto_test

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
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func devOrder(names ...string) *tlsauto.Order {
	return &tlsauto.Order{Names: names, Now: time.Now}
}

// devRoots is what a client has that trusts the root.
func devRoots(t testing.TB, ca *tlsauto.DevCA) *x509.CertPool {
	t.Helper()
	text, _, err := ca.Root()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("no certificate in %s", text)
	}
	return pool
}

func TestDevCA(t *testing.T) {
	t.Parallel()
	ca := &tlsauto.DevCA{Dir: filepath.Join(t.TempDir(), "a", "devca"), Domains: []string{"Corp.LAN", "bücher.de"}}
	roots := devRoots(t, ca)
	names := []string{
		"localhost", "app.localhost", "a.test", "*.b.test", "c.example", "printer.local", "db.internal", "box.home.arpa",
		"corp.lan", "x.y.corp.lan", "xn--bcher-kva.de", "127.0.0.1", "127.1.2.3", "::1", "10.0.0.1", "172.31.255.255", "192.168.1.1", "fd00::1",
	}
	check := func(names []string, keyType tlsauto.KeyType) *tls.Certificate {
		t.Helper()
		order := devOrder(names...)
		order.KeyType = keyType
		cert, err := ca.Issue(t.Context(), order)
		if err != nil {
			t.Fatalf("%q: %v", names, err)
		}
		for _, name := range names {
			host := strings.Replace(name, "*", "star", 1)
			if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life < 30*24*time.Hour || life > 31*24*time.Hour {
			t.Errorf("valid for %v", life)
		}
		if public, ok := cert.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PrivateKey.(crypto.Signer).Public()) {
			t.Error("the key does not belong to the certificate")
		}
		return cert
	}
	check(names, tlsauto.P256)
	for _, name := range names {
		check([]string{name}, tlsauto.P256)
	}
	if key, ok := check(names[:1], tlsauto.P384).PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P384() {
		t.Errorf("got a %T, want one for P-384", key)
	}
	rsaCert := check(names[:1], tlsauto.RSA2048)
	if key, ok := rsaCert.PrivateKey.(*rsa.PrivateKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("got a %T, want one for RSA with 2048 bits", key)
	}

	order := devOrder("localhost")
	order.Key = rsaCert.PrivateKey.(crypto.Signer)
	if cert, err := ca.Issue(t.Context(), order); err != nil || cert.PrivateKey != rsaCert.PrivateKey {
		t.Errorf("the key of the order is not used: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ca.Issue(ctx, devOrder("localhost")); err == nil {
		t.Error("issued although the context has ended")
	}
}

func TestDevCARefusesNames(t *testing.T) {
	t.Parallel()
	ca := &tlsauto.DevCA{Dir: t.TempDir(), Domains: []string{"corp.lan"}}
	names := []string{
		"example.com", "localhost.com", "xlocalhost", "mytest", "test.com", "home.arpa.com", "arpa", "lan", "evilcorp.lan", "*.example.com",
		"8.8.8.8", "172.32.0.1", "192.169.0.1", "11.0.0.1", "2001:db8::1", "fe00::1", "::2",
	}
	for _, name := range names {
		if _, err := ca.Issue(t.Context(), devOrder("localhost", name)); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(name, "*.")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// All of them are told at once.
	_, err := tlsauto.New(tlsauto.Config{Names: append([]string{"a.test"}, names...), Issuers: []tlsauto.Issuer{ca}, Store: tlsauto.NewMemoryStore()})
	if err == nil {
		t.Fatal("New has accepted them")
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), "Issuers[0]: "+name+" is not") && !strings.Contains(err.Error(), "Issuers[0]: address "+name+" is neither") {
			t.Errorf("%s is missing in: %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "a.test ") {
		t.Errorf("a.test is refused: %v", err)
	}
}

// Whoever has the key cannot use it for other names, nor make an authority below it, nor use it for
// anything but servers.
func TestDevCAConstraintsBind(t *testing.T) {
	t.Parallel()
	ca := &tlsauto.DevCA{Dir: t.TempDir()}
	roots := devRoots(t, ca)
	pair, err := tls.LoadX509KeyPair(filepath.Join(ca.Dir, "root.pem"), filepath.Join(ca.Dir, "root-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	root, rootKey := pair.Leaf, pair.PrivateKey.(crypto.Signer)
	if root.NotAfter.Before(time.Now().AddDate(9, 11, 0)) || !root.PermittedDNSDomainsCritical || !root.MaxPathLenZero || root.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("the root is valid until %v, critical: %t, no path: %t, for %b", root.NotAfter, root.PermittedDNSDomainsCritical, root.MaxPathLenZero, root.KeyUsage)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(change func(*x509.Certificate), parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
		t.Helper()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: root.NotBefore, NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"a.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		change(template)
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
	below := sign(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.Subject = true, true, x509.KeyUsageCertSign, pkix.Name{CommonName: "below"}
	}, root, rootKey)
	between := x509.NewCertPool()
	between.AddCert(below)
	serverAuth := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, tt := range []struct {
		name string
		cert *x509.Certificate
		uses []x509.ExtKeyUsage
		ok   bool
	}{
		{"a name of its own", sign(func(*x509.Certificate) {}, root, rootKey), serverAuth, true},
		{"a foreign name", sign(func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }, root, rootKey), serverAuth, false},
		{"a foreign name, too", sign(func(c *x509.Certificate) { c.DNSNames = []string{"a.test", "example.com"} }, root, rootKey), serverAuth, false},
		{"a foreign address", sign(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(8, 8, 8, 8).To4()} }, root, rootKey), serverAuth, false},
		{"an address of its own", sign(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv6loopback} }, root, rootKey), serverAuth, true},
		{"an authority below", sign(func(*x509.Certificate) {}, below, key), serverAuth, false},
		{"a client", sign(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, root, rootKey), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false},
	} {
		_, err := tt.cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: tt.uses})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDevCAProcessesBeginTogether(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "devca")
	ids := make([]string, 16)
	var begin, end sync.WaitGroup
	begin.Add(1)
	for i := range ids {
		end.Go(func() {
			begin.Wait()
			ids[i] = (&tlsauto.DevCA{Dir: dir}).ID()
		})
	}
	begin.Done()
	end.Wait()
	for _, id := range ids {
		if id != ids[0] || len(id) < len("devca:")+16 {
			t.Fatalf("they have different roots: %q", ids)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("%v is left in the directory (%v)", files, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "root-key.pem"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want && runtime.GOOS != "windows" {
			t.Errorf("%s has mode %v (%v)", path, info.Mode(), err)
		}
	}

	// Another root is another issuer.
	for _, name := range []string{"root.pem", "root-key.pem"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if id := (&tlsauto.DevCA{Dir: dir}).ID(); id == ids[0] || id == "devca" {
		t.Errorf("another root has the ID %q", id)
	}
}

func TestDevCADamaged(t *testing.T) {
	t.Parallel()
	write := func(name, text string, mode os.FileMode) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyFrom := func(other *tlsauto.DevCA, name string, mode os.FileMode) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			other.ID() // makes it
			text, err := os.ReadFile(filepath.Join(other.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			write(name, string(text), mode)(t, dir)
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		damage  func(t *testing.T, dir string)
		domains []string
		now     time.Time
		want    string // part of the error; "": none
	}{
		{name: "sound", damage: func(*testing.T, string) {}},
		{name: "no certificate, as when a process has ended in between", damage: remove("root.pem")},
		{name: "no key", damage: remove("root-key.pem"), want: "root-key.pem: no such file"},
		{name: "key of another", damage: copyFrom(&tlsauto.DevCA{Dir: t.TempDir()}, "root-key.pem", 0o600), want: "root-key.pem is not the key of root.pem"},
		{name: "certificate of another", damage: copyFrom(&tlsauto.DevCA{Dir: t.TempDir()}, "root.pem", 0o600), want: "root-key.pem is not the key of root.pem"},
		{name: "empty key", damage: write("root-key.pem", "", 0o600), want: "root-key.pem is damaged"},
		{name: "damaged key", damage: write("root-key.pem", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", 0o600), want: "root-key.pem is damaged"},
		{name: "damaged certificate", damage: write("root.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600), want: "root.pem is damaged"},
		{name: "huge", damage: write("root.pem", strings.Repeat("x", 1<<20), 0o600), want: "root.pem is damaged"},
		{name: "key open to others", damage: copyFrom(&tlsauto.DevCA{Dir: t.TempDir()}, "root-key.pem", 0o640), want: "root-key.pem has mode 0640"},
		{name: "certificate writable by others", damage: copyFrom(&tlsauto.DevCA{Dir: t.TempDir()}, "root.pem", 0o666), want: "root.pem has mode 0666"},
		{name: "directory writable by others", damage: func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // that is what is refused
				t.Fatal(err)
			}
		}, want: "the directory has mode 0777, should have 0755"},
		{name: "directory writable by a group", damage: func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o770); err != nil { //nolint:gosec // that is what is refused
				t.Fatal(err)
			}
		}, want: "the directory has mode 0770, should have 0750"},
		{name: "without constraints", damage: writeBareRoot, want: "root.pem is not a root with constraints"},
		{name: "a link", damage: func(t *testing.T, dir string) {
			remove("root-key.pem")(t, dir)
			if err := os.Symlink("/dev/zero", filepath.Join(dir, "root-key.pem")); err != nil {
				t.Fatal(err)
			}
		}, want: "root-key.pem is not a regular file"},
		{name: "a domain more", damage: func(*testing.T, string) {}, domains: []string{"a.test", "corp.lan"}, want: "it is older than Domains: corp.lan is not among the domains of the root"},
		{name: "mistakes in domains", damage: func(*testing.T, string) {}, domains: []string{"a b", "*.corp.lan", "10.0.0.0"}, want: `Domains[2]: "10.0.0.0" is not a domain`},
		{name: "soon expired", damage: func(*testing.T, string) {}, now: time.Now().AddDate(9, 11, 0), want: "root.pem expires on "},
		{name: "the clock is wrong", damage: func(*testing.T, string) {}, now: time.Now().AddDate(-20, 0, 0), want: "root.pem is not valid before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if runtime.GOOS == "windows" && strings.Contains(tt.want, " mode ") {
				t.Skip("there are no modes")
			}
			dir := t.TempDir()
			if id := (&tlsauto.DevCA{Dir: dir}).ID(); id == "devca" {
				t.Fatal("no root was made")
			}
			tt.damage(t, dir)
			if tt.now.IsZero() {
				tt.now = time.Now()
			}
			now := func() time.Time { return tt.now }
			_, issueErr := (&tlsauto.DevCA{Dir: dir, Domains: tt.domains}).Issue(t.Context(), &tlsauto.Order{Names: []string{"localhost"}, Now: now})
			_, newErr := tlsauto.New(tlsauto.Config{
				Names: []string{"localhost"}, Now: now, Store: tlsauto.NewMemoryStore(),
				Issuers: []tlsauto.Issuer{&tlsauto.DevCA{Dir: dir, Domains: tt.domains}},
			})
			for _, err := range []error{issueErr, newErr} {
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			}
		})
	}
	if _, err := (&tlsauto.DevCA{}).Issue(t.Context(), devOrder("localhost")); err == nil || !strings.Contains(err.Error(), "no Dir is given") {
		t.Errorf("without Dir: %v", err)
	}
}

// writeBareRoot makes the key that is there the root of everything.
func writeBareRoot(t *testing.T, dir string) {
	text, err := os.ReadFile(filepath.Join(dir, "root-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		NotBefore: time.Now(), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.(crypto.Signer).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDevCATrustHint(t *testing.T) {
	t.Parallel()
	ca := &tlsauto.DevCA{Dir: t.TempDir()}
	_, path, err := ca.Root()
	if err != nil {
		t.Fatal(err)
	}
	if hint := ca.TrustHint(); !filepath.IsAbs(path) || !strings.Contains(hint, filepath.Base(path)) {
		t.Errorf("%s is not in:\n%s", path, hint)
	}
	if hint := (&tlsauto.DevCA{}).TrustHint(); !strings.Contains(hint, "no Dir is given") {
		t.Error(hint)
	}
}
