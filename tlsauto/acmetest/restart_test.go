package acmetest

import (
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// TestRestartWhileDown starts with a store that has a certificate while the authority is down. A good one
// is not ordered again; all that may be asked of the authority is when it should be renewed.
func TestRestartWhileDown(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer+" with a good certificate", func(t *testing.T) {
			t.Parallel()
			i, ca, _ := restart(t, issuer, caConfig{}, func(*CA) {})
			begin := time.Now()
			if _, err := i.client(ca, nameA).connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			t.Logf("served in %v", took)
			if took > 400*time.Millisecond {
				t.Errorf("the first handshake took %v", took)
			}
			if becomes(2*time.Second, func() bool { return i.wasTold(tlsauto.Obtaining) }) {
				t.Error("it orders another one")
			}
		})
		t.Run(issuer+" with an expired certificate", func(t *testing.T) {
			t.Parallel()
			expired := time.Now().Add(7 * time.Second)
			i, ca, old := restart(t, issuer, caConfig{Life: 4 * time.Second}, func(*CA) { at(t, expired) })
			begin := time.Now()
			leaf, err := client{addr: i.TLS, name: nameA}.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			t.Logf("served in %v", took)
			if took > 400*time.Millisecond {
				t.Errorf("the first handshake took %v", took)
			}
			if leaf.SerialNumber.Text(16) != old {
				t.Errorf("served is %x, want what was there: %s", leaf.SerialNumber, old)
			}
			ca.set(up)
			if _, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

// restart has a certificate obtained and starts a second instance with the same store while the
// authority is down. It returns the serial number, too.
func restart(t *testing.T, issuer string, config caConfig, between func(*CA)) (*instance, *CA, string) {
	t.Helper()
	ca := newCA(t, config)
	c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore()}
	i := managed(issuer).mustStart(t, c)
	leaf, err := i.client(ca, nameA).trusted(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	i.stop()
	between(ca)
	ca.set(reset)
	return managed(issuer).mustStart(t, c), ca, leaf.SerialNumber.Text(16)
}
