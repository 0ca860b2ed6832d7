package tlsauto_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A named issuer is a development authority that goes by another ID.
type named struct {
	*tlsauto.DevCA
	id string
}

func (n named) ID() string { return n.id }

// damaged is a store whose values are not what they were.
type damaged struct{ tlsauto.Store }

func (d damaged) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := d.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return value[:len(value)/3], nil
}

// What a manager has stored is there for others, by issuer and by all names of the certificate in any order.
func TestStoredCertificate(t *testing.T) {
	t.Parallel()
	store := tlsauto.NewMemoryStore()
	mine, other := named{&tlsauto.DevCA{Dir: t.TempDir()}, "mine"}, named{&tlsauto.DevCA{Dir: t.TempDir()}, "other"}
	names := []string{"a.test", "b.test"}
	m, err := tlsauto.New(tlsauto.Config{
		Groups: [][]string{names}, Issuers: []tlsauto.Issuer{mine}, Store: store, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithTimeout(t.Context(), patience)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if err := m.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	stored := func(store tlsauto.Store, issuer tlsauto.Issuer, names ...string) (string, error) {
		c, err := tlsauto.StoredCertificate(t.Context(), store, []tlsauto.Issuer{issuer}, names...)
		if err != nil {
			return "", err
		}
		return c.Leaf.SerialNumber.Text(16), nil
	}
	want := m.Status().Certificates[0].Serial
	for look := time.Tick(5 * time.Millisecond); ; <-look { // it is served before it is stored
		got, err := stored(store, mine, "b.test", "A.test.")
		if err == nil && got == want {
			break
		}
		if ctx.Err() != nil || err != nil && !errors.Is(err, tlsauto.ErrNotFound) {
			t.Fatalf("%s, %v, want %s", got, err, want)
		}
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	c, err := tlsauto.StoredCertificate(t.Context(), store, []tlsauto.Issuer{other, mine}, names...)
	if err != nil || c.Leaf.VerifyHostname("b.test") != nil || c.PrivateKey == nil {
		t.Errorf("of the second issuer: %v", err)
	}
	for what, try := range map[string]func() (string, error){
		"another issuer": func() (string, error) { return stored(store, other, names...) },
		"one name":       func() (string, error) { return stored(store, mine, "a.test") },
	} {
		if _, err := try(); !errors.Is(err, tlsauto.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := stored(damaged{store}, mine, names...); err == nil || errors.Is(err, tlsauto.ErrNotFound) || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("damaged: %v", err)
	}
	for _, names := range [][]string{nil, {""}, {"a b"}} {
		if _, err := stored(store, mine, names...); err == nil {
			t.Errorf("%q: no error", names)
		}
	}

	// Neither is it ordered again when the configuration lists the names in another order.
	again, err := tlsauto.New(tlsauto.Config{
		Groups: [][]string{{"b.test", "a.test"}}, Issuers: []tlsauto.Issuer{mine}, Store: store, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end = context.WithTimeout(t.Context(), patience)
	go func() { ended <- again.Run(ctx) }()
	if err := again.WaitReady(ctx); err != nil {
		t.Error(err)
	}
	if got := again.Status().Certificates[0].Serial; got != want {
		t.Errorf("in another order: %s, want %s", got, want)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
