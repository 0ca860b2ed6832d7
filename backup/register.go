package backup

import (
	"slices"
	"sync"
)

// The schemes that are linked in. It is filled while packages are initialized, as drivers of
// database/sql are.
var linked struct {
	mu      sync.Mutex
	schemes []string
}

// Register makes a URL scheme known. It is called by the packages that bring the clients, such as
// backup/s3.
func Register(scheme string) {
	linked.mu.Lock()
	defer linked.mu.Unlock()
	if !slices.Contains(linked.schemes, scheme) {
		linked.schemes = append(linked.schemes, scheme)
	}
}

// Schemes returns the URL schemes that are linked in, in alphabetical order.
func Schemes() []string {
	linked.mu.Lock()
	defer linked.mu.Unlock()
	return slices.Sorted(slices.Values(linked.schemes))
}
