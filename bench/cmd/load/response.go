package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// response reads one HTTP/1.1 answer from pieces of any size. The zero value
// is ready; reset makes it ready again.
type response struct {
	status  int
	state   responseState
	line    []byte // head, or a chunk's size line, as far as it was seen
	left    int    // bytes of body or chunk still to come
	excerpt []byte // beginning of the body of an answer that is no success
}

type responseState int

const (
	inHead responseState = iota
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

func (r *response) reset() {
	*r = response{line: r.line[:0], excerpt: r.excerpt[:0]}
}

// feed consumes p and reports whether the answer is complete. Bytes after the
// end are an error: nothing more was asked for.
func (r *response) feed(p []byte) (bool, error) {
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
func (r *response) step(p []byte) ([]byte, error) {
	switch r.state {
	case inHead:
		return r.head(p)
	case inBody, inChunk:
		n := min(r.left, len(p))
		if r.status/100 != 2 {
			r.excerpt = append(r.excerpt, p[:min(n, maxExcerpt-len(r.excerpt))]...)
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
func (r *response) head(p []byte) ([]byte, error) {
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
	r.status = n
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
	case r.status == 204 || r.status == 304 || length == 0 && !chunked:
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
func (r *response) chunkLine(p []byte) ([]byte, error) {
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
