package acmetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func storeHoldsUpNobody(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	store := newFaultyStore()
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA, nameB}, store: store})
	if _, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	slow := newHold(t)
	set(&store.get, slow.wait)
	other := make(chan struct{})
	go func() {
		defer close(other)
		b := i.client(ca, nameB)
		b.patient = true
		b.knock(t.Context())
	}()
	select {
	case <-slow.arrived:
	case <-other:
	}
	c := i.client(ca, nameA)
	c.timeout = s.within(time.Second)
	_, err := c.connect(t.Context())
	slow.release()
	<-other
	return err
}

func survivesHangingDelete(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	store := newFaultyStore()
	end := make(chan struct{})
	defer close(end)
	set(&store.remove, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-end:
		}
		return errStore
	})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA, nameB}, store: store})
	for _, name := range []string{nameA, nameB} {
		if _, err := i.client(ca, name).trusted(t.Context(), 10*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func servesUnnamed(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	if _, err := c.trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	c.name, c.asName = "", nameA
	_, err := c.connect(t.Context())
	return err
}

func keepsDespitePolicy(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	var answer atomic.Pointer[fault]
	policy := func(ctx context.Context, _ string) error { return happen(ctx, &answer) }
	i := s.mustStart(t, setup{ca: ca, policy: policy})
	c := i.client(ca, nameA)
	if _, err := c.trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	set(&answer, func(context.Context) error { return errors.New("the database is down") })
	_, refused := c.connect(t.Context())
	database := newHold(t)
	set(&answer, database.wait)
	c.timeout = s.within(time.Second)
	_, slow := c.connect(t.Context())
	database.release()
	return errors.Join(refused, slow)
}

func anyName(context.Context, string) error { return nil }

func answersWithPort(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, http01: true})
	_, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	return err
}

func answersWithDot(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	if _, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	cert, err := i.config.GetCertificate(modernHello(nameA + "."))
	if err == nil && cert == nil {
		err = errors.New("no certificate")
	}
	return err
}

// modernHello is what a client of today sends.
func modernHello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves:   []tls.CurveID{tls.CurveP256},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedVersions: []uint16{tls.VersionTLS13},
	}
}

func failsNothingFirst(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, policy: anyName, http01: true})
	c := i.client(ca, nameA)
	c.patient = true
	if _, err := c.trusted(t.Context(), patience); err != nil {
		t.Fatal(err) // each can do that
	}
	if n := ca.orders(); n != 1 {
		return fmt.Errorf("%d orders for a certificate", n)
	}
	return nil
}

func survivesNextProtos(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, protos: true})
	_, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	return err
}

func ordersNoRSA(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}})
	c := i.client(ca, nameA)
	if _, err := c.trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	c.adjust = func(config *tls.Config) {
		config.MaxVersion = tls.VersionTLS12
		config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}
	c.knock(t.Context())
	if _, err := i.config.GetCertificate(&tls.ClientHelloInfo{ServerName: nameA}); err != nil {
		return err
	}
	if n := ca.orders(); n != 1 {
		return fmt.Errorf("%d orders", n)
	}
	return nil
}

func redirectsKnown(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	i := s.mustStart(t, setup{ca: ca, names: []string{nameA}, http01: true})
	known, err := redirected(t.Context(), i.HTTP, nameA, "/path?query")
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://" + nameA + "/path?query"; known != want {
		return fmt.Errorf("to %q for a known host, want %s", known, want)
	}
	unknown, err := redirected(t.Context(), i.HTTP, "evil.test", "/")
	if err != nil {
		t.Fatal(err)
	}
	if unknown != "" {
		return fmt.Errorf("to %s for a host that is not here", unknown)
	}
	return nil
}

func keepsAuthoritiesApart(t *testing.T, s subject) error {
	staging, production := newCA(t, caConfig{}), newCA(t, caConfig{})
	store := tlsauto.NewMemoryStore()
	i := s.mustStart(t, setup{ca: staging, names: []string{nameA}, store: store})
	if _, err := i.client(staging, nameA).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	i.stop()
	i = s.mustStart(t, setup{ca: production, names: []string{nameA}, store: store})
	_, err := i.client(production, nameA).trusted(t.Context(), 8*time.Second)
	return err
}

func updatesEmail(t *testing.T, s subject) error {
	ca := newCA(t, caConfig{})
	c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), email: "old@site.test"}
	i := s.mustStart(t, c)
	if _, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	i.stop()
	before := ca.got(accountPath)
	c.names, c.email = []string{nameB}, "new@site.test"
	i = s.mustStart(t, c)
	if _, err := i.client(ca, nameB).trusted(t.Context(), 10*time.Second); err != nil {
		return err
	}
	if ca.got(accountPath) == before {
		return errors.New("the account was not updated")
	}
	return nil
}
