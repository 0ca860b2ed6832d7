// Package seal encrypts secrets that are stored in the database, such as
// signing keys and TOTP seeds, under a master key that is kept outside of it:
// a copy of the database alone gives none of them away.
//
//	key, err := seal.LoadFile("data/master.key")
//	...
//	sealed := key.Seal("totp/"+userID, seed)        // to be stored
//	seed, err := key.Open("totp/"+userID, sealed)   // as it was
//
// The context says what is sealed and for whom. It is not part of the result,
// but only the same context opens it: a sealed value that somebody moved to
// the row of another user or into another column stays shut.
//
// # Envelope
//
//	1 byte    version, 1
//	4 bytes   id of the key, derived from it
//	12 bytes  random nonce
//	n bytes   AES-256-GCM ciphertext, as long as the plaintext
//	16 bytes  authentication tag, over the above and the context
//
// Nonces are random, so one master key should seal no more than 2^32 values
// (NIST SP 800-38D, section 8.3). Nothing hides the length of a plaintext.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Overhead is how many bytes a sealed value is longer than its plaintext.
const Overhead = headerSize + nonceSize + tagSize

var (
	// ErrOpen is the error for a value that is no envelope, was sealed in
	// another context or was changed since. Which of these is not told.
	ErrOpen = errors.New("opening sealed value: not sealed here, or changed since")

	// ErrOtherKey is the error for a value that was sealed under a key that
	// is not there: most likely the wrong key file is in place, or a line of
	// it was removed too early.
	ErrOtherKey = errors.New("opening sealed value: sealed under a key that is not in the key file")
)

// A Key is a master key, or several of them while one replaces the other: the
// first seals, and all of them open. It is safe for concurrent use. Printed,
// logged or encoded it shows nothing of itself. Create it with [NewKey],
// [LoadFile] or [CreateFile]; the zero Key panics when it is used.
type Key struct {
	keys []*masterKey
}

// NewKey returns the key with the given secret: exactly 32 bytes, which come
// from a cryptographic source of randomness and are not all zero. The secret
// is not kept.
func NewKey(secret []byte) (*Key, error) {
	k, err := newMasterKey(secret)
	if err != nil {
		return nil, fmt.Errorf("using master key: %w", err)
	}
	return &Key{keys: []*masterKey{k}}, nil
}

// Seal encrypts the plaintext for [Key.Open] with the same context. No two
// results are the same.
func (k *Key) Seal(context string, plaintext []byte) []byte {
	key := k.keys[0]
	sealed := make([]byte, headerSize, Overhead+len(plaintext))
	sealed[0] = version
	copy(sealed[1:], key.id[:])
	return key.aead.Seal(sealed, nil, plaintext, additionalData(sealed, context))
}

// Open returns the plaintext of a value that was sealed in the context. The
// error is [ErrOtherKey] when the value names a key that k does not have, and
// [ErrOpen] in every other case.
func (k *Key) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || sealed[0] != version {
		return nil, ErrOpen
	}
	header, ciphertext := sealed[:headerSize], sealed[headerSize:]
	for _, key := range k.keys {
		if !bytes.Equal(header[1:], key.id[:]) {
			continue
		}
		plaintext, err := key.aead.Open(nil, nil, ciphertext, additionalData(header, context))
		if err != nil {
			return nil, ErrOpen
		}
		return plaintext, nil
	}
	return nil, ErrOtherKey
}

// Outdated reports whether sealed is under another master key than the first,
// with which Seal works.
func (k *Key) Outdated(sealed []byte) bool {
	return len(sealed) < headerSize || sealed[0] != version || !bytes.Equal(sealed[1:headerSize], k.keys[0].id[:])
}

// Derive returns a key for another purpose, such as a MAC, which the label
// names. The same label gives the same key for as long as the first master
// key stays the same; keys of different labels tell nothing about each other,
// nor about the master key.
func (k *Key) Derive(label string) [32]byte {
	return [32]byte(expand(k.keys[0].prk, "derive:"+label, 32))
}

const redacted = "REDACTED"

// String returns "REDACTED".
func (Key) String() string { return redacted }

// GoString returns "REDACTED".
func (Key) GoString() string { return redacted }

// LogValue returns "REDACTED".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format writes "REDACTED", whatever the verb.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

const (
	version    = 1
	idSize     = 4
	headerSize = 1 + idSize
	nonceSize  = 12
	tagSize    = 16
	secretSize = 32
)

// masterKey is what one secret is turned into.
type masterKey struct {
	id   [idSize]byte
	prk  []byte // the HKDF pseudorandom key, from which all others come
	aead cipher.AEAD
}

func newMasterKey(secret []byte) (*masterKey, error) {
	if len(secret) != secretSize {
		return nil, fmt.Errorf("must have %d bytes, has %d", secretSize, len(secret))
	}
	if bytes.Equal(secret, make([]byte, secretSize)) {
		return nil, errors.New("all bytes are zero")
	}
	prk, err := hkdf.Extract(sha256.New, secret, []byte("bedplate/seal/1"))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(expand(prk, "encrypt", 32))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &masterKey{
		id:   [idSize]byte(expand(prk, "id", idSize)),
		prk:  prk,
		aead: aead,
	}, nil
}

// expand is HKDF-Expand, which fails only for more than 8160 bytes.
func expand(prk []byte, info string, size int) []byte {
	key, err := hkdf.Expand(sha256.New, prk, info, size)
	if err != nil {
		panic(fmt.Sprintf("seal: deriving a key of %d bytes: %v", size, err))
	}
	return key
}

// additionalData is what the tag covers beside the ciphertext. The header has
// a fixed length, so no two pairs of header and context give the same bytes.
func additionalData(header []byte, context string) []byte {
	return append(header[:headerSize:headerSize], context...)
}
