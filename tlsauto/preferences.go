package tlsauto

import (
	"slices"
	"strings"
	"sync"
)

// maxPreferences is for how many certificates it is remembered which challenge to begin with.
const maxPreferences = 10_000

// preferences remember in which order the kinds of challenges are best tried for the names of a
// certificate, where that is not the standard one. The zero value is ready for use.
type preferences struct {
	mu     sync.Mutex
	orders map[string][]string // by the names
}

// of returns the order for some names.
func (p *preferences) of(names, standard []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if order, ok := p.orders[strings.Join(names, " ")]; ok {
		return order
	}
	return standard
}

// set remembers an order, and forgets any other when there are too many: that costs a failure at most.
func (p *preferences) set(names, order, standard []string) {
	key := strings.Join(names, " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(order, standard) {
		delete(p.orders, key)
		return
	}
	if p.orders == nil {
		p.orders = map[string][]string{}
	}
	if _, ok := p.orders[key]; !ok && len(p.orders) >= maxPreferences {
		for other := range p.orders {
			delete(p.orders, other)
			break
		}
	}
	p.orders[key] = order
}
