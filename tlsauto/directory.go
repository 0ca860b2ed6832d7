package tlsauto

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Directories of Let's Encrypt. What the staging one issues is for tests: nobody trusts it, and much
// more of it may be ordered.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// A Directory is an ACME authority and the account there. Without more than AgreeTOS it is Let's
// Encrypt.
type Directory struct {
	// URL is that of the authority's directory (RFC 8555, section 7.1.1); default [LetsEncrypt]. Plain
	// http is for a loopback host alone.
	URL string

	// Email is where the authority may write to; optional. The account takes over a change, except
	// that an address which it has cannot be removed.
	Email string

	// AgreeTOS tells the authority that its terms of service are agreed to. It must be set.
	AgreeTOS bool

	// EABKeyID and EABKey bind the account to one that exists at the authority otherwise (RFC 8555,
	// section 7.3.4); for those that demand it. The key is what its base64url text stands for.
	EABKeyID string
	EABKey   []byte

	// Roots are those of the authority's own server; nil: those of the system.
	Roots *x509.CertPool

	// Client makes the requests to the authority. nil: one that has timeouts, trusts Roots, and takes
	// its proxy from the environment as [http.ProxyFromEnvironment] does.
	Client *http.Client
}

const userAgent = "bedplate-tlsauto (https://github.com/bedplate/bedplate)"

const (
	maxReply     = 1 << 20 // bytes of a body; chains of certificates have a few thousand
	maxPoll      = time.Minute
	minPoll      = time.Second
	longestRetry = 24 * time.Hour
)

func (d *Directory) url() string {
	if d.URL == "" {
		return LetsEncrypt
	}
	return d.URL
}

// check returns an error for each mistake.
func (d *Directory) check() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	u, err := url.Parse(d.url())
	switch {
	case err != nil || u.Host == "":
		bad("URL is not the address of a directory")
	case u.User != nil || u.Fragment != "":
		bad("URL has a user or a fragment")
	case u.Scheme != "https" && !isPlainLoopback(u):
		bad("URL %s is not https", u)
	}
	if !d.AgreeTOS {
		bad("AgreeTOS is not set: the terms of service must be agreed to")
	}
	if d.Email != "" {
		addr, err := mail.ParseAddress(d.Email)
		if err != nil || addr.Address != d.Email || strings.ContainsAny(d.Email, "?%&,\"") {
			bad("Email %q is not a plain address", d.Email)
		}
	}
	if (d.EABKeyID == "") != (len(d.EABKey) == 0) {
		bad("EABKeyID and EABKey go together")
	}
	if d.Client != nil && d.Roots != nil {
		bad("Roots are for the default Client: one of its own has its own")
	}
	return errs
}

// isPlainLoopback reports whether a request stays on this machine, and so needs no TLS.
func isPlainLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && addr.IsLoopback())
}

// A link is the way to an authority for one purpose. It can be cut: then requests under way fail, and
// so does what is tried later. It refuses answers that are too long, and addresses that are not https.
type link struct {
	client *http.Client
	base   http.RoundTripper
	own    *http.Transport // base, if it is not the caller's
	plain  bool            // http to loopback hosts is allowed, as the directory has it
	ctx    context.Context
	cut    context.CancelFunc

	// watch, if set, sees all answers. It may be called by several goroutines at once.
	watch func(status int, header http.Header, body []byte)
}

// connect returns a link that lasts until ctx ends, or it is closed.
func (d *Directory) connect(ctx context.Context) *link {
	ctx, cut := context.WithCancel(ctx)
	l := &link{ctx: ctx, cut: cut}
	if u, err := url.Parse(d.url()); err == nil {
		l.plain = isPlainLoopback(u)
	}
	if d.Client != nil {
		client := *d.Client
		l.client = &client
		l.base = client.Transport
		if l.base == nil {
			l.base = http.DefaultTransport
		}
	} else {
		l.client = &http.Client{Timeout: 90 * time.Second} // some authorities issue while one waits
		l.own = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: d.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  60 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true,
		}
		l.base = l.own
	}
	l.client.Transport = l
	return l
}

// close cuts the link.
func (l *link) close() {
	l.cut()
	if l.own != nil {
		l.own.CloseIdleConnections()
	}
}

var errCut = errors.New("the order is over")

// RoundTrip reads the whole answer, so that it cannot be longer than what acme.Client reads at once.
func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := l.refuses(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()

	res, err := l.base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	res.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxReply {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxReply)
	}
	if r.Method == http.MethodPost && res.StatusCode < 300 {
		limitPoll(res.Header)
	}
	if l.watch != nil {
		l.watch(res.StatusCode, res.Header, body)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

func (l *link) refuses(u *url.URL) error {
	if l.ctx.Err() != nil {
		return errCut
	}
	if u.Scheme != "https" && !(l.plain && isPlainLoopback(u)) {
		return errors.New("the address is not https")
	}
	return nil
}

// limitPoll keeps acme.Client, which waits for what Retry-After says between two looks at an order,
// from looking all the time, or hardly ever.
func limitPoll(h http.Header) {
	if h.Get("Retry-After") != "" {
		wait := min(max(retryAfter(h), minPoll), maxPoll)
		h.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
}

// retryAfter is what the header of that name says, at most a day, or 0. A date is compared with that
// of the answer, since the clock is the same.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(longestRetry/time.Second))) * time.Second
	}
	until, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(until.Sub(now), 0), longestRetry)
}
