package password

import (
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	bcryptLength   = 60
	bcryptMaxBytes = 72 // of a password; the algorithm ignores the rest
	bcryptMaxCost  = 16 // some seconds; each more doubles it
	bcryptCostly   = 13
)

// A bcryptHash is a hash of an imported user, as it is stored.
type bcryptHash struct {
	encoded string
	cost    int
}

// parseBcrypt reads hashes of the revisions 2a, 2b and 2y. These differ by bugs of old
// implementations, none of which concerns valid UTF-8 of up to 72 bytes. 2x is such a bug.
func parseBcrypt(s string) (storedHash, bool) {
	if len(s) != bcryptLength {
		return nil, false
	}
	switch s[:4] {
	case "$2a$", "$2b$", "$2y$":
	default:
		return nil, false
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil || cost > bcryptMaxCost {
		return nil, false
	}
	if s[6] != '$' || strings.Trim(s[7:], bcryptAlphabet) != "" {
		return nil, false
	}
	return bcryptHash{s, cost}, true
}

const bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (h bcryptHash) matches(password string) bool {
	whole := len(password) <= bcryptMaxBytes
	password = password[:min(len(password), bcryptMaxBytes)]
	return bcrypt.CompareHashAndPassword([]byte(h.encoded), []byte(password)) == nil && whole
}

func (bcryptHash) weakerThan(Params) bool { return true }

func (h bcryptHash) costlyFor(Params) bool { return h.cost >= bcryptCostly }
