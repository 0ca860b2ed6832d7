package records

import (
	"bytes"
	"database/sql/driver"
	"encoding/base64"

	"github.com/bedplate/bedplate/internal/jsonx"
)

// An Upload is a file for a file column. As JSON it is what a request holds.
type Upload struct {
	Filename    string `json:"filename,omitempty"`     // as its user knows it, optional
	ContentType string `json:"content_type,omitempty"` // as its user declares it, optional
	Data        []byte `json:"data"`
}

// A File is what a record tells about a file: the value of a std.FileUpload
// column, and an element of the value of a std.FileUploads column. In an update
// it stands for the file that the record has already.
type File struct {
	OriginalFilename string `json:"original_filename,omitempty"` // of the upload
	Filename         string `json:"filename"`                    // unique, for the path of the download
	ContentType      string `json:"content_type,omitempty"`      // of the upload
	MIMEType         string `json:"mime_type,omitempty"`         // after the content
}

// keptFiles stands for the value of a file column of which parts are known in
// the transaction only: files that the row has already.
type keptFiles struct {
	elements []fileElement
}

// A fileElement is the metadata of a new file, or the filename of one to keep.
type fileElement struct {
	metadata []byte
	keep     string
}

// decodeFiles reads the value of a file column: an object or an array of
// objects, each an upload or a file to keep.
func (p *plan) decodeFiles(r *request, c *column, v jsonx.Value) (driver.Value, error) {
	switch {
	case v.Kind == jsonx.Null:
		return nil, nil
	case p.files == nil:
		return nil, errParams
	}
	var elements []fileElement
	element := func(v jsonx.Value) error {
		if len(elements) == p.files.cfg.MaxFiles {
			return errTooManyFiles
		}
		e, err := p.decodeFile(r, c, v)
		elements = append(elements, e)
		return err
	}
	var err error
	switch {
	case c.format == fileFormat && v.Kind == jsonx.Object:
		err = element(v)
	case c.format == filesFormat && v.Kind == jsonx.Array:
		err = jsonx.ParseArray(v.Raw, element)
	default:
		err = errParams
	}
	if err != nil {
		return nil, err
	}
	return r.fileValue(c, elements)
}

// fileValue returns the value of a file column that has these elements.
func (r *request) fileValue(c *column, elements []fileElement) (driver.Value, error) {
	names := map[string]bool{}
	for _, e := range elements {
		if e.keep == "" {
			continue
		}
		if names[e.keep] {
			return nil, errParams
		}
		names[e.keep] = true
	}
	if len(names) > 0 {
		r.keeps = true
		return &keptFiles{elements}, nil
	}
	return joinFiles(c, elements), nil
}

// joinFiles returns what a column stores, given the metadata of its files.
func joinFiles(c *column, elements []fileElement) driver.Value {
	if c.format == fileFormat {
		return string(elements[0].metadata)
	}
	b := []byte{'['}
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.metadata...)
	}
	return string(append(b, ']'))
}

// decodeFile reads {"data":…} with name, filename and content_type, or the
// metadata of a file to keep. Other members are refused, the id above all: it
// would make another's file one's own.
func (p *plan) decodeFile(r *request, c *column, v jsonx.Value) (fileElement, error) {
	if v.Kind != jsonx.Object {
		return fileElement{}, errParams
	}
	var data jsonx.Value
	members := map[string]string{}
	err := jsonx.ParseObject(v.Raw, func(name []byte, v jsonx.Value) error {
		switch string(name) {
		case "data":
			if v.Kind != jsonx.String {
				return errParams
			}
			data = v
			return nil
		case "name", "filename", "content_type", "original_filename", "mime_type":
		default:
			return errParams
		}
		if v.Kind == jsonx.Null {
			return nil
		}
		text, err := v.Text()
		if err != nil {
			return errParams
		}
		members[string(name)] = text
		return nil
	})
	if err != nil {
		return fileElement{}, err
	}
	has := func(name string) bool { _, ok := members[name]; return ok }
	if data.Kind == jsonx.Null {
		if has("name") || members["filename"] == "" {
			return fileElement{}, errParams
		}
		return fileElement{keep: members["filename"]}, nil
	}
	if has("original_filename") || has("mime_type") {
		return fileElement{}, errParams
	}
	content, ok := decodeContent(data)
	if !ok {
		return fileElement{}, errParams
	}
	return p.addUpload(r, c, Upload{members["filename"], members["content_type"], content})
}

// decodeContent reads padded base64 of the URL-safe or the standard alphabet.
func decodeContent(v jsonx.Value) ([]byte, bool) {
	text := v.Raw[1 : len(v.Raw)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		var err error
		if text, err = v.AppendText(nil); err != nil {
			return nil, false
		}
	}
	if bytes.ContainsAny(text, "\r\n") { // which the decoders skip
		return nil, false
	}
	alphabet := strictBase64
	if bytes.ContainsAny(text, "+/") {
		alphabet = base64.StdEncoding.Strict()
	}
	content := make([]byte, alphabet.DecodedLen(len(text)))
	n, err := alphabet.Decode(content, text)
	return content[:n], err == nil
}

// addUpload adds a file to those that r brings, and returns its metadata.
func (p *plan) addUpload(r *request, c *column, u Upload) (fileElement, error) {
	switch {
	case int64(len(u.Data)) > p.files.cfg.MaxSize:
		return fileElement{}, errFileTooLarge
	case r.countUpload() > p.files.maxUploads():
		return fileElement{}, errTooManyFiles
	}
	id, original := newFileID(), cleanName(u.Filename)
	r.uploads = append(r.uploads, &upload{id: id, column: c, size: int64(len(u.Data)), data: u.Data})
	b := append(make([]byte, 0, 256), '{')
	for _, m := range [...]struct{ name, value string }{
		{"id", id},
		{"original_filename", original},
		{"filename", storedName(original)},
		{"content_type", cleanMediaType(u.ContentType)},
		{"mime_type", sniff(u.Data)},
	} {
		if m.value == "" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(jsonx.AppendString(b, m.name), ':')
		b = jsonx.AppendString(b, m.value)
	}
	return fileElement{metadata: append(b, '}')}, nil
}

// countUpload returns how many files the body has that r is from, with one more
// of r.
func (r *request) countUpload() int {
	if r.uploaded == nil {
		return len(r.uploads) + 1
	}
	*r.uploaded++
	return *r.uploaded
}

// addPart adds a file of a form to the column name. A column for several files
// may be named several times.
func (p *plan) addPart(r *request, added map[*column][]fileElement, name string, u Upload) error {
	c := p.input[name]
	if c == nil || c.generated {
		return nil
	}
	single := c.format == fileFormat
	switch {
	case p.files == nil, !single && c.format != filesFormat, r.given.has(c.index), single && len(added[c]) > 0:
		return errParams
	case len(added[c]) == p.files.cfg.MaxFiles:
		return errTooManyFiles
	}
	e, err := p.addUpload(r, c, u)
	added[c] = append(added[c], e)
	return err
}

// setFiles gives file columns the files that a form has for them.
func (r *request) setFiles(added map[*column][]fileElement) error {
	for c, elements := range added {
		if r.given.has(c.index) {
			return errBody
		}
		r.values[c.index] = joinFiles(c, elements)
		r.given.add(c.index)
	}
	return nil
}

// uploadValue gives a file column new files: one, or for std.FileUploads any
// number. Their data must not change until the request has been executed.
func (p *plan) uploadValue(r *request, c *column, uploads ...Upload) error {
	switch {
	case p.files == nil, c.format == fileFormat && len(uploads) != 1, c.format != fileFormat && c.format != filesFormat:
		return errParams
	case len(uploads) > p.files.cfg.MaxFiles:
		return errTooManyFiles
	}
	var elements []fileElement
	for _, u := range uploads {
		e, err := p.addUpload(r, c, u)
		if err != nil {
			return err
		}
		elements = append(elements, e)
	}
	r.values[c.index] = joinFiles(c, elements)
	r.given.add(c.index)
	return nil
}

// resolveFiles puts metadata in the place of files to keep. old has the values
// of the row, by the index of the column; without a row there are none. After
// an error, unknown files are NULL, so that a rule can be asked nevertheless.
func (p *plan) resolveFiles(r *request, old []driver.Value) (err error) {
	if !r.keeps {
		return nil
	}
	for _, c := range p.fileColumns {
		kept, ok := r.values[c.index].(*keptFiles)
		if !ok {
			continue
		}
		var stored map[string][]byte
		if old != nil {
			stored = filesByName(c, old[c.index])
		}
		r.values[c.index] = nil
		if elements, ok := kept.resolve(stored); ok {
			r.values[c.index] = joinFiles(c, elements)
		} else {
			err = errUnknownFile
		}
	}
	return err
}

// resolve returns the elements with the metadata of all. stored is that of the
// files that there are, by filename.
func (k *keptFiles) resolve(stored map[string][]byte) (elements []fileElement, ok bool) {
	for _, e := range k.elements {
		if e.keep != "" {
			if e.metadata = stored[e.keep]; e.metadata == nil {
				return nil, false
			}
		}
		elements = append(elements, e)
	}
	return elements, true
}

// filesByName returns the metadata in the value of a file column by filename.
func filesByName(c *column, value driver.Value) map[string][]byte {
	byName := map[string][]byte{}
	_ = eachFile(c, value, func(f storedFile, raw []byte) error {
		if byName[f.Filename] == nil {
			byName[f.Filename] = raw
		}
		return nil
	})
	return byName
}

// A storedFile is the metadata of a file as a column holds it.
type storedFile struct {
	id string
	File
}

// eachFile calls fn for each file in the value of a file column. What is not
// one is left out.
func eachFile(c *column, value driver.Value, fn func(f storedFile, raw []byte) error) error {
	text, ok := value.(string)
	if !ok {
		return nil
	}
	element := func(v jsonx.Value) error {
		var f storedFile
		dst := map[string]*string{"id": &f.id, "original_filename": &f.OriginalFilename, "filename": &f.Filename, "content_type": &f.ContentType, "mime_type": &f.MIMEType}
		err := jsonx.ParseObject(v.Raw, func(name []byte, v jsonx.Value) (err error) {
			if p := dst[string(name)]; p != nil && v.Kind == jsonx.String {
				*p, err = v.Text()
			}
			return err
		})
		if err != nil {
			return err
		}
		return fn(f, v.Raw)
	}
	v, err := jsonx.Parse([]byte(text))
	switch {
	case err != nil:
		return err
	case c.format == fileFormat && v.Kind == jsonx.Object:
		return element(v)
	case c.format == filesFormat && v.Kind == jsonx.Array:
		return jsonx.ParseArray(v.Raw, func(v jsonx.Value) error {
			if v.Kind != jsonx.Object {
				return nil
			}
			return element(v)
		})
	}
	return nil
}
