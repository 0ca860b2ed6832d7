package realtime

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// A browser's EventSource cannot send an Authorization header. So a client
// gets a ticket for its next request: a random text that stands in the query
// and is worth nothing when it is found in a log.
const (
	ticketLife = 30 * time.Second
	maxTickets = 10_000
	maxOfUser  = 100
)

type tickets struct {
	now func() time.Time

	mu     sync.Mutex // guards what follows
	byHash map[[32]byte]ticket
	users  map[string]int // how many of these each user has
}

type ticket struct {
	values  context.Context // of the request that has got it
	user    string
	expires time.Time
}

func newTickets(now func() time.Time) *tickets {
	return &tickets{now: now, byHash: map[[32]byte]ticket{}, users: map[string]int{}}
}

// issue returns a ticket for a request with the values of ctx; ok is false when
// there are too many.
func (t *tickets) issue(ctx context.Context, user string) (text string, ok bool) {
	text = rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byHash) >= maxTickets || t.users[user] >= maxOfUser {
		return "", false
	}
	t.byHash[sha256.Sum256([]byte(text))] = ticket{context.WithoutCancel(ctx), user, t.now().Add(ticketLife)}
	t.users[user]++
	return text, true
}

// use returns the values of the request that has got the ticket, once.
func (t *tickets) use(text string) (values context.Context, ok bool) {
	hash := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.byHash[hash]
	if !ok {
		return nil, false
	}
	t.forget(hash, found)
	return found.values, t.now().Before(found.expires)
}

func (t *tickets) forget(hash [32]byte, of ticket) {
	delete(t.byHash, hash)
	if t.users[of.user]--; t.users[of.user] == 0 {
		delete(t.users, of.user)
	}
}

// sweep forgets expired tickets.
func (t *tickets) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for hash, found := range t.byHash {
		if !now.Before(found.expires) {
			t.forget(hash, found)
		}
	}
}

// ticketContext has the values of a ticket and the end of the request that
// shows it.
type ticketContext struct {
	context.Context
	values context.Context
}

func (c ticketContext) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
