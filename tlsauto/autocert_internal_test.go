package tlsauto

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// autocert's timer, which fires for the first time when the certificate is about to expire, must end
// there. It would go on for ever otherwise, and keep a Manager in memory for each certificate ever.
func TestTokenCacheEndsTheTimer(t *testing.T) {
	t.Parallel()
	c := &tokenCache{ctx: t.Context(), remove: map[string]func(){}}
	if _, err := c.Get(t.Context(), "www.example.com"); !errors.Is(err, autocert.ErrCacheMiss) {
		t.Fatal(err)
	}
	c.close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := c.Get(context.Background(), "www.example.com")
		t.Errorf("Get has returned: %v", err)
	}()
	<-ended
	if err := c.Put(t.Context(), "www.example.com+token", nil); !errors.Is(err, errCut) {
		t.Error(err)
	}
}

// autocert removes answers without waiting for that. When an order is over, all of them are removed.
func TestTokenCacheWaitsForRemovals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		removed := false
		c := &tokenCache{ctx: t.Context(), remove: map[string]func(){
			"www.example.com+token": func() { time.Sleep(time.Second); removed = true },
		}}
		go func() { _ = c.Delete(context.Background(), "www.example.com+token") }()
		synctest.Wait()
		c.close()
		if !removed {
			t.Error("an answer is still being removed")
		}
	})
}
