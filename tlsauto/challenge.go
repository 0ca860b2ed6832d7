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

// possible lists the challenges that may validate a name, in order.
func (t *attempt) possible(name string) []string {
	var types []string
	for _, typ := range t.challenges {
		switch {
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

// impossible returns an error if there is a name that there is no challenge for.
func (t *attempt) impossible() error {
	for _, name := range t.order.Names {
		if len(t.possible(name)) == 0 {
			return fmt.Errorf("no challenge of %s can validate %s here", strings.Join(t.acme.challenges(), ", "), name)
		}
	}
	return nil
}

// An answered is a challenge whose answer is given.
type answered struct {
	url       string // of the authorization
	name      string
	challenge *acme.Challenge
}

// authorize proves that the names of an order are ours. The authority looks only when all answers are
// given: if one cannot be, none of the others fails, or is validated in vain.
func (t *attempt) authorize(ctx context.Context, urls []string) error {
	answers := &answers{}
	defer answers.remove()
	if err := forEach(ctx, urls, func(ctx context.Context, url string) error {
		return t.answer(ctx, url, answers)
	}); err != nil {
		t.learn(nil, answers.failed)
		return err
	}
	if err := forEach(ctx, answers.given, func(ctx context.Context, a answered) error {
		if _, err := t.client.Accept(ctx, a.challenge); err != nil {
			return issueError(ctx, "have "+a.name+" validated by "+a.challenge.Type, err)
		}
		return nil
	}); err != nil {
		return err
	}
	return t.await(ctx, answers.given)
}

// await waits until all are validated, and learns from that.
func (t *attempt) await(ctx context.Context, given []answered) error {
	slices.SortFunc(given, func(a, b answered) int { return strings.Compare(a.name, b.name) })
	var worked, failed, texts []string
	var last error
	for _, a := range given {
		typ := a.challenge.Type
		_, err := t.client.WaitAuthorization(ctx, a.url)
		var invalid *acme.AuthorizationError
		switch {
		case err == nil:
			worked = append(worked, typ)
			continue
		case !errors.As(err, &invalid):
			return issueError(ctx, "wait for the validation of "+a.name+" by "+typ, err)
		}
		failed = append(failed, typ)
		last = issueError(ctx, "validate "+a.name+" by "+typ, err)
		if len(texts) < maxProblems {
			texts = append(texts, last.Error())
		}
	}
	t.learn(worked, failed)
	if last != nil {
		return &authorityError{strings.Join(texts, "; "), last}
	}
	return nil
}

// learn makes the next attempt for the same names begin with the kinds of challenges that have worked,
// and end with those that have failed.
func (t *attempt) learn(worked, failed []string) {
	place := func(typ string) int {
		switch {
		case slices.Contains(failed, typ): // for one of several names is enough
			return 1
		case slices.Contains(worked, typ):
			return -1
		}
		return 0
	}
	next := slices.Clone(t.challenges)
	slices.SortStableFunc(next, func(a, b string) int { return place(a) - place(b) })
	t.acme.preferences.set(t.order.Names, next, t.acme.challenges())
}

// answer gives the answer to a challenge of an authorization, unless it is valid already.
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
		to.hasFailed(c.Type)
		return fmt.Errorf("answer %s for %s: %w", c.Type, name, err)
	}
	to.isGiven(answered{url, name, c})
	return nil
}

// authorizedName is the name of an authorization, in its one form, or "".
func authorizedName(z *acme.Authorization) string {
	name, err := NormalizeName(z.Identifier.Value)
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
			if err := guard(func() error { return t.acme.DNS.CleanUp(ctx, fqdn, value) }); err != nil {
				t.order.Logger.WarnContext(ctx, "tlsauto: a DNS record could not be removed", "name", fqdn, "error", err)
			}
		}
		return remove, guard(func() error { return t.acme.DNS.Present(ctx, fqdn, value) })
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
	given   []answered
	failed  []string // kinds of those that could not be given
}

func (a *answers) mustRemove(remove func()) {
	if remove == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removes = append(a.removes, remove)
}

func (a *answers) isGiven(g answered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given = append(a.given, g)
}

func (a *answers) hasFailed(typ string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = append(a.failed, typ)
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
func forEach[T any](ctx context.Context, list []T, do func(ctx context.Context, item T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		running sync.WaitGroup
		room    = make(chan struct{}, maxPresenting)
		once    sync.Once
		first   error
	)
	for _, item := range list {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-room }()
			if err := do(ctx, item); err != nil {
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
