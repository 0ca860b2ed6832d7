package acmetest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// A CA is a Pebble of its own: an ACME authority with a name server, behind a gate, that validates at
// the sites of its router.
type CA struct {
	*gate
	URL    string         // of its directory
	Roots  *x509.CertPool // of what it issues
	API    *x509.CertPool // of its own server
	Router *router
	DNS    *nameServer

	api *httptest.Server
	db  *db.MemoryStore
}

type caConfig struct {
	Life     time.Duration            // of certificates; default 90 days
	Profiles map[string]time.Duration // the life of certificates by profile; default: one with Life
	EAB      map[string]string        // base64url keys by their IDs; if there are any, accounts need one
	Advice   bool                     // renewal information is in the directory
}

func newCA(t *testing.T, c caConfig) *CA {
	t.Helper()
	if c.Life == 0 {
		c.Life = 90 * 24 * time.Hour
	}
	if c.Profiles == nil {
		c.Profiles = map[string]time.Duration{"default": c.Life}
	}
	profiles := map[string]ca.Profile{}
	for name, life := range c.Profiles {
		profiles[name] = ca.Profile{Description: name, ValidityPeriod: uint64(life / time.Second)}
	}

	silent := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	for id, key := range c.EAB {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	names := newNameServer(t)
	router := newRouter(t)
	authority := ca.New(silent, store, "", "ecdsa", 0, 1, profiles)
	validation := va.New(silent, router.HTTP.port(), router.TLS.port(), false, names.addr, store)
	frontEnd := wfe.New(silent, store, validation, authority, nil, false, len(c.EAB) > 0, 0, 0)

	handler := withoutDeactivation(frontEnd.Handler())
	if !c.Advice {
		handler = withoutAdvice(handler)
	}
	g := newGate(handler)
	api := httptest.NewUnstartedServer(g)
	api.Config.ErrorLog = silent
	api.StartTLS()
	t.Cleanup(func() {
		g.close()
		api.CloseClientConnections()
		api.Close()
		if t.Failed() {
			g.mu.Lock()
			defer g.mu.Unlock()
			t.Logf("the authority got %d requests and refused: %s", g.requests, g.problems)
		}
	})

	x := &CA{
		gate: g, URL: api.URL + wfe.DirectoryPath, Roots: x509.NewCertPool(), API: x509.NewCertPool(),
		Router: router, DNS: names, api: api, db: store,
	}
	x.Roots.AddCert(authority.GetRootCert(0).Cert)
	x.API.AddCert(api.Certificate())
	return x
}

// client returns an HTTP client for the authority, which tells the gate who asks.
func (ca *CA) client(t *testing.T, who string) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.API}, ResponseHeaderTimeout: 5 * time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: signed{transport, who}}
}

type signed struct {
	next http.RoundTripper
	who  string
}

func (s signed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(whoHeader, s.who)
	return s.next.RoundTrip(r)
}

// advise sets the answer of the authority when it is asked about the renewal of a certificate.
func (ca *CA) advise(t *testing.T, leaf *x509.Certificate, start, end time.Time) {
	t.Helper()
	answer := `{"suggestedWindow":{"start":"` + start.UTC().Format(time.RFC3339) + `","end":"` + end.UTC().Format(time.RFC3339) + `"}}`
	if err := ca.db.SetARIResponse(leaf.SerialNumber, answer); err != nil {
		t.Fatal(err)
	}
}

// revoke makes the authority revoke a certificate, after which it advises to renew it at once.
func (ca *CA) revoke(leaf *x509.Certificate) {
	ca.db.RevokeCertificate(&core.RevokedCertificate{
		Certificate: ca.db.GetCertificateBySerial(leaf.SerialNumber), RevokedAt: time.Now(),
	})
}

// withoutAdvice hides the renewal information. Pebble's is for certificates of months: for shorter ones
// it suggests any time of their life.
func withoutAdvice(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wfe.DirectoryPath {
			next.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.Replace(answer.Body.String(), `"renewalInfo"`, `"none"`, 1))
	})
}

// withoutDeactivation keeps it from Pebble that a client gives up an authorization. When that one is just
// being validated, Pebble locks itself: what shows an authorization that is not pending any more keeps the
// locks of its challenges.
func withoutDeactivation(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if strings.HasPrefix(r.URL.Path, authorizationPath) && deactivates(body) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"status":"deactivated"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// deactivates reports whether a signed request asks for that (RFC 8555, section 7.5.2).
func deactivates(body []byte) bool {
	var signed struct{ Payload string }
	if json.Unmarshal(body, &signed) != nil {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	return err == nil && bytes.Contains(payload, []byte(`"deactivated"`))
}
