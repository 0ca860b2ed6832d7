package records

import (
	"context"
	"database/sql/driver"
)

// maxBulk bounds the records of one create.
const maxBulk = 1024

// read appends one record to dst. head is the position in the change log, if
// there is one.
func (s *Service) read(p *plan, r *request, dst []byte) (body []byte, head string, err error) {
	if !p.allows(Read, r.user) {
		return nil, "", ErrDenied
	}
	st := p.readOne
	switch {
	case r.user.system:
		st = p.readAny
	case p.live != nil:
		st = p.live.readHead
	}
	found := false
	row := func(row []driver.Value) (err error) {
		found = true
		if len(row) > len(p.output) {
			head, _ = row[len(p.output)].(string)
		}
		dst, err = p.appendRecord(dst, row, nil, nil)
		return err
	}
	// A statement by key takes no time worth interrupting.
	err = s.db.Query(context.Background(), st.sql, st.bind(r), row)
	if err != nil {
		return nil, "", refusal(err, p.read != nil)
	}
	if !found {
		return nil, "", missing(p.read)
	}
	if head != "" {
		head, err = p.live.cursor(head)
	}
	return dst, head, err
}
