package tlsauto

import (
	"crypto/x509"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSelfSigned(t *testing.T) {
	t.Parallel()
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "b"
	s, err := newSelfSigned([]string{"example.com", "*.example.com", "192.0.2.1", "2001:db8::1", long}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.certificate()
	if err != nil {
		t.Fatal(err)
	}
	leaf := first.Leaf
	for _, name := range []string{"example.com", "a.example.com", "192.0.2.1", "2001:db8::1", long} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(leaf.Subject.CommonName, "self-signed") || leaf.IsCA || leaf.SerialNumber.BitLen() < 64 {
		t.Errorf("it is called %q, is an authority: %t, has the serial number %x", leaf.Subject.CommonName, leaf.IsCA, leaf.SerialNumber)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for _, tt := range []struct {
		after time.Duration
		same  bool
	}{
		{0, true},
		{22 * time.Hour, true},
		{23 * time.Hour, false}, // an hour before it expires
		{24 * time.Hour, true},  // than the one before it
		{100 * time.Hour, false},
		{-100 * time.Hour, false}, // the clock was set back
	} {
		start := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
		before := s.current.Load()
		now = start.Add(tt.after)
		c, err := s.certificate()
		if err != nil || (c == before) != tt.same {
			t.Errorf("after %v it is the same: %t, want %t (%v)", tt.after, c == before, tt.same, err)
		}
		if now.Before(c.Leaf.NotBefore) || now.After(c.Leaf.NotAfter) {
			t.Errorf("after %v it is valid from %v to %v", tt.after, c.Leaf.NotBefore, c.Leaf.NotAfter)
		}
		if c.PrivateKey != first.PrivateKey {
			t.Error("the key has changed")
		}
	}
}

func TestSelfSignedConcurrently(t *testing.T) {
	t.Parallel()
	s, err := newSelfSigned([]string{"example.com"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 10 {
				if c, err := s.certificate(); err != nil || c.Leaf.VerifyHostname("example.com") != nil {
					t.Errorf("%v", err)
				}
			}
		})
	}
	clients.Wait()
}
