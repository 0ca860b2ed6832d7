package realtime

import (
	"bytes"
	"strconv"
	"time"
)

// A frame is one event or comment. Without data it is a comment, possibly with
// an id or a retry.
//
// Line ends and NUL characters, with which a field could pass for others, are
// sent as spaces. That changes no JSON but what is none.
type frame struct {
	id      string        // "": none
	event   string        // type of the event; "": "message"
	data    []byte        // one line
	comment string        // without data only
	retry   time.Duration // 0: none
}

// appendFrame appends f as section 9.2.5 of the HTML standard describes it, as
// one block.
//
// Clients of TrailBase take a block for an event only if it begins with its
// data, and all the rest of the block for JSON. For them, idLast puts the id
// and the retry in blocks of their own, behind the data, and leaves out the
// type.
func appendFrame(dst []byte, f *frame, idLast bool) []byte {
	if !idLast {
		dst = appendRetry(dst, f.retry)
		dst = appendID(dst, f.id)
		if f.event != "" && len(f.data) > 0 {
			dst = appendLine(dst, "event: ", f.event)
		}
		dst = appendContent(dst, f)
		return append(dst, '\n')
	}

	block := len(dst)
	end := func() {
		if len(dst) > block {
			dst = append(dst, '\n')
		}
		block = len(dst)
	}
	dst = appendContent(dst, f)
	end()
	dst = appendRetry(dst, f.retry)
	end()
	dst = appendID(dst, f.id)
	end()
	return dst
}

// appendContent appends the data or the comment. Only a frame with nothing
// else has an empty comment.
func appendContent(dst []byte, f *frame) []byte {
	switch {
	case len(f.data) > 0:
		return appendLine(dst, "data: ", f.data)
	case f.comment != "":
		return appendLine(dst, ": ", f.comment)
	case f.id == "" && f.retry <= 0:
		return append(dst, ":\n"...)
	}
	return dst
}

func appendID(dst []byte, id string) []byte {
	if id == "" {
		return dst
	}
	return appendLine(dst, "id: ", id)
}

// appendRetry appends d in whole milliseconds, one at least.
func appendRetry(dst []byte, d time.Duration) []byte {
	if d <= 0 {
		return dst
	}
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, max(1, d.Milliseconds()), 10)
	return append(dst, '\n')
}

func appendLine[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(dst, name...)
	start := len(dst)
	dst = append(dst, value...)
	for _, c := range []byte("\r\n\x00") {
		for rest := dst[start:]; ; {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
	return append(dst, '\n')
}

// A write holds whole events, as many as fit into these sizes, or one larger
// one. Clients that want ids last also want no event in two pieces (some take
// what they read at once for whole events): a write that fits, with its chunk
// header, into the 4 KiB buffer of net/http makes one segment.
const (
	maxWrite       = 16 << 10
	maxWriteIDLast = 4<<10 - 16
)

// writeFrames calls write with the frames, gathered as said above. It uses buf
// and returns it, perhaps grown; write must not keep its argument.
func writeFrames(buf []byte, frames []frame, idLast bool, write func([]byte) error) ([]byte, error) {
	limit := writeLimit(idLast)
	buf = buf[:0]
	for i := range frames {
		whole := len(buf)
		buf = appendFrame(buf, &frames[i], idLast)
		if len(buf) > limit && whole > 0 {
			if err := write(buf[:whole]); err != nil {
				return buf, err
			}
			buf = buf[:copy(buf, buf[whole:])]
		}
	}
	if len(buf) == 0 {
		return buf, nil
	}
	return buf, write(buf)
}

func writeLimit(idLast bool) int {
	if idLast {
		return maxWriteIDLast
	}
	return maxWrite
}
