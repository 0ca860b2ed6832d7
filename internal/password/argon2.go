package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Bounds of the parameters, whether configured or read from a stored hash. Without them one
// imported hash could take all memory or hours.
const (
	maxMemory = 1 << 20 // KiB
	maxTime   = 16
)

const (
	argon2Prefix = "$argon2id$"
	saltBytes    = 16
	keyBytes     = 32
	maxEncoded   = 512
)

// Params are the cost parameters of Argon2id (RFC 9106 section 3.1). Zero fields stand for the
// first choice of the OWASP Password Storage Cheat Sheet.
type Params struct {
	Memory  uint32 // in KiB, at least 8 for each lane, at most 1 GiB; 0: 19456
	Time    uint32 // passes over the memory, at most 16; 0: 2
	Threads uint8  // lanes; 0: 1
}

func (p Params) withDefaults() Params {
	if p.Memory == 0 {
		p.Memory = 19456
	}
	if p.Time == 0 {
		p.Time = 2
	}
	if p.Threads == 0 {
		p.Threads = 1
	}
	return p
}

func (p Params) check() error {
	var errs []error
	if p.Memory < 8*uint32(p.Threads) || p.Memory > maxMemory {
		errs = append(errs, fmt.Errorf("memory of %d KiB is not between 8 for each of the %d lanes and %d", p.Memory, p.Threads, maxMemory))
	}
	if p.Time < 1 || p.Time > maxTime {
		errs = append(errs, fmt.Errorf("time of %d passes is not between 1 and %d", p.Time, maxTime))
	}
	if p.Threads < 1 {
		errs = append(errs, errors.New("there must be a lane"))
	}
	return errors.Join(errs...)
}

// work is the memory written by all passes, in KiB.
func (p Params) work() uint64 { return uint64(p.Memory) * uint64(p.Time) }

type argon2Hash struct {
	params    Params
	salt, key []byte
}

func newArgon2Hash(p Params, password string) argon2Hash {
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	return argon2Hash{p, salt, deriveKey(p, salt, keyBytes, password)}
}

// newDummy returns a hash of nothing that takes as long to compare as one made with p.
func newDummy(p Params) argon2Hash {
	d := argon2Hash{p, make([]byte, saltBytes), make([]byte, keyBytes)}
	rand.Read(d.salt)
	rand.Read(d.key)
	return d
}

func (h argon2Hash) matches(password string) bool {
	key := deriveKey(h.params, h.salt, len(h.key), password)
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

func (h argon2Hash) weakerThan(p Params) bool { return h.params.work() < p.work() }

func (h argon2Hash) costlyFor(p Params) bool {
	const memory, work = 64 << 10, 256 << 10 // KiB
	return h.params.Memory > max(memory, p.Memory) || h.params.work() > max(work, p.work())
}

// String returns the PHC string.
func (h argon2Hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("%sv=%d$m=%d,t=%d,p=%d$%s$%s", argon2Prefix, argon2.Version,
		h.params.Memory, h.params.Time, h.params.Threads, b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

// parseArgon2 reads what [argon2Hash.String] writes, with any parameters within the bounds, a salt
// of 8 to 64 bytes and a key of 16 to 64: one much shorter would match by chance.
func parseArgon2(s string) (storedHash, bool) {
	if len(s) > maxEncoded {
		return nil, false
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, false
	}
	params, ok := parseParams(parts[3])
	if !ok || params.check() != nil {
		return nil, false
	}
	salt, err := base64.RawStdEncoding.Strict().DecodeString(parts[4])
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return nil, false
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || len(key) < 16 || len(key) > 64 {
		return nil, false
	}
	return argon2Hash{params, salt, key}, true
}

// parseParams reads m=19456,t=2,p=1, in this order as the PHC string format demands.
func parseParams(s string) (Params, bool) {
	var values [3]uint64
	fields := strings.Split(s, ",")
	if len(fields) != len(values) {
		return Params{}, false
	}
	for i, name := range []string{"m=", "t=", "p="} {
		digits, found := strings.CutPrefix(fields[i], name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !found || err != nil {
			return Params{}, false
		}
		values[i] = n
	}
	if values[2] > 255 {
		return Params{}, false
	}
	return Params{Memory: uint32(values[0]), Time: uint32(values[1]), Threads: uint8(values[2])}, true
}

func deriveKey(p Params, salt []byte, length int, password string) []byte {
	return argon2.IDKey([]byte(password), salt, p.Time, p.Memory, p.Threads, uint32(length))
}
