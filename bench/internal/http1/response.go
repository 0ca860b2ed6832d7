// Package http1 reads answers of HTTP/1.1 from pieces of any size.
package http1

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Response reads one answer. The zero value is ready; Reset makes it ready
// again.
type Response struct {
	Status  int
	Excerpt []byte // beginning of the body of an answer that is no success

	// Body, if not nil, gets the body of a success as it comes in, freed
	// from its framing. It must not keep the piece.
	Body func(piece []byte) error

	state state
	line  []byte // head, or a chunk's size line, as far as it was seen
	left  int    // bytes of body or chunk still to come
}

type state int

const (
	inHead state = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	complete
)

const (
	maxHead    = 64 << 10
	maxExcerpt = 200
)

// Reset prepares for the next answer on the same connection.
func (r *Response) Reset() {
	*r = Response{Body: r.Body, line: r.line[:0], Excerpt: r.Excerpt[:0]}
}

// Feed consumes p and reports whether the answer is complete. Bytes after the
// end are an error: nothing more was asked for.
func (r *Response) Feed(p []byte) (bool, error) {
	for len(p) > 0 {
		var err error
		if p, err = r.step(p); err != nil {
			return false, err
		}
		if r.state == complete && len(p) > 0 {
			return false, fmt.Errorf("%d bytes after the end of the answer", len(p))
		}
	}
	return r.state == complete, nil
}

// step consumes some of p and returns the rest.
func (r *Response) step(p []byte) ([]byte, error) {
	switch r.state {
	case inHead:
		return r.head(p)
	case inBody, inChunk:
		n := min(r.left, len(p))
		if r.Status/100 != 2 {
			r.Excerpt = append(r.Excerpt, p[:min(n, maxExcerpt-len(r.Excerpt))]...)
		}
		if r.Body != nil && r.Status/100 == 2 {
			if err := r.Body(p[:n]); err != nil {
				return nil, err
			}
		}
		if r.left -= n; r.left == 0 {
			if r.state == inBody {
				r.state = complete
			} else {
				r.state = inChunkEnd
			}
		}
		return p[n:], nil
	default:
		return r.chunkLine(p)
	}
}

// head collects the status line and the header, then decides how the body is
// framed.
func (r *Response) head(p []byte) ([]byte, error) {
	// The end may straddle two pieces: look again at the last three bytes.
	from := max(len(r.line)-3, 0)
	had := len(r.line)
	r.line = append(r.line, p...)
	end := bytes.Index(r.line[from:], []byte("\r\n\r\n"))
	if end < 0 {
		if len(r.line) > maxHead {
			return nil, errors.New("endless header")
		}
		return nil, nil
	}
	end += from
	rest := p[end+4-had:]
	lines := string(r.line[:end])
	r.line = r.line[:0]

	status, header, _ := strings.Cut(lines, "\r\n")
	code, _, _ := strings.Cut(strings.TrimPrefix(status, "HTTP/1.1 "), " ")
	n, err := strconv.Atoi(code)
	if err != nil {
		return nil, fmt.Errorf("bad status line %q", status)
	}
	r.Status = n
	length, chunked := -1, false
	for line := range strings.SplitSeq(header, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			if length, err = strconv.Atoi(value); err != nil || length < 0 {
				return nil, fmt.Errorf("bad Content-Length %q", value)
			}
		case strings.EqualFold(name, "Transfer-Encoding"):
			chunked = strings.EqualFold(value, "chunked")
		}
	}
	switch {
	case r.Status == 204 || r.Status == 304 || length == 0 && !chunked:
		r.state = complete
	case chunked:
		r.state = inChunkSize
	case length > 0:
		r.state, r.left = inBody, length
	default:
		return nil, errors.New("an answer without a length")
	}
	return rest, nil
}

// chunkLine collects one line of the chunked framing and acts on it.
func (r *Response) chunkLine(p []byte) ([]byte, error) {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		r.line = append(r.line, p...)
		if len(r.line) > maxHead {
			return nil, errors.New("endless chunk line")
		}
		return nil, nil
	}
	r.line = append(r.line, p[:i]...)
	line := string(bytes.TrimSuffix(r.line, []byte("\r")))
	r.line = r.line[:0]
	switch r.state {
	case inChunkSize:
		n, err := strconv.ParseUint(line, 16, 31)
		if err != nil {
			return nil, fmt.Errorf("bad chunk size %q", line)
		}
		if r.left, r.state = int(n), inChunk; n == 0 {
			r.state = inTrailer
		}
	case inChunkEnd:
		if line != "" {
			return nil, fmt.Errorf("%q where a chunk should end", line)
		}
		r.state = inChunkSize
	case inTrailer:
		if line == "" {
			r.state = complete
		}
	}
	return p[i+1:], nil
}
