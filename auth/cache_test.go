package auth

import (
	"encoding/binary"
	"sync"
	"testing"
)

func cacheHash(n int) (hash [32]byte) {
	binary.BigEndian.PutUint64(hash[:], uint64(n))
	return hash
}

func TestTokenCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newTokenCache(1000)
	kept, dead := cacheHash(1), cacheHash(2)
	c.put(kept, &cachedToken{})
	c.put(dead, &cachedToken{})
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				c.put(cacheHash(1000+i*4+worker), &cachedToken{})
				if i%100 == 0 {
					if _, ok := c.get(kept); !ok {
						t.Error("a token that is asked for is forgotten")
						return
					}
				}
			}
		})
	}
	wg.Wait()
	c.mu.RLock()
	if n := len(c.young) + len(c.old); n > 1000 {
		t.Errorf("%d tokens, want at most 1000", n)
	}
	c.mu.RUnlock()
	if _, ok := c.get(dead); ok {
		t.Error("a token that nobody asks for is kept")
	}
	c.remove(kept)
	if _, ok := c.get(kept); ok {
		t.Error("removed, and still there")
	}
}

func TestAttemptsAreForgotten(t *testing.T) {
	t.Parallel()
	a := newAttempts()
	for i := range 3 {
		if got := a.enter("x", 2); got != (i < 2) {
			t.Errorf("entry %d: %v", i, got)
		}
	}
	a.leave("x")
	a.leave("x")
	if len(a.running) != 0 {
		t.Errorf("left over: %v", a.running)
	}
}
