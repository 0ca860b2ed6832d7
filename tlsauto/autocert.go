package tlsauto

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// Autocert is an [Issuer] that has golang.org/x/crypto/acme/autocert obtain each certificate: one
// domain name with a dot each, by TLS-ALPN-01, or else by HTTP-01 where [Manager.HTTPHandler] is in
// use. It has no choice of the challenge, and no profiles; [ACME] has. A name of more than 64 bytes,
// which autocert makes the common name, too, is refused by some authorities.
//
// An attempt that fails has failed by both challenges, where both are in use: two of the few failures that
// authorities allow. A certificate that has been issued, but could not be fetched, is lost. ACME tries one
// challenge at a time, and to fetch again.
//
// When ctx ends, Issue may take 2 s more, in which it gives up the authorizations that are left. What
// autocert then still does in the background cannot reach the authority any more, and ends within a
// minute.
type Autocert struct {
	Directory

	accounts accounts
}

// ID is the URL of the directory.
func (a *Autocert) ID() string { return a.url() }

// Issue implements [Issuer].
func (a *Autocert) Issue(ctx context.Context, order *Order) (*tls.Certificate, error) {
	if err := autocertRefuses(order); err != nil {
		return nil, err
	}
	l := a.connect(ctx)
	defer l.close()
	client, err := a.accounts.open(ctx, &a.Directory, l, order)
	if err != nil {
		return nil, err
	}
	key, account := client.Key, client.KID // client is autocert's from now on
	seen := &sightings{}
	l.watch = seen.see

	cert, err := a.obtain(ctx, order, client, seen)
	l.close()
	if err != nil {
		// autocert would do so, too, but by the link that is cut.
		abandoned := a.connect(context.WithoutCancel(ctx))
		defer abandoned.close()
		deactivate(ctx, newClient(&a.Directory, abandoned, key, account), seen.left())
		return nil, seen.explain(ctx, "obtain a certificate for "+order.Names[0], err)
	}
	return cert, nil
}

func autocertRefuses(order *Order) error {
	switch {
	case len(order.Names) != 1:
		return errors.New("autocert has one name in a certificate")
	case order.Key != nil:
		return errors.New("autocert makes its own keys")
	case order.KeyType == P384:
		return fmt.Errorf("autocert has no keys of type %s", order.KeyType)
	default:
		return autocertName(order.Names[0])
	}
}

func autocertName(name string) error {
	switch {
	case isWildcard(name):
		return fmt.Errorf("autocert has no wildcards: %s", name)
	case isIP(name):
		return fmt.Errorf("autocert has no addresses: %s", name)
	case !strings.Contains(name, "."):
		return fmt.Errorf("autocert has no names without a dot: %s", name)
	}
	return nil
}

func (a *Autocert) check(c *Config) []error {
	errs := a.Directory.check()
	for _, names := range c.certificates() {
		if len(names) > 1 {
			errs = append(errs, fmt.Errorf("autocert has one name in a certificate: %s", strings.Join(names, ", ")))
		}
		for _, name := range names {
			if err := autocertName(name); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if c.ReuseKey {
		errs = append(errs, errors.New("autocert makes its own keys: there is no ReuseKey"))
	}
	if c.KeyType == P384 {
		errs = append(errs, fmt.Errorf("autocert has no keys of type %s", c.KeyType))
	}
	if c.ClientAuth == tls.RequireAndVerifyClientCert {
		errs = append(errs, errors.New("autocert begins with TLS-ALPN-01, for which an authority has no client certificate"))
	}
	return errs
}

// obtain has a Manager of autocert's own do it, which is thrown away afterwards: what it does beyond
// that, as to renew, is done otherwise here.
func (a *Autocert) obtain(ctx context.Context, order *Order, client *acme.Client, seen *sightings) (*tls.Certificate, error) {
	name := order.Names[0]
	tokens := &tokenCache{ctx: ctx, challenges: order.Challenges, failed: seen.add, remove: map[string]func(){}}
	defer tokens.close()
	m := &autocert.Manager{
		Prompt:                 autocert.AcceptTOS,
		Cache:                  tokens,
		Client:                 client,
		Email:                  a.Email,
		ExternalAccountBinding: a.binding(),
		RenewBefore:            time.Second, // see tokenCache.Get; 0 is a default, and very little panics
		HostPolicy: func(_ context.Context, host string) error {
			if host != name {
				return fmt.Errorf("%s is not %s", host, name)
			}
			return nil
		},
	}
	if order.Challenges.ServesHTTP01() {
		m.HTTPHandler(nil) // without which it does not try HTTP-01
	}

	type result struct {
		cert *tls.Certificate
		err  error
	}
	done := make(chan result, 1)
	go func() { // nobody can wait for it: it has a context of its own, for 5 minutes
		cert, err := m.GetCertificate(helloFor(name, order.KeyType))
		done <- result{cert, err}
	}()
	select {
	case r := <-done:
		return r.cert, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// helloFor is what makes autocert order a certificate of a key type. A client that says nothing of what
// it supports would get RSA.
func helloFor(name string, t KeyType) *tls.ClientHelloInfo {
	hello := &tls.ClientHelloInfo{
		ServerName:       name,
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves:  []tls.CurveID{tls.CurveP256},
	}
	if t == RSA2048 {
		hello.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		hello.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256}
	}
	return hello
}

// tokenCache is the autocert.Cache of one order. It has no certificates, so that autocert orders one,
// keeps none, and hands the answers to challenges on.
type tokenCache struct {
	ctx        context.Context
	challenges Challenges
	failed     func(error)

	mu      sync.Mutex
	over    bool
	remove  map[string]func() // by the cache's key
	running sync.WaitGroup    // what gives and removes answers; begins with mu held, and not when it is over
}

// Get never finds anything. Once the order is over, it does not even return: then the caller is
// autocert's timer, shortly before the certificate expires. That would try to renew it for ever, and
// cannot be stopped in another way.
func (c *tokenCache) Get(context.Context, string) ([]byte, error) {
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	if over {
		runtime.Goexit()
	}
	return nil, autocert.ErrCacheMiss
}

// Put takes the answers to challenges.
func (c *tokenCache) Put(_ context.Context, key string, value []byte) error {
	c.mu.Lock()
	over := c.over
	if !over {
		c.running.Add(1)
	}
	c.mu.Unlock()
	if over {
		return errCut
	}
	defer c.running.Done()
	remove, err := c.answer(key, value)
	if err != nil {
		c.failed(err) // autocert does not look at it
		return err
	}
	if remove == nil {
		return nil
	}
	c.mu.Lock()
	over = c.over
	if !over {
		c.remove[key] = remove
	}
	c.mu.Unlock()
	if over {
		remove()
		return errCut
	}
	return nil
}

func (c *tokenCache) answer(key string, value []byte) (remove func(), err error) {
	if token, ok := strings.CutSuffix(key, "+http-01"); ok {
		remove, err = c.challenges.HTTP01(c.ctx, token, value)
	} else if name, ok := strings.CutSuffix(key, "+token"); ok {
		var cert tls.Certificate
		if cert, err = tls.X509KeyPair(value, value); err == nil {
			remove, err = c.challenges.TLSALPN01(c.ctx, name, &cert)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("answer the challenge: %w", err)
	}
	return remove, nil
}

// Delete removes an answer. autocert does not wait for that.
func (c *tokenCache) Delete(_ context.Context, key string) error {
	c.mu.Lock()
	remove := c.remove[key]
	delete(c.remove, key)
	if remove != nil {
		c.running.Add(1)
	}
	c.mu.Unlock()
	if remove != nil {
		defer c.running.Done()
		remove()
	}
	return nil
}

// close ends the order, and removes the answers that are left. Nothing is given or removed afterwards.
func (c *tokenCache) close() {
	c.mu.Lock()
	c.over = true
	left := c.remove
	c.remove = nil
	c.mu.Unlock()
	removeAll(maps.Values(left))
	c.running.Wait()
}

// sightings are what an authority has answered to autocert, which does not tell why a challenge has
// failed, or what an order has left behind.
type sightings struct {
	mu             sync.Mutex
	failures       []error
	wait           time.Duration
	authorizations []string // URLs
}

func (s *sightings) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) < maxProblems {
		s.failures = append(s.failures, err)
	}
}

func (s *sightings) see(status int, header http.Header, body []byte) {
	var answer struct {
		Status         string `json:"status"`
		Authorizations []string
		Identifier     struct{ Value string }
		Challenges     []struct {
			Type  string
			Error *struct {
				Status       int
				Type, Detail string
				Subproblems  []acme.Subproblem
			}
		}
	}
	if status >= 400 {
		if wantsPause(status, "") {
			s.mu.Lock()
			s.wait = max(s.wait, retryAfter(header))
			s.mu.Unlock()
		}
		return
	}
	if json.Unmarshal(body, &answer) != nil {
		return
	}
	if answer.Status == acme.StatusInvalid {
		for _, c := range answer.Challenges {
			if c.Error != nil {
				s.add(fmt.Errorf("validate %s by %s: %s", printable(answer.Identifier.Value), printable(c.Type),
					describe(&acme.Error{StatusCode: c.Error.Status, ProblemType: c.Error.Type, Detail: c.Error.Detail, Subproblems: c.Error.Subproblems})))
			}
		}
	}
	if len(answer.Authorizations) <= maxProblems { // there is one for a name, and an order for a challenge
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.authorizations) < maxProblems {
			s.authorizations = append(s.authorizations, answer.Authorizations...)
		}
	}
}

// left are the authorizations of the orders.
func (s *sightings) left() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.authorizations)
}

// explain adds what was seen to autocert's error.
func (s *sightings) explain(ctx context.Context, doing string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, failure := range s.failures {
		if i == 0 {
			doing += ": " + failure.Error()
		} else {
			doing += "; " + failure.Error()
		}
	}
	if s.wait > 0 && retryAfterOf(err) == 0 && ctx.Err() == nil {
		return &RetryAfterError{After: s.wait, Err: issueError(ctx, doing, err)}
	}
	return issueError(ctx, doing, err)
}
