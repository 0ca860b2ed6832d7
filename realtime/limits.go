package realtime

import (
	"net/netip"
	"sync"
)

// limiter counts streams.
type limiter struct {
	most, perUser, perAddress int

	mu        sync.Mutex // guards what follows
	n         int
	users     map[string]int
	addresses map[netip.Prefix]int
}

func newLimiter(c Config) *limiter {
	return &limiter{
		most: c.MaxStreams, perUser: c.MaxPerUser, perAddress: c.MaxPerAddress,
		users: map[string]int{}, addresses: map[netip.Prefix]int{},
	}
}

// acquire counts a stream; release undoes it. user "" is anonymous.
func (l *limiter) acquire(user string, address netip.Prefix) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n >= l.most || user != "" && l.users[user] >= l.perUser || l.addresses[address] >= l.perAddress {
		return nil, false
	}
	l.n++
	l.addresses[address]++
	if user != "" {
		l.users[user]++
	}
	return func() { l.release(user, address) }, true
}

func (l *limiter) release(user string, address netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.addresses[address]--; l.addresses[address] == 0 {
		delete(l.addresses, address)
	}
	if user == "" {
		return
	}
	if l.users[user]--; l.users[user] == 0 {
		delete(l.users, user)
	}
}
