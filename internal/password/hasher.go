package password

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxBytes is the length beyond which no password is hashed. It is more than any [Policy] admits,
// for the sake of imported users, and bounds what an attacker can make the server normalize.
const maxBytes = 1024

// A Hasher makes and verifies password hashes. It is safe for concurrent use.
type Hasher struct {
	params Params
	dummy  argon2Hash
	slots  *slots
	costly *slots // taken first by what costs far more than the Hasher's own hashes
}

// NewHasher returns a Hasher that makes Argon2id hashes with the parameters p.
//
// At most slots hashes are computed at a time (0: GOMAXPROCS), each of which takes p.Memory; at
// most queue callers (0: 64) wait for a slot. Parameters out of bounds, negative slots and a
// negative queue are refused, all in one error.
func NewHasher(p Params, slots, queue int) (*Hasher, error) {
	p = p.withDefaults()
	err := p.check()
	if slots < 0 {
		err = errors.Join(err, fmt.Errorf("slots must not be negative: %d", slots))
	}
	if queue < 0 {
		err = errors.Join(err, fmt.Errorf("queue must not be negative: %d", queue))
	}
	if err != nil {
		return nil, fmt.Errorf("configuring password hashing: %w", err)
	}
	return &Hasher{params: p, dummy: newDummy(p), slots: newSlots(slots, queue), costly: newSlots(1, queue)}, nil
}

// Hash returns the Argon2id hash of password, normalized to NFC, with a random salt of 16 bytes, as
// a PHC string: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
//
// A password that [Hasher.Verify] could never accept (invalid UTF-8, a NUL byte, more than 1024
// bytes) is refused with a [*PolicyError]; whether it is a good one is for a [Policy] to say. The
// error is [ErrBusy] if too many callers wait already, and wraps that of ctx if it ends during
// the wait.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	switch {
	case len(password) > maxBytes:
		return "", errTooLong
	case !storable(password):
		return "", errInvalid
	}
	if err := h.slots.acquire(ctx); err != nil {
		return "", err
	}
	defer h.slots.release()
	return newArgon2Hash(h.params, norm.NFC.String(password)).String(), nil
}

// Verify reports whether hash was made of password, and whether it is outdated and should be
// replaced by a new [Hasher.Hash] of the password now that it is at hand.
//
// Argon2id PHC strings with up to 1 GiB of memory and 16 passes are understood, and bcrypt hashes
// ($2a$, $2b$, $2y$) of cost up to 16. Those that cost far more than a hash of this Hasher are
// computed one at a time. The password is tried in NFC and then, if that differs, as it is, for
// imported users whose hash was made elsewhere.
//
// A matching hash is outdated if it is not Argon2id, if its memory times its passes are less than
// those of the Hasher, or if only the password as it is matched. Stronger hashes are left alone.
// Without a match outdated is false.
//
// An empty hash, or one that is not understood, matches nothing, yet costs as much time as a
// wrong password for a hash of this Hasher. Callers pass "" for unknown users and for users without
// a password, so that the time tells nothing about who exists. Passwords that cannot have been
// hashed (invalid UTF-8, a NUL byte, more than 1024 bytes) match nothing at the same cost, and so
// do passwords above 72 bytes with bcrypt, which would ignore the rest.
//
// The error is [ErrBusy] if too many callers wait already, and wraps that of ctx if it ends during
// the wait. It is never about the hash or the password.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, outdated bool, err error) {
	stored, known := parseHash(hash)
	if !known {
		stored = h.dummy
	}
	possible := len(password) <= maxBytes && storable(password)
	if !possible {
		password = strings.ToValidUTF8(password[:min(len(password), maxBytes)], "?")
	}
	normal := norm.NFC.String(password)

	if stored.costlyFor(h.params) {
		if err := h.costly.acquire(ctx); err != nil {
			return false, false, err
		}
		defer h.costly.release()
	}
	if err := h.slots.acquire(ctx); err != nil {
		return false, false, err
	}
	defer h.slots.release()

	// What is known and possible must not decide how much work is done.
	ok = stored.matches(normal) && known && possible
	if ok {
		return true, stored.weakerThan(h.params), nil
	}
	if normal != password {
		ok = stored.matches(password) && known && possible
	}
	return ok, ok, nil
}

// A storedHash is what a hash string says.
type storedHash interface {
	// matches computes the hash of password and compares, in constant time.
	matches(password string) bool
	// weakerThan reports whether a hash made with the parameters is better.
	weakerThan(Params) bool
	// costlyFor reports whether several at a time are more than a host that was sized for the
	// parameters can be expected to bear.
	costlyFor(Params) bool
}

// parseHash reads a hash string. It returns false for those that are malformed, of another kind, or
// would take more time and memory than anyone is given.
func parseHash(s string) (storedHash, bool) {
	if strings.HasPrefix(s, argon2Prefix) {
		return parseArgon2(s)
	}
	return parseBcrypt(s)
}

// storable reports whether password is text without NUL bytes. Bcrypt takes a NUL for the end, and
// everything that is not UTF-8 would have to mean the same before and after normalization.
func storable(password string) bool {
	return utf8.ValidString(password) && strings.IndexByte(password, 0) < 0
}
