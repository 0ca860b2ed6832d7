package tlsauto_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/bedplate/bedplate/tlsauto"
)

// A watchedStore remembers what was asked of it.
type watchedStore struct {
	tlsauto.Store
	mu   sync.Mutex
	keys []string
}

func (s *watchedStore) watch(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, key)
}

// asked returns the keys of all calls since it was called the last time.
func (s *watchedStore) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.keys
	s.keys = nil
	return keys
}

func (s *watchedStore) Get(ctx context.Context, key string) ([]byte, error) {
	s.watch(key)
	return s.Store.Get(ctx, key)
}

func (s *watchedStore) Put(ctx context.Context, key string, value []byte) error {
	s.watch(key)
	return s.Store.Put(ctx, key, value)
}

func (s *watchedStore) Delete(ctx context.Context, key string) error {
	s.watch(key)
	return s.Store.Delete(ctx, key)
}

// The path of a challenge reads no file, whatever the encoding (CVE-2022-30636).
func TestI6_ChallengePath(t *testing.T) {
	t.Parallel()
	const secret = "TOP-SECRET-PRIVATE-KEY"
	const fileToken = "a-file-of-the-store-0123456789"
	top := t.TempDir()
	dir := filepath.Join(top, "certs")
	attackStep(t, os.Mkdir(dir, 0o700))
	for _, file := range []string{
		filepath.Join(top, "key"), filepath.Join(dir, "key"), filepath.Join(dir, "example.com"), filepath.Join(dir, "acme_account+key"),
		filepath.Join(dir, fileToken), filepath.Join(dir, fileToken+"+http-01"), filepath.Join(dir, "http01+"+fileToken),
	} {
		attackStep(t, os.WriteFile(file, []byte(secret), 0o600))
	}
	store := &watchedStore{Store: autocert.DirCache(dir)}
	m, err := tlsauto.New(tlsauto.Config{
		Names: []string{"example.com"}, Store: store, Issuers: []tlsauto.Issuer{newMint(t, day)}, Logger: slog.New(slog.DiscardHandler),
	})
	attackStep(t, err)
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })

	const path = "/.well-known/acme-challenge/"
	up := strings.NewReplacer("{..}", "..", "{/}", "/").Replace
	tokens := []string{"", ".", "..", "key", "example.com", "acme_account+key", "http01+" + fileToken, "/etc/passwd", top + "/key", "~/key", "key%00", "%00", "C:%5ckey", "key::$DATA", "file:///" + top + "/key"}
	for _, dots := range []string{"..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "..%00", "..;", "....", "%u002e%u002e", "．．"} {
		for _, slash := range []string{"/", "%2f", "%2F", "%5c", "\\", "%252f", "%c0%af", "//", "/./", "%u2215", "／"} {
			for _, depth := range []int{1, 2, 8} {
				tokens = append(tokens, up(strings.Repeat(dots+slash, depth)+"key"), up("x"+slash+strings.Repeat(dots+slash, depth)+"key"))
			}
		}
	}
	for _, h := range []http.Handler{m.HTTPHandler(nil), m.HTTPHandler(next)} {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		conn := &rawClient{t: t, address: server.Listener.Addr().String()}
		t.Cleanup(conn.close)
		for _, method := range []string{"GET", "HEAD"} {
			for _, token := range tokens {
				for _, target := range []string{path + token, "http://example.com" + path + token} {
					status, body := conn.request(method, target, "example.com")
					switch status {
					case 400, 404, 418, 308:
					default:
						t.Errorf("%s %q: status %d", method, target, status)
					}
					if strings.Contains(body, secret) {
						t.Fatalf("%s %q reads a file", method, target)
					}
				}
			}
		}
		if keys := store.asked(); len(keys) != 0 {
			t.Errorf("the store was asked for %q", keys)
		}
		// A file of the store that has the form of a token is none.
		if status, body := conn.request("GET", path+fileToken, "example.com"); status == 200 || strings.Contains(body, secret) {
			t.Errorf("a file that is called like a token: %d %q", status, body)
		}
		for _, key := range store.asked() {
			if !strings.HasPrefix(key, "http01+") || strings.Contains(key, fileToken) {
				t.Errorf("the store was asked for %q", key)
			}
		}
		// For other hosts it is not even looked for.
		for _, host := range []string{"evil.example", "127.0.0.1", "example.com.evil.example", ""} {
			if status, _ := conn.request("GET", path+strings.Repeat("a", 43), host); status == 200 || status == 308 {
				t.Errorf("host %q: status %d", host, status)
			}
		}
		if keys := store.asked(); len(keys) != 0 {
			t.Errorf("for other hosts the store was asked for %q", keys)
		}
	}
}

// A rawClient sends what no HTTP client would.
type rawClient struct {
	t       *testing.T
	address string
	conn    net.Conn
	in      *bufio.Reader
}

func (c *rawClient) request(method, target, host string) (status int, body string) {
	c.t.Helper()
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		attackStep(c.t, err)
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	attackStep(c.t, c.conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, target, host)
	attackStep(c.t, err)
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	attackStep(c.t, err)
	data, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.Close || err != nil {
		c.close()
	}
	return resp.StatusCode, string(data)
}

func (c *rawClient) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// Names that are not in the list cost nothing: no order, no look at the store, no certificate.
func TestI6_UnknownNames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &watchedStore{Store: tlsauto.NewMemoryStore()}
		ca := newMint(t, 90*day)
		n := start(t, tlsauto.Config{Names: []string{"example.com", "*.wild.example"}, Store: store, Issuers: []tlsauto.Issuer{ca}})
		pass(time.Second)
		orders := len(ca.made())
		store.asked()
		for i := range 1000 {
			for _, name := range []string{
				fmt.Sprintf("n%d.evil.example", i), fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("example.com.%d", i),
				fmt.Sprintf("a.n%d.wild.example", i), fmt.Sprintf("../../key%d", i), strings.Repeat("x", i), fmt.Sprintf("10.0.%d.%d", i/256, i%256),
			} {
				for _, protos := range [][]string{nil, {"acme-tls/1"}, {"h2", "acme-tls/1"}} {
					if name == "" && len(protos) != 1 {
						continue // a client that names no server
					}
					c, err := n.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protos})
					if c != nil || err != nil {
						t.Fatalf("%q %q: %v, %v", name, protos, c, err)
					}
				}
			}
			// These have a certificate, but no challenge, and a wildcard has none of this kind.
			c, _ := n.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("n%d.wild.example", i), SupportedProtos: []string{"acme-tls/1"}})
			if c != nil {
				t.Fatal("a wildcard answers a challenge")
			}
		}
		if keys := store.asked(); len(keys) != 0 {
			t.Errorf("the store was asked for %q ...", keys[:min(len(keys), 5)])
		}
		pass(10 * time.Second)
		if len(ca.made()) != orders {
			t.Errorf("%d orders, want %d", len(ca.made()), orders)
		}
		if s := n.Status(); len(s.Certificates) != 2 || s.HandshakeErrors[tlsauto.UnknownName] < 10_000 || s.HandshakeErrors[tlsauto.UnknownChallenge] < 8000 {
			t.Errorf("status %+v", s)
		}
	})
}

// Whoever makes up names gets no more ordered than OnDemandPerMinute, nor more kept than MaxOnDemand.
func TestI6_OnDemandBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const perMinute, most = 5, 40
		var asked atomic.Int32
		ca := newMint(t, 90*day)
		n := start(t, tlsauto.Config{
			Names: []string{"example.com"}, Issuers: []tlsauto.Issuer{ca},
			OnDemandPerMinute: perMinute, MaxOnDemand: most, WaitFirst: -1,
			OnDemand: func(_ context.Context, name string) error {
				asked.Add(1)
				if strings.HasPrefix(name, "evil") {
					return errors.New("not a customer")
				}
				return nil
			},
		})
		pass(time.Second)
		// No question without need.
		for i := range 1000 {
			_, _ = n.GetCertificate(&tls.ClientHelloInfo{ServerName: "example.com"})
			for _, name := range []string{"", "localhost", fmt.Sprintf("n%d", i), "10.0.0.1", "a..b", "*.example.org"} {
				_, _ = n.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
			}
		}
		pass(time.Second)
		if asked.Load() != 0 {
			t.Errorf("OnDemand was asked %d times", asked.Load())
		}
		for i := range 1000 {
			_, _ = n.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("evil%d.example.org", i)})
			_, _ = n.GetCertificate(&tls.ClientHelloInfo{ServerName: fmt.Sprintf("n%d.example.org", i)})
			if i%4 == 0 {
				pass(time.Millisecond)
			}
		}
		pass(20 * time.Minute)
		if got := n.Status().OnDemand; got != most {
			t.Errorf("%d certificates on demand, want %d", got, most)
		}
		if got := asked.Load(); got > 2000 {
			t.Errorf("OnDemand was asked %d times for 2000 names", got)
		}
		times := ca.times()
		if len(times) != most+1 {
			t.Errorf("%d orders, want %d", len(times), most+1)
		}
		for i := range times {
			if j := i + perMinute; i > 0 && j < len(times) && times[j]-times[i] < time.Minute {
				t.Errorf("%d orders in %v", perMinute+1, times[j]-times[i])
			}
		}
		refused := 0
		for _, kind := range n.kinds() {
			if kind == tlsauto.Refused {
				refused++
			}
		}
		if refused == 0 || refused > 120 {
			t.Errorf("%d events of refusals", refused)
		}
	})
}

// A thousand names at once over the network: the server is not held up by them.
func TestI6_HandshakeFlood(t *testing.T) {
	t.Parallel()
	store := &watchedStore{Store: tlsauto.NewMemoryStore()}
	m, err := tlsauto.New(tlsauto.Config{
		Names: []string{"example.com"}, Store: store, Issuers: []tlsauto.Issuer{newMint(t, day)}, WaitFirst: -1,
	})
	attackStep(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", m.TLSConfig())
	attackStep(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_ = conn.(*tls.Conn).HandshakeContext(t.Context())
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })

	var clients sync.WaitGroup
	for c := range 8 {
		clients.Go(func() {
			for i := range 125 {
				config := &tls.Config{ServerName: fmt.Sprintf("n%d-%d.evil.example", c, i), InsecureSkipVerify: true}
				if i%2 == 0 {
					config.NextProtos = []string{"acme-tls/1"}
				}
				conn, err := tls.Dial("tcp", listener.Addr().String(), config)
				if err == nil {
					conn.Close()
					t.Error("a handshake for an unknown name succeeds")
				} else if !strings.Contains(err.Error(), "unrecognized name") {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	if keys := store.asked(); len(keys) != 0 {
		t.Errorf("the store was asked for %q", keys)
	}
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{ServerName: "example.com", InsecureSkipVerify: true})
	attackStep(t, err)
	conn.Close()
}

// attackStep ends a test that cannot go on.
func attackStep(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
