package records

import (
	"context"
	"database/sql/driver"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/sqlite"
)

// selection is what a request wants to see of each record.
type selection struct {
	output []output  // by name; that of the plan unless the request says otherwise
	expand *expander // nil: nothing is included
}

// selection returns what q asks for: the columns in fields, or all, and the
// back relations in expand. A column that is to be expanded must be among them.
func (s *Service) selection(p *plan, q *listquery.Query, user caller) (sel selection, err error) {
	sel.output = p.output
	if sel.expand, err = s.expander(p, q.Expand, user); err != nil {
		return sel, err
	}
	if q.Fields != nil {
		if sel.output, err = p.narrowed(q.Fields); err != nil {
			return sel, err
		}
	}
	added := false
	for _, name := range q.Expand {
		if r := p.back[name]; r != nil {
			if !added {
				sel.output = slices.Clone(sel.output)
				added = true
			}
			sel.output = append(sel.output, output{column: p.table.key, prefix: r.prefix, back: r})
			continue
		}
		if !slices.ContainsFunc(sel.output, func(o output) bool { return o.expand != nil && o.name == name }) {
			return sel, errExpand
		}
	}
	if added {
		slices.SortFunc(sel.output, func(a, b output) int { return strings.Compare(a.member(), b.member()) })
	}
	return sel, nil
}

// narrowed returns the output of the columns called names. Columns that no
// caller may see are the same as columns that do not exist.
func (p *plan) narrowed(names []string) ([]output, error) {
	out := make([]output, 0, len(names)+1) // one more for a back relation
	for i := range p.output {
		if slices.Contains(names, p.output[i].name) {
			out = append(out, p.output[i])
		}
	}
	if len(out) < len(names) {
		return nil, errQuery
	}
	return out, nil
}

// member returns the name in the record.
func (o *output) member() string {
	if o.back != nil {
		return o.back.name
	}
	return o.name
}

// readSelected appends one record to dst as q asks for it; see read.
func (s *Service) readSelected(ctx context.Context, p *plan, r *request, q *listquery.Query, dst []byte) (body []byte, head string, err error) {
	if q.Fields == nil && q.Expand == nil {
		return s.read(p, r, dst)
	}
	if !p.allows(Read, r.user) {
		return nil, "", ErrDenied
	}
	sel, err := s.selection(p, q, r.user)
	if err != nil {
		return nil, "", err
	}
	granting := p.read
	if r.user.system {
		granting = nil
	}
	var b builder
	b.add("SELECT ")
	addOutput(&b, sel.output)
	if p.live != nil {
		b.add(",", p.live.head)
	}
	b.add(" FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, granting, nil)
	st := b.statement()

	// Rows of back relations may take long to find.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueryTimeout)
	defer cancel()
	if sel.expand != nil {
		release, err := s.slow.acquire(ctx)
		if err != nil {
			return nil, "", refusal(err, false)
		}
		defer release()
	}
	found := false
	err = s.db.Read(ctx, func(rd *sqlite.Reader) error {
		if sel.expand != nil {
			sel.expand.query = rd.Query
		}
		return rd.Query(st.sql, st.bind(r), func(row []driver.Value) (err error) {
			found = true
			if p.live != nil {
				head, _ = row[len(sel.output)].(string)
			}
			dst, err = appendOutput(dst, sel.output, row, sel.expand, nil)
			return err
		})
	})
	if err != nil {
		return nil, "", refusal(err, granting != nil)
	}
	if !found {
		return nil, "", missing(granting)
	}
	if head != "" {
		head, err = p.live.cursor(head)
	}
	return dst, head, err
}

// addOutput adds the columns that out is made from, in its order.
func addOutput(b *builder, out []output) {
	for i := range out {
		if i > 0 {
			b.add(",")
		}
		b.add(selected(out[i].column))
	}
}

// appendRecord appends a row as an object, without the column skip.
func (p *plan) appendRecord(dst []byte, row []driver.Value, exp *expander, skip *column) ([]byte, error) {
	return appendOutput(dst, p.output, row, exp, skip)
}

// appendOutput appends a row of the columns of out as an object, without the
// column skip.
func appendOutput(dst []byte, out []output, row []driver.Value, exp *expander, skip *column) (_ []byte, err error) {
	sep := byte('{')
	for i := range out {
		o := &out[i]
		if o.column == skip {
			continue
		}
		dst = append(append(dst, sep), o.prefix...)
		sep = ','
		if o.back != nil {
			if dst, err = exp.appendBack(dst, o.back, row[i]); err != nil {
				return dst, err
			}
			continue
		}
		if o.expand == nil || row[i] == nil || exp == flat {
			dst = o.append(dst, row[i])
			continue
		}
		dst = append(dst, '{')
		if exp != nil {
			if dst, err = exp.append(dst, o.expand, row[i]); err != nil {
				return dst, err
			}
		}
		dst = append(dst, `"id":`...)
		dst = append(o.append(dst, row[i]), '}')
	}
	if sep == '{' {
		dst = append(dst, '{')
	}
	return append(dst, '}'), nil
}
