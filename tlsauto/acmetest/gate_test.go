package acmetest

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Where Pebble has what.
const (
	directoryPath     = "/dir"
	orderPath         = "/order-plz"
	challengePath     = "/chalZ/"
	authorizationPath = "/authZ/"
	certificatePath   = "/certZ/"
	accountPath       = "/my-account/"
	advicePath        = "/draft-ietf-acme-ari-03/renewalInfo/"
)

// whoHeader is in requests of instances of a server, and says which it is.
const whoHeader = "X-Who"

// A gate stands before an authority, counts what comes, and can behave as if there were trouble.
type gate struct {
	ca   http.Handler
	stop chan struct{} // closed at the end

	one sync.Mutex // Pebble's locks can stand in each other's way: it gets one request at a time

	behaviour atomic.Pointer[http.Handler]

	mu       sync.Mutex
	requests int
	reached  map[string]int // requests that came to the authority, by path; those with an ID up to that
	ordered  string         // who has ordered last
	problems []string       // what the authority has refused
}

// A behaviour is put before an authority. What waits in it has to end when stop is closed.
type behaviour func(ca http.Handler, stop <-chan struct{}) http.Handler

func newGate(ca http.Handler) *gate {
	g := &gate{stop: make(chan struct{}), reached: map[string]int{}}
	g.ca = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.reach(r)
		watched := &watchedAnswer{ResponseWriter: w}
		defer g.note(r, watched)
		g.one.Lock()
		defer g.one.Unlock()
		ca.ServeHTTP(watched, r)
	})
	g.set(up)
	return g
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests++
	g.mu.Unlock()
	(*g.behaviour.Load()).ServeHTTP(w, r)
}

func (g *gate) reach(r *http.Request) {
	path := r.URL.Path
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		path = path[:i+1]
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reached[path]++
	if path == orderPath {
		g.ordered = r.Header.Get(whoHeader)
	}
}

// note remembers answers that refuse something.
func (g *gate) note(r *http.Request, answer *watchedAnswer) {
	if answer.code < 400 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problems = append(g.problems, fmt.Sprintf("%s %s %s: %d %s", time.Now().Format("05.000"), r.Method, r.URL.Path, answer.code, answer.problem))
}

// A watchedAnswer keeps the status, and the text of an error.
type watchedAnswer struct {
	http.ResponseWriter
	code    int
	problem []byte
}

func (a *watchedAnswer) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

func (a *watchedAnswer) Write(b []byte) (int, error) {
	if a.code >= 400 {
		a.problem = append(a.problem, b...)
	}
	return a.ResponseWriter.Write(b)
}

// set makes the authority behave so from the next request on.
func (g *gate) set(b behaviour) {
	h := b(g.ca, g.stop)
	g.behaviour.Store(&h)
}

func (g *gate) close() { close(g.stop) }

// asked is how many requests came, also those that did not get through.
func (g *gate) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests
}

// orders is how many orders the authority got.
func (g *gate) orders() int { return g.got(orderPath) }

// got is how many requests came through to a path.
func (g *gate) got(path string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reached[path]
}

func (g *gate) lastOrderer() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ordered
}

// up is an authority without trouble.
func up(ca http.Handler, _ <-chan struct{}) http.Handler { return ca }

// unavailable answers 503.
func unavailable(http.Handler, <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
	})
}

// tooMany answers 429 and says how long to stay away.
func tooMany(wait time.Duration) behaviour {
	return func(http.Handler, <-chan struct{}) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)))
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many requests"}`)
		})
	}
}

// reset breaks connections.
func reset(http.Handler, <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // of a *tls.Conn
			conn = c.NetConn()
		}
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
		conn.Close()
	})
}

// lost breaks connections of one instance only.
func lost(who string) behaviour {
	return func(ca http.Handler, stop <-chan struct{}) http.Handler {
		broken := reset(ca, stop)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(whoHeader) == who {
				broken.ServeHTTP(w, r)
			} else {
				ca.ServeHTTP(w, r)
			}
		})
	}
}

// hang takes requests and never answers.
func hang(_ http.Handler, stop <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client leaves
		select {
		case <-r.Context().Done():
		case <-stop:
		}
		panic(http.ErrAbortHandler)
	})
}

// slow answers after a time.
func slow(pause time.Duration) behaviour {
	return func(ca http.Handler, stop <-chan struct{}) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			timer := time.NewTimer(pause)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-stop:
			}
			ca.ServeHTTP(w, r)
		})
	}
}

// hangFirst never answers the first request to a path.
func hangFirst(path string) behaviour {
	return func(ca http.Handler, stop <-chan struct{}) http.Handler {
		var first sync.Once
		hanging := hang(ca, stop)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := ca
			if r.URL.Path == path {
				first.Do(func() { answer = hanging })
			}
			answer.ServeHTTP(w, r)
		})
	}
}

// together holds requests to a path until there are two of them, but not for long.
func together(path string, atMost time.Duration) behaviour {
	return func(ca http.Handler, stop <-chan struct{}) http.Handler {
		meet := make(chan struct{})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, path) {
				timer := time.NewTimer(atMost)
				defer timer.Stop()
				select {
				case meet <- struct{}{}:
				case <-meet:
				case <-timer.C:
				case <-stop:
				}
			}
			ca.ServeHTTP(w, r)
		})
	}
}

// refuseNonces refuses each nth nonce, as authorities may at any time (RFC 8555, section 6.5).
func refuseNonces(n int64) behaviour {
	return func(ca http.Handler, _ <-chan struct{}) http.Handler {
		var posts atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && posts.Add(1)%n == 0 {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:badNonce","detail":"stale nonce"}`)
				return
			}
			ca.ServeHTTP(w, r)
		})
	}
}

// leafOnly leaves the intermediate certificate out of what is issued.
func leafOnly(ca http.Handler, _ <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, certificatePath) {
			ca.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		ca.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		if leaf, _ := pem.Decode(answer.Body.Bytes()); leaf != nil {
			_ = pem.Encode(w, leaf)
		}
	})
}
