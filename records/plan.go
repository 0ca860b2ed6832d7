package records

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/bedplate/bedplate/internal/jsonx"
	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/sqlite"
)

// plan is an API compiled against the schema. It is immutable but for its
// statement cache.
type plan struct {
	api   API
	table *table
	limit int

	input  map[string]*column // what a request may name, by exact name
	output []output           // what a response shows, by name
	expand map[string]*expansion
	back   map[string]*backRelation
	search *fullText // nil: there is no full-text index
	owners []*column // filled with the caller's id when absent

	files       *files    // nil: file columns cannot be written
	fileColumns []*column // those that a request may name

	create, read, update, del, schema, check *rule.Rule

	described documents // JSON Schemas that have been asked for

	validation *validation // nil: none

	readOne, checkOne *statement
	readAny           *statement // whatever the read rule says

	live *live // nil: without subscriptions

	shapesMu sync.RWMutex
	shapes   map[shape]*statement // of creates and updates; guarded by shapesMu
}

// output is a column of a response.
type output struct {
	*column
	prefix []byte // `"name":`
	expand *expansion
	back   *backRelation // of the row with the key in column, nil: this is a column
}

// expansion is a foreign key column that may be expanded.
type expansion struct {
	column *column
	target *table
	plain  *plan   // reads the target where no API exposes it
	apis   []*plan // else: the APIs that do, in their order
}

// shape is what the text of a statement of a write depends on.
type shape struct {
	kind      shapeKind
	mayUpdate bool     // for Replace: whether the caller may update
	granted   bool     // the rule has been asked
	replaces  bool     // the update rule has been asked about the row in the way
	system    bool     // no rule counts
	given     fieldSet // columns with a value
	named     fieldSet // of these, the ones that the request named
}

type shapeKind uint8

const (
	insertShape shapeKind = iota
	grantShape            // asks the create rule
	updateShape
	admitShape // asks the update rule and reads the row
	removeShape
	leaveShape // asks the delete rule and reads the row
)

// maxShapes bounds the statements kept for one API.
const maxShapes = 256

// compiler compiles all APIs against one state of the schema.
type compiler struct {
	ctx       context.Context //nolint:containedctx // of one call of compile
	db        *sqlite.DB
	scratch   *sqlite.Scratch // nil until a rule needs it
	userTable string
	files     *files
	reader    *sqlite.Reader
	sandbox   *sqlite.Sandbox
	errs      []error // mistakes
	failed    error   // the database could not be asked
}

// compile returns the plans of the APIs without mistakes, by name, and all
// mistakes of all APIs. With err the database could not be asked.
func compile(ctx context.Context, db *sqlite.DB, cfg Config, files *files) (plans map[string]*plan, mistakes, err error) {
	sandbox, err := db.Sandbox(ctx, allowedFunction)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, sandbox.Close()) }()
	plans = map[string]*plan{}
	err = db.Read(ctx, func(r *sqlite.Reader) (err error) {
		c := compiler{ctx: ctx, db: db, userTable: cfg.UserTable, files: files, reader: r, sandbox: sandbox}
		defer func() {
			if c.scratch != nil {
				err = errors.Join(err, c.scratch.Close())
			}
		}()
		// Also an API with mistakes keeps its table from being shown by
		// others without its rule.
		var all, fit []*plan
		for _, api := range cfg.APIs {
			before := len(c.errs)
			p := c.plan(api)
			all = append(all, p)
			if plans[api.Name] != nil {
				c.fail("", fmt.Errorf("api %q is defined twice", api.Name))
			}
			if len(c.errs) == before {
				plans[api.Name] = p
				fit = append(fit, p)
			}
		}
		for _, p := range all {
			before := len(c.errs)
			if c.expansions(p, all, fit); len(c.errs) > before {
				delete(plans, p.api.Name)
			}
		}
		mistakes = errors.Join(c.errs...)
		return c.failed
	})
	return plans, mistakes, err
}

func (c *compiler) fail(api string, err error) {
	if code := sqlite.Code(err); code != 0 && code != sqliteError {
		c.failed = errors.Join(c.failed, err)
	}
	if api != "" {
		err = fmt.Errorf("api %q: %w", api, err)
	}
	c.errs = append(c.errs, fmt.Errorf("records: %w", err))
}

func (c *compiler) plan(api API) *plan {
	fail := func(format string, args ...any) { c.fail(api.Name, fmt.Errorf(format, args...)) }
	p := &plan{api: api, limit: api.ListLimit, input: map[string]*column{}, expand: map[string]*expansion{}, shapes: map[shape]*statement{}}
	if !validName(api.Name) || api.Name == "" {
		c.fail("", fmt.Errorf("api name %q: only letters, digits and underscores are allowed", api.Name))
	}
	switch {
	case p.limit < 0:
		fail("list limit is negative")
	case p.limit == 0:
		p.limit = 1024
	}
	if api.Conflict < Abort || api.Conflict > Replace {
		fail("conflict is neither Abort, Ignore nor Replace")
	}
	if rest := (api.World | api.Authenticated) &^ (Create | Read | Update | Delete | Schema); rest != 0 {
		fail("unknown permission bits %b", rest)
	}
	t, err := loadTable(c.reader, api.Table, api.Key)
	if err != nil {
		c.fail(api.Name, err)
		return p
	}
	p.table = t
	if t.view {
		switch {
		case (api.CreateRule + api.UpdateRule + api.DeleteRule + api.Check) != "":
			fail("%q is a view and cannot be written to, so it needs no rule for that", api.Table)
		case api.Subscriptions:
			fail("%q is a view, there are no changes to subscribe to", api.Table)
		}
	} else if api.Key != "" {
		fail("key is for views, %q is a table", api.Table)
	}
	excluded := map[*column]bool{}
	for _, name := range api.Exclude {
		col := t.exact(name)
		switch {
		case col == nil:
			fail("exclude: no column %q", name)
		case col == t.key:
			fail("exclude: %q is the primary key", name)
		case excluded[col]:
			fail("exclude: %q is listed twice", name)
		case col.notNull && !col.hasDef && api.Before == nil && (api.World|api.Authenticated)&Create != 0:
			fail("exclude: %q is NOT NULL without a default, so nothing could be created", name)
		default:
			excluded[col] = true
		}
	}
	for _, col := range t.columns {
		if excluded[col] {
			continue
		}
		p.input[col.name] = col
		if col.format == fileFormat || col.format == filesFormat {
			p.fileColumns = append(p.fileColumns, col)
		}
		if !col.hidden() {
			p.output = append(p.output, output{column: col, prefix: append(jsonx.AppendString(nil, col.name), ':')})
		}
		if api.AutofillUser && col.ref != nil && strings.EqualFold(col.ref.table, c.userTable) && strings.EqualFold(col.ref.column, "id") {
			p.owners = append(p.owners, col)
		}
	}
	sort.Slice(p.output, func(i, j int) bool { return p.output[i].name < p.output[j].name })
	p.files = c.files
	c.rules(p)
	c.validation(p)
	p.readOne = p.readStatement("")
	p.checkOne = p.checkStatement()
	p.readAny = p.readStatementWith(nil, "")
	if api.Subscriptions && !t.view {
		if err := c.live(p); err != nil {
			c.fail(api.Name, err)
		}
	}
	return p
}

func validName(s string) bool {
	for i := range len(s) {
		if b := s[i]; b != '_' && (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') {
			return false
		}
	}
	return true
}

// rules parses the rules of p and lets SQLite check them.
func (c *compiler) rules(p *plan) {
	for _, r := range []struct {
		name  string
		src   string
		names rule.Names
		dst   **rule.Rule
	}{
		{"create rule", p.api.CreateRule, rule.Req | rule.Fields, &p.create},
		{"read rule", p.api.ReadRule, rule.Row, &p.read},
		{"update rule", p.api.UpdateRule, rule.Row | rule.Req | rule.Fields, &p.update},
		{"delete rule", p.api.DeleteRule, rule.Row, &p.del},
		{"schema rule", p.api.SchemaRule, 0, &p.schema},
		{"check", p.api.Check, rule.Row, &p.check},
	} {
		if r.src == "" {
			continue
		}
		parsed, err := rule.Parse(r.src, rule.Scope{
			Names:      r.names,
			UserColumn: "id",
			RowColumn:  func(name string) bool { return p.table.column(name) != nil || isRowid(name) },
			ReqColumn:  func(name string) bool { col := p.table.column(name); return col != nil && p.input[col.name] != nil },
		})
		if err == nil {
			err = c.probe(p.table, parsed, r.names)
		}
		if err != nil {
			c.fail(p.api.Name, fmt.Errorf("%s: %w", r.name, err))
			continue
		}
		*r.dst = parsed
	}
}

// validation compiles the conditions on values.
func (c *compiler) validation(p *plan) {
	v, errs := newValidation(p.api, p.table, p.input)
	for _, err := range errs {
		c.fail(p.api.Name, err)
	}
	p.validation = v
}

func isRowid(name string) bool {
	switch strings.ToLower(name) {
	case "rowid", "oid", "_rowid_":
		return true
	}
	return false
}

// probe compiles r as a condition in the sandbox.
func (c *compiler) probe(t *table, r *rule.Rule, names rule.Names) error {
	var b builder
	all := &fieldSet{}
	for _, col := range t.columns {
		all.add(col.index)
	}
	b.fields(t, all, r)
	b.add("SELECT 1")
	if names&rule.Row != 0 {
		b.add(" FROM ", t.sql(), ` AS "_ROW_"`)
	}
	b.add(" WHERE ", b.granted(r, t, all))
	_, err := c.sandbox.Prepare(b.String())
	if err == nil {
		return nil
	}
	return rule.Locate(r.Source(), position(r.Source(), err.Error()), err.Error())
}

// position guesses where in a rule the trouble is: SQLite's message ends in
// the name that it does not know, or quotes the token that it stumbled over.
func position(src, message string) int {
	word := message[strings.LastIndexByte(message, ' ')+1:]
	if _, rest, ok := strings.Cut(message, `near "`); ok {
		word, _, _ = strings.Cut(rest, `"`)
	}
	for _, w := range []string{word, word[strings.LastIndexByte(word, '.')+1:]} {
		if i := strings.Index(src, w); i >= 0 && w != "" {
			return i
		}
	}
	return 0
}

// allowedFunction lists the SQL functions that rules may use: those that
// compute a value from their arguments, in bounded time and memory.
func allowedFunction(name string) bool {
	switch strings.ToLower(name) {
	case "abs", "coalesce", "concat", "concat_ws", "glob", "hex", "ifnull", "if", "iif", "instr", "length", "like", "likelihood", "likely", "lower", "ltrim",
		"max", "min", "nullif", "octet_length", "quote", "regexp", "round", "rtrim", "sign", "substr", "substring", "trim", "typeof", "unicode", "unlikely", "upper",
		"avg", "count", "sum", "total", "exists",
		"date", "time", "datetime", "julianday", "strftime", "unixepoch", "timediff", "current_date", "current_time", "current_timestamp",
		"json", "json_array_length", "json_each", "json_extract", "json_type", "json_valid", "->", "->>",
		"is_uuid", "is_uuid_v4", "is_uuid_v7", "uuid_text", "uuid_parse", "is_email", "is_json", "jsonschema", "jsonschema_matches",
		"st_isvalid", "st_geomfromtext", "st_within", "st_intersects", "st_contains":
		return true
	}
	return false
}

// expansions resolves what p may expand, now that all plans are there; fit are
// those without mistakes.
func (c *compiler) expansions(p *plan, all, fit []*plan) {
	if p.table == nil {
		return
	}
	c.backRelations(p, all, fit)
	c.fullText(p)
	for _, name := range p.api.Expand {
		fail := func(format string, args ...any) {
			c.fail(p.api.Name, fmt.Errorf("expand %q: "+format, append([]any{name}, args...)...))
		}
		col := p.input[name]
		switch {
		case col == nil:
			fail("no such column")
			continue
		case col.hidden():
			fail("the column is hidden")
			continue
		case col.ref == nil:
			fail("not a foreign key of one column")
			continue
		case p.expand[name] != nil:
			fail("listed twice")
			continue
		}
		target, err := loadTable(c.reader, qualified(p.table.database, col.ref.table), "")
		if err != nil {
			fail("%w", err)
			continue
		}
		if ref := col.ref.column; ref != "" && !strings.EqualFold(ref, target.key.name) {
			fail("it refers to %s(%s), which is not the primary key", target.name, ref)
			continue
		}
		e := &expansion{column: col, target: target}
		for _, q := range fit {
			if q.exposes(target) {
				e.apis = append(e.apis, q)
			}
		}
		if !slices.ContainsFunc(all, func(q *plan) bool { return q.exposes(target) }) {
			e.plain = &plan{table: target}
			for _, col := range target.columns {
				if !col.hidden() {
					e.plain.output = append(e.plain.output, output{column: col, prefix: append(jsonx.AppendString(nil, col.name), ':')})
				}
			}
			sort.Slice(e.plain.output, func(i, j int) bool { return e.plain.output[i].name < e.plain.output[j].name })
			e.plain.readOne = e.plain.readStatement("")
		}
		p.expand[name] = e
		for i := range p.output {
			if p.output[i].column == col {
				p.output[i].expand = e
			}
		}
	}
}

// exposes reports whether p is an API of t. Without a table of its own, which
// is a mistake, it may be.
func (p *plan) exposes(t *table) bool {
	if p.table == nil {
		_, name, ok := strings.Cut(p.api.Table, ".")
		return strings.EqualFold(p.api.Table, t.name) || ok && strings.EqualFold(name, t.name)
	}
	return p.table.database == t.database && p.table.name == t.name
}

func qualified(database, name string) string {
	if database == "main" {
		return name
	}
	return database + "." + name
}

// allows reports whether the access control lists, and the limits of the caller
// itself, permit op.
func (p *plan) allows(op Permission, user caller) bool {
	if user.system {
		return true
	}
	if user.allow != nil && !user.allow(p.api.Name, op) {
		return false
	}
	return p.api.World&op != 0 || user.id != nil && p.api.Authenticated&op != 0
}

// columns adds the columns of a response.
func (p *plan) columns(b *builder) {
	for i, o := range p.output {
		if i > 0 {
			b.add(",")
		}
		b.add(selected(o.column))
	}
}

// readStatement selects one record if the read rule grants it, and the
// expression more, if not empty, behind its columns.
func (p *plan) readStatement(more string) *statement {
	return p.readStatementWith(p.read, more)
}

func (p *plan) readStatementWith(r *rule.Rule, more string) *statement {
	var b builder
	b.add("SELECT ")
	p.columns(&b)
	if more != "" {
		b.add(",", more)
	}
	b.add(" FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, r, nil)
	return b.statement()
}

// checkStatement selects a row if the record satisfies Check.
func (p *plan) checkStatement() *statement {
	var b builder
	b.add("SELECT 1 FROM ", p.table.sql(), ` AS "_ROW_"`)
	b.byKey(p.table, p.check, nil)
	return b.statement()
}

// cached returns the statement for s, building it at first use.
func (p *plan) cached(s shape) *statement {
	p.shapesMu.RLock()
	st := p.shapes[s]
	p.shapesMu.RUnlock()
	if st != nil {
		return st
	}
	st = p.shaped(s)
	p.shapesMu.Lock()
	defer p.shapesMu.Unlock()
	if len(p.shapes) < maxShapes {
		p.shapes[s] = st
	}
	return st
}
