package acmetest

import (
	"testing"
)

// A check says what is wrong with a subject, or nil. What it needs itself has to work.
type check func(t *testing.T, s subject) error

// TestDefects shows that what tlsauto is made for is there, and that autocert alone does not have it.
func TestDefects(t *testing.T) {
	long(t)
	both := []subject{managed("Autocert"), managed("ACME")}
	acmeOnly := both[1:]
	for _, c := range []struct {
		name     string
		check    check
		subjects []subject
	}{
		{"a certificate is obtained before a client comes", obtainsAtStart, both},
		{"a certificate of the store is renewed without clients", renewsWithoutClients, both},
		{"clients that have given up hold nothing", doesNotPileUp, both},
		{"a first failure is made good as soon as the authority is back", recoversAtOnce, both},
		{"a restart does not make it ask again at once", keepsPauseOverRestart, both},
		{"a handshake is answered while the authority refuses", answersWhileRefused, both},
		{"a renewal that fails is tried again before the certificate expires", renewsAfterOutage, both},
		{"an expired certificate is replaced when the authority is back", recoversAfterExpiry, both},
		{"after a restart with an expired certificate handshakes are answered", answersAfterExpiry, both},
		{"a renewal brings a new key", changesKey, both},
		{"what cannot be stored is served", servesWhatCannotBeStored, both},
		{"what could not be stored is stored later", storesLater, both},
		{"a slow store holds up no handshake of another name", storeHoldsUpNobody, both},
		{"a store that hangs in Delete stops nothing", survivesHangingDelete, both},
		{"two instances may start at the same moment", startsTogether, both},
		{"a client without server name is served", servesUnnamed, both},
		{"a policy does not take away what is there", keepsDespitePolicy, both},
		{"the Host header may have a port", answersWithPort, both},
		{"a server name may end in a dot", answersWithDot, both},
		{"HTTP-01 alone fails no other challenge first", failsNothingFirst, acmeOnly},
		{"NextProtos without acme-tls/1 does no harm", survivesNextProtos, both},
		{"a client without ECDSA orders nothing", ordersNoRSA, both},
		{"only known hosts are redirected", redirectsKnown, both},
		{"certificates of another authority are left alone", keepsAuthoritiesApart, both},
		{"a new email address is told to the authority", updatesEmail, acmeOnly},
		{"a stopped instance orders nothing", stops, both},
		{"the operator is told of failures", tellsOfFailure, both},
		{"a client with a slow clock sees no certificate of the future", waitsForSlowClocks, both},
		{"one request that hangs does not hold up all names", hangsForOneOnly, both},
		{"a missing intermediate is noticed", noticesMissingIntermediate, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Run("autocert", func(t *testing.T) {
				t.Parallel()
				err := c.check(t, plain())
				if err == nil {
					t.Fatal("autocert does it right by now")
				}
				t.Log(err)
			})
			for _, s := range c.subjects {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					if err := c.check(t, s); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

// The name in most checks, and another one.
const (
	nameA = "a.site.test"
	nameB = "b.site.test"
)
