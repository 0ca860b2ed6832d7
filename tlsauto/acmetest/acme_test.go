package acmetest

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

func TestProfile(t *testing.T) {
	long(t)
	const day = 24 * time.Hour
	profiles := map[string]time.Duration{"classic": 90 * day, "shortlived": 6 * day}
	for profile, life := range profiles {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			ca, i := withProfile(t, profiles, profile)
			leaf, err := i.client(ca, nameA).trusted(t.Context(), patience)
			if err != nil {
				t.Fatal(err)
			}
			if got := leaf.NotAfter.Sub(leaf.NotBefore); got < life-time.Minute || got > life {
				t.Errorf("the certificate is for %v, want %v", got, life)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		ca, i := withProfile(t, profiles, "eternal")
		if !becomes(patience, func() bool { return i.wasTold(tlsauto.Failed) }) {
			t.Fatal("it does not fail")
		}
		for _, e := range i.told() {
			if e.Kind == tlsauto.Failed && (!strings.Contains(e.Err.Error(), "eternal") || !strings.Contains(e.Err.Error(), "shortlived")) {
				t.Errorf("the error does not say what there is: %v", e.Err)
			}
		}
		if n := ca.orders(); n > 0 {
			t.Errorf("%d orders", n)
		}
	})
}

func withProfile(t *testing.T, profiles map[string]time.Duration, profile string) (*CA, *instance) {
	t.Helper()
	ca := newCA(t, caConfig{Profiles: profiles})
	return ca, mustRun(t, setup{ca: ca}, tlsauto.Config{
		Names:   []string{nameA},
		Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: directory(t, ca, "a"), Profile: profile}},
	})
}

func TestSeveralNames(t *testing.T) {
	long(t)
	ca := newCA(t, caConfig{})
	group := []string{nameA, nameB, "www.site.test"}
	i := mustRun(t, setup{ca: ca}, tlsauto.Config{Groups: [][]string{group}})
	for _, name := range group {
		leaf, err := i.client(ca, name).trusted(t.Context(), patience)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Sort(leaf.DNSNames); !slices.Equal(leaf.DNSNames, group) {
			t.Errorf("the names are %q, want %q", leaf.DNSNames, group)
		}
	}
	if n := ca.orders(); n != 1 {
		t.Errorf("%d orders", n)
	}
}

func TestAddress(t *testing.T) {
	long(t)
	for challenge, http01 := range map[string]bool{"tls-alpn-01": false, "http-01": true} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{})
			i := mustRun(t, setup{ca: ca, http01: http01}, tlsauto.Config{
				Names:   []string{"127.0.0.1"},
				Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: directory(t, ca, "a"), Challenges: []string{challenge}}},
			})
			c := i.client(ca, "")
			c.asName = "127.0.0.1"
			leaf, err := c.trusted(t.Context(), patience)
			if err != nil {
				t.Fatal(err)
			}
			if len(leaf.IPAddresses) != 1 || len(leaf.DNSNames) != 0 {
				t.Errorf("addresses %v, names %v", leaf.IPAddresses, leaf.DNSNames)
			}
		})
	}
}

// TestLongName is for more characters than a common name may have.
func TestLongName(t *testing.T) {
	long(t)
	ca := newCA(t, caConfig{})
	name := strings.Repeat("n", 63) + "." + strings.Repeat("a", 12) + ".site.test"
	if len(name) != 86 {
		t.Fatal(len(name))
	}
	i := mustRun(t, setup{ca: ca}, tlsauto.Config{Names: []string{name}})
	leaf, err := i.client(ca, name).trusted(t.Context(), patience)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.CommonName != "" {
		t.Errorf("the common name is %q", leaf.Subject.CommonName)
	}
}

func TestWildcard(t *testing.T) {
	long(t)
	ca := newCA(t, caConfig{})
	i := mustRun(t, setup{ca: ca}, tlsauto.Config{
		Groups:  [][]string{{"site.test", "*.site.test"}},
		Issuers: []tlsauto.Issuer{&tlsauto.ACME{Directory: directory(t, ca, "a"), DNS: dnsHook{ca.DNS}, Challenges: []string{"dns-01"}}},
	})
	for _, name := range []string{"site.test", nameA} {
		if _, err := i.client(ca, name).trusted(t.Context(), patience); err != nil {
			t.Fatal(err)
		}
	}
	if n := ca.DNS.records(); n > 0 {
		t.Errorf("%d records are left in the DNS", n)
	}
}

// dnsHook sets the TXT records of a name server.
type dnsHook struct{ server *nameServer }

func (h dnsHook) Present(_ context.Context, fqdn, value string) error {
	h.server.addTXT(fqdn, value)
	return nil
}

func (h dnsHook) CleanUp(_ context.Context, fqdn, value string) error {
	h.server.removeTXT(fqdn, value)
	return nil
}

func TestExternalAccount(t *testing.T) {
	long(t)
	key := []byte("a key of thirty-two bytes exactly")[:32]
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{EAB: map[string]string{"kid-1": base64.RawURLEncoding.EncodeToString(key)}})
			run := func(who, name string, key []byte) *instance {
				d := directory(t, ca, who)
				d.EABKeyID, d.EABKey = "kid-1", key
				var by tlsauto.Issuer = &tlsauto.ACME{Directory: d}
				if issuer == "Autocert" {
					by = &tlsauto.Autocert{Directory: d}
				}
				return mustRun(t, setup{ca: ca, who: who}, tlsauto.Config{Names: []string{name}, Issuers: []tlsauto.Issuer{by}})
			}
			wrong := run("wrong", nameA, []byte("another key of thirty-two bytes!"))
			if !becomes(patience, func() bool { return wrong.wasTold(tlsauto.Failed) }) {
				t.Error("a wrong key does not fail")
			}
			wrong.stop()
			for _, e := range wrong.told() {
				if e.Err != nil {
					t.Log(e.Err)
				}
			}
			if _, err := run("right", nameB, key).client(ca, nameB).trusted(t.Context(), patience); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAdvice has the authority ask for a renewal of a certificate that would be good for months. It is
// followed for certificates of some age only.
func TestAdvice(t *testing.T) {
	long(t)
	const age = 48 * time.Hour
	for name, advise := range map[string]func(*testing.T, *CA, *x509.Certificate){
		"a window in the past": func(t *testing.T, ca *CA, leaf *x509.Certificate) {
			ca.advise(t, leaf, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
		},
		"a window that comes soon": func(t *testing.T, ca *CA, leaf *x509.Certificate) {
			ca.advise(t, leaf, time.Now().Add(age+3*time.Second), time.Now().Add(age+5*time.Second))
		},
		"after it was revoked": func(_ *testing.T, ca *CA, leaf *x509.Certificate) { ca.revoke(leaf) },
	} {
		for _, issuer := range issuers {
			t.Run(issuer+" "+name, func(t *testing.T) {
				t.Parallel()
				ca := newCA(t, caConfig{Advice: true})
				c := setup{ca: ca, names: []string{nameA}, store: tlsauto.NewMemoryStore(), clock: &clock{}}
				i := managed(issuer).mustStart(t, c)
				old, err := i.client(ca, nameA).trusted(t.Context(), patience)
				if err != nil {
					t.Fatal(err)
				}
				i.stop()
				advise(t, ca, old)
				c.clock.set(time.Now().Add(age))
				i = managed(issuer).mustStart(t, c)
				if _, err := i.client(ca, nameA).changes(t.Context(), old, patience); err != nil {
					t.Fatal(err)
				}
				if ca.got(advicePath) == 0 {
					t.Error("the authority was not asked")
				}
				if soon := name == "a window that comes soon"; !soon && !i.wasTold(tlsauto.RenewingEarly) {
					t.Error("nobody was told")
				}
				if n := ca.orders(); n != 2 {
					t.Errorf("%d orders, want 2", n)
				}
			})
		}
	}
}

// TestSeveralAuthorities has the first one down: the second issues.
func TestSeveralAuthorities(t *testing.T) {
	long(t)
	down, working := newCA(t, caConfig{}), newCA(t, caConfig{})
	down.set(unavailable)
	i := mustRun(t, setup{ca: working}, tlsauto.Config{Names: []string{nameA}, Issuers: []tlsauto.Issuer{
		&tlsauto.ACME{Directory: directory(t, down, "a")},
		&tlsauto.Autocert{Directory: directory(t, working, "a")},
	}})
	if _, err := i.client(working, nameA).trusted(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if down.asked() == 0 {
		t.Error("the first one was not asked")
	}
}

// TestStaleNonces has the authority refuse some nonces, as it may at any time.
func TestStaleNonces(t *testing.T) {
	long(t)
	for _, issuer := range issuers {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			ca := newCA(t, caConfig{})
			ca.set(refuseNonces(20))
			names := []string{"1.site.test", "2.site.test", "3.site.test", "4.site.test", "5.site.test"}
			i := managed(issuer).mustStart(t, setup{ca: ca, names: names})
			for _, name := range names {
				if _, err := i.client(ca, name).trusted(t.Context(), patience); err != nil {
					t.Error(name, err)
				}
			}
			if i.wasTold(tlsauto.Failed) {
				t.Error("an attempt has failed")
			}
		})
	}
}

// TestSlowAuthority has each answer take half a second.
func TestSlowAuthority(t *testing.T) {
	long(t)
	ca := newCA(t, caConfig{})
	ca.set(slow(500 * time.Millisecond))
	i := mustRun(t, setup{ca: ca}, tlsauto.Config{Names: []string{nameA}, AttemptTimeout: time.Minute})
	if _, err := i.client(ca, nameA).trusted(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
}
