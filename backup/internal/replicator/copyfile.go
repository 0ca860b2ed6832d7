package replicator

import (
	"errors"
	"fmt"
	"os"

	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A copyFile is a database file that is made from objects.
type copyFile struct {
	f        *os.File
	maxBytes int64 // 0: no limit

	pageSize uint32
	pages    uint32 // of the database after the last object
	header   ltx.Header
	grown    uint32 // the last of those pages that the object adds, as far as they follow each other

	run   []byte // pages that follow each other and are not written yet
	runAt int64
}

// maxRun is how much is written at once, in bytes.
const maxRun = 1 << 20

// spareBytes is the room on the disk that a copy leaves.
const spareBytes = 16 << 20

func (d *copyFile) size() int64 { return int64(d.pages) * int64(d.pageSize) }

// begin checks that there may and can be a database as large as h says, before anything is written.
func (d *copyFile) begin(h ltx.Header) error {
	if d.pageSize == 0 {
		if !h.IsSnapshot() {
			return &codeError{wire.CodeCorrupt, errors.New("there is no whole database to begin with")}
		}
		d.pageSize = h.PageSize
	}
	if h.PageSize != d.pageSize {
		return &codeError{wire.CodeCorrupt, fmt.Errorf("pages of %d bytes follow those of %d", h.PageSize, d.pageSize)}
	}
	size := int64(h.Commit) * int64(h.PageSize)
	if d.maxBytes > 0 && size > d.maxBytes {
		return &codeError{wire.CodeTooLarge, fmt.Errorf("the database has %d bytes, %d are allowed", size, d.maxBytes)}
	}
	if more := size - d.size(); more > 0 {
		free, err := freeBytes(d.f)
		if err != nil {
			return err
		}
		if more+spareBytes > free {
			return &codeError{wire.CodeFullDisk, fmt.Errorf("the copy needs %d more bytes, %d are free", more, free)}
		}
	}
	d.header, d.grown = h, d.pages
	return nil
}

func (d *copyFile) page(number uint32, data []byte) error {
	if number == nextPage(d.grown, d.header.LockPgno()) {
		d.grown = number
	}
	at := int64(number-1) * int64(d.pageSize)
	if len(d.run) > 0 && at != d.runAt+int64(len(d.run)) || len(d.run)+len(data) > maxRun {
		if err := d.flush(); err != nil {
			return err
		}
	}
	if len(d.run) == 0 {
		d.runAt = at
	}
	d.run = append(d.run, data...)
	return nil
}

func (d *copyFile) flush() error {
	_, err := d.f.WriteAt(d.run, d.runAt)
	d.run = d.run[:0]
	return err
}

// end completes what the object says.
func (d *copyFile) end(o *ltx.FileInfo) error {
	if err := d.flush(); err != nil {
		return err
	}
	if err := checkGrowth(o, d.header, d.pages, d.grown); err != nil {
		return err
	}
	d.pages = d.header.Commit
	return d.f.Truncate(d.size())
}

// checkGrowth sees to it that an object has all pages by which the database grows. grown is the
// last one of them, without a gap. Objects of another history often do not.
func checkGrowth(o *ltx.FileInfo, h ltx.Header, before, grown uint32) error {
	if h.Commit > before && grown < lastPage(h.Commit, h.LockPgno()) {
		return damagedObject(o, "page %d is missing", nextPage(grown, h.LockPgno()))
	}
	return nil
}
