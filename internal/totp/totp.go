// Package totp implements time-based one-time passwords (RFC 6238) in the form that all
// authenticator apps share: HMAC-SHA-1, six digits, steps of 30 seconds.
//
// The functions keep no state. What must be remembered between calls, the secret and the step of
// the last accepted code, is for the caller to store.
package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what the apps implement; HMAC does not need collision resistance
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	period = 30 // seconds
	digits = 6

	secretBytes    = 20
	minSecretBytes = 10
	maxSecretBytes = 64
	maxEncoded     = 256
)

// NewSecret returns a random secret of 20 bytes, the size of the hash, as RFC 4226 section 4
// recommends.
func NewSecret() []byte {
	secret := make([]byte, secretBytes)
	rand.Read(secret)
	return secret
}

// Encode returns secret in base32 (RFC 4648) without padding, the form that people type.
func Encode(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// Decode reads a secret of 10 to 64 bytes in base32. Case, spaces and padding do not matter. The
// error does not contain the secret.
func Decode(s string) ([]byte, error) {
	if len(s) > maxEncoded {
		return nil, errors.New("decoding a TOTP secret: too long")
	}
	s = strings.TrimRight(strings.ToUpper(strings.Join(strings.Fields(s), "")), "=")
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
	if err != nil || len(Encode(secret)) != len(s) { // a letter too many is not an error to base32
		return nil, errors.New("decoding a TOTP secret: not base32")
	}
	if !validSize(secret) {
		return nil, fmt.Errorf("decoding a TOTP secret: %d bytes, not %d to %d", len(secret), minSecretBytes, maxSecretBytes)
	}
	return secret, nil
}

// Code returns the code for secret at t.
func Code(secret []byte, t time.Time) string {
	return codeAt(secret, stepAt(t))
}

// Verify reports whether code is right for secret at t, or one step of 30 seconds before or after,
// which allows for clocks that are a little off and for slow typing. White space around the code
// does not matter.
//
// A code of lastStep or earlier is refused. The caller stores the returned step, in the transaction
// that accepts the code, and passes it as lastStep the next time, so that a code that was seen once
// is worth nothing; 0 if there was none yet. How many guesses are allowed is for the caller to bound.
//
// A secret of a size that [Decode] would refuse, such as an empty one, verifies nothing.
func Verify(secret []byte, code string, t time.Time, lastStep int64) (step int64, ok bool) {
	code = strings.TrimSpace(code)
	if !sixDigits(code) || !validSize(secret) {
		return 0, false
	}
	now := stepAt(t)
	// All steps are tried, the last one that matches counts: should two have the same code, it is
	// used up for both.
	for s := now - 1; s <= now+1; s++ {
		match := subtle.ConstantTimeCompare([]byte(codeAt(secret, s)), []byte(code)) == 1
		if match && s > lastStep {
			step, ok = s, true
		}
	}
	return step, ok
}

func validSize(secret []byte) bool {
	return len(secret) >= minSecretBytes && len(secret) <= maxSecretBytes
}

func sixDigits(code string) bool {
	return len(code) == digits && strings.Trim(code, "0123456789") == ""
}

func stepAt(t time.Time) int64 { return t.Unix() / period }

// codeAt is the HOTP value of RFC 4226 section 5.3 with the step as counter.
func codeAt(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", digits, n%1_000_000)
}
