package sqlite

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"
	"time"
)

func uuidFunctions(ids *idSource) []function {
	return []function{
		{"uuid_v4", 0, false, func(out *result, _ []value) error {
			id := ids.v4()
			out.setBlob(id[:])
			return nil
		}},
		{"uuid_v7", 0, false, func(out *result, _ []value) error {
			id := ids.v7()
			out.setBlob(id[:])
			return nil
		}},
		{"uuid_text", 1, true, uuidText},
		{"uuid_parse", 1, true, uuidParse},
	}
}

// idSource makes UUIDs. Those of version 7 are strictly increasing, also when
// the clock stands still or steps back. It is safe for concurrent use.
type idSource struct {
	now func() time.Time

	mu     sync.Mutex
	last   uint64 // milliseconds << 12 | 4096ths of a millisecond
	random [512]byte
	unused []byte // of random
}

func newIDSource(now func() time.Time) *idSource { return &idSource{now: now} }

func (s *idSource) v4() (id [16]byte) {
	s.mu.Lock()
	s.fill(id[:])
	s.mu.Unlock()
	mark(&id, 4)
	return id
}

func (s *idSource) v7() (id [16]byte) {
	tick := ticks(s.now())
	s.mu.Lock()
	tick = max(tick, s.last+1)
	s.last = tick
	s.fill(id[8:])
	s.mu.Unlock()

	binary.BigEndian.PutUint64(id[:8], tick>>12<<16|tick&0xfff)
	mark(&id, 7)
	return id
}

// fill fills b with random bytes. It reads them ahead and forgets each one it
// gives away. The caller holds s.mu.
func (s *idSource) fill(b []byte) {
	if len(s.unused) < len(b) {
		_, _ = rand.Read(s.random[:]) // never fails: it ends the process instead
		s.unused = s.random[:]
	}
	n := copy(b, s.unused)
	clear(s.unused[:n])
	s.unused = s.unused[n:]
}

// ticks counts 4096ths of a millisecond since 1970.
func ticks(t time.Time) uint64 {
	ms := max(t.UnixMilli(), 0)
	fraction := uint64(t.Nanosecond()%1e6) << 12 / 1e6
	return uint64(ms)<<12 | fraction
}

// mark sets the version and the variant of RFC 9562.
func mark(id *[16]byte, version byte) {
	id[6] = id[6]&0x0f | version<<4
	id[8] = id[8]&0x3f | 0x80
}

// uuidText returns the hyphenated form of a 16-byte BLOB.
func uuidText(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	id, ok := args[0].blob()
	if !ok || len(id) != 16 {
		return errors.New("uuid_text: not a blob of 16 bytes")
	}
	var text [36]byte
	hex.Encode(text[0:], id[0:4])
	hex.Encode(text[9:], id[4:6])
	hex.Encode(text[14:], id[6:8])
	hex.Encode(text[19:], id[8:10])
	hex.Encode(text[24:], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	out.setText(text[:])
	return nil
}

// uuidParse returns the 16 bytes of a hyphenated UUID, of any version.
func uuidParse(out *result, args []value) error {
	if args[0].isNull() {
		return nil
	}
	text, ok := args[0].text()
	if !ok || len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return errors.New("uuid_parse: not a hyphenated UUID of 36 characters")
	}
	digits := make([]byte, 0, 32)
	for _, part := range [][]byte{text[:8], text[9:13], text[14:18], text[19:23], text[24:]} {
		digits = append(digits, part...)
	}
	var id [16]byte
	if _, err := hex.Decode(id[:], digits); err != nil {
		return errors.New("uuid_parse: not a hyphenated UUID of 36 characters")
	}
	out.setBlob(id[:])
	return nil
}
