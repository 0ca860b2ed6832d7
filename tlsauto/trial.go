package tlsauto

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Trial is what came of [Manager.Try].
type Trial struct {
	// Certificate has passed the checks of those that are served. Leaf is set. There is none beside an error.
	Certificate *tls.Certificate

	// Challenges are the kinds of those that were answered, "tls-alpn-01" and "http-01", in their order: with a
	// certificate, the last one has worked. There are none when the authority wanted no proof, or one by DNS-01.
	Challenges []string
}

// Try has an issuer obtain a certificate once, to see whether that would work: one of [LetsEncryptStaging], say, before
// the limits of another authority are at stake. The certificate is neither served nor stored, and its private key is
// new. The issuer keeps its account in the Store account: what [NewMemoryStore] makes has one for several calls that
// nobody knows afterwards.
//
// The names are all those of a certificate in the configuration. Challenges are answered as always: by
// [Manager.TLSConfig] and [Manager.HTTPHandler], and by other processes that share the Store of the Manager. When Try
// returns no answer is left, even if ctx has ended. Where that Store is a [Leaser], Try waits while somebody else orders
// the same certificate, and they wait for Try. With another Store either may fail by the other: a name has one answer to
// TLS-ALPN-01.
//
// It takes until ctx ends and a few seconds at most, and [Config.AttemptTimeout] for the order. It does not need Run.
// The error may wrap a [*RetryAfterError].
func (m *Manager) Try(ctx context.Context, issuer Issuer, account Store, names ...string) (Trial, error) {
	mc, err := m.triable(issuer, account, names)
	if err != nil {
		return Trial{}, fmt.Errorf("tlsauto: try: %w", err)
	}
	limit := m.cfg.AttemptTimeout
	if until, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(until))
	}
	release, err := m.awaitLease(ctx, mc, limit+leaseMargin)
	if err != nil {
		return Trial{}, fmt.Errorf("tlsauto: try: %w", err)
	}
	defer release()

	answers := &trialAnswers{to: m.board}
	defer answers.end()
	c, err := m.obtain(ctx, issuer, &Order{
		Names:      slices.Clone(mc.names),
		KeyType:    m.cfg.KeyType,
		Store:      account,
		Challenges: answers,
		Logger:     m.cfg.Logger,
		Now:        m.cfg.Now,
	}, limit)
	trial := Trial{Certificate: c, Challenges: answers.end()}
	if err != nil {
		return trial, fmt.Errorf("tlsauto: try: %w", err)
	}
	return trial, nil
}

// triable returns the certificate whose names are to be tried, unless something is wrong with what was given.
func (m *Manager) triable(issuer Issuer, account Store, names []string) (*managed, error) {
	if issuer == nil || account == nil || len(names) == 0 {
		return nil, errors.New("an issuer, a store for its account and names are needed")
	}
	names = slices.Clone(names)
	for i, name := range names {
		var err error
		if names[i], err = NormalizeName(name); err != nil {
			return nil, err
		}
	}
	if known, ok := issuer.(checker); ok {
		cfg := m.cfg
		cfg.Names, cfg.Groups = nil, [][]string{names}
		if err := errors.Join(known.check(&cfg)...); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mc := range m.configuredLocked() {
		if mc.id == certificateID(names) {
			return mc, nil
		}
	}
	return nil, fmt.Errorf("no certificate in the configuration has the names %q", names)
}

// awaitLease takes the lease under which a certificate is ordered, as another process does: this Manager may
// have it, too.
func (m *Manager) awaitLease(ctx context.Context, mc *managed, ttl time.Duration) (release func(), err error) {
	leaser, ok := m.cfg.Store.(Leaser)
	if !ok {
		return func() {}, nil
	}
	lease, owner := orderLease+mc.id, rand.Text()
	release = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime)
		defer cancel()
		_ = guard(func() error { return leaser.Release(ctx, lease, owner) }) // or it runs out
	}
	for tries := 0; ; tries++ {
		got := false
		err := guard(func() (err error) { got, err = leaser.Acquire(ctx, lease, owner, m.now(), ttl); return err })
		if got && err == nil {
			return release, nil
		}
		if err != nil {
			release() // it may have been acquired all the same
			return nil, fmt.Errorf("take the lease %s: %w", lease, err)
		}
		again := time.NewTimer(retryTime(min(tries, 2)))
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, fmt.Errorf("wait for the one who orders this certificate just now: %w", context.Cause(ctx))
		}
	}
}

// trialAnswers are the [Challenges] of one order, of which nothing is left after its end: what an issuer still does in
// the background is refused.
type trialAnswers struct {
	to Challenges

	mu      sync.Mutex
	ended   bool
	giving  sync.WaitGroup
	removes []func()
	kinds   []string
}

func (a *trialAnswers) ServesHTTP01() bool { return a.to.ServesHTTP01() }

func (a *trialAnswers) HTTP01(ctx context.Context, token string, answer []byte) (remove func(), err error) {
	return a.give(challengeHTTP01, func() (func(), error) { return a.to.HTTP01(ctx, token, answer) })
}

func (a *trialAnswers) TLSALPN01(ctx context.Context, name string, cert *tls.Certificate) (remove func(), err error) {
	return a.give(challengeTLSALPN01, func() (func(), error) { return a.to.TLSALPN01(ctx, name, cert) })
}

func (a *trialAnswers) give(kind string, post func() (func(), error)) (remove func(), err error) {
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return nil, errCut
	}
	a.giving.Add(1)
	if !slices.Contains(a.kinds, kind) {
		a.kinds = append(a.kinds, kind)
	}
	a.mu.Unlock()
	defer a.giving.Done()

	if remove, err = post(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removes = append(a.removes, remove)
	return remove, nil
}

// end removes what is left, and returns the kinds of all that was answered. It may be called again.
func (a *trialAnswers) end() []string {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.giving.Wait()
	removeAll(slices.Values(a.removes))
	return a.kinds
}
