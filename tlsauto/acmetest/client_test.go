package acmetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A client makes handshakes, each on a connection of its own and none resumed.
type client struct {
	addr    string
	name    string         // "": none is sent; then the certificate is verified for asName
	asName  string         // what the certificate has to be for; default: name
	roots   *x509.CertPool // nil: any certificate will do
	timeout time.Duration  // default 10 s
	patient bool           // it waits for patience, whatever it is told, but for a timeout
	clock   func() time.Time
	adjust  func(*tls.Config)
}

// connect makes a handshake and returns the certificate of the server.
func (c client) connect(ctx context.Context) (*x509.Certificate, error) {
	return c.visit(ctx, nil)
}

// knock makes a handshake, whatever comes of it.
func (c client) knock(ctx context.Context) { _, _ = c.connect(ctx) }

// get makes a handshake and an HTTP request.
func (c client) get(ctx context.Context) (*x509.Certificate, error) {
	return c.visit(ctx, func(conn net.Conn) error {
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", c.name); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if err != nil {
			return err
		}
		if want := "HTTP/1.1 200 OK"; len(answer) < len(want) || string(answer[:len(want)]) != want {
			return fmt.Errorf("the answer is %.40q", answer)
		}
		return nil
	})
}

func (c client) visit(ctx context.Context, use func(net.Conn) error) (*x509.Certificate, error) {
	if c.timeout == 0 {
		c.timeout = c.within(10 * time.Second)
	}
	if c.asName == "" {
		c.asName = c.name
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	config := &tls.Config{ServerName: c.name, InsecureSkipVerify: true} // verify does it
	config.CurvePreferences = []tls.CurveID{tls.CurveP256}              // the cheapest: there are many handshakes
	config.VerifyConnection = func(state tls.ConnectionState) error { return c.verify(state.PeerCertificates) }
	if c.adjust != nil {
		c.adjust(config)
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if use != nil {
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
		if err := use(conn); err != nil {
			return nil, err
		}
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (c client) verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	if c.roots == nil {
		return nil
	}
	options := x509.VerifyOptions{DNSName: c.asName, Roots: c.roots, Intermediates: x509.NewCertPool()}
	if c.clock != nil {
		options.CurrentTime = c.clock()
	}
	for _, intermediate := range chain[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	_, err := chain[0].Verify(options)
	return err
}

// patience is how long is waited for what should happen soon. On a busy machine that may take a while; what is
// broken is never done.
const patience = 2 * time.Minute

// within is how long the client waits.
func (c client) within(atMost time.Duration) time.Duration {
	if c.patient {
		return patience
	}
	return atMost
}

// becomes waits until a condition holds, and reports whether it came to that.
func becomes(atMost time.Duration, holds func() bool) bool {
	return becomesEvery(10*time.Millisecond, atMost, holds)
}

func becomesEvery(interval, atMost time.Duration, holds func() bool) bool {
	deadline := time.Now().Add(atMost)
	for !holds() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(interval)
	}
	return true
}

// trusted waits until a client verifies the certificate, and returns that.
func (c client) trusted(ctx context.Context, atMost time.Duration) (*x509.Certificate, error) {
	return c.until(ctx, atMost, func(*x509.Certificate) bool { return true })
}

// until waits for a certificate that a client verifies and that is as wanted.
func (c client) until(ctx context.Context, atMost time.Duration, want func(*x509.Certificate) bool) (*x509.Certificate, error) {
	atMost = c.within(atMost)
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	last := errors.New("no handshake came to its end")
	var found *x509.Certificate
	becomesEvery(pause, atMost, func() bool {
		leaf, err := c.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return true
		case err != nil:
			last = err
		case !want(leaf):
			last = fmt.Errorf("the certificate is %x", leaf.SerialNumber)
		default:
			found = leaf
		}
		return found != nil
	})
	if found == nil {
		return nil, fmt.Errorf("not what was waited for within %v: %w", atMost, last)
	}
	return found, nil
}

// changes waits for another certificate than the given one.
func (c client) changes(ctx context.Context, old *x509.Certificate, atMost time.Duration) (*x509.Certificate, error) {
	return c.until(ctx, atMost, func(leaf *x509.Certificate) bool { return leaf.SerialNumber.Cmp(old.SerialNumber) != 0 })
}

// at pauses until a time.
func at(t *testing.T, when time.Time) {
	t.Helper()
	timer := time.NewTimer(time.Until(when))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// redirected makes an HTTP request and returns where the answer sends the client; "" is nowhere.
func redirected(ctx context.Context, addr, host, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return "", err
	}
	r.Host = host
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	return answer.Header.Get("Location"), nil
}
