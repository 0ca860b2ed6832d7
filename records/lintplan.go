package records

import (
	"database/sql/driver"
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/rule"
)

// speed looks at how SQLite would go about the statements of an API
// (https://www.sqlite.org/eqp.html).
func (l *linter) speed() error {
	p, api := l.p, &l.p.api
	type guarded struct {
		op    Permission
		place string
		r     *rule.Rule
		row   bool
	}
	for _, g := range []guarded{
		{Create, "create rule", p.create, false},
		{Update, "update rule", p.update, true},
		{Delete, "delete rule", p.del, true},
		{Create | Update, "check", p.check, true},
	} {
		if g.r == nil || p.table.view || !l.may(g.op) {
			continue
		}
		if err := l.scans(g.place, "", byKeyStatement(p, g.r, g.row), byKeyStatement(p, nil, g.row)); err != nil {
			return err
		}
	}
	if !l.may(Read) {
		return nil
	}
	if err := l.keyScans(); err != nil {
		return err
	}
	if p.read != nil {
		one, list := byKeyStatement(p, p.read, true), listStatement(p, p.read)
		known := len(l.findings)
		if err := l.scans("read rule", "", one, byKeyStatement(p, nil, true)); err != nil {
			return err
		}
		if known == len(l.findings) { // not twice
			if err := l.scans("read rule", " for each row of a list", list, listStatement(p, nil)); err != nil {
				return err
			}
		}
		if api.Subscriptions && looksElsewhere(api.ReadRule) {
			l.find("read rule", SeverityInfo, LintOtherTables, "it looks at other tables, whose changes send no event to subscribers: they are judged again at the next change of the record")
		}
	}
	return l.references()
}

// byKeyStatement is what judges r on one record, or without one.
func byKeyStatement(p *plan, r *rule.Rule, row bool) *statement {
	var b builder
	given := everyColumn(p.table)
	b.fields(p.table, given, r)
	switch {
	case row:
		b.add("SELECT 1 FROM ", p.table.sql(), ` AS "_ROW_"`)
		b.byKey(p.table, r, given)
	case r != nil:
		b.add("SELECT 1 WHERE ", b.granted(r, p.table, given))
	default:
		b.add("SELECT 1")
	}
	return b.statement()
}

// listStatement is a list of the records that r grants.
func listStatement(p *plan, r *rule.Rule) *statement {
	var b builder
	b.add("SELECT ")
	p.columns(&b)
	b.add(" FROM ", p.table.sql(), ` AS "_ROW_" WHERE `)
	if r != nil {
		b.add(b.granted(r, p.table, nil), " AND ")
	}
	b.add("1 ORDER BY ", rowColumn(p.table.key), " DESC LIMIT 50")
	return b.statement()
}

func everyColumn(t *table) *fieldSet {
	all := &fieldSet{}
	for _, c := range t.columns {
		all.add(c.index)
	}
	return all
}

// scans finds the tables that a statement goes through because of its rule:
// those that the same one without it does not.
func (l *linter) scans(place, when string, with, without *statement) error {
	steps, err := l.plan(with)
	if err != nil {
		return err
	}
	base, err := l.plan(without)
	if err != nil {
		return err
	}
	var told []string
	for _, step := range steps {
		if i := slices.Index(base, step); i >= 0 {
			base = slices.Delete(base, i, i+1)
			continue
		}
		table, ok := scanned(step)
		if !ok || table == "_ROW_" || table == "_REQ_FIELDS_" || slices.Contains(told, table) || slices.Contains(steps, "MATERIALIZE "+table) || slices.Contains(steps, "CO-ROUTINE "+table) {
			continue // or a table that the steps before have made
		}
		told = append(told, table)
		l.find(place, SeverityWarning, LintRuleScans, "it goes through the whole of %s%s, which an index may avoid (%s)", table, when, step)
	}
	return nil
}

// scanned returns the table that a step of a plan goes through from end to
// end, or makes an index of for this one statement.
func scanned(step string) (table string, ok bool) {
	words := strings.Fields(step)
	switch {
	case len(words) < 2, strings.Contains(step, "VIRTUAL TABLE"), strings.Contains(step, "CONSTANT ROW"), strings.HasPrefix(words[1], "("):
		return "", false
	}
	return words[1], words[0] == "SCAN" || words[0] == "SEARCH" && strings.Contains(step, " AUTOMATIC ")
}

func (l *linter) plan(st *statement) ([]string, error) {
	return l.sandbox.Plan(st.sql, st.bind(l.p.newRequest(caller{})))
}

// keyScans finds views in which a record is not found by an index.
func (l *linter) keyScans() error {
	if !l.p.table.view {
		return nil
	}
	steps, err := l.plan(byKeyStatement(l.p, nil, true))
	for _, step := range steps {
		if table, ok := scanned(step); ok {
			l.find("", SeverityInfo, LintKeyScans, "reading a record of the view by its key goes through the whole of %s (%s)", table, step)
			return nil
		}
	}
	return err
}

// references finds foreign keys without an index.
func (l *linter) references() error {
	for _, name := range l.p.api.Expand {
		c := l.p.input[name]
		if c == nil || l.p.table.view {
			continue
		}
		step, err := l.unindexed(l.p.table, c)
		if err != nil {
			return err
		}
		if step != "" {
			l.find("expand", SeverityInfo, LintReferenceScans, "no index begins with %q, so that deleting what it refers to, or listing by it, goes through the whole table", name)
		}
	}
	for _, back := range l.p.api.Back {
		p := l.plans[back.API]
		if p == nil {
			continue
		}
		c := p.table.column(back.Column)
		if c == nil {
			continue
		}
		step, err := l.unindexed(p.table, c)
		if err != nil {
			return err
		}
		if step != "" {
			l.find("back", SeverityWarning, LintReferenceScans, "%q: no index of %s begins with %q, so that each record goes through the whole table", back.Name, p.table.name, c.name)
		}
	}
	return nil
}

// unindexed returns how SQLite finds the rows with a value in c, if that is by
// going through the whole table.
func (l *linter) unindexed(t *table, c *column) (step string, err error) {
	steps, err := l.sandbox.Plan("SELECT 1 FROM "+t.sql()+` AS "_ROW_" WHERE `+rowColumn(c)+"=?1", []driver.Value{nil})
	for _, step := range steps {
		if _, ok := scanned(step); ok {
			return step, err
		}
	}
	return "", err
}
