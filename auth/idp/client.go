package idp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The bounds of a request.
const (
	requestTime = 10 * time.Second
	maxBody     = 1 << 20 // bytes, after decompression
)

// newClient returns the client for all requests. given is the caller's client
// or nil; its transport is used as it is.
func newClient(given *http.Client, allowPrivate bool) *http.Client {
	c := &http.Client{Timeout: requestTime}
	var transport http.RoundTripper
	if given != nil {
		transport = given.Transport
		if given.Timeout > 0 && given.Timeout < requestTime {
			c.Timeout = given.Timeout
		}
	}
	if transport == nil {
		transport = newTransport(allowPrivate)
	}
	c.Transport = bounded{transport}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func newTransport(allowPrivate bool) *http.Transport {
	d := &net.Dialer{Timeout: requestTime}
	if !allowPrivate {
		d.Control = publicOnly
	}
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSHandshakeTimeout:    requestTime,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// bounded is a transport whose bodies end with an error after maxBody bytes.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("%w: answer of more than %d bytes", ErrRefused, maxBody)
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, fmt.Errorf("%w: answer of more than %d bytes", ErrRefused, maxBody)
	}
	return n, err
}

// get returns the body of a resource that has to answer with status 200.
func get(ctx context.Context, client *http.Client, address string, header http.Header) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "bedplate")
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: status %d from %s", ErrRefused, resp.StatusCode, r.URL.Redacted())
	}
	return io.ReadAll(resp.Body)
}

// getJSON decodes a resource into v.
func getJSON(ctx context.Context, client *http.Client, address string, header http.Header, v any) error {
	body, err := get(ctx, client, address, header)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: no JSON as expected from %s", ErrRefused, address)
	}
	return nil
}

// checkURL reports what is wrong with the URL of an endpoint.
func checkURL(address string, allowHTTP bool) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https" && (u.Scheme != "http" || !allowHTTP):
		return errors.New("not an https URL")
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("a URL without a host")
	case u.User != nil || u.Fragment != "":
		return errors.New("a URL with a user or a fragment")
	case strings.ContainsAny(address, " \t\r\n"):
		return errors.New("a URL with spaces")
	}
	return nil
}
