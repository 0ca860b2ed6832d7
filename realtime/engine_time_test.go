package realtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"
)

// eachEngineInBubble runs test for both engines and both protocols, in time
// that passes only when there is nothing else to do. Connections are pipes
// without a buffer: nothing is written that is not read.
func eachEngineInBubble(t *testing.T, test func(t *testing.T, e engine, n *pipeNet)) {
	for name, kind := range engineKinds {
		for _, proto := range []string{"HTTP1", "HTTP2"} {
			t.Run(name+"/"+proto, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					test(t, newEngineOf(kind), newPipeNet(proto == "HTTP2"))
				})
			})
		}
	}
}

// A pipeNet connects the clients and the server of a bubble.
type pipeNet struct {
	protocols http.Protocols
	conns     chan net.Conn
	closed    chan struct{}
}

func newPipeNet(http2 bool) *pipeNet {
	n := &pipeNet{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.protocols.SetHTTP1(!http2)
	n.protocols.SetUnencryptedHTTP2(http2)
	return n
}

func (n *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *pipeNet) Close() error   { close(n.closed); return nil }
func (n *pipeNet) Addr() net.Addr { return &net.TCPAddr{} }

// start serves h and returns a client, until the end of the test.
func (n *pipeNet) start(t *testing.T, s *http.Server, h http.HandlerFunc) *http.Client {
	s.Handler = h
	s.Protocols = &n.protocols
	served := make(chan error)
	go func() { served <- s.Serve(n) }()
	transport := &http.Transport{
		Protocols: &n.protocols,
		// As small as can be.
		HTTP2:          &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 16, MaxReceiveBufferPerConnection: 1 << 16},
		ReadBufferSize: 1 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			client, server := net.Pipe()
			n.conns <- server
			return client, nil
		},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return &http.Client{Transport: transport}
}

func get(t *testing.T, ctx context.Context, c *http.Client) response {
	t.Helper()
	return request(t, ctx, c, http.MethodGet, "http://localhost/")
}

var endless = []frame{{data: bytes.Repeat([]byte("x"), 30<<10)}}

func TestEngine_WriteTimeout(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		returned := make(chan error)
		sent := 0
		start := time.Now()
		c := n.start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
			returned <- e.serve(w, r, streamOptions{writeTimeout: 10 * time.Second}, func(ctx context.Context, send sendFunc) error {
				for {
					if err := send(endless); err != nil {
						if err != context.Cause(ctx) {
							t.Errorf("send: %v, cause: %v", err, context.Cause(ctx))
						}
						return err
					}
					sent++
				}
			})
		})
		get(t, t.Context(), c)
		if err := <-returned; err != errStuck {
			t.Errorf("serve returned %v", err)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("cut after %v", d)
		}
		// 64 KiB between pump and connection, and 64 KiB on the way.
		if sent > 5 {
			t.Errorf("%d frames were taken", sent)
		}
	})
}

// Silence is none of the client's doing, and the server's deadlines are not
// for streams.
func TestEngine_Idle(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		s := &http.Server{WriteTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second}
		returned := make(chan error, 1)
		c := n.start(t, s, func(w http.ResponseWriter, r *http.Request) {
			returned <- e.serve(w, r, streamOptions{writeTimeout: 10 * time.Second}, func(ctx context.Context, send sendFunc) error {
				for i := range 4 {
					if err := send(numbered(i, i+1)); err != nil {
						return err
					}
					time.Sleep(time.Hour)
				}
				return nil
			})
		})
		if body := get(t, t.Context(), c).read(); body != framed(numbered(0, 4), false) {
			t.Errorf("body %s", body)
		}
		if err := <-returned; err != nil {
			t.Errorf("serve returned %v", err)
		}
	})
}

// An event that takes a slow client longer than the timeout arrives: nobody
// could ever get past it otherwise.
func TestEngine_SlowReader(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		frames := []frame{{data: bytes.Repeat([]byte("y"), 1<<20)}}
		frames = append(frames, numbered(0, 5000)...)
		returned := make(chan error, 1)
		c := n.start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
			returned <- e.serve(w, r, streamOptions{writeTimeout: 10 * time.Second}, func(ctx context.Context, send sendFunc) error {
				return send(frames)
			})
		})
		resp := get(t, t.Context(), c)
		var body bytes.Buffer
		var err error
		for err == nil {
			time.Sleep(4 * time.Second)
			_, err = io.CopyN(&body, resp.body, 32<<10)
		}
		if err != io.EOF || body.String() != framed(frames, false) {
			t.Errorf("%d bytes are not what was sent; error %v", body.Len(), err)
		}
		if err := <-returned; err != nil {
			t.Errorf("serve returned %v", err)
		}
	})
}

// The end of the request's context ends a blocked write there and then, with
// the cause.
func TestEngine_CancelBlockedWrite(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		signedOut := errors.New("signed out")
		returned := make(chan error)
		cancels := make(chan context.CancelCauseFunc, 1)
		c := n.start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancelCause(r.Context())
			cancels <- cancel
			returned <- e.serve(w, r.WithContext(ctx), streamOptions{writeTimeout: time.Minute}, func(ctx context.Context, send sendFunc) error {
				for {
					if err := send(endless); err != nil {
						return err
					}
				}
			})
		})
		get(t, t.Context(), c)
		synctest.Wait() // until the write is blocked
		start := time.Now()
		(<-cancels)(signedOut)
		if err := <-returned; err != signedOut {
			t.Errorf("serve returned %v", err)
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("returned after %v", d)
		}
	})
}

// A stream that is cancelled while nothing is written ends like one that ends
// by itself.
func TestEngine_CancelIdle(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		closing := errors.New("closing")
		returned := make(chan error, 1)
		c := n.start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancelCause(r.Context())
			time.AfterFunc(time.Hour, func() { cancel(closing) })
			returned <- e.serve(w, r.WithContext(ctx), streamOptions{writeTimeout: time.Second}, func(ctx context.Context, send sendFunc) error {
				if err := send(numbered(0, 2)); err != nil {
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			})
		})
		if body := get(t, t.Context(), c).read(); body != framed(numbered(0, 2), false) {
			t.Errorf("body %s", body)
		}
		if err := <-returned; err != closing {
			t.Errorf("serve returned %v", err)
		}
	})
}

// What is left of a stream's deadlines does not hit the next response of the
// connection.
func TestEngine_KeptAlive(t *testing.T) {
	t.Parallel()
	eachEngineInBubble(t, func(t *testing.T, e engine, n *pipeNet) {
		requests := 0
		c := n.start(t, &http.Server{}, func(w http.ResponseWriter, r *http.Request) {
			requests++
			if requests%2 == 0 {
				time.Sleep(time.Minute)
				if _, err := io.WriteString(w, "late"); err != nil {
					t.Error(err)
				}
				return
			}
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			err := e.serve(w, r.WithContext(ctx), streamOptions{writeTimeout: time.Second}, func(ctx context.Context, send sendFunc) error {
				if requests == 3 {
					cancel()
				}
				return send(numbered(0, 1))
			})
			if cut := requests == 3; cut != (err != nil) {
				t.Errorf("request %d: serve returned %v", requests, err)
			}
		})
		reused := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused {
				reused++
			}
		}})
		for i, want := range []string{framed(numbered(0, 1), false), "late", "", "late"} {
			if body := get(t, ctx, c).read(); body != want {
				t.Errorf("response %d: %s", i, body)
			}
		}
		if reused != 3 {
			t.Errorf("%d connections were used again, want 3", reused)
		}
	})
}

// The head and the last bytes of a response need a deadline like all others,
// although it is the server that writes the last ones. HTTP/2 has no such
// writes: they go to a buffer.
func TestEngine_StuckEnds(t *testing.T) {
	t.Parallel()
	const timeout = 10 * time.Second
	tests := map[string]struct {
		readHead bool
		closed   time.Duration
	}{
		"head": {false, timeout},
		"last": {true, time.Hour + timeout},
	}
	for engineName, kind := range engineKinds {
		for name, test := range tests {
			t.Run(engineName+"/"+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					e := newEngineOf(kind)
					n := newPipeNet(false)
					closed := make(chan time.Time, 1)
					s := &http.Server{ConnState: func(_ net.Conn, state http.ConnState) {
						if state == http.StateClosed {
							closed <- time.Now()
						}
					}}
					n.start(t, s, func(w http.ResponseWriter, r *http.Request) {
						err := e.serve(w, r, streamOptions{writeTimeout: timeout}, func(ctx context.Context, send sendFunc) error {
							select {
							case <-ctx.Done():
								return ctx.Err()
							case <-time.After(time.Hour):
								return nil
							}
						})
						if test.readHead && err != nil || !test.readHead && err != errStuck {
							t.Errorf("serve returned %v", err)
						}
					})

					client, server := net.Pipe()
					defer client.Close()
					n.conns <- server
					if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					for r := bufio.NewReaderSize(client, 16); test.readHead; {
						line, err := r.ReadString('\n')
						if err != nil {
							t.Fatal(err)
						}
						if line == "\r\n" {
							break
						}
					}
					if d := (<-closed).Sub(start); d != test.closed {
						t.Errorf("closed after %v, want %v", d, test.closed)
					}
				})
			})
		}
	}
}
