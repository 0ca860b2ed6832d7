package records

import (
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
)

// A UUID (RFC 9562) is a key of 16 bytes, stored as a BLOB. It can be a field
// of the T of a [Table], and an argument of a statement.
type UUID [16]byte

var errUUID = errors.New("records: not a UUID")

// ParseUUID reads the text that [UUID.String] returns, or the 36 characters
// with hyphens.
func ParseUUID(s string) (UUID, error) {
	b, ok := decodeBlob(s)
	if !ok || len(b) != 16 {
		return UUID{}, errUUID
	}
	return UUID(b), nil
}

// String returns the id as it is in paths and responses: padded URL-safe base64
// (RFC 4648, section 5).
func (u UUID) String() string { return base64.URLEncoding.EncodeToString(u[:]) }

// MarshalText returns the text of String.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what [ParseUUID] does.
func (u *UUID) UnmarshalText(text []byte) (err error) {
	*u, err = ParseUUID(string(text))
	return err
}

// Value returns the bytes.
func (u UUID) Value() (driver.Value, error) { return u[:], nil }

// Scan takes the bytes, or a text that ParseUUID reads.
func (u *UUID) Scan(value any) (err error) {
	switch v := value.(type) {
	case []byte:
		if len(v) != len(u) {
			return errUUID
		}
		*u = UUID(v)
		return nil
	case string:
		*u, err = ParseUUID(v)
		return err
	}
	return fmt.Errorf("records: a %T is not a UUID", value)
}
