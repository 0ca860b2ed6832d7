package records

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// maxParts bounds the fields of a form.
const maxParts = 1000

// decodeBody reads the records in a request's body: one object, or with many
// also an array of them.
func (s *Service) decodeBody(w http.ResponseWriter, r *http.Request, p *plan, user caller, many bool) ([]*request, error) {
	media := r.Header.Get("Content-Type")
	kind := ""
	for _, k := range [...]string{"application/json", "application/x-www-form-urlencoded", "multipart/form-data"} {
		if strings.HasPrefix(media, k) {
			kind = k
		}
	}
	if kind == "" {
		return nil, errTypes
	}
	buf := s.buffers.get()
	data := buf.b
	defer func() { buf.put(data) }()
	var err error
	if data, err = s.readBody(w, r, buf.b); err != nil {
		return nil, err
	}
	switch kind {
	case "application/json":
		return p.decodeJSON(data, user, many)
	case "application/x-www-form-urlencoded":
		return p.decodeForm(data, user)
	}
	return p.decodeMultipart(media, data, user)
}

// readBody appends the body to dst.
func (s *Service) readBody(w http.ResponseWriter, r *http.Request, dst []byte) ([]byte, error) {
	if r.ContentLength > s.cfg.BodyLimit {
		return dst, errTooLarge
	}
	if n := r.ContentLength; n > int64(cap(dst)) {
		dst = make([]byte, 0, n+1) // one more, to see the end without growing
	}
	body := http.MaxBytesReader(w, r.Body, s.cfg.BodyLimit)
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := body.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF { //nolint:errorlint // as io.Reader has it
			return dst, nil
		}
		if err != nil {
			return dst, errBody.because(err)
		}
	}
}

func (p *plan) newRequest(user caller) *request {
	return &request{user: user, values: make([]driver.Value, len(p.table.columns))}
}

func (p *plan) decodeJSON(data []byte, user caller, many bool) ([]*request, error) {
	kind, err := jsonx.TopLevel(data)
	switch {
	case err != nil:
		return nil, errBody.because(err)
	case kind == jsonx.Object:
		r, err := p.decodeObject(data, user)
		return []*request{r}, err
	case kind != jsonx.Array || !many:
		if !jsonx.Valid(data) {
			return nil, errBody
		}
		if !many {
			return nil, errNotSingle
		}
		return nil, errNoRecord
	}
	var records []*request
	uploaded := 0
	err = jsonx.ParseArray(data, func(v jsonx.Value) error {
		if v.Kind != jsonx.Object {
			return errNoRecord
		}
		if len(records) == maxBulk {
			return errBulk
		}
		r := p.newRequest(user)
		r.at, r.uploaded = "/"+strconv.Itoa(len(records)), &uploaded
		records = append(records, r)
		return p.decodeInto(r, v.Raw)
	})
	var known *Error
	switch {
	case errors.As(err, &known):
		return nil, err
	case err != nil:
		return nil, errBody.because(err)
	case len(records) == 0:
		return nil, errNoValues
	}
	return records, nil
}

// decodeObject reads the members that are columns and ignores all others.
func (p *plan) decodeObject(data []byte, user caller) (*request, error) {
	r := p.newRequest(user)
	return r, p.decodeInto(r, data)
}

// decodeInto is decodeObject for a request that there is.
func (p *plan) decodeInto(r *request, data []byte) error {
	var refused error
	err := jsonx.ParseObject(data, func(name []byte, v jsonx.Value) error {
		c := p.input[string(name)]
		if c == nil || c.generated {
			return nil
		}
		value, err := p.decodeValue(r, c, v)
		if err == nil && c == p.table.key && !addressable(value) {
			err = errParams
		}
		if refused == nil {
			refused = err // but go on: bad syntax counts first
		}
		r.values[c.index] = value
		r.given.add(c.index)
		return nil
	})
	var known *Error
	switch {
	case err != nil:
		return errBody.because(err)
	case errors.As(refused, &known):
		return known
	case refused != nil:
		return errParams
	}
	return nil
}

// decodeValue returns the value to store for v.
func (p *plan) decodeValue(r *request, c *column, v jsonx.Value) (driver.Value, error) {
	switch {
	case c.format == fileFormat, c.format == filesFormat:
		return p.decodeFiles(r, c, v)
	case r.refer != nil && v.Kind == jsonx.Object && c.format == plainFormat:
		return r.refer(c, v)
	}
	return c.decode(v)
}

// setForm sets a column from a form field.
func (p *plan) setForm(r *request, name, value string) error {
	c := p.input[name]
	if c == nil || c.generated {
		return nil
	}
	if r.given.has(c.index) {
		return errBody
	}
	v, err := c.decodeForm(value)
	if err != nil || c == p.table.key && !addressable(v) {
		return errParams
	}
	r.values[c.index] = v
	r.given.add(c.index)
	return nil
}

func (p *plan) decodeForm(data []byte, user caller) ([]*request, error) {
	if bytes.Count(data, []byte("&")) >= maxParts {
		return nil, errBody
	}
	fields, err := url.ParseQuery(string(data))
	if err != nil {
		return nil, errBody
	}
	r := p.newRequest(user)
	for name, values := range fields {
		for _, v := range values {
			if err := p.setForm(r, name, v); err != nil {
				return nil, err
			}
		}
	}
	return []*request{r}, nil
}

func (p *plan) decodeMultipart(media string, data []byte, user caller) ([]*request, error) {
	_, params, err := mime.ParseMediaType(media)
	if err != nil || params["boundary"] == "" {
		return nil, errBody
	}
	// The reader tells a body that ends early from a complete one only at times.
	end := bytes.LastIndex(data, []byte("--"+params["boundary"]+"--"))
	if end < 0 || end > 0 && data[end-1] != '\n' {
		return nil, errBody
	}
	parts := multipart.NewReader(bytes.NewReader(data), params["boundary"])
	r := p.newRequest(user)
	added := map[*column][]fileElement{}
	contents := make([]byte, 0, len(data)) // of all parts, for which this is enough
	for n := 0; ; n++ {
		part, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // a wrapped one is a body that ends early
			return []*request{r}, r.setFiles(added)
		}
		if err != nil || n == maxParts {
			return nil, errBody
		}
		size, err := readInto(contents[len(contents):cap(contents)], part)
		if err != nil {
			return nil, errBody
		}
		value := contents[len(contents) : len(contents)+size : len(contents)+size]
		contents = contents[:len(contents)+size]
		filename, isFile := partFilename(part)
		switch {
		case isFile && len(value) == 0: // a form's input that nobody has used
		case isFile && (filename != "" || part.FormName() != ""):
			err = p.addPart(r, added, part.FormName(), Upload{filename, part.Header.Get("Content-Type"), value})
		case part.FormName() == "":
			err = errBody
		default:
			err = p.setForm(r, part.FormName(), string(value))
		}
		if err != nil {
			return nil, err
		}
	}
}

// readInto reads all of r into dst, which has more room than that.
func readInto(dst []byte, r io.Reader) (n int, err error) {
	for n < len(dst) {
		m, err := r.Read(dst[n:])
		n += m
		if err == io.EOF { //nolint:errorlint // a wrapped one is a body that ends early
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, io.ErrShortBuffer
}

// partFilename returns the filename of a part of a form, and whether it has
// one: an empty one makes it a file, too.
func partFilename(part *multipart.Part) (filename string, ok bool) {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return "", false
	}
	filename, ok = params["filename"]
	return filename, ok
}
