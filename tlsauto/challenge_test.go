package tlsauto_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/tlsauto"
)

// An authority that looks before all answers are given has looked in vain if one of them cannot be.
func TestACMEAnswersBeforeItAsks(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("n%d.example.com", i))
	}
	t.Run("all given", func(t *testing.T) {
		t.Parallel()
		ca := newFakeACME(t, func(ca *fakeACME) {
			ca.intercept = func(w http.ResponseWriter, r *http.Request) bool {
				ca.answers.mu.Lock()
				defer ca.answers.mu.Unlock()
				if n := len(ca.answers.given); strings.HasPrefix(r.URL.Path, "/challenge/") && n != len(names) {
					t.Errorf("the authority was asked after %d answers", n)
				}
				return false
			}
		})
		cert, err := (&tlsauto.ACME{Directory: directoryOf(ca)}).Issue(t.Context(), orderFor(ca, names...))
		if err != nil {
			t.Fatal(err)
		}
		ca.verify(t, cert, names...)
	})
	t.Run("one not given", func(t *testing.T) {
		t.Parallel()
		ca := newFakeACME(t, func(ca *fakeACME) { ca.answers.fail["dns-01"] = true })
		issuer := &tlsauto.ACME{Directory: directoryOf(ca), DNS: ca.answers}
		_, err := issuer.Issue(t.Context(), orderFor(ca, append(slices.Clone(names), "*.example.com")...))
		if err == nil || !strings.Contains(err.Error(), "answer dns-01 for *.example.com") {
			t.Errorf("error %v", err)
		}
		if n := ca.count("/challenge/"); n != 0 {
			t.Errorf("the authority was asked about %d names", n)
		}
		if n := ca.answers.left(); n != 0 {
			t.Errorf("%d answers are left", n)
		}
		for _, z := range ca.authzs {
			if z.state == "pending" {
				t.Errorf("the authorization of %s is still pending", z.name)
			}
		}
	})
}

// Authorities allow few failures for a name: an attempt has one at most, and the next one is made in
// another way.
func TestACMEChallengesTakeTurns(t *testing.T) {
	t.Parallel()
	const tls, http, dns = "tls-alpn-01", "http-01", "dns-01"
	type attempt struct {
		lose   string // the kinds that do not work
		given  string // the kinds that are used
		failed bool
	}
	for name, test := range map[string]struct {
		names    []string
		only     []string // ACME.Challenges
		dns      bool
		attempts []attempt
	}{
		"second works": {attempts: []attempt{
			{lose: tls, given: tls, failed: true}, {lose: tls, given: http}, {lose: tls, given: http},
		}},
		"none works": {attempts: []attempt{
			{lose: tls + http, given: tls, failed: true}, {lose: tls + http, given: http, failed: true},
			{lose: tls + http, given: tls, failed: true}, {lose: tls + http, given: http, failed: true},
		}},
		"third works": {dns: true, attempts: []attempt{
			{lose: tls + http, given: tls, failed: true}, {lose: tls + http, given: http, failed: true},
			{lose: tls + http, given: dns}, {given: dns},
		}},
		"what worked fails": {attempts: []attempt{
			{given: tls}, {lose: tls, given: tls, failed: true}, {lose: tls, given: http}, {given: http},
			{lose: http, given: http, failed: true}, {given: tls}, {given: tls},
		}},
		"one only": {only: []string{http}, attempts: []attempt{
			{lose: http, given: http, failed: true}, {lose: http, given: http, failed: true}, {given: http},
		}},
		"several names": {names: []string{"*.example.com", "example.org"}, dns: true, attempts: []attempt{
			{lose: tls, given: dns + " " + tls, failed: true}, {lose: tls, given: dns + " " + dns}, {given: dns + " " + dns},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newFakeACME(t, nil)
			issuer := &tlsauto.ACME{Directory: directoryOf(ca), Challenges: test.only}
			if test.dns {
				issuer.DNS = ca.answers
			}
			names := test.names
			if names == nil {
				names = []string{"example.com"}
			}
			order := orderFor(ca, names...)
			for i, a := range test.attempts {
				ca.answers.mu.Lock()
				ca.answers.given = nil
				for _, typ := range []string{tls, http, dns} {
					ca.answers.lose[typ] = strings.Contains(a.lose, typ)
				}
				ca.answers.mu.Unlock()
				_, err := issuer.Issue(t.Context(), order)
				if failed := err != nil; failed != a.failed {
					t.Fatalf("attempt %d: error %v", i, err)
				}
				slices.Sort(ca.answers.given)
				if given := strings.Join(ca.answers.given, " "); given != a.given {
					t.Fatalf("attempt %d: answered %s, want %s", i, given, a.given)
				}
				if len(ca.orders) != i+1 {
					t.Fatalf("attempt %d: %d orders", i, len(ca.orders))
				}
			}

			ca.answers.given, ca.answers.lose = nil, map[string]bool{}
			if _, err := issuer.Issue(t.Context(), orderFor(ca, "other.example.com")); err != nil {
				t.Fatal(err)
			}
			if want := append(slices.Clone(test.only), tls)[0]; !slices.Equal(ca.answers.given, []string{want}) {
				t.Errorf("other names: answered %v", ca.answers.given)
			}
		})
	}
}

// What cannot be answered here is tried in another way, too.
func TestACMEChallengeThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	ca := newFakeACME(t, func(ca *fakeACME) { ca.answers.fail["tls-alpn-01"] = true })
	issuer := &tlsauto.ACME{Directory: directoryOf(ca)}
	order := orderFor(ca, "example.com")
	if _, err := issuer.Issue(t.Context(), order); err == nil {
		t.Fatal("no error")
	}
	if _, err := issuer.Issue(t.Context(), order); err != nil {
		t.Error(err)
	}
}
