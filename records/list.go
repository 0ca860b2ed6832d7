package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"strconv"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/listquery"
	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/sqlite"
)

// sortKey is a column that a list is ordered by.
type sortKey struct {
	*column
	desc bool
}

// lister answers one list request.
type lister struct {
	s     *Service
	p     *plan
	q     *listquery.Query
	user  caller
	limit int
	keys  []sortKey // the order, down to the primary key
	extra []int     // where in a row the values of keys are
	geo   *column   // geometry column of GeoJSON output, or nil
	geoAt int       // where in a row it is
	idAt  int       // where the primary key is, with geo
	body  []byte    // the records
	last  []driver.Value
	rows  int
	sel   selection
	tag   string // of the response
	head  string // position in the change log, as the log has it, if there is one
}

// list appends the response of a list request to dst. head is the position in
// the change log, if there is one, and tag the entity tag, which does not
// depend on the cursor.
func (s *Service) list(ctx context.Context, p *plan, user caller, rawQuery string, dst []byte) (body []byte, head, tag string, err error) {
	if !p.allows(Read, user) {
		return nil, "", "", ErrDenied
	}
	q, err := listquery.Parse(rawQuery)
	if err != nil {
		return nil, "", "", errQuery.because(err)
	}
	l := &lister{s: s, p: p, q: &q, user: user, limit: q.Limit}
	switch {
	case q.Limit < 0:
		l.limit = min(50, p.limit)
	case q.Limit > p.limit:
		return nil, "", "", errLimit
	}
	if q.Match != "" && (p.search == nil || !searchable(q.Match)) {
		return nil, "", "", errMatch
	}
	if err := l.order(); err != nil {
		return nil, "", "", err
	}
	if q.GeoJSON != "" {
		if l.geo = p.visible(q.GeoJSON); l.geo == nil || l.geo.format != geoFormat {
			return nil, "", "", errGeometry
		}
	}
	if l.sel, err = s.selection(p, &q, user); err != nil {
		return nil, "", "", err
	}
	pages, err := l.pages()
	if err != nil {
		return nil, "", "", err
	}
	if body, err = l.run(ctx, pages, dst); err == nil && l.head != "" {
		head, err = p.live.cursor(l.head)
	}
	return body, head, l.tag, err
}

// order sets keys: what was asked for, then what tells all rows apart, so that
// every row has its place. The default is the primary key, descending.
//
// Behind other columns that is the rowid where there is one: every index ends
// in it, so an index on these columns serves the whole order. VACUUM may
// renumber rowids, so a cursor carries the primary key, too.
func (l *lister) order() error {
	key := l.p.table.key
	for _, o := range l.q.Order {
		c := l.p.visible(o.Column)
		if c == nil || !c.comparable() {
			return errQuery
		}
		l.keys = append(l.keys, sortKey{c, o.Desc})
		if c == key {
			return nil
		}
	}
	desc := true
	if n := len(l.keys); n > 0 {
		desc = l.keys[n-1].desc
	}
	if row := l.p.table.rowid; row != nil && len(l.keys) > 0 {
		l.keys = append(l.keys, sortKey{row, desc})
	} else {
		l.keys = append(l.keys, sortKey{key, desc})
	}
	return nil
}

// readRule returns the rule that rows must satisfy, or nil.
func (l *lister) readRule() *rule.Rule {
	if l.user.system {
		return nil
	}
	return l.p.read
}

// ranked reports whether the best matches come first.
func (l *lister) ranked() bool { return l.q.Match != "" && !l.q.HasOrder }

// continued reports whether a cursor can tell where the next page begins.
func (l *lister) continued() bool { return !l.p.table.view && !l.ranked() }

// anchored reports whether a cursor carries the primary key behind the values
// of keys.
func (l *lister) anchored() bool { return l.keys[len(l.keys)-1].column == l.p.table.rowid }

// page is a statement that yields consecutive rows of the list.
type page struct {
	b     builder
	limit int // index in args of the limit, which shrinks from page to page
}

// pages returns the statements that yield the list, to be run one after the
// other until there are enough rows. There is one, but for a cursor in front
// of the NULLs at the end of a descending order.
func (l *lister) pages() ([]*page, error) {
	if !l.q.HasCursor {
		pg, err := l.page(nil)
		return []*page{pg}, err
	}
	if !l.continued() {
		return nil, errNoCursor
	}
	n := len(l.keys)
	if l.anchored() {
		n++
	}
	position, err := l.s.cursors.open(l.q.Cursor, n, l.context())
	if err != nil {
		return nil, err
	}
	var pages []*page
	for _, after := range l.after(position) {
		pg, err := l.page(after)
		if err != nil {
			return nil, err
		}
		pages = append(pages, pg)
	}
	return pages, nil
}

// context is what a cursor is bound to: the API, the order, the caller.
func (l *lister) context() []byte {
	c := append([]byte(l.p.api.Name), 0)
	for _, k := range l.keys {
		c = strconv.AppendBool(append(append(c, k.name...), 0), k.desc)
	}
	return append(append(c, 0), identity(l.user.id)...)
}

// after returns conditions for the rows behind position, one for each page.
func (l *lister) after(position []driver.Value) []func(*builder) {
	behind := func(b *builder) { l.behind(b, 0, position) }
	first, v := l.keys[0], position[0]
	nulls := first.desc && v != nil && !first.notNull && first.column != l.p.table.key // are behind
	if !nulls || l.q.Offset > 0 {
		return []func(*builder){func(b *builder) {
			// The first column alone bounds the range, which lets an index
			// find the place.
			if v != nil && !nulls {
				op := ">="
				if first.desc {
					op = "<="
				}
				b.add(rowColumn(first.column), op, b.param(v), " AND ")
			}
			behind(b)
		}}
	}
	return []func(*builder){
		func(b *builder) { b.add(rowColumn(first.column), "<=", b.param(v), " AND "); behind(b) },
		func(b *builder) { b.add(rowColumn(first.column), " IS NULL") },
	}
}

// behind adds the condition that a row sorts behind position, from key i on.
// NULL sorts before everything else (https://www.sqlite.org/lang_select.html#orderby).
func (l *lister) behind(b *builder, i int, position []driver.Value) {
	k, v := l.keys[i], position[i]
	col := rowColumn(k.column)
	b.add("(")
	switch {
	case k.column == l.p.table.rowid:
		op := ">"
		if k.desc {
			op = "<"
		}
		key := l.p.table.key
		// VACUUM may have lowered the rowid. A row that was deleted and made
		// anew under the same key has a higher one, which does not count.
		was := b.param(v)
		b.add(col, op, `min(coalesce((SELECT "_KEY_".`, quote(k.name), " FROM ", l.p.table.sql(), ` AS "_KEY_" WHERE "_KEY_".`, quote(key.name), "=", b.param(position[i+1]), "),", was, "),", was, ")")
	case v == nil && k.desc:
		b.add("0")
	case v == nil:
		b.add(col, " IS NOT NULL")
	case k.desc && !k.notNull && k.column != l.p.table.key:
		b.add(col, "<", b.param(v), " OR ", col, " IS NULL")
	case k.desc:
		b.add(col, "<", b.param(v))
	default:
		b.add(col, ">", b.param(v))
	}
	if i+1 < len(l.keys) {
		b.add(" OR ", col, " IS ", b.param(v), " AND ")
		l.behind(b, i+1, position)
	}
	b.add(")")
}

// where adds the read rule and the filter.
func (l *lister) where(b *builder) error {
	b.add(" FROM ")
	if l.ranked() {
		l.p.search.from(b)
	}
	b.add(l.p.table.sql(), ` AS "_ROW_" WHERE `)
	readable := ""
	if r := l.readRule(); r != nil {
		readable = r.SQL(func() string { return b.param(l.user.id) }, nil)
		b.add(readable, " AND ")
	}
	if l.q.Match != "" {
		l.p.search.where(b, l.q.Match, l.ranked())
		b.add(" AND ")
	}
	if l.q.Filter != nil {
		if err := l.p.filter(b, l.q.Filter, readable); err != nil {
			return err
		}
		b.add(" AND ")
	}
	b.add("1")
	return nil
}

// page builds the statement for the rows that satisfy after, if not nil.
func (l *lister) page(after func(*builder)) (*page, error) {
	pg := &page{}
	b := &pg.b
	b.Grow(512)
	b.add("SELECT ")
	addOutput(b, l.sel.output)
	l.extra = l.extra[:0]
	added := len(l.sel.output)
	place := func(c *column) int {
		for i := range l.sel.output {
			if l.sel.output[i].column == c {
				return i
			}
		}
		b.add(",", selected(c))
		added++
		return added - 1
	}
	for _, k := range l.keys {
		l.extra = append(l.extra, place(k.column))
	}
	if l.anchored() {
		l.extra = append(l.extra, place(l.p.table.key))
	}
	if l.geo != nil {
		l.geoAt, l.idAt = place(l.geo), place(l.p.table.key)
	}
	if err := l.where(b); err != nil {
		return nil, err
	}
	if after != nil {
		b.add(" AND ")
		after(b)
	}
	sep := " ORDER BY "
	if l.ranked() {
		b.add(sep, byRank)
		sep = ","
	}
	for _, k := range l.keys {
		b.add(sep, rowColumn(k.column))
		sep = ","
		if k.desc {
			b.add(" DESC")
		}
	}
	// A bare parameter as the limit would make SQLite plan the statement anew
	// whenever it is bound.
	b.add(" LIMIT ", b.param(int64(l.limit)), "+0")
	pg.limit = len(b.args) - 1
	if l.q.Offset > 0 {
		b.add(" OFFSET ", b.param(l.q.Offset), "+0")
	}
	return pg, nil
}

// bounded reports whether the list takes little time whatever is in the
// table, because it follows the primary key and every row counts.
func (l *lister) bounded() bool {
	return l.sel.expand == nil && l.p.read == nil && l.q.Filter == nil && l.q.Match == "" && !l.q.Count && l.q.Offset <= 1024 && l.keys[0].column == l.p.table.key && !l.p.table.view
}

func (l *lister) run(ctx context.Context, pages []*page, dst []byte) ([]byte, error) {
	if l.bounded() {
		ctx = context.Background()
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.s.cfg.QueryTimeout)
		defer cancel()
		release, err := l.s.slow.acquire(ctx)
		if err != nil {
			return nil, refusal(err, false)
		}
		defer release()
	}
	total := int64(-1)
	buf := l.s.buffers.get()
	defer func() { buf.put(l.body) }()
	l.body = buf.b[:0]
	all := func(query queryFunc) error {
		if l.sel.expand != nil {
			l.sel.expand.query = query
		}
		if l.q.Match != "" {
			if err := l.p.search.check(query, l.q.Match); err != nil {
				return err
			}
		}
		if l.q.Count {
			var err error
			if total, err = l.count(query); err != nil {
				return err
			}
		}
		if l.p.live != nil {
			if err := l.position(query); err != nil {
				return err
			}
		}
		return l.fetch(query, pages)
	}
	var err error
	if l.p.live != nil || l.q.Count || l.q.Match != "" || l.sel.expand != nil || len(pages) > 1 {
		err = l.s.db.Read(ctx, func(r *sqlite.Reader) error { return all(r.Query) })
	} else {
		err = all(func(query string, args []driver.Value, row func([]driver.Value) error) error {
			return l.s.db.Query(ctx, query, args, row)
		})
	}
	if err != nil {
		return nil, refusal(err, l.readRule() != nil)
	}
	l.tag = l.s.weakTag(l.body, total, l.context())
	return l.envelope(dst, total)
}

// queryFunc runs one read statement.
type queryFunc func(query string, args []driver.Value, row func([]driver.Value) error) error

func (l *lister) count(query queryFunc) (n int64, err error) {
	var b builder
	b.add("SELECT count(*)")
	if err := l.where(&b); err != nil {
		return 0, err
	}
	err = query(b.String(), b.args, func(row []driver.Value) error {
		n = row[0].(int64)
		return nil
	})
	return n, err
}

// position reads the position in the change log.
func (l *lister) position(query queryFunc) error {
	return query("SELECT "+l.p.live.head, nil, func(row []driver.Value) error {
		l.head, _ = row[0].(string)
		return nil
	})
}

func (l *lister) fetch(query queryFunc, pages []*page) error {
	if l.limit == 0 {
		return nil
	}
	for _, pg := range pages {
		pg.b.args[pg.limit] = int64(l.limit - l.rows)
		if l.rows == l.limit {
			return nil
		}
		err := query(pg.b.String(), pg.b.args, l.row)
		if errors.Is(err, errPageFull) && !l.q.SkipCursor && l.continued() {
			return nil // the cursor tells where to go on
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxPage is the size in bytes at which a page ends, whatever its limit.
const maxPage = 32 << 20

var errPageFull = badRequest("page too large, use a smaller limit")

// row appends one record.
func (l *lister) row(row []driver.Value) error {
	if len(l.body) > maxPage {
		return errPageFull
	}
	if l.rows++; l.rows > 1 {
		l.body = append(l.body, ',')
	}
	l.last = l.last[:0]
	for _, i := range l.extra {
		l.last = append(l.last, row[i])
	}
	var err error
	if l.geo == nil {
		l.body, err = appendOutput(l.body, l.sel.output, row, l.sel.expand, nil)
		return err
	}
	l.body = append(l.body, `{"geometry":`...)
	l.body = l.geo.append(l.body, row[l.geoAt])
	l.body = append(l.body, `,"id":`...)
	l.body = l.p.table.key.append(l.body, row[l.idAt])
	l.body = append(l.body, `,"properties":`...)
	l.body, err = appendOutput(l.body, l.sel.output, row, l.sel.expand, l.geo)
	l.body = append(l.body, `,"type":"Feature"}`...)
	return err
}

// envelope appends the response around the records.
func (l *lister) envelope(dst []byte, total int64) ([]byte, error) {
	var cursor []byte
	if l.rows > 0 && !l.q.SkipCursor && l.continued() {
		var err error
		if cursor, err = l.s.cursors.append(nil, l.last, l.context()); err != nil {
			return nil, err
		}
	}
	list := []byte(`"records":[`)
	if l.geo != nil {
		list = []byte(`"features":[`)
	}
	dst = append(dst, '{')
	field := func(name string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), name...), '"', ':')
	}
	tail := func() {
		if cursor != nil {
			field("cursor")
			dst = append(append(append(dst, '"'), cursor...), '"')
		}
		if total >= 0 {
			field("total_count")
			dst = jsonx.AppendInt(dst, total)
		}
	}
	if l.geo != nil {
		dst = append(append(append(dst, list...), l.body...), `],"type":"FeatureCollection"`...)
		tail()
		return append(dst, '}'), nil
	}
	tail()
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(append(dst, list...), l.body...)
	return append(dst, "]}"...), nil
}
