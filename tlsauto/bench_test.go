package tlsauto_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// stuck is a store, an issuer and a decision on demand that from some time on never return.
type stuck struct {
	tlsauto.Store
	issuer *tlsauto.DevCA
	now    atomic.Bool
	caught chan string // has who is stuck, each once at least
	freed  chan struct{}
}

func newStuck(t testing.TB) *stuck {
	return &stuck{
		Store: tlsauto.NewMemoryStore(), issuer: &tlsauto.DevCA{Dir: t.TempDir()},
		caught: make(chan string, 1000), freed: make(chan struct{}),
	}
}

func (s *stuck) wait(who string) {
	select {
	case s.caught <- who:
	default:
	}
	<-s.freed
}

func (s *stuck) Get(ctx context.Context, key string) ([]byte, error) {
	if s.now.Load() {
		s.wait("store")
	}
	return s.Store.Get(ctx, key)
}

func (s *stuck) Put(ctx context.Context, key string, value []byte) error {
	if s.now.Load() {
		s.wait("store")
	}
	return s.Store.Put(ctx, key, value)
}

func (s *stuck) Delete(ctx context.Context, key string) error {
	if s.now.Load() {
		s.wait("store")
	}
	return s.Store.Delete(ctx, key)
}

func (s *stuck) ID() string { return s.issuer.ID() }

// Issue is stuck for a name from the beginning, so that this is not only in the store.
func (s *stuck) Issue(ctx context.Context, order *tlsauto.Order) (*tls.Certificate, error) {
	if order.Names[0] == "never.test" {
		s.wait("issuer")
	}
	return s.issuer.Issue(ctx, order)
}

func (s *stuck) OnDemand(context.Context, string) error {
	s.wait("decision")
	return errors.New("too late")
}

// await returns when all of them are stuck.
func (s *stuck) await(t testing.TB, who ...string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for len(who) > 0 {
		select {
		case caught := <-s.caught:
			who = slices.DeleteFunc(who, func(w string) bool { return w == caught })
		case <-deadline:
			t.Fatalf("%q are not stuck yet", who)
		}
	}
}

func writeBenchPair(t testing.TB, to tlsauto.Files, cert *tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	chain := make([]byte, 0, 4096)
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	if err := errors.Join(os.WriteFile(to.Cert, chain, 0o600), os.WriteFile(to.Key, text, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// startBenchManager runs a manager with the names one.test, *.wild.test and file.test, the last from a
// file, and those of more, whose certificates it does not wait for.
func startBenchManager(t testing.TB, s *stuck, more ...string) *tlsauto.Manager {
	t.Helper()
	dir := t.TempDir()
	order := &tlsauto.Order{Names: []string{"file.test"}, Now: time.Now}
	cert, err := s.issuer.Issue(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	pair := tlsauto.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	writeBenchPair(t, pair, cert)
	loaded := make(chan struct{}, 100)
	m, err := tlsauto.New(tlsauto.Config{
		Names: append([]string{"one.test", "*.wild.test"}, more...), Files: []tlsauto.Files{pair},
		Store: s, Issuers: []tlsauto.Issuer{s}, OnDemand: s.OnDemand, WaitFirst: -1,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Events: func(e tlsauto.Event) {
			if e.Kind == tlsauto.Adopted {
				loaded <- struct{}{}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		close(s.freed)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		select {
		case <-loaded:
		case <-time.After(time.Minute):
			t.Fatal("no certificates yet")
		}
	}
	return m
}

func TestHandshakesWhileAllIsStuck(t *testing.T) {
	t.Parallel()
	s := newStuck(t)
	m := startBenchManager(t, s, "never.test")
	roots := devRoots(t, s.issuer)
	server := m.TLSConfig()
	s.await(t, "issuer") // before the store keeps it from that
	s.now.Store(true)
	if err := m.Renew("one.test"); err != nil {
		t.Fatal(err)
	}
	if err := benchHandshake(server, &tls.Config{ServerName: "demanded.test", InsecureSkipVerify: true}); err != nil { // begins a decision
		t.Error(err)
	}
	s.await(t, "store", "decision")

	for range 3 {
		for _, name := range []string{"one.test", "a.wild.test", "file.test"} {
			if err := benchHandshake(server, &tls.Config{ServerName: name, RootCAs: roots}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// One whose order is stuck has the self-signed one, and one on demand that of the file, both at once.
		for _, name := range []string{"never.test", "demanded.test", "another.test"} {
			if err := benchHandshake(server, &tls.Config{ServerName: name, InsecureSkipVerify: true}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// benchHandshake makes a handshake in memory.
func benchHandshake(server, client *tls.Config) error {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		err := tls.Server(b, server).Handshake()
		if err != nil {
			b.Close()
		}
		served <- err
	}()
	err := tls.Client(a, client).Handshake()
	if err != nil {
		a.Close()
	}
	return errors.Join(err, <-served)
}

// BenchmarkHandshake compares handshakes with those of a fixed certificate, of the same kind and in the
// same run: one after the other in turn, in changing order, so that what else the machine does counts
// for all of them. The ratios are those of the medians.
func BenchmarkHandshake(b *testing.B) {
	for _, blocked := range []bool{false, true} {
		b.Run(fmt.Sprintf("stuck=%t", blocked), func(b *testing.B) {
			s := newStuck(b)
			m := startBenchManager(b, s, "never.test")
			if blocked {
				s.await(b, "issuer")
				s.now.Store(true)
				if err := m.Renew("one.test"); err != nil {
					b.Fatal(err)
				}
				s.await(b, "store")
			}
			fixed, err := s.issuer.Issue(b.Context(), &tlsauto.Order{Names: []string{"one.test"}, Now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			static := &tls.Config{Certificates: []tls.Certificate{*fixed}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
			roots := devRoots(b, s.issuer)
			auto := m.TLSConfig()
			cases := []struct {
				name       string
				serverName string
				server     *tls.Config
				times      []time.Duration
			}{
				{"static", "one.test", static, nil},
				{"name", "one.test", auto, nil},
				{"wildcard", "a.wild.test", auto, nil},
				{"file", "file.test", auto, nil},
			}
			round := 0
			for b.Loop() {
				for i := range cases {
					c := &cases[(i+round)%len(cases)]
					client := &tls.Config{ServerName: c.serverName, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}}
					start := time.Now()
					if err := benchHandshake(c.server, client); err != nil {
						b.Fatal(err)
					}
					c.times = append(c.times, time.Since(start))
				}
				round++
			}
			median := func(times []time.Duration) float64 {
				slices.Sort(times)
				return float64(times[len(times)/2])
			}
			base := median(cases[0].times)
			b.ReportMetric(base/1000, "static-µs")
			for _, c := range cases[1:] {
				b.ReportMetric(median(c.times)/base, c.name+"/static")
			}
		})
	}
}

func BenchmarkGetCertificate(b *testing.B) {
	m := startBenchManager(b, newStuck(b))
	for _, name := range []string{"one.test", "a.wild.test", "file.test", "ONE.test"} {
		b.Run(name, func(b *testing.B) {
			hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"h2", "http/1.1"}}
			b.ReportAllocs()
			for b.Loop() {
				if c, err := m.GetCertificate(hello); c == nil || err != nil {
					b.Fatal(c, err)
				}
			}
		})
	}
}
