package records

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"strings"

	"github.com/bedplate/bedplate/sqlite"
)

// An entity tag (RFC 9110, section 8.8.3) is a hash of what a response shows.
// That of one record as it is read without parameters is strong; it is the
// version that If-Match speaks of. All others are weak.

// strongTag returns the entity tag of a record.
func strongTag(body []byte) string {
	sum := sha256.Sum256(body)
	return string(appendTag(make([]byte, 0, 24), sum[:16]))
}

// weakTag returns the entity tag of any other response: of the records in it,
// how many there are in all, and for whom and in what order they are, since a
// cursor is good for that only. Pages are large, so the hash is a fast one,
// with a seed of this service: another has other tags for the same.
func (s *Service) weakTag(records []byte, total int64, context []byte) string {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.Write(records) // never fails
	_, _ = h.Write(binary.AppendVarint(make([]byte, 0, 64), total))
	_, _ = h.Write(context)
	return string(appendTag(append(make([]byte, 0, 16), "W/"...), h.Sum(make([]byte, 0, 8))))
}

func appendTag(dst, hash []byte) []byte {
	dst = base64.RawURLEncoding.AppendEncode(append(dst, '"'), hash)
	return append(dst, '"')
}

// tags are the values of a header If-Match or If-None-Match.
type tags struct {
	given bool
	any   bool // "*"
	list  []string
}

// maxTags bounds the entity tags in one request.
const maxTags = 32

var (
	errTags         = badRequest("Invalid entity tag")
	errPrecondition = &Error{Status: http.StatusPreconditionFailed}
)

// parseTags reads a list of entity tags.
func parseTags(lines []string) (t tags, err error) {
	if len(lines) == 0 {
		return t, nil
	}
	t.given = true
	rest := strings.TrimSpace(strings.Join(lines, ","))
	if rest == "*" {
		t.any = true
		return t, nil
	}
	for rest != "" {
		weak := ""
		if tail, ok := strings.CutPrefix(rest, "W/"); ok {
			weak, rest = "W/", tail
		}
		if rest == "" || rest[0] != '"' {
			return t, errTags
		}
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 || len(t.list) == maxTags {
			return t, errTags
		}
		t.list = append(t.list, weak+rest[:end+2])
		rest = strings.TrimLeft(rest[end+2:], " \t")
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return t, errTags
		}
		rest = strings.TrimLeft(rest, ", \t")
	}
	if len(t.list) == 0 {
		return t, errTags
	}
	return t, nil
}

// strong reports whether tag is in the list by the strong comparison.
func (t tags) strong(tag string) bool {
	for _, have := range t.list {
		if have == tag && !strings.HasPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// weak reports whether tag is in the list by the weak comparison.
func (t tags) weak(tag string) bool {
	for _, have := range t.list {
		if strings.TrimPrefix(have, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// unchanged reports whether the client has the response with that tag.
func unchanged(r *http.Request, tag string) bool {
	lines := r.Header["If-None-Match"]
	if len(lines) == 0 {
		return false
	}
	t, err := parseTags(lines)
	return err == nil && (t.any || t.weak(tag))
}

// A condition is what a record must be like to be changed.
type condition struct {
	match, none tags
}

// newCondition returns the condition in the headers of a request, or nil.
func newCondition(h http.Header) (*condition, error) {
	if len(h["If-Match"]) == 0 && len(h["If-None-Match"]) == 0 {
		return nil, nil
	}
	match, err := parseTags(h["If-Match"])
	if err != nil {
		return nil, err
	}
	none, err := parseTags(h["If-None-Match"])
	if err != nil {
		return nil, err
	}
	return &condition{match, none}, nil
}

// holds reports whether the condition holds for a record with that tag; an
// empty one stands for a record that is not there.
func (c *condition) holds(tag string) bool {
	switch {
	case c.match.given && (tag == "" || !c.match.any && !c.match.strong(tag)):
		return false
	case c.none.given && tag != "" && (c.none.any || c.none.weak(tag)):
		return false
	}
	return true
}

// conditions appends the statement that looks whether the condition of w
// holds. A record that the caller may not read is not there: else its tag
// could be guessed.
func (w *write) conditions(stmts []sqlite.Stmt) []sqlite.Stmt {
	if w.cond == nil {
		return stmts
	}
	tag := ""
	stmt := w.readTag(&tag)
	stmt.Done = func(rows int) error {
		if rows == 0 {
			tag = ""
		}
		if !w.cond.holds(tag) {
			return errPrecondition
		}
		return nil
	}
	return append(stmts, stmt)
}

// readBack returns the statement that reads the tag of the record as it is now.
func (w *write) readBack() sqlite.Stmt {
	stmt := w.readTag(&w.etag)
	stmt.Done = func(rows int) error {
		if rows == 0 {
			w.etag = ""
		}
		return nil
	}
	return stmt
}

func (w *write) readTag(tag *string) sqlite.Stmt {
	p := w.p
	if !p.allows(Read, w.r.user) {
		return sqlite.Stmt{SQL: "SELECT 1 WHERE 0"}
	}
	st := p.readOne
	if w.r.user.system {
		st = p.readAny
	}
	return sqlite.Stmt{SQL: st.sql, Args: st.bind(w.r), Row: func(row []driver.Value) {
		body, err := p.appendRecord(nil, row, nil, nil)
		if err != nil { // only expanding fails
			panic(err)
		}
		*tag = strongTag(body)
	}}
}
