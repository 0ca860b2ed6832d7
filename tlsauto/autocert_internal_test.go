package tlsauto

import (
	"context"
	"errors"
	"testing"

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
