package outbox

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Stmts returns statements that add a job, to be part of a Write, which fails
// with [ErrFull] or [ErrTooLarge] when they cannot. In an Update, which knows
// nothing of Done, the last statement fails with a constraint instead.
func (q *Queue) Stmts(j Job) []sqlite.Stmt {
	const room = "(SELECT count(*) FROM _outbox) < ?"
	var sealed any // without a job: NULL, which is refused
	refuse := ErrTooLarge
	if len(j.Kind) <= maxKind && len(j.Payload) <= MaxPayload {
		sealed = q.cfg.Key.Seal(sealContext, encode(j))
		refuse = nil
	}
	limit := int64(q.cfg.MaxRows)
	return []sqlite.Stmt{
		{
			SQL:  "SELECT 1 WHERE " + room,
			Args: []driver.Value{limit},
			Done: func(rows int) error {
				if refuse == nil && rows == 0 {
					return ErrFull
				}
				return refuse
			},
		},
		{
			SQL:  "INSERT INTO _outbox (sealed) VALUES (CASE WHEN " + room + " THEN ? END)",
			Args: []driver.Value{limit, sealed},
		},
	}
}

// sealContext is what the sealed jobs are bound to.
const sealContext = "outbox"

const maxKind = 255

// encode returns what is sealed:
//
//	8 bytes  expiry, unix milliseconds, 0 for none
//	1 byte   length of the kind, and the kind
//	4 bytes  length of the payload, and the payload
//	padding to a multiple of 256 bytes
func encode(j Job) []byte {
	b := make([]byte, 0, (8+1+len(j.Kind)+4+len(j.Payload)+255)/256*256)
	var expires int64
	if !j.Expires.IsZero() {
		expires = j.Expires.UnixMilli()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(expires))
	b = append(b, byte(len(j.Kind)))
	b = append(b, j.Kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(j.Payload)))
	b = append(b, j.Payload...)
	return b[:cap(b)]
}

// decode is the inverse of encode. What it is given has been sealed here.
func decode(b []byte) (Job, error) {
	errFormat := errors.New("decoding a job: unknown format")
	if len(b) < 9 {
		return Job{}, errFormat
	}
	var j Job
	if expires := int64(binary.BigEndian.Uint64(b)); expires != 0 {
		j.Expires = time.UnixMilli(expires)
	}
	size := int(b[8])
	if b = b[9:]; len(b) < size+4 {
		return Job{}, errFormat
	}
	j.Kind, b = string(b[:size]), b[size:]
	length := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(length) > uint64(len(b)) {
		return Job{}, errFormat
	}
	j.Payload = b[:length:length]
	return j, nil
}
