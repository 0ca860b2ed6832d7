package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeAuthority is just enough of an ACME authority (RFC 8555) for an order. It looks for the answers to challenges
// where it was told to, when a challenge is accepted, and does not verify signatures.
type fakeAuthority struct {
	url    string // of the directory
	caFile string // with the root of its own server
	base   string
	ca     *authority

	mu       sync.Mutex
	requests []string
	orders   []*fakeOrder
	handler  http.Handler                                            // instead of the authority
	sites    func() (https, http string)                             // addresses
	after    func(ctx context.Context, kind, name string, err error) // each validation
}

type fakeOrder struct {
	names  []string
	states []string // of the authorizations
	reason []string // why they are invalid
	kinds  []string // of the challenges that were accepted
	chain  []byte
}

func newFakeAuthority(t *testing.T) *fakeAuthority {
	t.Helper()
	a := &fakeAuthority{ca: newAuthority(t, "staging"), sites: func() (string, string) { return "", "" }}
	server := httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	a.base, a.url = server.URL, server.URL+"/directory"
	a.caFile = filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, a.caFile, "CERTIFICATE", server.Certificate().Raw)
	return a
}

// reach sets where the names lead to.
func (a *fakeAuthority) reach(https, http string) {
	a.reachBy(func() (string, string) { return https, http })
}

func (a *fakeAuthority) reachBy(sites func() (https, http string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sites = sites
}

// validated has fn called after each validation, before the client hears of it.
func (a *fakeAuthority) validated(fn func(ctx context.Context, kind, name string, err error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.after = fn
}

// instead has all requests answered by h.
func (a *fakeAuthority) instead(h http.Handler) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
}

// count is how many requests came to a path, or to all.
func (a *fakeAuthority) count(path string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, request := range a.requests {
		if path == "" || request == path {
			n++
		}
	}
	return n
}

func (a *fakeAuthority) serve(w http.ResponseWriter, r *http.Request) {
	var signed struct{ Payload string }
	_ = json.NewDecoder(r.Body).Decode(&signed) // there may be nothing
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r.URL.Path)
	if a.handler != nil {
		handler := a.handler
		a.mu.Unlock()
		defer a.mu.Lock()
		handler.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Replay-Nonce", rand.Text())
	part := append(strings.Split(r.URL.Path, "/")[1:], "", "", "")
	i, _ := strconv.Atoi(part[1]) // of an order
	j, _ := strconv.Atoi(part[2]) // of a name in it
	switch part[0] {
	case "directory":
		respond(w, http.StatusOK, map[string]any{"newNonce": a.base + "/nonce", "newAccount": a.base + "/account", "newOrder": a.base + "/new"})
	case "nonce":
	case "account":
		w.Header().Set("Location", a.base+"/account/1")
		respond(w, http.StatusCreated, map[string]any{"status": "valid"})
	case "new":
		var v struct{ Identifiers []struct{ Value string } }
		_ = json.Unmarshal(payload, &v)
		o := &fakeOrder{}
		for _, id := range v.Identifiers {
			o.names, o.states, o.reason, o.kinds = append(o.names, id.Value), append(o.states, "pending"), append(o.reason, ""), append(o.kinds, "")
		}
		a.orders = append(a.orders, o)
		a.showOrder(w, http.StatusCreated, len(a.orders)-1)
	case "order":
		a.showOrder(w, http.StatusOK, i)
	case "authorization":
		if strings.Contains(string(payload), "deactivated") {
			a.orders[i].states[j] = "deactivated"
		}
		a.showAuthorization(w, i, j)
	case "challenge":
		a.validate(r.Context(), i, j, part[3])
		a.showAuthorization(w, i, j) // whose status is that of the challenge
	case "finalize":
		a.finalize(w, i, payload)
	case "certificate":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(a.orders[i].chain)
	}
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (a *fakeAuthority) showOrder(w http.ResponseWriter, status, i int) {
	o := a.orders[i]
	state := "ready"
	var urls []string
	for j, s := range o.states {
		urls = append(urls, fmt.Sprintf("%s/authorization/%d/%d", a.base, i, j))
		if s != "valid" {
			state = s
		}
	}
	v := map[string]any{"authorizations": urls, "finalize": fmt.Sprintf("%s/finalize/%d", a.base, i)}
	if o.chain != nil {
		state, v["certificate"] = "valid", fmt.Sprintf("%s/certificate/%d", a.base, i)
	}
	v["status"] = state
	w.Header().Set("Location", fmt.Sprintf("%s/order/%d", a.base, i))
	respond(w, status, v)
}

func fakeToken(i, j int) string { return fmt.Sprintf("a-token-of-an-authority-%06d-%06d", i, j) }

func (a *fakeAuthority) showAuthorization(w http.ResponseWriter, i, j int) {
	o := a.orders[i]
	var challenges []map[string]any
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		c := map[string]any{
			"type": kind, "status": "pending", "token": fakeToken(i, j), "url": fmt.Sprintf("%s/challenge/%d/%d/%s", a.base, i, j, kind),
		}
		if o.kinds[j] == kind && o.reason[j] != "" {
			c["status"] = "invalid"
			c["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "status": http.StatusForbidden, "detail": o.reason[j]}
		}
		challenges = append(challenges, c)
	}
	respond(w, http.StatusOK, map[string]any{
		"status": o.states[j], "identifier": map[string]string{"type": "dns", "value": o.names[j]}, "challenges": challenges,
	})
}

// validate looks for an answer, while other requests wait.
func (a *fakeAuthority) validate(ctx context.Context, i, j int, kind string) {
	o := a.orders[i]
	o.kinds[j], o.states[j] = kind, "valid"
	err := a.answered(ctx, kind, o.names[j], fakeToken(i, j))
	if err != nil {
		o.states[j], o.reason[j] = "invalid", "looked there: "+err.Error()
	}
	if a.after != nil {
		a.after(ctx, kind, o.names[j], err)
	}
}

// answered says why there is no answer to a challenge, or is nil.
func (a *fakeAuthority) answered(ctx context.Context, kind, name, token string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	https, plain := a.sites()
	if kind == "http-01" {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+plain+"/.well-known/acme-challenge/"+token, nil)
		if err != nil {
			return err
		}
		request.Host = name
		response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && !strings.HasPrefix(string(text), token+".") {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
		return err
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", https)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true}) //nolint:gosec // it proves something by its extension
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	for _, extension := range conn.ConnectionState().PeerCertificates[0].Extensions {
		if extension.Id.String() == "1.3.6.1.5.5.7.1.31" { // id-pe-acmeIdentifier
			return nil
		}
	}
	return fmt.Errorf("the certificate has no answer")
}

func (a *fakeAuthority) finalize(w http.ResponseWriter, i int, payload []byte) {
	var v struct{ CSR string }
	_ = json.Unmarshal(payload, &v)
	der, _ := base64.RawURLEncoding.DecodeString(v.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		respond(w, http.StatusBadRequest, map[string]any{"type": "urn:ietf:params:acme:error:badCSR", "detail": err.Error()})
		return
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(i) + 2), DNSNames: csr.DNSNames, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}, a.ca.cert, csr.PublicKey, a.ca.key)
	if err != nil {
		respond(w, http.StatusInternalServerError, map[string]any{"detail": err.Error()})
		return
	}
	for _, der := range [][]byte{leaf, a.ca.cert.Raw} {
		a.orders[i].chain = append(a.orders[i].chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	a.showOrder(w, http.StatusOK, i)
}
