package records

import (
	"crypto/cipher"
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/crypto/chacha20poly1305"
)

// maxCursor bounds what a cursor holds, so that it fits into a URL.
const maxCursor = 2048

var errLongCursor = badRequest("order values too long for a cursor, use offset with skip_cursor")

// cursors seals the position of the last row of a page: the values of the
// columns that the list is ordered by. Sealing keeps the format private, and
// binds a cursor to the API, the order and the caller it was made for. The
// 192-bit nonces of XChaCha20-Poly1305 may be random for ever under one key.
type cursors struct{ aead cipher.AEAD }

func newCursors(key []byte) (*cursors, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("records: cursor key: %w", err)
	}
	return &cursors{aead}, nil
}

// append appends the sealed position as padded URL-safe base64.
func (c *cursors) append(dst []byte, position []driver.Value, context []byte) ([]byte, error) {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, 256)
	if _, err := rand.Read(nonce); err != nil {
		return dst, err
	}
	plain := make([]byte, 0, 128)
	for _, v := range position {
		switch v := v.(type) {
		case nil:
			plain = append(plain, 0)
		case int64:
			plain = binary.AppendVarint(append(plain, 1), v)
		case float64:
			plain = binary.BigEndian.AppendUint64(append(plain, 2), math.Float64bits(v))
		case string:
			plain = append(binary.AppendUvarint(append(plain, 3), uint64(len(v))), v...)
		case []byte:
			plain = append(binary.AppendUvarint(append(plain, 4), uint64(len(v))), v...)
		}
		if len(plain) > maxCursor {
			return dst, errLongCursor
		}
	}
	return strictBase64.AppendEncode(dst, c.aead.Seal(nonce, nonce, plain, context)), nil
}

// open returns the n values of a cursor that append made in the same context.
func (c *cursors) open(text string, n int, context []byte) ([]driver.Value, error) {
	sealed, ok := decodeBase64(text)
	if !ok {
		return nil, badRequest("Bad cursor: b64")
	}
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return nil, errCursor
	}
	plain, err := c.aead.Open(nil, sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:], context)
	if err != nil {
		return nil, errCursor
	}
	position := make([]driver.Value, 0, n)
	for len(plain) > 0 {
		kind := plain[0]
		plain = plain[1:]
		var v driver.Value
		var used int
		switch kind {
		case 0:
		case 1:
			v, used = varint(plain)
		case 2:
			if len(plain) < 8 {
				return nil, errCursor
			}
			v, used = math.Float64frombits(binary.BigEndian.Uint64(plain)), 8
		default:
			size, k := binary.Uvarint(plain)
			if k <= 0 || size > uint64(len(plain)-k) {
				return nil, errCursor
			}
			used = k + int(size) //nolint:gosec // bounded by len(plain)
			if v = string(plain[k:used]); kind == 4 {
				v = append([]byte{}, plain[k:used]...)
			}
		}
		if used < 0 || used == 0 && kind != 0 {
			return nil, errCursor
		}
		position, plain = append(position, v), plain[used:]
	}
	if len(position) != n {
		return nil, errCursor
	}
	return position, nil
}

func varint(b []byte) (driver.Value, int) {
	n, used := binary.Varint(b)
	return n, used
}
