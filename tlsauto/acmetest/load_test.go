package acmetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// A load is many clients that make full handshakes, one after the other, each on a new connection, and
// verify what they get.
type load struct {
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu  sync.Mutex
	sum loadResult
}

// loadResult is what became of the handshakes.
type loadResult struct {
	OK, Failed int
	Slowest    time.Duration
	Serials    []string // of the certificates that were seen, in the order in which they came
	Keys       int      // how many different keys they had
	Errors     []string // the first ones

	keys map[string]bool
}

func (r *loadResult) String() string {
	return fmt.Sprintf("%d handshakes, %d failed, slowest %v, %d certificates, %d keys %s",
		r.OK+r.Failed, r.Failed, r.Slowest.Round(time.Millisecond), len(r.Serials), r.Keys, r.Errors)
}

// pause is how often a client comes, so that several loads share two processors.
const pause = slowness * 50 * time.Millisecond

// startLoad starts n clients, and waits until they have seen what is served then. Each second handshake is followed
// by an HTTP request.
func startLoad(t *testing.T, n int, c client) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, sum: loadResult{keys: map[string]bool{}}}
	for i := range n {
		l.work.Go(func() {
			ticker := time.NewTicker(pause)
			defer ticker.Stop()
			for round := i; ctx.Err() == nil; round++ {
				l.once(c, round%2 == 0)
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	if !becomes(patience, func() bool { return l.handshakes() > 0 }) {
		t.Fatal("no handshake comes to its end")
	}
	return l
}

// once does not end with the load: a handshake that has begun is to succeed.
func (l *load) once(c client, request bool) {
	visit := c.connect
	if request {
		visit = c.get
	}
	begin := time.Now()
	leaf, err := visit(context.Background())
	took := time.Since(begin)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Slowest = max(l.sum.Slowest, took)
	if err != nil {
		l.sum.Failed++
		if len(l.sum.Errors) < 5 {
			l.sum.Errors = append(l.sum.Errors, fmt.Sprintf("%s: %v", begin.Format("05.000"), err))
		}
		return
	}
	l.sum.OK++
	if serial := leaf.SerialNumber.Text(16); !slices.Contains(l.sum.Serials, serial) {
		l.sum.Serials = append(l.sum.Serials, serial)
		l.sum.keys[string(leaf.RawSubjectPublicKeyInfo)] = true
		l.sum.Keys = len(l.sum.keys)
	}
}

func (l *load) handshakes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum.OK + l.sum.Failed
}

// certificates is how many different ones were seen up to now.
func (l *load) certificates() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sum.Serials)
}

// stop waits for the clients and returns what became of their handshakes.
func (l *load) stop() *loadResult {
	l.cancel()
	l.work.Wait()
	return &l.sum
}
