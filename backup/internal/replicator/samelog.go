package replicator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// sameAsLog reports whether a captured file that begins where the log does holds what the log
// holds now, up to the end of the file. The log must count up to there.
func sameAsLog(log string, f localFile) (same bool, err error) {
	wal, err := os.Open(log)
	if err != nil {
		return false, err
	}
	defer wal.Close()            //nolint:errcheck // it was only read
	newest := map[uint32]int64{} // where in the log a page is
	commit := uint32(0)
	frame := make([]byte, litestream.WALFrameHeaderSize)
	for at := int64(litestream.WALHeaderSize); at < f.end.offset(); at += f.end.frameSize() {
		if _, err := wal.ReadAt(frame, at); err != nil {
			return false, err
		}
		newest[binary.BigEndian.Uint32(frame)] = at
		if n := binary.BigEndian.Uint32(frame[4:]); n != 0 {
			commit = n
		}
	}
	for page := range newest {
		if page > commit {
			delete(newest, page)
		}
	}

	captured, err := os.Open(f.name)
	if err != nil {
		return false, err
	}
	defer captured.Close() //nolint:errcheck // it was only read
	dec := ltx.NewDecoder(captured)
	if err := dec.DecodeHeader(); err != nil {
		return false, err
	}
	if h := dec.Header(); h.WALOffset != litestream.WALHeaderSize || h.Commit != commit {
		return false, nil
	}
	data, want := make([]byte, f.pageSize), make([]byte, f.pageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, data); errors.Is(err, io.EOF) {
			return len(newest) == 0, dec.Close()
		} else if err != nil {
			return false, err
		}
		at, ok := newest[h.Pgno]
		if !ok { // also when the database has grown by pages that were never written
			return false, nil
		}
		delete(newest, h.Pgno)
		if _, err := wal.ReadAt(want, at+litestream.WALFrameHeaderSize); err != nil {
			return false, err
		}
		if !bytes.Equal(data, want) {
			return false, nil
		}
	}
}
