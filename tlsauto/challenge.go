package tlsauto

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

const (
	maxPresenting  = 8 // challenges that are prepared at a time
	cleanUpTimeout = 10 * time.Second
)

// A challengeError is that of a kind of challenge, where another may do.
type challengeError struct {
	typ string
	err error
}

func (e *challengeError) Error() string { return e.err.Error() }
func (e *challengeError) Unwrap() error { return e.err }

// possible lists the challenges that may validate a name, in order.
func (t *attempt) possible(name string) []string {
	var types []string
	for _, typ := range t.acme.challenges() {
		switch {
		case t.failed[typ]:
		case isWildcard(name) && typ != challengeDNS01:
		case isIP(name) && typ == challengeDNS01:
		case typ == challengeDNS01 && t.acme.DNS == nil:
		case typ == challengeHTTP01 && !t.order.Challenges.ServesHTTP01():
		default:
			types = append(types, typ)
		}
	}
	return types
}

// impossible returns an error if there is a name that no challenge is left for.
func (t *attempt) impossible() error {
	for _, name := range t.order.Names {
		if len(t.possible(name)) == 0 {
			return fmt.Errorf("no challenge of %s can validate %s here", strings.Join(t.acme.challenges(), ", "), name)
		}
	}
	return nil
}

// waiting is a challenge that the authority is validating.
type waiting struct {
	url, name, typ string
}

// authorize proves that the names of an order are ours: all answers are given, and then the authority is
// asked about one after the other.
func (t *attempt) authorize(ctx context.Context, urls []string) error {
	answers := &answers{}
	defer answers.remove()
	if err := forEach(ctx, urls, func(ctx context.Context, url string) error {
		return t.answer(ctx, url, answers)
	}); err != nil {
		var failed *challengeError
		if errors.As(err, &failed) {
			t.failed[failed.typ] = true
		}
		return err
	}
	slices.SortFunc(answers.waiting, func(a, b waiting) int { return strings.Compare(a.name, b.name) })
	var errs []string
	var failed *challengeError
	for _, w := range answers.waiting {
		_, err := t.client.WaitAuthorization(ctx, w.url)
		var invalid *acme.AuthorizationError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &invalid):
			return issueError(ctx, "wait for the validation of "+w.name+" by "+w.typ, err)
		}
		t.failed[w.typ] = true
		err = issueError(ctx, "validate "+w.name+" by "+w.typ, err)
		if len(errs) < maxProblems {
			errs = append(errs, err.Error())
		}
		failed = &challengeError{w.typ, &authorityError{strings.Join(errs, "; "), err}}
	}
	if failed != nil {
		return failed
	}
	return nil
}

// answer answers a challenge of an authorization, unless it is valid already.
func (t *attempt) answer(ctx context.Context, url string, to *answers) error {
	z, err := t.client.GetAuthorization(ctx, url)
	if err != nil {
		return issueError(ctx, "read an authorization", err)
	}
	name := authorizedName(z)
	if !slices.Contains(t.order.Names, name) {
		return fmt.Errorf("read an authorization: it is for %s, which was not ordered", printable(name))
	}
	switch z.Status {
	case acme.StatusValid:
		return nil
	case acme.StatusPending:
	default:
		return fmt.Errorf("read the authorization of %s: it is %s", name, printable(z.Status))
	}
	c, err := t.choose(name, z.Challenges)
	if err != nil {
		return err
	}
	remove, err := t.present(ctx, name, c)
	to.mustRemove(remove)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("answer %s for %s: %w", c.Type, name, context.Cause(ctx))
		}
		return &challengeError{c.Type, fmt.Errorf("answer %s for %s: %w", c.Type, name, err)}
	}
	if _, err := t.client.Accept(ctx, c); err != nil {
		return issueError(ctx, "have "+name+" validated by "+c.Type, err)
	}
	to.mustWait(waiting{url, name, c.Type})
	return nil
}

// authorizedName is the name of an authorization, in its one form, or "".
func authorizedName(z *acme.Authorization) string {
	name, err := normalizeName(z.Identifier.Value)
	if err != nil || isIP(name) != (z.Identifier.Type == "ip") {
		return ""
	}
	if z.Wildcard && !isWildcard(name) {
		return "*." + name
	}
	return name
}

// choose returns the first challenge that is possible of those that are offered.
func (t *attempt) choose(name string, offered []*acme.Challenge) (*acme.Challenge, error) {
	possible := t.possible(name)
	for _, typ := range possible {
		for _, c := range offered {
			if c.Type == typ {
				return c, nil
			}
		}
	}
	var types []string
	for _, c := range offered {
		types = append(types, c.Type)
	}
	return nil, fmt.Errorf("the authority offers %s for %s, which would do by %s",
		printable(strings.Join(types, ", ")), name, strings.Join(possible, ", "))
}

// present puts the answer to a challenge where the authority will look for it. What is returned to
// remove it is nil if there is nothing to remove, and may be there with an error.
func (t *attempt) present(ctx context.Context, name string, c *acme.Challenge) (remove func(), err error) {
	switch c.Type {
	case challengeTLSALPN01:
		cert, err := t.client.TLSALPN01ChallengeCert(c.Token, name)
		if err != nil {
			return nil, err
		}
		return t.order.Challenges.TLSALPN01(ctx, challengeServerName(name), &cert)
	case challengeHTTP01:
		answer, err := t.client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			return nil, err
		}
		return t.order.Challenges.HTTP01(ctx, c.Token, []byte(answer))
	default:
		value, err := t.client.DNS01ChallengeRecord(c.Token)
		if err != nil {
			return nil, err
		}
		fqdn := "_acme-challenge." + strings.TrimPrefix(name, "*.") + "."
		remove := func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
			defer cancel()
			if err := t.acme.DNS.CleanUp(ctx, fqdn, value); err != nil {
				t.order.Logger.WarnContext(ctx, "tlsauto: a DNS record could not be removed", "name", fqdn, "error", err)
			}
		}
		return remove, t.acme.DNS.Present(ctx, fqdn, value)
	}
}

// challengeServerName is the name in the handshake of TLS-ALPN-01, which cannot be an address (RFC
// 8738, section 6).
func challengeServerName(name string) string {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return name
	}
	bytes := addr.AsSlice()
	slices.Reverse(bytes)
	var b strings.Builder
	for _, octet := range bytes {
		if addr.Is4() {
			b.WriteString(strconv.Itoa(int(octet)) + ".")
		} else {
			fmt.Fprintf(&b, "%x.%x.", octet&15, octet>>4)
		}
	}
	if addr.Is4() {
		return b.String() + "in-addr.arpa"
	}
	return b.String() + "ip6.arpa"
}

// answers are those given for an order.
type answers struct {
	mu      sync.Mutex
	removes []func()
	waiting []waiting
}

func (a *answers) mustRemove(remove func()) {
	if remove == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removes = append(a.removes, remove)
}

func (a *answers) mustWait(w waiting) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, w)
}

func (a *answers) remove() { removeAll(slices.Values(a.removes)) }

// removeAll removes answers, all at a time, since each may take a while.
func removeAll(removes func(yield func(func()) bool)) {
	var running sync.WaitGroup
	for remove := range removes {
		running.Go(remove)
	}
	running.Wait()
}

// forEach does something for each of a list, several at a time, until one has failed, and returns that
// error.
func forEach(ctx context.Context, list []string, do func(ctx context.Context, s string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		running sync.WaitGroup
		room    = make(chan struct{}, maxPresenting)
		once    sync.Once
		first   error
	)
	for _, s := range list {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-room }()
			if err := do(ctx, s); err != nil {
				once.Do(func() { first = err; cancel() })
			}
		})
	}
	running.Wait()
	if first == nil {
		return context.Cause(ctx)
	}
	return first
}
