package realtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// How far a client follows what servers ask of it.
const (
	longestPause    = 10 * time.Minute
	mostRedirects   = 5
	refusalTextSize = 512
)

// client is a call of Subscribe.
type client struct {
	o      SubscribeOptions
	target *url.URL
	handle func(Event) error
	http   *http.Client
	own    *http.Transport // nil: the http client is the caller's

	position string // behind it there is news; "": not told
	met      bool   // there has been a stream
	blind    bool   // events of the last stream have told no position
	denied   bool   // the last answer was 401

	backoff time.Duration // before the next attempt; 0: the least
	retry   time.Duration // as the last stream that said something says
	after   time.Duration // as the last answer says
}

// newClient returns a client whose own connections, if it has any, end with ctx.
func newClient(ctx context.Context, o SubscribeOptions, target *url.URL, handle func(Event) error) *client {
	c := &client{o: o, target: target, handle: handle, position: o.Since}
	var h http.Client
	if o.Client != nil {
		h = *o.Client
	} else {
		c.own = newTransport(ctx)
		h.Transport = c.own
	}
	h.Timeout = 0
	theirs := h.CheckRedirect
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.URL.Scheme != target.Scheme || req.URL.Host != target.Host {
			return final{fmt.Errorf("realtime: subscribe: the server redirects to another origin, %s://%s", req.URL.Scheme, req.URL.Host)}
		}
		if len(via) > mostRedirects {
			return final{errors.New("realtime: subscribe: the server redirects over and over")}
		}
		if theirs != nil {
			return theirs(req, via)
		}
		return nil
	}
	c.http = &h
	return c
}

// newTransport returns a transport whose connections end with ctx, and which
// finds out by itself, with HTTP/2, that a connection is dead, so that no new
// request waits for it.
func newTransport(ctx context.Context) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialUntil(ctx),
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// dialUntil returns a dialer whose connections are closed when ctx is done. A
// transport goes on connecting when nobody wants the connection any more.
func dialUntil(ctx context.Context) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return func(dialCtx context.Context, network, addr string) (net.Conn, error) {
		dialCtx, cancel := context.WithCancel(dialCtx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		conn, err := dialer.DialContext(dialCtx, network, addr)
		if err != nil {
			return nil, err
		}
		return ownedConn{conn, context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
	}
}

// ownedConn is closed by somebody else at the latest.
type ownedConn struct {
	net.Conn
	disown func() bool
}

func (c ownedConn) Close() error {
	c.disown()
	return c.Conn.Close()
}

// final is an error that no further attempt can cure.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// errIdle is why a connection was given up.
var errIdle = errors.New("realtime: subscribe: the server has been silent for too long")

func (c *client) run(ctx context.Context) error {
	for {
		err := c.attempt(ctx)
		var end final
		switch {
		case errors.As(err, &end):
			return end.error
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			return nil
		}
		var refusal *Error
		refused := errors.As(err, &refusal)
		denied := refused && refusal.Status == http.StatusUnauthorized
		if denied && !c.denied && c.o.Token != nil {
			c.denied = true
			continue
		}
		c.denied = denied
		if refused && refusal.Status != http.StatusTooManyRequests && refusal.Status < 500 {
			return err
		}
		pause := c.pause()
		c.o.Logger.Info("subscription interrupted", "path", c.target.Path, "error", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause returns how long to wait before the next attempt.
func (c *client) pause() time.Duration {
	c.backoff = max(c.backoff, c.o.MinBackoff)
	pause := max(c.backoff, min(max(c.retry, c.after), longestPause))
	c.backoff, c.after = min(2*c.backoff, c.o.MaxBackoff), 0
	return pause + rand.N(pause/2+1) //nolint:gosec // spreads load, keeps no secret
}

// attempt connects and follows the stream to its end, which is an error. It
// returns nil when there is to be no other.
func (c *client) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := c.request(ctx)
	if err != nil {
		return err
	}
	watchdog := time.AfterFunc(c.o.IdleTimeout, func() { cancel(errIdle) })
	defer watchdog.Stop()
	res, err := c.http.Do(req)
	watchdog.Stop()
	if err != nil {
		return c.failure(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	body := &watchedReader{r: res.Body, watchdog: watchdog, limit: c.o.IdleTimeout}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		return nil
	default:
		if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
			c.after = retryAfterHeader(res.Header)
		}
		text, _ := io.ReadAll(io.LimitReader(body, refusalTextSize)) // all there is of it
		return &Error{Status: res.StatusCode, Text: oneLine(string(text))}
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != "text/event-stream" {
		return final{fmt.Errorf("realtime: subscribe: the answer is %q, not an event stream", kind)}
	}
	if coding := res.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return final{fmt.Errorf("realtime: subscribe: the answer is coded as %q, which was not asked for", coding)}
	}
	return c.failure(ctx, c.follow(ctx, body))
}

func (c *client) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.target.String(), nil)
	if err != nil {
		return nil, final{err}
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Encoding", "identity") // a compressed event may wait for the next one
	req.Header.Set("Cache-Control", "no-cache")
	if c.position != "" {
		req.Header.Set("Last-Event-ID", c.position)
	}
	if c.o.Token == nil {
		return req, nil
	}
	token, err := c.o.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("realtime: subscribe: token: %w", err)
	}
	if !headerSafe(token) {
		return nil, final{errors.New("realtime: subscribe: the token has characters that no token has")}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// failure says why a connection has ended, without its address, whose query is
// nobody's business.
func (c *client) failure(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errIdle) {
		if c.own != nil {
			c.own.CloseIdleConnections() // with HTTP/2 it would be used again
		}
		return errIdle
	}
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	return err
}

// watchedReader sets off its watchdog when a Read takes longer than limit.
type watchedReader struct {
	r        io.Reader
	watchdog *time.Timer
	limit    time.Duration
}

func (w *watchedReader) Read(p []byte) (int, error) {
	w.watchdog.Reset(w.limit)
	defer w.watchdog.Stop()
	return w.r.Read(p)
}

// retryAfterHeader returns how long the server asks to wait (RFC 9110, section
// 10.2.3); 0: it does not.
func retryAfterHeader(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

// oneLine makes text of a server fit for an error and a log.
func oneLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
}
