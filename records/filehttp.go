package records

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	maxRange     = 100         // bytes of the header Range
	missingEvery = time.Minute // how often a missing file is logged
	cacheFile    = "private, no-cache"
)

// serveFile answers GET and HEAD of /{api}/{id}/file/{column}, and of
// /{api}/{id}/files/{column}/{filename}, with the content of a file that the
// caller may read at this moment. A browser will not show it as a page of this
// site: it is an attachment, and sandboxed.
func (s *Service) serveFile(w http.ResponseWriter, r *http.Request, p *plan, user caller, id, column, filename string) error {
	req, err := p.request(user, id)
	if err != nil {
		return err
	}
	if !p.allows(Read, user) {
		return ErrDenied
	}
	c, err := p.fileColumn(column, filename != "")
	if err != nil {
		return err
	}
	file, err := s.findFile(p, req, c, filename)
	if err != nil {
		return err
	}
	if s.files == nil {
		return ErrNotFound
	}
	content, err := s.files.cfg.Store.Open(r.Context(), file.id)
	if errors.Is(err, fs.ErrNotExist) {
		if s.files.tellMissing() {
			s.log.WarnContext(r.Context(), "a file is not in the store", "api", p.api.Name, "column", c.name, "file", file.id)
		}
		return ErrNotFound
	}
	if err != nil {
		return storeRefusal(fmt.Errorf("open a file: %w", err))
	}
	defer func() { _ = content.Close() }()
	return s.sendFile(w, r, file, content)
}

// tellMissing reports whether to log that a file is missing: now and then, as
// anybody may ask for it as often as they like.
func (f *files) tellMissing() bool {
	now, last := f.now().UnixNano(), f.missingTold.Load()
	return (last == 0 || now-last >= int64(missingEvery)) && f.missingTold.CompareAndSwap(last, now)
}

// sendFile answers with content, or the part of it that r asks for.
func (s *Service) sendFile(w http.ResponseWriter, r *http.Request, file storedFile, content io.ReadSeeker) error {
	var failed error
	if _, ok := content.(*os.File); !ok { // for which the system copies by itself
		content = &watchedContent{content, &failed}
	}
	answer := &fileAnswer{ResponseWriter: w}
	file.setHeader(w.Header())
	http.ServeContent(answer, oneRange(r), "", time.Time{}, content)
	switch {
	case answer.refused == 0:
		if failed != nil && r.Context().Err() == nil {
			s.log.WarnContext(r.Context(), "read a file for a download", "file", file.id, "error", failed)
		}
		return nil
	case failed != nil || answer.refused >= http.StatusInternalServerError:
		dropHeader(w.Header(), "Content-Range", "Accept-Ranges")
		return storeRefusal(fmt.Errorf("read a file: %w", failed))
	}
	dropHeader(w.Header())
	w.Header().Set("Cache-Control", cacheFile)
	w.Header().Set("Etag", file.etag())
	return &Error{Status: answer.refused}
}

// dropHeader takes back what is about the content of a file, and others.
func dropHeader(h http.Header, others ...string) {
	for _, name := range append(others, "Content-Type", "Content-Disposition", "Content-Security-Policy", "Cross-Origin-Resource-Policy", "Cache-Control", "Etag") {
		h.Del(name)
	}
}

// A fileAnswer withholds the answers of http.ServeContent to what it cannot
// serve.
type fileAnswer struct {
	http.ResponseWriter
	refused int // the status
}

func (a *fileAnswer) WriteHeader(status int) {
	if status == http.StatusRequestedRangeNotSatisfiable || status >= http.StatusInternalServerError {
		a.refused = status
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *fileAnswer) Write(p []byte) (int, error) {
	if a.refused != 0 {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// ReadFrom leaves copying to the server, which may have better means.
func (a *fileAnswer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(a.ResponseWriter, r) }

// A watchedContent tells of the first error of the store.
type watchedContent struct {
	io.ReadSeeker
	failed *error
}

func (c *watchedContent) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	return n, c.note(err)
}

func (c *watchedContent) Seek(offset int64, whence int) (int64, error) {
	n, err := c.ReadSeeker.Seek(offset, whence)
	return n, c.note(err)
}

func (c *watchedContent) note(err error) error {
	if *c.failed == nil && !errors.Is(err, io.EOF) {
		*c.failed = err
	}
	return err
}

// fileColumn returns the column of that name that a caller may see, if it
// holds files: named ones, or just one.
func (p *plan) fileColumn(name string, named bool) (*column, error) {
	for _, o := range p.output {
		switch {
		case o.name != name:
		case o.format == fileFormat, o.format == filesFormat && named:
			return o.column, nil
		case named:
			return nil, errNotFiles
		default:
			return nil, errNotFile
		}
	}
	return nil, errNoColumn
}

var (
	errNoColumn = badRequest("Invalid field/column name")
	errNotFile  = badRequest("Not a file")
	errNotFiles = badRequest("Not a files list")
)

// findFile returns the metadata of a file in a record that the read rule
// grants: the one of that name, or the only one.
func (s *Service) findFile(p *plan, r *request, c *column, filename string) (file storedFile, err error) {
	rule := p.read
	if r.user.system {
		rule = nil
	}
	var b builder
	b.add("SELECT ", selected(c), " FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, rule, nil)
	st := b.statement()
	var value driver.Value
	found := false
	err = s.db.Query(context.Background(), st.sql, st.bind(r), func(row []driver.Value) error {
		found, value = true, row[0]
		return nil
	})
	if err != nil {
		return file, refusal(err, rule != nil)
	}
	if !found {
		return file, missing(rule)
	}
	found = false
	err = eachFile(c, value, func(f storedFile, _ []byte) error {
		if !found && (filename == "" || f.Filename == filename) {
			found, file = true, f
		}
		return nil
	})
	if err != nil || !found || file.id == "" {
		return file, ErrNotFound.because(err)
	}
	return file, nil
}

func (f storedFile) setHeader(h http.Header) {
	h.Set("Content-Type", f.mediaType())
	h.Set("Content-Disposition", f.disposition())
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-site")
	h.Set("Cache-Control", cacheFile)
	h.Set("Etag", f.etag())
}

// mediaType prefers what the content has the look of to what the client has
// said, except that text may be text of any kind that no page runs.
func (f storedFile) mediaType() string {
	sniffed := cleanMediaType(f.MIMEType)
	if sniffed != "" && sniffed != "text/plain" && !runs(sniffed) {
		return sniffed
	}
	if declared := cleanMediaType(f.ContentType); declared != "" && !runs(declared) {
		return declared
	}
	return "text/plain; charset=utf-8"
}

// disposition names the file as its user knows it (RFC 6266), with the second
// form of RFC 8187 for names that the first one cannot hold.
func (f storedFile) disposition() string {
	name := cleanName(f.OriginalFilename)
	if name == "" {
		name = cleanName(f.Filename)
	}
	if name == "" {
		return "attachment"
	}
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\%`, r) {
			return '_'
		}
		return r
	}, name)
	header := `attachment; filename="` + plain + `"`
	if plain == name {
		return header
	}
	return header + "; filename*=UTF-8''" + percentEncode(name)
}

// percentEncode escapes what is not an attr-char (RFC 8187 3.2.1).
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z', strings.IndexByte("!#$&+-.^_`|~", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// etag tells one content from another without telling the id: what is stored
// under an id does not change.
func (f storedFile) etag() string {
	sum := sha256.Sum256([]byte("file " + f.id))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`
}

// oneRange returns r without a Range that asks for several parts, which makes
// it a request for the whole file.
func oneRange(r *http.Request) *http.Request {
	ranges := r.Header.Values("Range")
	if len(ranges) == 0 || len(ranges) == 1 && len(ranges[0]) <= maxRange && !strings.Contains(ranges[0], ",") {
		return r
	}
	whole := *r
	whole.Header = r.Header.Clone()
	whole.Header.Del("Range")
	return &whole
}
