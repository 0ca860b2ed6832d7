package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/sqlite"
)

// List returns a page of records, those that the caller may read. Within a
// transaction ctx does not interrupt it.
func (t *Table[T]) List(ctx context.Context, q Query) (Page[T], error) {
	b, user, err := t.begin(ctx)
	if err != nil {
		return Page[T]{}, err
	}
	if !b.plan.allows(Read, user) {
		return Page[T]{}, ErrDenied
	}
	l, err := t.s.newTypedList(b, user, q)
	if err != nil {
		return Page[T]{}, err
	}
	var page Page[T]
	err = l.run(ctx, t.tx, func(row []driver.Value) error {
		page.Records = append(page.Records, *new(T))
		return b.load(reflect.ValueOf(&page.Records[len(page.Records)-1]).Elem(), row)
	})
	if err != nil {
		return Page[T]{}, err
	}
	page.Total = l.total
	page.Cursor, err = l.cursor()
	return page, err
}

// typedList answers a [Query].
type typedList struct {
	lister
	statements []*page
	total      int64
	size       int // bytes of text and blobs
}

func (s *Service) newTypedList(b *tableFields, user caller, q Query) (*typedList, error) {
	p := b.plan
	filter, err := q.Filter.resolve(p, 0)
	if err != nil {
		return nil, err
	}
	lq := &listquery.Query{
		Match: q.Match,
		Limit: q.Limit, Offset: q.Offset, Cursor: q.Cursor, HasCursor: q.Cursor != "",
		Count: q.Count, SkipCursor: q.SkipCursor, Filter: filter,
	}
	switch {
	case q.Limit < 0, q.Offset < 0, q.Offset > listquery.MaxOffset, len(q.Order) > listquery.MaxColumns:
		return nil, errQuery
	case q.Limit > p.limit:
		return nil, errLimit
	case q.Match != "" && (p.search == nil || !searchable(q.Match) || len(q.Match) > listquery.MaxMatch || strings.Contains(q.Match, "\x00")):
		return nil, errMatch
	case q.Limit == 0:
		lq.Limit = min(50, p.limit)
	}
	for _, name := range q.Order {
		name, desc := strings.CutPrefix(name, "-")
		if slices.ContainsFunc(lq.Order, func(o listquery.Order) bool { return o.Column == name }) {
			return nil, errQuery
		}
		lq.Order, lq.HasOrder = append(lq.Order, listquery.Order{Column: name, Desc: desc}), true
	}
	l := &typedList{lister: lister{s: s, p: p, q: lq, user: user, limit: lq.Limit, sel: selection{output: b.output}}}
	if err := l.order(); err != nil {
		return nil, err
	}
	l.statements, err = l.pages()
	return l, err
}

// run calls row for each record, in tx if there is one.
func (l *typedList) run(ctx context.Context, tx *sqlite.Tx, row func([]driver.Value) error) error {
	guarded := l.readRule() != nil
	if tx != nil {
		return refusal(l.fetchRows(tx.Query, row), guarded)
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.cfg.QueryTimeout)
	defer cancel()
	if l.bounded() {
		ctx = context.Background()
	} else {
		release, err := l.s.slow.acquire(ctx)
		if err != nil {
			return refusal(err, false)
		}
		defer release()
	}
	err := l.s.db.Read(ctx, func(r *sqlite.Reader) error { return l.fetchRows(r.Query, row) })
	return refusal(err, guarded)
}

func (l *typedList) fetchRows(query queryFunc, row func([]driver.Value) error) error {
	if l.q.Match != "" {
		if err := l.p.search.check(query, l.q.Match); err != nil {
			return err
		}
	}
	if l.q.Count {
		var err error
		if l.total, err = l.count(query); err != nil {
			return err
		}
	}
	for _, pg := range l.statements {
		if l.rows == l.limit {
			return nil
		}
		pg.b.args[pg.limit] = int64(l.limit - l.rows)
		err := query(pg.b.String(), pg.b.args, func(values []driver.Value) error {
			if l.size > maxPage {
				return errPageFull
			}
			l.note(values)
			return row(values)
		})
		if errors.Is(err, errPageFull) && !l.q.SkipCursor && l.continued() {
			return nil // the cursor tells where to go on
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// note keeps what the cursor is made of, and the size of the row.
func (l *typedList) note(values []driver.Value) {
	l.rows++
	l.last = l.last[:0]
	for _, i := range l.extra {
		l.last = append(l.last, values[i])
	}
	for _, v := range values {
		switch v := v.(type) {
		case string:
			l.size += len(v)
		case []byte:
			l.size += len(v)
		}
	}
}

// cursor returns the cursor behind the last row.
func (l *typedList) cursor() (string, error) {
	if l.rows == 0 || l.q.SkipCursor || !l.continued() {
		return "", nil
	}
	c, err := l.s.cursors.append(nil, l.last, l.context())
	return string(c), err
}
