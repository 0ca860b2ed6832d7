package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/sqlite"
)

// A Question is what [Service.Explain] is asked: whether a caller may do
// something, and why.
type Question struct {
	API    string
	Op     Permission // one of Create, Read, Update, Delete, Schema
	Caller Caller

	// ID is the record, as in a path. Empty for Create and Schema, and for a
	// Read that means lists.
	ID string

	// Body is the JSON object of a Create or an Update. Empty: "{}".
	Body []byte
}

// An Explanation says why an operation is granted or denied.
type Explanation struct {
	Question Question

	// Granted is whether the request would succeed, as far as Steps have a
	// verdict, and Status is the answer of HTTP. Constraints of the table,
	// triggers, validation and hooks are not judged.
	Granted bool
	Status  int

	// Steps are what decides, in the order in which it is asked. The last one
	// is the one that denies, if any does.
	Steps []ExplainedStep
}

// An ExplainedStep is one of the conditions that all must hold.
type ExplainedStep struct {
	Name    string          `json:"name"` // such as "access control list" and "update rule"
	Verdict Verdict         `json:"verdict"`
	Text    string          `json:"text,omitempty"` // the rule, or what has been found
	Note    string          `json:"note,omitempty"` // why there is no verdict, or what went wrong
	Op      string          `json:"op,omitempty"`   // "AND" or "OR" between Parts
	Parts   []ExplainedPart `json:"parts,omitempty"`
}

// A Verdict is the outcome of a step.
type Verdict string

// The verdicts. NotJudged denies nothing.
const (
	Holds     Verdict = "holds"
	Denies    Verdict = "denies"
	NotJudged Verdict = "not judged"
)

// An ExplainedPart is an operand of a rule. Each is evaluated on its own, also
// where SQLite would not come to it.
type ExplainedPart struct {
	Text  string          `json:"text"`
	Value string          `json:"value"`        // "true", "false", "null" or "error: " and what went wrong
	Op    string          `json:"op,omitempty"` // "AND" or "OR" between Parts
	Parts []ExplainedPart `json:"parts,omitempty"`
}

// Explain says why a request is granted or denied, judged against the rows as
// they are now. It changes nothing. Check is judged on the row as the request
// would leave it, where that can be told without writing.
//
// Explain is for operators: what it says depends on rows and columns that the
// caller in question may not see. Never show it to callers. The error is for a
// question that makes no sense, and for a database that cannot be asked.
func (s *Service) Explain(ctx context.Context, q Question) (*Explanation, error) {
	p, err := s.plan(q.API)
	if errors.Is(err, ErrNotAllowed) {
		err = fmt.Errorf("records: explain: no api %q", q.API)
	}
	if err != nil {
		return nil, err
	}
	return explain(ctx, s.db, p, q)
}

// Explain is [Service.Explain] for a service that is not there: it needs APIs
// and UserTable of cfg, and leaves db as it is. Bodies with files are refused.
func Explain(ctx context.Context, db *sqlite.DB, cfg Config, q Question) (*Explanation, error) {
	cfg = cfg.withDefaults()
	plans, mistakes, err := compile(ctx, db, cfg, nil)
	if err != nil {
		return nil, err
	}
	p := plans[q.API]
	switch {
	case p == nil && mistakes != nil:
		return nil, mistakes
	case p == nil:
		return nil, fmt.Errorf("records: explain: no api %q", q.API)
	}
	return explain(ctx, db, p, q)
}

func explain(ctx context.Context, db *sqlite.DB, p *plan, q Question) (_ *Explanation, err error) {
	user, err := newCaller(q.Caller)
	if err = errors.Join(err, q.validate()); err != nil {
		return nil, err
	}
	sc, err := db.Scratch(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sc.Close()) }()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(interrupted); sc.Interrupt() })
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	e := &explainer{ctx: ctx, p: p, q: q, user: user, sc: sc, out: &Explanation{Question: q, Status: http.StatusOK}}
	if err := e.defaults(ctx, db); err != nil {
		return nil, err
	}
	if err := sc.Read(e.run); err != nil && !errors.Is(err, errDecided) {
		return nil, err
	}
	e.out.Granted = e.out.Status == http.StatusOK
	return e.out, nil
}

// validate returns what makes no sense in the question.
func (q Question) validate() error {
	op := article(opName(q.Op))
	switch q.Op {
	case Create, Schema:
		if q.ID != "" {
			return fmt.Errorf("records: explain: %s has no id", op)
		}
	case Read:
	case Update, Delete:
		if q.ID == "" {
			return fmt.Errorf("records: explain: %s needs the id of a record", op)
		}
	default:
		return fmt.Errorf("records: explain: operation %b is not one of Create, Read, Update, Delete, Schema", q.Op)
	}
	if len(q.Body) > 0 && q.Op != Create && q.Op != Update {
		return fmt.Errorf("records: explain: %s has no body", op)
	}
	return nil
}

// opName names one permission.
func opName(p Permission) string {
	switch p {
	case Create:
		return "create"
	case Read:
		return "read"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Schema:
		return "schema"
	}
	return "nothing"
}

// explainer answers one question, inside of a snapshot.
type explainer struct {
	ctx   context.Context // of the question
	p     *plan
	q     Question
	user  caller
	sc    *sqlite.Scratch
	out   *Explanation
	req   *request
	named fieldSet // what the request names; req.given has the owners, too
	defs  []string // SQL of the defaults, by column
	parts int      // that have been evaluated
}

// errDecided ends run when a step has denied.
var errDecided = errors.New("decided")

func (e *explainer) run() error {
	if e.p.table.view && e.q.Op&(Create|Update|Delete) != 0 {
		return e.deny(http.StatusMethodNotAllowed, ExplainedStep{Name: "table", Text: fmt.Sprintf("%q is a view and cannot be written to", e.p.api.Table)})
	}
	e.req = e.p.newRequest(e.user)
	if e.q.ID != "" {
		key, err := e.p.table.key.decodeID(e.q.ID)
		if err != nil {
			return e.refuse("id", err)
		}
		e.req.key = key
	}
	if err := e.acl(e.q.Op); err != nil {
		return err
	}
	switch e.q.Op {
	case Create:
		return e.create()
	case Update:
		return e.update()
	case Delete:
		return e.byKey("delete rule", e.p.api.DeleteRule, e.p.del)
	case Schema:
		return e.rule("schema rule", e.p.api.SchemaRule, false)
	}
	if e.q.ID != "" {
		return e.byKey("read rule", e.p.api.ReadRule, e.p.read)
	}
	if e.p.read != nil {
		e.add(ExplainedStep{Name: "read rule", Verdict: NotJudged, Text: e.p.api.ReadRule, Note: "a list has the rows that it grants"})
	}
	return nil
}

func (e *explainer) add(s ExplainedStep) { e.out.Steps = append(e.out.Steps, s) }

// deny adds the step that decides.
func (e *explainer) deny(status int, s ExplainedStep) error {
	s.Verdict = Denies
	e.out.Status = status
	e.add(s)
	return errDecided
}

// refuse denies with what the client is told, or fails.
func (e *explainer) refuse(step string, err error) error {
	var known *Error
	if !errors.As(err, &known) || known.Status >= 500 {
		return err
	}
	return e.deny(known.Status, ExplainedStep{Name: step, Text: strings.TrimPrefix(known.Error(), "records: ")})
}

// acl judges the access control lists and the caller's own limits.
func (e *explainer) acl(op Permission) error {
	s := ExplainedStep{Name: "access control list", Verdict: Holds}
	switch {
	case e.q.Caller.System:
		s.Text = "the application itself may do everything"
	case e.p.api.World&op != 0:
		s.Text = "World has " + opName(op)
	case e.p.api.Authenticated&op == 0:
		s.Verdict, s.Text = Denies, "neither World nor Authenticated has "+opName(op)
	case e.user.id == nil:
		s.Verdict, s.Text = Denies, "the caller is anonymous and World does not have "+opName(op)
	default:
		s.Text = "Authenticated has " + opName(op)
	}
	if s.Verdict == Holds && !e.q.Caller.System && e.user.allow != nil && !e.user.allow(e.p.api.Name, op) {
		s.Verdict, s.Text = Denies, "the limits of the caller itself, as of an API key, leave out "+opName(op)
	}
	if s.Verdict == Denies {
		return e.deny(http.StatusForbidden, s)
	}
	e.add(s)
	return nil
}

// body decodes the body into req.
func (e *explainer) body() error {
	body := e.q.Body
	if len(body) == 0 {
		body = []byte("{}")
	}
	records, err := e.p.decodeJSON(body, e.user, false)
	if err != nil {
		return e.refuse("body", err)
	}
	key := e.req.key
	e.req = records[0]
	e.req.key = key
	e.named = e.req.given
	return nil
}

func (e *explainer) create() error {
	if err := e.body(); err != nil {
		return err
	}
	e.p.fillOwners(e.req)
	if err := e.rule("create rule", e.p.api.CreateRule, false); err != nil {
		return err
	}
	replace, done, err := e.conflict()
	if done || err != nil {
		return err
	}
	return e.check(replace)
}

// conflict finds out what happens if the key is taken. done: nothing is created.
func (e *explainer) conflict() (replace, done bool, err error) {
	key := e.p.table.key
	if !e.req.given.has(key.index) || e.req.values[key.index] == nil {
		return false, false, nil
	}
	e.req.key = e.req.values[key.index]
	taken, err := e.exists()
	if !taken || err != nil {
		return false, false, err
	}
	switch e.p.api.Conflict {
	case Ignore:
		e.add(ExplainedStep{Name: "conflict", Verdict: Holds, Text: "the key is taken, so nothing is created"})
		return false, true, nil
	case Replace:
		e.add(ExplainedStep{Name: "conflict", Verdict: Holds, Text: "the key is taken, so the record is updated"})
		if err := e.acl(Update); err != nil {
			return true, false, err
		}
		return true, false, e.rule("update rule", e.p.api.UpdateRule, true)
	}
	return false, false, e.deny(http.StatusBadRequest, ExplainedStep{Name: "conflict", Text: "the key is taken"})
}

func (e *explainer) update() error {
	if err := e.body(); err != nil {
		return err
	}
	if k := e.p.table.key; e.req.given.has(k.index) {
		if idString(e.req.values[k.index]) != idString(e.req.key) {
			return e.refuse("body", errKey)
		}
		e.req.given.remove(k.index)
		e.named.remove(k.index)
	}
	if err := e.byKey("update rule", e.p.api.UpdateRule, e.p.update); err != nil {
		return err
	}
	if e.req.given.empty() {
		return nil
	}
	return e.check(true)
}

// byKey judges a rule on the record that the question names.
func (e *explainer) byKey(name, src string, r *rule.Rule) error {
	found, err := e.exists()
	if err != nil {
		return err
	}
	if !found {
		s := ExplainedStep{Name: "record", Text: "there is none with this id"}
		if r != nil && !e.q.Caller.System {
			s.Note = fmt.Sprintf("with %s a client cannot tell this from a record that it may not see", article(name))
			return e.deny(http.StatusForbidden, s)
		}
		return e.deny(http.StatusNotFound, s)
	}
	e.add(ExplainedStep{Name: "record", Verdict: Holds, Text: "it is there"})
	return e.rule(name, src, true)
}

func article(name string) string {
	if strings.IndexByte("aeiou", name[0]) >= 0 {
		return "an " + name
	}
	return "a " + name
}

// exists reports whether there is a record with the key of req.
func (e *explainer) exists() (found bool, err error) {
	var b builder
	b.add("SELECT 1 FROM ", e.p.table.sql(), ` AS "_ROW_"`)
	b.byKey(e.p.table, nil, nil)
	st := b.statement()
	err = e.query(st.sql, st.bind(e.req), func([]driver.Value) error { found = true; return nil })
	return found, err
}

// query runs a statement in the snapshot.
func (e *explainer) query(text string, args []driver.Value, row func([]driver.Value) error) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	err := e.sc.Query(text, args, row)
	if err != nil && e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	return err
}

// rule judges a rule of the API, with row on the record with the key of req.
func (e *explainer) rule(name, src string, row bool) error {
	from := func(*builder) {}
	if row {
		from = func(b *builder) {
			b.add(" FROM ", e.p.table.sql(), ` AS "_ROW_"`)
			b.byKey(e.p.table, nil, nil)
		}
	}
	return e.judge(name, src, from)
}

// judge adds the step of a rule over the rows of from, which is one at most.
func (e *explainer) judge(name, src string, from func(*builder)) error {
	switch {
	case src == "":
		return nil
	case e.q.Caller.System:
		e.add(ExplainedStep{Name: name, Verdict: Holds, Text: src, Note: "it does not count for the application itself"})
		return nil
	}
	s := ExplainedStep{Name: name, Verdict: Holds, Text: src}
	value, err := e.evaluate(from, src)
	switch err := refusal(err, true); {
	case err == nil && value[0] != int64(1):
		s.Verdict = Denies
	case errors.Is(err, ErrDenied):
		s.Verdict, s.Note = Denies, "it cannot be evaluated: "+reason(err)
	case err != nil:
		return err
	}
	var perr error
	if s.Op, s.Parts, perr = e.split(src, from, 0); perr != nil {
		return perr
	}
	if s.Verdict == Denies {
		return e.deny(http.StatusForbidden, s)
	}
	e.add(s)
	return nil
}

// reason is the innermost text of an error.
func reason(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// Bounds of what is told of a rule.
const (
	maxExplainedDepth = 8
	maxExplainedParts = 64
)

// split evaluates the operands of src.
func (e *explainer) split(src string, from func(*builder), depth int) (op string, parts []ExplainedPart, err error) {
	op, operands := rule.Split(src)
	if op == "" || depth == maxExplainedDepth {
		return "", nil, nil
	}
	for _, text := range operands {
		if e.parts++; e.parts > maxExplainedParts {
			return op, append(parts, ExplainedPart{Text: "…", Value: string(NotJudged)}), nil
		}
		part := ExplainedPart{Text: text}
		value, err := e.evaluate(from, "("+text+") IS TRUE", "("+text+") IS NULL")
		switch denied := refusal(err, true); {
		case denied == nil && value[1] == int64(1):
			part.Value = "null"
		case denied == nil && value[0] == int64(1):
			part.Value = "true"
		case denied == nil:
			part.Value = "false"
		case errors.Is(denied, ErrDenied):
			part.Value = "error: " + reason(denied)
		default:
			return "", nil, denied
		}
		if part.Op, part.Parts, err = e.split(text, from, depth+1); err != nil {
			return "", nil, err
		}
		parts = append(parts, part)
	}
	return op, parts, nil
}

// evaluate returns whether the expressions grant, 1 each if so, on the row of
// from. Without a row all are nil.
func (e *explainer) evaluate(from func(*builder), expressions ...string) ([]driver.Value, error) {
	rules := make([]*rule.Rule, len(expressions))
	for i, src := range expressions {
		var err error
		rules[i], err = rule.Parse(src, rule.Scope{Names: rule.Row | rule.Req | rule.Fields, UserColumn: "id"})
		if err != nil {
			return nil, err
		}
	}
	var b builder
	b.fields(e.p.table, &e.named, rules...)
	b.add("SELECT ")
	for i, r := range rules {
		if i > 0 {
			b.add(", ")
		}
		b.add(b.granted(r, e.p.table, &e.req.given))
	}
	from(&b)
	st := b.statement()
	values := make([]driver.Value, len(rules))
	err := e.query(st.sql, st.bind(e.req), func(row []driver.Value) error { copy(values, row); return nil })
	return values, err
}
