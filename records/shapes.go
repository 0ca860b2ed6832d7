package records

import (
	"strings"

	"github.com/bedplate/bedplate/internal/rule"
)

// shaped builds the statement for s.
func (p *plan) shaped(s shape) *statement {
	switch s.kind {
	case insertShape:
		return p.insertStatement(s)
	case grantShape:
		return p.grantStatement(s)
	case updateShape:
		return p.updateStatement(s)
	case removeShape:
		return p.removeStatement(s)
	}
	return p.admitStatement(s)
}

// judged returns r unless it has been asked or does not count.
func (s shape) judged(r *rule.Rule) *rule.Rule {
	if s.granted || s.system {
		return nil
	}
	return r
}

// insertStatement inserts the given columns if the create rule grants it. It
// returns the key of the row that was inserted or replaced.
func (p *plan) insertStatement(s shape) *statement {
	var b builder
	t := p.table
	create := s.judged(p.create)
	b.fields(t, &s.named, create, p.update)
	b.add("INSERT INTO ", t.sql(), ` AS "_ROW_"`)
	var names, values []string
	for _, c := range t.columns {
		if s.given.has(c.index) {
			names = append(names, quote(c.name))
			values = append(values, b.slot(slot{valueSlot, c}))
		}
	}
	switch {
	case len(names) == 0:
		b.add(" DEFAULT VALUES")
	case create == nil || p.api.Conflict == Ignore:
		b.add(" (", strings.Join(names, ","), ") VALUES (", strings.Join(values, ","), ")")
	default:
		b.add(" (", strings.Join(names, ","), ") SELECT ", strings.Join(values, ","), " WHERE ", b.granted(create, t, &s.given))
	}
	if len(names) > 0 {
		p.onConflict(&b, s)
	}
	b.add(" RETURNING ", quote(t.key.name))
	return b.statement()
}

func (p *plan) onConflict(b *builder, s shape) {
	switch p.api.Conflict {
	case Ignore:
		b.add(" ON CONFLICT (", quote(p.table.key.name), ") DO NOTHING")
	case Replace:
		var set []string
		for _, c := range p.table.columns {
			if c != p.table.key && !c.generated && (p.input[c.name] != nil || s.given.has(c.index)) {
				set = append(set, quote(c.name)+"=excluded."+quote(c.name))
			}
		}
		if len(set) == 0 {
			set = append(set, quote(p.table.key.name)+"=excluded."+quote(p.table.key.name))
		}
		b.add(" ON CONFLICT (", quote(p.table.key.name), ") DO UPDATE SET ", strings.Join(set, ","))
		switch {
		case s.replaces: // which has been asked
		case !s.mayUpdate:
			b.add(" WHERE 0")
		case p.update != nil && !s.system:
			b.add(" WHERE ", b.granted(p.update, p.table, &s.given))
		}
	}
}

// grantStatement selects a row if the create rule grants the request, for
// inserts that cannot carry the rule themselves.
func (p *plan) grantStatement(s shape) *statement {
	var b builder
	b.fields(p.table, &s.named, p.create)
	b.add("SELECT 1 WHERE ", b.granted(p.create, p.table, &s.given))
	return b.statement()
}

// updateStatement updates the given columns if the update rule grants it. It
// returns a row if it did.
func (p *plan) updateStatement(s shape) *statement {
	var b builder
	t := p.table
	update := s.judged(p.update)
	b.fields(t, &s.named, update)
	if s.given.empty() { // nothing to change, but the answer must be the same
		b.add("SELECT 1 FROM ", t.sql(), ` AS "_ROW_"`)
		b.byKey(t, update, &s.given)
		return b.statement()
	}
	b.add("UPDATE ", t.sql(), ` AS "_ROW_" SET `)
	sep := ""
	for _, c := range t.columns {
		if s.given.has(c.index) {
			b.add(sep, quote(c.name), "=", b.slot(slot{valueSlot, c}))
			sep = ","
		}
	}
	b.byKey(t, update, &s.given)
	b.add(" RETURNING 1")
	return b.statement()
}

// removeStatement deletes one record if the delete rule grants it.
func (p *plan) removeStatement(s shape) *statement {
	var b builder
	b.add("DELETE FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, s.judged(p.del), nil)
	b.add(" RETURNING 1")
	return b.statement()
}

// admitStatement selects all columns of a row if the update or the delete
// rule grants the request.
func (p *plan) admitStatement(s shape) *statement {
	var b builder
	r, given := p.del, (*fieldSet)(nil)
	if s.kind == admitShape {
		r, given = p.update, &s.given
		b.fields(p.table, &s.named, s.judged(r))
	}
	b.add("SELECT ")
	for i, c := range p.table.columns {
		if i > 0 {
			b.add(",")
		}
		b.add(selected(c))
	}
	b.add(" FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, s.judged(r), given)
	return b.statement()
}
