package tlsauto

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// storeTimeout is how long a handshake, or a request, may wait for the store, which both do for the
// challenges of other processes alone.
const storeTimeout = 2 * time.Second

const (
	// challengeLife is how long an answer is given, if nobody removes it before.
	challengeLife = 10 * time.Minute

	// maxLookups is how many handshakes and requests may read the store at the same time.
	maxLookups = 8

	// lookupMemory is how long the outcome of a lookup is good for, so that a flood of requests does not
	// reach the store. It is shorter than what an authority needs from hearing that an answer is there
	// to asking for it: otherwise somebody who always asks first could keep the answer from it.
	lookupMemory = 50 * time.Millisecond

	maxRemembered = 256      // outcomes
	maxPosted     = 16 << 10 // bytes of an answer in the store
)

// Keys in the store begin with these.
const (
	http01Prefix    = "http01+"
	tlsALPN01Prefix = "tlsalpn01+"
)

// A board has the answers to challenges, of this process in memory and of all of them in the store. It
// is the Challenges of orders.
type board struct {
	store Store
	ours  func(ctx context.Context, name string) HandshakeError // why nothing is answered for a name; "": it is one of ours
	now   func() time.Time
	log   *slog.Logger
	http  atomic.Bool // HTTPHandler has been called

	mu      sync.Mutex // never held while anything is waited for
	local   map[string]*answer
	lookups map[string]*lookup // under way, and those of the last moment
	reading int                // lookups under way
	failing bool               // the store is, which has been logged
}

// An answer to a challenge, as it is in the store.
type answer struct {
	Until time.Time `json:"until"`
	HTTP  []byte    `json:"http,omitempty"`
	TLS   []byte    `json:"tls,omitempty"` // certificate and key in PEM

	cert *tls.Certificate // what TLS has
}

// A lookup reads the store on behalf of all who want to know the same at the same time.
type lookup struct {
	done  chan struct{}
	found *answer   // nil: nothing. Set when done, as is:
	at    time.Time // guarded by board.mu
}

func newBoard(store Store, ours func(context.Context, string) HandshakeError, now func() time.Time, log *slog.Logger) *board {
	return &board{
		store: store, ours: ours, now: now, log: log,
		local: map[string]*answer{}, lookups: map[string]*lookup{},
	}
}

func (b *board) ServesHTTP01() bool { return b.http.Load() }

func (b *board) HTTP01(ctx context.Context, token string, value []byte) (remove func(), err error) {
	if !isToken(token) {
		return nil, errors.New("answer to HTTP-01: the token is none of RFC 8555")
	}
	if !answersToken(value, token) {
		return nil, errors.New("answer to HTTP-01: it does not belong to the token")
	}
	return b.post(ctx, http01Key(token), &answer{HTTP: bytes.Clone(value)}), nil
}

func (b *board) TLSALPN01(ctx context.Context, name string, cert *tls.Certificate) (remove func(), err error) {
	n := lookupName(name)
	if n == "" {
		return nil, fmt.Errorf("answer to TLS-ALPN-01: %q is not a name of a server", name)
	}
	encoded, err := encodeChallenge(cert)
	if err != nil {
		return nil, fmt.Errorf("answer to TLS-ALPN-01 for %s: %w", n, err)
	}
	return b.post(ctx, tlsALPN01Key(n), &answer{TLS: encoded, cert: cert}), nil
}

// post makes an answer known. If the store fails it is given by this process alone, which often is the
// only one.
func (b *board) post(ctx context.Context, key string, a *answer) (remove func()) {
	now := b.now()
	a.Until = now.Add(challengeLife)

	b.mu.Lock()
	for k, old := range b.local {
		if !now.Before(old.Until) {
			delete(b.local, k)
		}
	}
	b.local[key] = a
	b.mu.Unlock()

	b.put(ctx, key, a)
	var once sync.Once
	return func() { once.Do(func() { b.remove(ctx, key, a) }) }
}

func (b *board) put(ctx context.Context, key string, a *answer) {
	value, err := json.Marshal(a)
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		err = guard(func() error { return b.store.Put(limited, key, value) })
	}
	if err == nil || ctx.Err() == nil { // the end of an attempt tells nothing of the store
		b.report("put the answer to a challenge", err)
	}
}

func (b *board) remove(ctx context.Context, key string, a *answer) {
	b.mu.Lock()
	current := b.local[key] == a
	if current {
		delete(b.local, key)
	}
	b.mu.Unlock()
	if !current { // there is a newer one, or it was dropped for its age
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	b.report("remove the answer to a challenge", b.delete(ctx, key))
}

func (b *board) delete(ctx context.Context, key string) error {
	return guard(func() error { return b.store.Delete(ctx, key) })
}

// certificate returns the answer to TLS-ALPN-01 for the name in a handshake, or why there is none.
func (b *board) certificate(ctx context.Context, name string) (*tls.Certificate, HandshakeError) {
	name = lookupName(name)
	if name == "" {
		return nil, UnknownChallenge
	}
	a, reason := b.answer(ctx, name, tlsALPN01Key(name))
	if a == nil || a.cert == nil {
		return nil, reason
	}
	return a.cert, ""
}

// keyAuthorization returns the answer to HTTP-01 for the host and the token of a request, or why there
// is none.
func (b *board) keyAuthorization(ctx context.Context, host, token string) ([]byte, HandshakeError) {
	if host == "" || !isToken(token) {
		return nil, UnknownChallenge
	}
	a, reason := b.answer(ctx, host, http01Key(token))
	if a == nil || !answersToken(a.HTTP, token) {
		return nil, reason
	}
	return a.HTTP, ""
}

func (b *board) answer(ctx context.Context, name, key string) (*answer, HandshakeError) {
	if reason := b.ours(ctx, name); reason != "" {
		return nil, reason
	}
	b.mu.Lock()
	a := b.local[key]
	b.mu.Unlock()
	if a != nil && b.now().Before(a.Until) {
		return a, UnknownChallenge
	}
	return b.lookUp(ctx, key)
}

// lookUp returns what the store has, or why that cannot be known.
func (b *board) lookUp(ctx context.Context, key string) (*answer, HandshakeError) {
	now := b.now()
	b.mu.Lock()
	l := b.lookups[key]
	if l != nil && (!isClosed(l.done) || recent(l.at, now, lookupMemory)) {
		b.mu.Unlock()
		select {
		case <-l.done:
			return l.found, UnknownChallenge
		case <-ctx.Done():
			return nil, UnknownChallenge
		}
	}
	if b.reading == maxLookups {
		b.mu.Unlock()
		return nil, TooMany
	}
	if len(b.lookups) >= maxRemembered {
		b.forgetLocked()
	}
	l = &lookup{done: make(chan struct{})}
	b.lookups[key] = l
	b.reading++
	b.mu.Unlock()

	defer func() { // even if the store panics
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reading--
		l.at = b.now()
		close(l.done)
	}()
	// Others may wait for the outcome, so it does not matter whether this client leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	l.found = b.get(ctx, key)
	return l.found, UnknownChallenge
}

// forgetLocked keeps the lookups that are under way, at most maxLookups.
func (b *board) forgetLocked() {
	for key, l := range b.lookups {
		if isClosed(l.done) {
			delete(b.lookups, key)
		}
	}
}

// get returns the answer in the store, if that is good. One that somebody has left there is deleted.
func (b *board) get(ctx context.Context, key string) *answer {
	var value []byte
	err := guard(func() (err error) { value, err = b.store.Get(ctx, key); return err })
	missing := errors.Is(err, ErrNotFound)
	if missing {
		err = nil
	}
	b.report("look for the answer to a challenge", err)
	if err != nil || missing {
		return nil
	}
	a, err := decodeAnswer(value)
	if err == nil && b.now().Before(a.Until) {
		return a
	}
	b.report("remove an old answer to a challenge", b.delete(ctx, key))
	return nil
}

// report logs that the store fails, once until it works again.
func (b *board) report(doing string, err error) {
	b.mu.Lock()
	before := b.failing
	b.failing = err != nil
	b.mu.Unlock()
	if err != nil && !before {
		b.log.Warn("the store of certificates fails, so other processes cannot answer challenges", "doing", doing, "error", err)
	}
}

// recent reports whether at is less than d before now, and not after it, as it is after the clock was
// set back.
func recent(at, now time.Time, d time.Duration) bool {
	age := now.Sub(at)
	return 0 <= age && age < d
}

// isToken reports whether s can be the token of a challenge: base64url without padding, of at least 128
// bits (RFC 8555, section 8.3), and of no absurd length.
func isToken(s string) bool {
	return 22 <= len(s) && len(s) <= 128 && isBase64URL(s)
}

// answersToken reports whether value is a key authorization (RFC 8555, section 8.1) for the token, and
// so nothing that a browser could take for a page.
func answersToken(value []byte, token string) bool {
	rest, ok := strings.CutPrefix(string(value), token+".")
	return ok && len(rest) <= 128 && isBase64URL(rest)
}

func isBase64URL(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// http01Key has a hash, so that nothing of a request becomes part of a file name.
func http01Key(token string) string {
	sum := sha256.Sum256([]byte(token))
	return http01Prefix + hex.EncodeToString(sum[:])
}

func tlsALPN01Key(name string) string {
	return tlsALPN01Prefix + certificateID([]string{name})
}

func decodeAnswer(value []byte) (*answer, error) {
	if len(value) > maxPosted {
		return nil, errors.New("too long")
	}
	a := &answer{}
	if err := json.Unmarshal(value, a); err != nil {
		return nil, err
	}
	if a.TLS == nil {
		return a, nil
	}
	cert, err := tls.X509KeyPair(a.TLS, a.TLS)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0]) // X509KeyPair need not set Leaf
	if err != nil {
		return nil, err
	}
	if !isChallengeCertificate(leaf) {
		return nil, errors.New("not a certificate for a challenge")
	}
	a.cert = &cert
	return a, nil
}

// encodeChallenge returns a certificate with its key in PEM.
func encodeChallenge(cert *tls.Certificate) ([]byte, error) {
	if cert == nil || len(cert.Certificate) == 0 {
		return nil, errors.New("no certificate")
	}
	var out bytes.Buffer
	for _, der := range cert.Certificate {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer never fails
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return out.Bytes(), nil
}

// isChallengeCertificate reports whether a certificate proves something to an authority (RFC 8737,
// section 3), and therefore is of no use for anything else.
func isChallengeCertificate(leaf *x509.Certificate) bool {
	for _, ext := range leaf.Extensions {
		if ext.Critical && ext.Id.String() == acmeIdentifier {
			return true
		}
	}
	return false
}

const acmeIdentifier = "1.3.6.1.5.5.7.1.31" // id-pe-acmeIdentifier
