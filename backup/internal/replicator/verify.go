package replicator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A damagedError is about an object of the replica that cannot be what was written.
type damagedError struct {
	object *ltx.FileInfo
	reason string
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("object %s is damaged: %s", objectName(e.object), e.reason)
}

// damagedObject makes the error for an object.
func damagedObject(o *ltx.FileInfo, format string, args ...any) error {
	return &codeError{wire.CodeCorrupt, &damagedError{o, fmt.Sprintf(format, args...)}}
}

func objectName(o *ltx.FileInfo) string {
	return fmt.Sprintf("%d/%s", o.Level, ltx.FormatFilename(o.MinTXID, o.MaxTXID))
}

// A pageSink takes what an object holds.
type pageSink struct {
	// begin is told the header before there is any page. When it returns an error, nothing more
	// is read.
	begin func(ltx.Header) error

	// page gets the pages in the order of their numbers. data is only valid during the call.
	page func(number uint32, data []byte) error
}

// discard is a pageSink for objects that are only looked at.
var discard = pageSink{begin: func(ltx.Header) error { return nil }, page: func(uint32, []byte) error { return nil }}

// maxIndexEntry is what the index of an object has for a page at most: three varints, of which
// the first is of 32 bits. The index is followed by a zero, its size, and the trailer.
const (
	maxIndexEntry = 5 + 10 + 10
	indexEnd      = 1 + 8 + ltx.TrailerSize

	// leastObject is the size of an object without a page.
	leastObject = ltx.HeaderSize + ltx.PageHeaderSize + indexEnd
)

// readObject reads an object as a whole and passes on what it holds. Only when it returns no error
// was that right: the checksum comes last.
//
// Beyond the checksum, which is one over this object alone, it compares the header with the name,
// and sees to it that a first object is a whole database. A damagedError tells what is wrong with
// the object, any other error that it could not be read.
func readObject(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo, sink pageSink) (ltx.Header, error) {
	if o.Size < leastObject { // some stores answer requests for an empty object with an error
		return ltx.Header{}, damagedObject(o, "it has %d bytes only", o.Size)
	}
	body := &objectReader{ctx: ctx, client: client, object: o}
	defer body.close()
	h, err := decodeObject(body, o, sink)
	var sinkErr *sinkError
	switch {
	case err == nil:
		return h, nil
	case errors.As(err, &sinkErr):
		return h, sinkErr.err
	case body.err != nil:
		return h, fmt.Errorf("read object %s: %w", objectName(o), body.err)
	default:
		return h, damagedObject(o, "%v", err)
	}
}

// A sinkError is an error of a pageSink.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

func decodeObject(body io.Reader, o *ltx.FileInfo, sink pageSink) (h ltx.Header, err error) {
	defer func() {
		if p := recover(); p != nil { // the decoder does so for some that are cut short
			err = fmt.Errorf("it cannot be decoded: %v", p)
		}
	}()
	in := &countingReader{r: bufio.NewReaderSize(io.LimitReader(body, o.Size+1), 256<<10)}
	dec := ltx.NewDecoder(in)
	if err := dec.DecodeHeader(); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	h = dec.Header()
	switch {
	case h.MinTXID != o.MinTXID || h.MaxTXID != o.MaxTXID:
		return h, fmt.Errorf("it holds transactions %s to %s, not those of its name", h.MinTXID, h.MaxTXID)
	case h.Commit == 0:
		return h, errors.New("it makes an empty database")
	}
	if err := sink.begin(h); err != nil {
		return h, &sinkError{err}
	}
	pages, err := decodePages(dec, h, sink)
	if err != nil {
		return h, err
	}
	if tail := o.Size - in.n; tail < indexEnd || tail > pages*maxIndexEntry+indexEnd {
		return h, fmt.Errorf("%d bytes follow %d pages", tail, pages)
	}
	if err := dec.Close(); err != nil {
		return h, err
	}
	if in.n != o.Size {
		return h, fmt.Errorf("it has %d bytes, %d were listed", in.n, o.Size)
	}
	trailer := dec.Trailer()
	return h, trailer.Validate(h)
}

// decodePages returns the number of pages.
func decodePages(dec *ltx.Decoder, h ltx.Header, sink pageSink) (n int64, err error) {
	data := make([]byte, h.PageSize)
	last, lock := uint32(0), h.LockPgno()
	for {
		var page ltx.PageHeader
		err := dec.DecodePage(&page, data)
		switch {
		case errors.Is(err, io.EOF) && page.IsZero():
			if end := lastPage(h.Commit, lock); h.IsSnapshot() && last != end {
				return n, fmt.Errorf("it ends at page %d of %d", last, end)
			}
			return n, nil
		case err != nil:
			return n, fmt.Errorf("page %d: %w", n+1, err)
		case page.Pgno <= last || page.Pgno > h.Commit || page.Pgno == lock:
			return n, fmt.Errorf("page %d follows page %d of %d", page.Pgno, last, h.Commit)
		case h.IsSnapshot() && page.Pgno != nextPage(last, lock):
			return n, fmt.Errorf("page %d is missing", nextPage(last, lock))
		}
		if err := sink.page(page.Pgno, data); err != nil {
			return n, &sinkError{err}
		}
		last = page.Pgno
		n++
	}
}

// nextPage is the number of the page behind last. There is none at lock, where SQLite has its
// locks.
func nextPage(last, lock uint32) uint32 {
	if last+1 == lock {
		return last + 2
	}
	return last + 1
}

// lastPage is the number of the last page that is stored of a database with n pages.
func lastPage(n, lock uint32) uint32 {
	if n == lock {
		return n - 1
	}
	return n
}

type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// readTries is how often an object is opened, where it broke off, without any progress.
const readTries = 4

// An objectReader reads an object, and goes on where it was when the connection breaks off.
type objectReader struct {
	ctx    context.Context
	client litestream.ReplicaClient
	object *ltx.FileInfo

	body  io.ReadCloser // nil: has to be opened
	off   int64
	tries int
	err   error // why it could not be read; no io.EOF
}

func (r *objectReader) Read(p []byte) (int, error) {
	for {
		n, err := r.readOnce(p)
		r.off += int64(n)
		switch {
		case n > 0:
			r.tries = 0
			if err != nil && !errors.Is(err, io.EOF) {
				r.close() // and on, at the next call
			}
			return n, nil
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && r.off >= r.object.Size:
			return 0, io.EOF
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		r.close()
		r.tries++
		if r.ctx.Err() != nil {
			err = context.Cause(r.ctx)
		} else if !errors.Is(err, fs.ErrNotExist) && r.tries < readTries && pause(r.ctx, time.Duration(r.tries)*200*time.Millisecond) {
			continue
		}
		r.err = err
		return 0, err
	}
}

// readOnce reads what comes next. The client sees to it that it does not take too long.
func (r *objectReader) readOnce(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil { // not all clients look
		return 0, err
	}
	if r.off >= r.object.Size && r.off > 0 {
		return 0, io.EOF
	}
	if r.body == nil {
		body, err := r.client.OpenLTXFile(r.ctx, r.object.Level, r.object.MinTXID, r.object.MaxTXID, r.off, 0)
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	return r.body.Read(p)
}

func (r *objectReader) close() {
	if r.body != nil {
		_ = r.body.Close() // it was only read
		r.body = nil
	}
}

// pause reports whether d has passed without the end of ctx.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// timeOf reads when an object was made, from its header, which may be damaged. The stores keep
// that time too, but not for ever: files lose it when they are copied.
func timeOf(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo) (time.Time, error) {
	if o.Size < leastObject {
		return time.Time{}, damagedObject(o, "it has %d bytes only", o.Size)
	}
	body, err := client.OpenLTXFile(ctx, o.Level, o.MinTXID, o.MaxTXID, 0, ltx.HeaderSize)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of object %s: %w", objectName(o), err)
	}
	defer body.Close()
	h, _, err := ltx.PeekHeader(body)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, ltx.ErrInvalidFile):
		return time.Time{}, damagedObject(o, "header: %v", err)
	case err != nil:
		return time.Time{}, fmt.Errorf("read the time of object %s: %w", objectName(o), err)
	case h.MinTXID != o.MinTXID || h.MaxTXID != o.MaxTXID:
		return time.Time{}, damagedObject(o, "it holds transactions %s to %s, not those of its name", h.MinTXID, h.MaxTXID)
	}
	return time.UnixMilli(h.Timestamp).UTC(), nil
}
