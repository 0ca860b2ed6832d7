package sqlite

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql/driver"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

// A Sealer writes positions of one epoch so that they can be given to anybody.
// The number of a change counts what is written to all tracked tables: plain,
// it would tell how much that is to those who may not see it. A sealed one says
// nothing, not even whether two are of the same change. It is safe for
// concurrent use.
type Sealer struct {
	epoch string
	block cipher.Block
}

// sealedSize is a block of AES: the number, four random bytes, four zeros.
const sealedSize = 16

// Sealer returns the sealer of an epoch. An epoch that is not the present one
// is an error. It may read from the database: not to be called inside of
// [DB.Read].
func (l *ChangeLog) Sealer(ctx context.Context, epoch string) (*Sealer, error) {
	if s := l.sealer.Load(); s != nil && s.epoch == epoch {
		return s, nil
	}
	var key []byte
	err := l.db.Query(ctx, l.in("SELECT key FROM $._change_state WHERE epoch = ?"), []driver.Value{epoch}, func(row []driver.Value) error {
		key, _ = row[0].([]byte)
		return nil
	})
	if err == nil && key == nil {
		err = fmt.Errorf("epoch %q is over", epoch)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: key of the change log of %s: %w", l.name, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sqlite: key of the change log of %s: %w", l.name, err)
	}
	s := &Sealer{epoch, block}
	l.sealer.Store(s)
	return s, nil
}

// Seal returns the position behind the change seq as "epoch.sealed", another
// text each time.
func (s *Sealer) Seal(seq int64) string {
	var b [sealedSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(seq)) //nolint:gosec // Open turns it back
	_, _ = rand.Read(b[8:12])                     // never fails
	s.block.Encrypt(b[:], b[:])
	text := make([]byte, 0, maxEpoch+1+24)
	text = append(append(text, s.epoch...), '.')
	return string(base64.RawURLEncoding.AppendEncode(text, b[:]))
}

// Open returns what Seal was given; ok is false for anything else, and for
// positions of other epochs. A client that makes up positions finds one that
// passes in four billion; it is a place to read on from, and no right to read.
func (s *Sealer) Open(text string) (seq int64, ok bool) {
	sealed, ok := strings.CutPrefix(text, s.epoch+".")
	if !ok || len(sealed) != base64.RawURLEncoding.EncodedLen(sealedSize) {
		return 0, false
	}
	var b [sealedSize]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(sealed)); err != nil || n != sealedSize {
		return 0, false
	}
	s.block.Decrypt(b[:], b[:])
	if binary.BigEndian.Uint32(b[12:]) != 0 {
		return 0, false
	}
	seq = int64(binary.BigEndian.Uint64(b[:])) //nolint:gosec // it was one
	return seq, seq >= 0
}
