package records

import (
	"fmt"
	"sync/atomic"

	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/sqlite"
)

// A View is how the subscribers of an API see the changes of its table: those
// of rows that its read rule and a filter let through, without hidden and
// excluded columns. It follows the schema. It is safe for concurrent use.
type View struct {
	s       *Service
	api     string
	filter  *listquery.Filter
	key     string
	perUser bool

	database, table string // see Source

	latest atomic.Pointer[judgement]
}

func newView(s *Service, p *plan, filter *listquery.Filter) (*View, error) {
	j, err := newJudgement(p, filter)
	if err != nil {
		return nil, refusedFilter(err)
	}
	v := &View{
		s: s, api: p.api.Name, filter: filter, perUser: p.read != nil && p.read.UsesUser(),
		key:      s.id + " " + p.api.Name + "?" + canonical(filter),
		database: p.table.database, table: p.table.name,
	}
	v.latest.Store(j)
	return v, nil
}

// current returns the judgement for the present schema.
func (v *View) current() (*judgement, error) {
	p, err := v.s.plan(v.api)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if j := v.latest.Load(); j.plan == p {
		return j, nil
	}
	if p.table.database != v.database || p.table.name != v.table {
		return nil, fmt.Errorf("%w: api %q: table %q is %q now", ErrGone, v.api, v.table, p.table.name)
	}
	j, err := newJudgement(p, v.filter)
	if err != nil {
		return nil, fmt.Errorf("%w: api %q: filter: %w", ErrGone, v.api, err)
	}
	v.latest.Store(j)
	return j, nil
}

// Key is equal for views of one API of one Service with the same filter, and
// for no others.
func (v *View) Key() string { return v.key }

// Source returns the database, "main" or the name of an attached one, and the
// table, always the same.
func (v *View) Source() (database, table string) { return v.database, v.table }

// PerUser reports whether it depends on the user what is shown.
func (v *View) PerUser() bool { return v.perUser }

// Filtered reports whether the client has asked for a part of the rows.
func (v *View) Filtered() bool { return v.filter != nil }

// Err returns [ErrGone], with the reason, when nobody may see this any more.
func (v *View) Err() error {
	_, err := v.current()
	return err
}

// Encoding returns a comparable value that is equal where AppendRow is the
// same, also for views of different APIs.
func (v *View) Encoding() any {
	j, err := v.current()
	if err != nil {
		return nil
	}
	return j.plan.live.encoding
}

// AppendRow appends an image of a row as a list shows it, with foreign keys
// as plain ids: the row before (old) or after c.
func (v *View) AppendRow(dst []byte, c *sqlite.Change, old bool) ([]byte, error) {
	j, err := v.current()
	if err != nil {
		return dst, err
	}
	p := j.plan
	places, row := p.live.places(p.table, c.Columns), image(c, old)
	sep := byte('{')
	for i := range p.output {
		o := &p.output[i]
		dst = append(append(dst, sep), o.prefix...)
		sep = ','
		dst = o.append(dst, places.value(row, o.column))
	}
	return append(dst, '}'), nil
}

// RowKey returns the primary key of an image: int64, string or []byte.
func (v *View) RowKey(c *sqlite.Change, old bool) any {
	p := v.latest.Load().plan
	return p.live.places(p.table, c.Columns).value(image(c, old), p.table.key)
}
