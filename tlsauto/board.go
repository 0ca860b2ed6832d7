package tlsauto

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"
)

// storeTimeout is how long a handshake, or a request, may wait for the store, which both do for the
// challenges of other processes alone.
const storeTimeout = 2 * time.Second

// A board has the answers to challenges, of this process in memory and of all of them in the store. It
// is the Challenges of orders.
type board struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
}

func newBoard(store Store, now func() time.Time, log *slog.Logger) *board {
	return &board{store, now, log}
}

// certificate returns the answer to TLS-ALPN-01 for the name in a handshake, or why there is none.
func (b *board) certificate(ctx context.Context, name string) (*tls.Certificate, HandshakeError) {
	return nil, UnknownChallenge
}
