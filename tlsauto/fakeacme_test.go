package tlsauto_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// A fakeACME is a small authority (RFC 8555) in memory. It validates at once, when a challenge is
// accepted, by looking at the answers that it was given. It does not verify signatures.
type fakeACME struct {
	server *httptest.Server
	url    string // of the directory
	roots  *x509.CertPool
	key    *ecdsa.PrivateKey
	root   *x509.Certificate

	// These are set before the first request.
	answers    *fakeAnswers
	offers     []string // challenges; nil: all
	profiles   []string
	advice     bool
	eab        string // the key ID that accounts need
	badNonces  int    // how many nonces are refused
	life       time.Duration
	chain      func(leaf []byte) []byte                          // PEM of what is issued; nil: leaf and root
	intercept  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	identifier func(name string) string                          // that of an authorization; nil: that of the order

	mu       sync.Mutex
	nonce    int
	accounts []*fakeAccount
	orders   []*fakeOrder
	authzs   []*fakeAuthz
	requests []string
	agents   map[string]bool
}

type fakeAccount struct {
	thumbprint string
	contact    []string
	bound      string // the EAB key ID
}

type fakeOrder struct {
	account *fakeAccount
	names   []string
	profile string
	authzs  []*fakeAuthz
	state   string
	cert    []byte
	issued  int // certificates
	csr     *x509.CertificateRequest
}

type fakeAuthz struct {
	id      int
	account *fakeAccount
	typ     string
	name    string
	state   string
	failed  string // the challenge that has
	problem string
}

func newFakeACME(t *testing.T, set func(ca *fakeACME)) *fakeACME {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &fakeACME{answers: newFakeAnswers(), key: key, root: root, life: time.Hour, agents: map[string]bool{}}
	if set != nil {
		set(ca)
	}
	ca.server = httptest.NewUnstartedServer(ca)
	ca.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca.server.StartTLS()
	t.Cleanup(func() {
		ca.server.CloseClientConnections()
		ca.server.Close()
	})
	ca.url = ca.server.URL + "/directory"
	ca.roots = x509.NewCertPool()
	ca.roots.AddCert(ca.server.Certificate())
	return ca
}

// count is how many requests came to paths with a prefix.
func (ca *fakeACME) count(prefix string) (n int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, path := range ca.requests {
		if strings.HasPrefix(path, prefix) {
			n++
		}
	}
	return n
}

func (ca *fakeACME) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ca.mu.Lock()
	ca.requests = append(ca.requests, r.URL.Path)
	ca.agents[r.UserAgent()] = true
	ca.mu.Unlock()
	if ca.intercept != nil && ca.intercept(w, r) {
		return
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if r.URL.Path == "/directory" {
		ca.directory(w)
		return
	}
	w.Header().Set("Replay-Nonce", fmt.Sprintf("nonce%d", ca.nonce))
	ca.nonce++
	switch {
	case r.URL.Path == "/nonce":
		return
	case strings.HasPrefix(r.URL.Path, "/advice/"):
		w.Header().Set("Retry-After", "21600")
		fmt.Fprintf(w, `{"suggestedWindow":{"start":"2030-01-01T00:00:00Z","end":"2030-01-02T00:00:00Z"},"explanationURL":"https://example.com/why"}`)
		return
	}
	m, ok := readMessage(w, r)
	if !ok {
		return
	}
	if ca.badNonces > 0 {
		ca.badNonces--
		problem(w, 400, "badNonce", "a stale nonce")
		return
	}
	if r.URL.Path == "/account" {
		ca.newAccount(w, m)
		return
	}
	account := ca.account(m.KID)
	if account == nil {
		problem(w, 400, "accountDoesNotExist", "who are you?")
		return
	}
	ca.serveAccount(w, r, m, account)
}

func (ca *fakeACME) directory(w http.ResponseWriter) {
	base := ca.server.URL
	meta := map[string]any{"termsOfService": base + "/terms"}
	if ca.eab != "" {
		meta["externalAccountRequired"] = true
	}
	if len(ca.profiles) > 0 {
		profiles := map[string]string{}
		for _, name := range ca.profiles {
			profiles[name] = base + "/profile/" + name
		}
		meta["profiles"] = profiles
	}
	d := map[string]any{
		"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
		"revokeCert": base + "/revoke", "keyChange": base + "/key", "meta": meta,
	}
	if ca.advice {
		d["renewalInfo"] = base + "/advice"
	}
	writeJSON(w, d)
}

func (ca *fakeACME) newAccount(w http.ResponseWriter, m *message) {
	var v struct {
		Contact                []string
		OnlyReturnExisting     bool
		TermsOfServiceAgreed   bool
		ExternalAccountBinding *struct{ Protected string }
	}
	readJSON(m.payload, &v)
	for i, a := range ca.accounts {
		if a.thumbprint == m.thumbprint {
			w.Header().Set("Location", fmt.Sprintf("%s/account/%d", ca.server.URL, i))
			writeJSON(w, map[string]any{"status": "valid", "contact": a.contact})
			return
		}
	}
	a := &fakeAccount{thumbprint: m.thumbprint, contact: v.Contact}
	if v.ExternalAccountBinding != nil {
		var header struct{ Kid string }
		b, _ := base64.RawURLEncoding.DecodeString(v.ExternalAccountBinding.Protected)
		readJSON(b, &header)
		a.bound = header.Kid
	}
	switch {
	case v.OnlyReturnExisting:
		problem(w, 400, "accountDoesNotExist", "no such account")
		return
	case !v.TermsOfServiceAgreed:
		problem(w, 403, "userActionRequired", "agree to the terms")
		return
	case a.bound != ca.eab:
		problem(w, 403, "externalAccountRequired", "bind the account")
		return
	}
	ca.accounts = append(ca.accounts, a)
	w.Header().Set("Location", fmt.Sprintf("%s/account/%d", ca.server.URL, len(ca.accounts)-1))
	w.WriteHeader(http.StatusCreated)
	writeJSON(w, map[string]any{"status": "valid", "contact": a.contact})
}

func (ca *fakeACME) account(kid string) *fakeAccount {
	for i, a := range ca.accounts {
		if kid == fmt.Sprintf("%s/account/%d", ca.server.URL, i) {
			return a
		}
	}
	return nil
}

func (ca *fakeACME) serveAccount(w http.ResponseWriter, r *http.Request, m *message, account *fakeAccount) {
	part := strings.Split(r.URL.Path, "/")[1:]
	var i int
	if len(part) > 1 {
		i, _ = strconv.Atoi(part[1]) // 0 is as good for what is no number
	}
	switch part[0] {
	case "account":
		var v struct{ Contact []string }
		readJSON(m.payload, &v)
		if v.Contact != nil {
			account.contact = v.Contact
		}
		writeJSON(w, map[string]any{"status": "valid", "contact": account.contact})
	case "order":
		if len(part) == 1 {
			ca.newOrder(w, m, account)
			return
		}
		ca.showOrder(w, i, 200)
	case "authz":
		z := ca.authzs[i]
		if strings.Contains(string(m.payload), "deactivated") {
			z.state = "deactivated"
		}
		ca.showAuthz(w, z)
	case "challenge":
		ca.validate(ca.authzs[i], part[2])
		ca.showAuthz(w, ca.authzs[i]) // whose status is that of the challenge
	case "finalize":
		ca.finalize(w, i, m)
	case "certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		respond(w, string(ca.orders[i].cert))
	default:
		http.NotFound(w, r)
	}
}

func (ca *fakeACME) newOrder(w http.ResponseWriter, m *message, account *fakeAccount) {
	var v struct {
		Identifiers []acme.AuthzID
		Profile     string
	}
	readJSON(m.payload, &v)
	o := &fakeOrder{account: account, profile: v.Profile, state: "pending"}
	for _, id := range v.Identifiers {
		o.names = append(o.names, id.Value)
		z := &fakeAuthz{id: len(ca.authzs), account: account, typ: id.Type, name: id.Value, state: "pending"}
		if ca.identifier != nil {
			z.name = ca.identifier(id.Value)
		}
		ca.authzs = append(ca.authzs, z)
		o.authzs = append(o.authzs, z)
	}
	ca.orders = append(ca.orders, o)
	ca.showOrder(w, len(ca.orders)-1, http.StatusCreated)
}

func (ca *fakeACME) showOrder(w http.ResponseWriter, i, status int) {
	o := ca.orders[i]
	base := ca.server.URL
	v := map[string]any{"finalize": fmt.Sprintf("%s/finalize/%d", base, i)}
	var ids []map[string]string
	var urls []string
	ready := true
	for _, z := range o.authzs {
		ids = append(ids, map[string]string{"type": z.typ, "value": z.name})
		urls = append(urls, fmt.Sprintf("%s/authz/%d", base, z.id))
		ready = ready && z.state == "valid"
		if z.state == "invalid" {
			o.state = "invalid"
		}
	}
	if ready && o.state == "pending" {
		o.state = "ready"
	}
	v["identifiers"], v["authorizations"], v["status"] = ids, urls, o.state
	if o.state == "valid" {
		v["certificate"] = fmt.Sprintf("%s/certificate/%d", base, i)
	}
	w.Header().Set("Location", fmt.Sprintf("%s/order/%d", base, i))
	w.WriteHeader(status)
	writeJSON(w, v)
}

func (ca *fakeACME) showAuthz(w http.ResponseWriter, z *fakeAuthz) {
	offers := ca.offers
	if offers == nil {
		offers = []string{"dns-01", "http-01", "tls-alpn-01"}
	}
	name, wildcard := strings.CutPrefix(z.name, "*.")
	var challenges []map[string]any
	for _, typ := range offers {
		c := map[string]any{"type": typ, "url": fmt.Sprintf("%s/challenge/%d/%s", ca.server.URL, z.id, typ), "token": token(z.id), "status": "pending"}
		if z.failed == typ {
			c["status"] = "invalid"
			c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": z.problem, "status": 403}
		}
		challenges = append(challenges, c)
	}
	writeJSON(w, map[string]any{
		"identifier": map[string]string{"type": z.typ, "value": name}, "wildcard": wildcard, "status": z.state, "challenges": challenges,
	})
}

// token has characters that are no letters, and 128 bits' worth of them.
func token(i int) string { return fmt.Sprintf("-_0123456789abcdefghi%06d", i) }

func (ca *fakeACME) validate(z *fakeAuthz, typ string) {
	if err := ca.answers.validate(z.typ, z.name, typ, token(z.id), z.account.thumbprint); err != nil {
		z.state, z.failed, z.problem = "invalid", typ, err.Error()
	} else {
		z.state = "valid"
	}
}

func (ca *fakeACME) finalize(w http.ResponseWriter, i int, m *message) {
	var v struct{ CSR string }
	readJSON(m.payload, &v)
	der, _ := base64.RawURLEncoding.DecodeString(v.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		problem(w, 400, "badCSR", err.Error())
		return
	}
	o := ca.orders[i]
	var names []string
	names = append(names, csr.DNSNames...)
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	if !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(o.names))) {
		problem(w, 400, "badCSR", "other names than ordered")
		return
	}
	leaf, err := ca.sign(csr)
	if err != nil {
		problem(w, 500, "serverInternal", err.Error())
		return
	}
	o.csr, o.state = csr, "valid"
	o.issued++
	if ca.chain != nil {
		o.cert = ca.chain(leaf)
	} else {
		o.cert = append(certificatePEM(leaf), certificatePEM(ca.root.Raw)...)
	}
	ca.showOrder(w, i, 200)
}

func (ca *fakeACME) sign(csr *x509.CertificateRequest) ([]byte, error) {
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(ca.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.root, csr.PublicKey, ca.key)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// readJSON leaves v as it is where the client has sent something else, as nothing.
func readJSON(b []byte, v any) { _ = json.Unmarshal(b, v) }

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	respond(w, string(b))
}

// respond writes to a client, which may have gone.
func respond(w http.ResponseWriter, s string) { _, _ = io.WriteString(w, s) }

// A message is a signed request.
type message struct {
	KID, thumbprint string
	payload         []byte
}

func readMessage(w http.ResponseWriter, r *http.Request) (*message, bool) {
	var jws struct{ Protected, Payload string }
	var header struct {
		KID, Nonce, URL string
		JWK             *struct{ Crv, X, Y string }
	}
	if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
		problem(w, 400, "malformed", err.Error())
		return nil, false
	}
	b, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	readJSON(b, &header)
	if header.Nonce == "" || !strings.HasSuffix(header.URL, r.URL.Path) {
		problem(w, 400, "malformed", "no nonce, or another URL")
		return nil, false
	}
	m := &message{KID: header.KID}
	m.payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	if header.JWK != nil {
		sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":"EC","x":%q,"y":%q}`, header.JWK.Crv, header.JWK.X, header.JWK.Y))
		m.thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return m, true
}

func problem(w http.ResponseWriter, status int, typ, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	writeJSON(w, map[string]any{"type": "urn:ietf:params:acme:error:" + typ, "detail": detail, "status": status})
}
