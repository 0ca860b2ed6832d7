package realtime

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEngine_ClientGone(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, e engine, http2 bool) {
		returned := make(chan error, 1)
		s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
			returned <- e.serve(w, r, options, func(ctx context.Context, send sendFunc) error {
				if err := send([]frame{{comment: "ping"}}); err != nil {
					return err
				}
				<-ctx.Done()
				if err := send(numbered(0, 1)); err == nil {
					t.Error("a frame was sent to nobody")
				}
				return errors.New("not the cause")
			})
		})
		ctx, cancel := context.WithCancel(t.Context())
		readPing(t, request(t, ctx, s.Client(), http.MethodGet, s.URL).body)
		cancel()
		if err := <-returned; !errors.Is(err, context.Canceled) {
			t.Errorf("serve returned %v", err)
		}
	})
}

// A middleware's writer needs to have Unwrap and no more, but has to have it.
func TestEngine_Middleware(t *testing.T) {
	t.Parallel()
	type unwrapper interface {
		http.ResponseWriter
		Unwrap() http.ResponseWriter
	}
	tests := map[string]struct {
		wrap   func(w http.ResponseWriter) http.ResponseWriter
		status int
	}{
		"Unwrap":       {func(w http.ResponseWriter) http.ResponseWriter { return struct{ unwrapper }{unwrapping{w}} }, 200},
		"nothing":      {func(w http.ResponseWriter) http.ResponseWriter { return struct{ http.ResponseWriter }{w} }, 500},
		"no deadlines": {func(w http.ResponseWriter) http.ResponseWriter { return flushing{w, w.(http.Flusher)} }, 500},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, e engine, http2 bool) {
				returned := make(chan error, 1)
				s := serveEngine(t, http2, func(w http.ResponseWriter, r *http.Request) {
					returned <- e.serve(test.wrap(w), r, options, func(ctx context.Context, send sendFunc) error {
						return send(numbered(0, 10))
					})
				})
				resp := subscribe(t, s)
				body, err := resp.read(), <-returned
				if resp.status != test.status {
					t.Errorf("status %d, want %d", resp.status, test.status)
				}
				if test.status == 200 {
					if err != nil || body != framed(numbered(0, 10), false) {
						t.Errorf("body %s, error %v", body, err)
					}
				} else if !errors.Is(err, http.ErrNotSupported) || strings.Contains(body, "data:") || strings.Contains(resp.header.Get("Content-Type"), "event") {
					t.Errorf("body %s, header %v, error %v", body, resp.header, err)
				}
			})
		})
	}
}

type unwrapping struct{ http.ResponseWriter }

func (w unwrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type flushing struct {
	http.ResponseWriter
	http.Flusher
}

// An event that a client wants in one piece is one write to the connection,
// and many events are few.
func TestEngine_Writes(t *testing.T) {
	t.Parallel()
	for name, kind := range engineKinds {
		t.Run(name, func(t *testing.T) {
			e := newEngineOf(kind)
			const n = 2000
			l := &countingListener{}
			s := serveEngine(t, false, func(w http.ResponseWriter, r *http.Request) {
				o := options
				o.idLast = true
				err := e.serve(w, r, o, func(ctx context.Context, send sendFunc) error { return send(numbered(0, n)) })
				if err != nil {
					t.Errorf("serve returned %v", err)
				}
			}, func(s *httptest.Server) { l.Listener, s.Listener = s.Listener, l })

			body := subscribe(t, s).read()
			if body != framed(numbered(0, n), true) {
				t.Fatalf("not what was sent: %s", body)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if most := len(body)/maxWriteIDLast + 5; len(l.writes) > most {
				t.Errorf("%d writes for %d bytes, want %d", len(l.writes), len(body), most)
			}
			for _, w := range l.writes {
				if !strings.HasSuffix(w, "\n\n\r\n") && !strings.HasSuffix(w, "\r\n\r\n") {
					t.Errorf("a write ends in %q", w[max(0, len(w)-20):])
				}
			}
		})
	}
}

// A countingListener keeps what is written to its connections.
type countingListener struct {
	net.Listener
	mu     sync.Mutex
	writes []string
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l}, err
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (c countingConn) Write(p []byte) (int, error) {
	c.l.mu.Lock()
	c.l.writes = append(c.l.writes, string(p))
	c.l.mu.Unlock()
	return c.Conn.Write(p)
}

// A client whose connection takes nothing at all, with windows as large as
// HTTP/2 has them, is cut when the server's write timeout for connections is
// set: a deadline of a stream does not end a write of the connection.
func TestEngine_StuckConnection(t *testing.T) {
	t.Parallel()
	for name, kind := range engineKinds {
		t.Run(name, func(t *testing.T) {
			e := newEngineOf(kind)
			returned := make(chan error, 1)
			s := serveEngine(t, true, func(w http.ResponseWriter, r *http.Request) {
				o := streamOptions{writeTimeout: 100 * time.Millisecond}
				returned <- e.serve(w, r, o, func(ctx context.Context, send sendFunc) error {
					for {
						if err := send([]frame{{data: bytes.Repeat([]byte("x"), 60<<10)}}); err != nil {
							return err
						}
					}
				})
			}, func(s *httptest.Server) {
				s.Config.HTTP2 = &http.HTTP2Config{WriteByteTimeout: 200 * time.Millisecond}
			})

			conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// RFC 9113: preface, SETTINGS with INITIAL_WINDOW_SIZE 2^31-1,
			// WINDOW_UPDATE of the connection, HEADERS of a GET of "/".
			host := "localhost"
			headers := append([]byte{0x82, 0x87, 0x84, 0x41, byte(len(host))}, host...)
			hello := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
				"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + "\x00\x04\x7f\xff\xff\xff" +
				"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + "\x7f\xff\x00\x00" +
				"\x00\x00" + string(rune(len(headers))) + "\x01\x05\x00\x00\x00\x01" + string(headers)
			if _, err := io.WriteString(conn, hello); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-returned:
				if err == nil {
					t.Error("serve returned nil")
				}
			case <-time.After(2 * time.Minute):
				t.Error("the stream is still there")
			}
		})
	}
}
