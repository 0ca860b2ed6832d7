package realtime

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"
)

// errLarge is that a line or an event exceeds the limit of a reader.
var errLarge = errors.New("realtime: event too large")

// eventReader reads an event stream (WHATWG HTML, section 9.2.6).
type eventReader struct {
	r   *bufio.Reader
	max int

	// retry is what the last retry field says; -1: there was none.
	retry time.Duration

	line   []byte // what came in pieces; reused
	data   []byte // of the block; reused
	skipLF bool   // the last line ended with CR: an LF is part of that
	later  bool   // this is not the first line
}

// eventBlock is what an empty line ends.
type eventBlock struct {
	event string
	data  []byte // until the next call of next; nil: none
	id    string
	hasID bool
}

func newEventReader(r io.Reader, limit int) *eventReader {
	return &eventReader{r: bufio.NewReader(r), max: limit, retry: -1}
}

// next returns the next block that has data or an id. A block that the stream
// ends in is none. The error is io.EOF, errLarge or one of the reader.
func (r *eventReader) next() (eventBlock, error) {
	var b eventBlock
	r.data = reuse(r.data)
	for {
		line, err := r.readLine()
		if err != nil {
			return eventBlock{}, err
		}
		if len(line) == 0 {
			if len(r.data) > 0 {
				b.data = bytes.TrimSuffix(r.data, newline)
			}
			if b.data != nil || b.hasID {
				return b, nil
			}
			b = eventBlock{}
			continue
		}
		name, value, _ := bytes.Cut(line, colon)
		value = bytes.TrimPrefix(value, space)
		switch string(name) {
		case "data":
			if len(r.data)+len(value) > r.max {
				return eventBlock{}, errLarge
			}
			r.data = append(append(r.data, value...), '\n')
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				b.id, b.hasID = string(value), true
			}
		case "event":
			b.event = string(value)
		case "retry":
			if len(value) > 0 && len(bytes.Trim(value, "0123456789")) == 0 {
				ms, _ := strconv.ParseUint(string(value), 10, 31) // the greatest when there are too many
				r.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

var (
	newline = []byte("\n")
	colon   = []byte(":")
	space   = []byte(" ")
	bom     = []byte("\ufeff")
)

// readLine returns the next line without its end, valid until the next call.
func (r *eventReader) readLine() ([]byte, error) {
	r.line = reuse(r.line)
	for {
		if _, err := r.r.Peek(1); err != nil {
			return nil, err
		}
		chunk, _ := r.r.Peek(r.r.Buffered()) // it is buffered
		if r.skipLF {
			r.skipLF = false
			if chunk[0] == '\n' {
				r.discard(1)
				continue
			}
		}
		end := bytes.IndexAny(chunk, "\r\n")
		piece := chunk
		if end >= 0 {
			piece = chunk[:end]
		}
		if len(r.line)+len(piece) > r.max+len("data: ") {
			return nil, errLarge
		}
		if end < 0 {
			r.line = append(r.line, piece...)
			r.discard(len(piece))
			continue
		}
		r.skipLF = chunk[end] == '\r'
		line := piece
		if len(r.line) > 0 {
			r.line = append(r.line, piece...)
			line = r.line
		}
		r.discard(end + 1)
		if !r.later {
			r.later = true
			line = bytes.TrimPrefix(line, bom)
		}
		return line, nil
	}
}

// discard drops n buffered bytes, which leaves them in place until the next
// Peek.
func (r *eventReader) discard(n int) {
	_, _ = r.r.Discard(n) // they are buffered
}

// reuse empties buf, or drops it when something large was in it.
func reuse(buf []byte) []byte {
	if cap(buf) > 64<<10 {
		return nil
	}
	return buf[:0]
}
