package password

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const (
	defaultMinLength = 8
	maxLength        = 128
)

// A Policy says which passwords may be chosen. The zero value asks for 8 to 128 bytes that are not
// one of the 10,000 most common passwords. It asks for no mixture of characters, as NIST
// SP 800-63B recommends.
type Policy struct {
	MinLength   int  // in bytes; 0: 8
	MixedCase   bool // an upper and a lower case letter
	Digits      bool // a digit and something else
	Special     bool // something that is neither letter nor digit
	AllowCommon bool // also the most common passwords, whatever their case
}

// A PolicyError says why a [Policy] refuses a password.
type PolicyError struct {
	// Reason is a text for the person who chose the password. It does not contain the password.
	Reason string
}

// Error returns e.Reason.
func (e *PolicyError) Error() string { return e.Reason }

var (
	errMismatch  = &PolicyError{"Passwords don't match"}
	errTooShort  = &PolicyError{"Password too short"}
	errTooLong   = &PolicyError{"Password too long"}
	errInvalid   = &PolicyError{"Password contains invalid characters"}
	errNoDigits  = &PolicyError{"Must contain digits"}
	errAllDigits = &PolicyError{"Must contain non-digits"}
	errOneCase   = &PolicyError{"Must contain lower and upper case"}
	errNoSpecial = &PolicyError{"Must contain special characters"}
	errTooCommon = &PolicyError{"Password too common"}
)

// Check returns nil if password may be chosen, or a [*PolicyError] with the first reason against
// it. The repeat is what was typed the second time.
func (p Policy) Check(password, repeat string) error {
	minLength := p.MinLength
	if minLength == 0 {
		minLength = defaultMinLength
	}
	var upper, lower, digit, nonDigit, special bool
	if len(password) <= maxLength {
		for _, r := range norm.NFC.String(password) {
			upper = upper || unicode.IsUpper(r)
			lower = lower || unicode.IsLower(r)
			digit = digit || unicode.IsDigit(r)
			nonDigit = nonDigit || !unicode.IsDigit(r)
			special = special || !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}
	}
	switch {
	case password != repeat:
		return errMismatch
	case len(password) < minLength:
		return errTooShort
	case len(password) > maxLength:
		return errTooLong
	case !storable(password):
		return errInvalid
	case p.Digits && !digit:
		return errNoDigits
	case p.Digits && !nonDigit:
		return errAllDigits
	case p.MixedCase && !(upper && lower):
		return errOneCase
	case p.Special && !special:
		return errNoSpecial
	case !p.AllowCommon && isCommon(strings.ToLower(norm.NFC.String(password))):
		return errTooCommon
	}
	return nil
}
