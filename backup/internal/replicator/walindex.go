package replicator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/benbjohnson/litestream"
)

// A walIndex reads the head of the shared memory of a database in WAL mode. It says up to which
// frame the write-ahead log counts (https://www.sqlite.org/walformat.html#the_wal_index_file_format).
// Frames behind that can be in the log, whole and valid, and not be part of the database: those of
// a commit that is not complete yet, or never will be because its process was killed.
//
// The file is never closed: that would release the locks that this process has on it.
type walIndex struct {
	file *os.File
	log  string
}

// A walMark is a place in a write-ahead log.
type walMark struct {
	salt1, salt2 uint32 // of the log: others when it has begun anew
	frames       uint32 // before the place
	pageSize     uint32
}

// sameLog reports whether both places are in the same log.
func (m walMark) sameLog(o walMark) bool { return m.salt1 == o.salt1 && m.salt2 == o.salt2 }

func (m walMark) String() string {
	return fmt.Sprintf("frame %d of log %08x%08x", m.frames, m.salt1, m.salt2)
}

// frameSize is the length of a frame in bytes.
func (m walMark) frameSize() int64 { return int64(m.pageSize) + litestream.WALFrameHeaderSize }

// offset is where the place is in the file.
func (m walMark) offset() int64 { return litestream.WALHeaderSize + int64(m.frames)*m.frameSize() }

func openWALIndex(database string) (*walIndex, error) {
	f, err := os.OpenFile(database+"-shm", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &walIndex{f, database + "-wal"}, nil
}

// walIndexHead is the size of one of the two equal heads.
const walIndexHead = 48

// read returns the end of what counts.
func (w *walIndex) read(ctx context.Context) (walMark, error) {
	for range 1000 { // while a writer changes it, the two differ
		var b [2 * walIndexHead]byte
		if _, err := w.file.ReadAt(b[:], 0); err != nil {
			return walMark{}, fmt.Errorf("read the wal-index: %w", err)
		}
		first, second := b[:walIndexHead], b[walIndexHead:]
		if bytes.Equal(first, second) && first[12] != 0 {
			size := uint32(binary.NativeEndian.Uint16(first[14:]))
			return walMark{
				salt1:    binary.BigEndian.Uint32(first[32:]), // as in the log
				salt2:    binary.BigEndian.Uint32(first[36:]),
				frames:   binary.NativeEndian.Uint32(first[16:]),
				pageSize: size&0xfe00 + size&1<<16,
			}, nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return walMark{}, ctx.Err()
		}
	}
	return walMark{}, errors.New("the wal-index is not initialized")
}

// goesOn reports whether the log has a valid frame behind its end, which may be a part of a commit
// that never was. It is asked while nobody can write.
func (w *walIndex) goesOn(end walMark) (bool, error) {
	log, err := os.Open(w.log)
	if err != nil {
		return false, err
	}
	defer log.Close() //nolint:errcheck // it was only read
	header := make([]byte, litestream.WALHeaderSize)
	if n, _ := log.ReadAt(header, 0); n < len(header) || !end.hasSalts(header[16:]) {
		return false, nil
	}
	frame := make([]byte, end.frameSize())
	if n, _ := log.ReadAt(frame, end.offset()); n < len(frame) || !end.hasSalts(frame[8:]) {
		return false, nil
	}
	// The salts are also right behind a transaction that did not fit into memory and was rolled back.
	// Only the first of its frames follows the end of the log, and none when that is written over.
	sum := header[24:]
	if end.frames > 0 {
		sum = make([]byte, 8)
		if _, err := log.ReadAt(sum, end.offset()-end.frameSize()+litestream.WALFrameHeaderChecksumOffset); err != nil {
			return false, err
		}
	}
	var order binary.ByteOrder = binary.LittleEndian
	if binary.BigEndian.Uint32(header)&1 != 0 {
		order = binary.BigEndian
	}
	sum1, sum2 := binary.BigEndian.Uint32(sum), binary.BigEndian.Uint32(sum[4:])
	sum1, sum2 = litestream.WALChecksum(order, sum1, sum2, frame[:8])
	sum1, sum2 = litestream.WALChecksum(order, sum1, sum2, frame[litestream.WALFrameHeaderSize:])
	want := frame[litestream.WALFrameHeaderChecksumOffset:]
	return sum1 == binary.BigEndian.Uint32(want) && sum2 == binary.BigEndian.Uint32(want[4:]), nil
}

// hasSalts reports whether the salts of the log are what b begins with.
func (m walMark) hasSalts(b []byte) bool {
	return binary.BigEndian.Uint32(b) == m.salt1 && binary.BigEndian.Uint32(b[4:]) == m.salt2
}

// checksum returns the checksum of the log up to a place that counts.
func (w *walIndex) checksum(end walMark) (sum uint64, err error) {
	if end.frames == 0 {
		return 0, nil
	}
	log, err := os.Open(w.log)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // it was only read
	frame := make([]byte, litestream.WALFrameHeaderSize)
	if _, err := log.ReadAt(frame, end.offset()-end.frameSize()); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(frame[litestream.WALFrameHeaderChecksumOffset:]), nil
}
