package records

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/rule"
)

const (
	defaultBackLimit = 50
	maxBackLimit     = 1024

	// maxIncluded bounds the rows of back relations in one response.
	maxIncluded = 10_000
)

var errIncluded = badRequest("too many records included, use a smaller limit")

// backRelation is a [BackRelation] compiled: rows of an API that refer to a row.
type backRelation struct {
	name   string
	prefix []byte // `"name":`
	limit  int
	plan   *plan      // nil: the API does not fit the schema
	find   *statement // finds one more than limit
	any    *statement // likewise, whatever the read rule says
}

// backRelations compiles those of p. Mistakes of the other API are its own:
// at run time, the relation waits until it fits again.
func (c *compiler) backRelations(p *plan, all, fit []*plan) {
	p.back = make(map[string]*backRelation, len(p.api.Back))
	for _, api := range p.api.Back {
		r, err := newBackRelation(p, api, all)
		if err == nil && p.back[api.Name] != nil {
			err = fmt.Errorf("listed twice")
		}
		if err != nil {
			c.fail(p.api.Name, fmt.Errorf("back relation %q: %w", api.Name, err))
			continue
		}
		if !slices.Contains(fit, r.plan) {
			r.plan = nil
		}
		p.back[api.Name] = r
	}
}

func newBackRelation(p *plan, api BackRelation, all []*plan) (*backRelation, error) {
	r := &backRelation{name: api.Name, prefix: append(jsonx.AppendString(nil, api.Name), ':'), limit: api.Limit}
	switch {
	case api.Name == "" || !validName(api.Name) || strings.HasPrefix(api.Name, "_"):
		return nil, fmt.Errorf("a name consists of letters, digits and underscores, and begins with none of the latter")
	case p.table.view:
		return nil, fmt.Errorf("%q is a view, nothing refers to it", p.api.Table)
	case p.table.column(api.Name) != nil:
		return nil, fmt.Errorf("there is a column of that name")
	case api.Limit < 0 || api.Limit > maxBackLimit:
		return nil, fmt.Errorf("limit is not between 0 and %d", maxBackLimit)
	case api.Limit == 0:
		r.limit = defaultBackLimit
	}
	at := slices.IndexFunc(all, func(q *plan) bool { return q.api.Name == api.API })
	if at < 0 {
		return nil, fmt.Errorf("no api %q", api.API)
	}
	q := all[at]
	if q.table == nil {
		return r, nil // which is a mistake already
	}
	if q.table.view {
		return nil, fmt.Errorf("api %q is of a view", api.API)
	}
	// Who sees a record included knows the value of the column.
	col := q.visible(api.Column)
	switch {
	case col == nil:
		return nil, fmt.Errorf("api %q has no column %q that callers may see", api.API, api.Column)
	case col.ref == nil || q.table.database != p.table.database || !strings.EqualFold(col.ref.table, p.table.name) ||
		col.ref.column != "" && !strings.EqualFold(col.ref.column, p.table.key.name):
		return nil, fmt.Errorf("column %q of api %q is not a foreign key to the primary key of %q", api.Column, api.API, p.api.Table)
	}
	r.plan = q
	r.find = q.referring(col, q.read, r.limit+1)
	r.any = q.referring(col, nil, r.limit+1)
	return r, nil
}

// referring selects the records whose column col is a key, if granting grants
// them.
func (p *plan) referring(col *column, granting *rule.Rule, limit int) *statement {
	var b builder
	b.add("SELECT ")
	addOutput(&b, p.output)
	b.add(" FROM ", p.table.sql(), ` AS "_ROW_" WHERE `, rowColumn(col), "=", b.slot(slot{kind: keySlot}))
	if granting != nil {
		b.add(" AND +", b.granted(granting, p.table, nil)) // see byKey
	}
	b.add(" ORDER BY ", rowColumn(p.table.key), " LIMIT ", strconv.Itoa(limit))
	return b.statement()
}

// appendBack appends the records that refer to key as {"records":[…]}, with
// "more":true behind them if there are others. For a caller who may not read
// the API there are none, nor when its rule cannot be evaluated.
func (x *expander) appendBack(dst []byte, r *backRelation, key driver.Value) ([]byte, error) {
	const none = `{"records":[]}`
	if r.plan == nil {
		return dst, fmt.Errorf("back relation %q: its api does not fit the schema any more", r.name)
	}
	if !r.plan.allows(Read, x.user) {
		return append(dst, none...), nil
	}
	st, ruled := r.find, r.plan.read != nil
	if x.user.system {
		st, ruled = r.any, false
	}
	start, n := len(dst), 0
	dst = append(dst, `{"records":[`...)
	err := x.query(st.sql, st.bind(&request{user: x.user, key: key}), func(row []driver.Value) (err error) {
		if n++; n > r.limit {
			return nil
		}
		if x.rows++; x.rows > maxIncluded || len(dst) > maxPage {
			return errIncluded
		}
		if n > 1 {
			dst = append(dst, ',')
		}
		dst, err = r.plan.appendRecord(dst, row, flat, nil)
		return err
	})
	switch {
	case err == nil && n > r.limit:
		return append(dst, `],"more":true}`...), nil
	case err == nil:
		return append(dst, "]}"...), nil
	case ruled && evaluation(err):
		return append(dst[:start], none...), nil
	}
	return dst, err
}
