package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/sqlite"
)

// A write is one create, update or delete.
type write struct {
	op   Permission
	p    *plan
	r    *request   // in a transaction, one that hooks may have changed
	at   string     // JSON Pointer to the operation in a batch
	cond *condition // what the record must be like; nil: anything

	replaces driver.Value // the key of a row that may be replaced

	rows   int          // of a create; 0: with Ignore, its key was taken
	key    driver.Value // of the record
	etag   string       // of the record after an update, if there is a cond and it can be read
	unused []string     // ids of files that no row refers to any more

	change *Change // for hooks
}

// A job is the writes of one request, which stand or fall together.
type job struct {
	s      *Service
	writes []*write
	asked  []*request // of the writes
	once   *once      // nil: the request may be repeated
	at     int        // the write that runs
}

// apply executes writes, which the access control lists permit, in one
// transaction: tx, if the caller has one. It returns after the commit, or else
// when they are done.
func (s *Service) apply(ctx context.Context, tx *sqlite.Tx, writes []*write, once *once) (err error) {
	j := &job{s: s, writes: writes, once: once}
	var uploads []*upload
	for _, w := range writes {
		w.r.named = w.r.given
		if w.op == Create {
			w.p.fillOwners(w.r)
		}
		if err := w.validate(); err != nil {
			return err
		}
		uploads = append(uploads, w.r.uploads...)
		j.asked = append(j.asked, w.r)
	}
	if len(uploads) > 0 {
		if err := s.files.store(ctx, uploads); err != nil {
			return err
		}
	}
	end := func(committed bool) {
		if !committed {
			if len(uploads) > 0 {
				s.files.discard(uploads)
			}
			return
		}
		if unused := j.unused(); len(unused) > 0 {
			s.files.remove(unused)
		}
		j.after(ctx)
	}
	if tx != nil {
		err := j.nested(ctx, tx)
		switch {
		case err != nil:
			end(false)
		case len(uploads) > 0 || len(j.unused()) > 0 || j.hooked():
			tx.OnEnd(end)
		}
		return err
	}
	if j.interactive() {
		err = j.update(ctx)
	} else {
		err = j.write(ctx)
	}
	end(err == nil)
	return err
}

// validate judges the values of w by the conditions of its API.
func (w *write) validate() error {
	if w.p.validation == nil || w.op == Delete {
		return nil
	}
	return w.p.validation.check(w.r, w.op == Update)
}

// unused returns the ids of files that no row refers to any more.
func (j *job) unused() (ids []string) {
	for _, w := range j.writes {
		ids = append(ids, w.unused...)
	}
	return ids
}

// hooked reports whether an After is to be called.
func (j *job) hooked() bool {
	return slices.ContainsFunc(j.writes, func(w *write) bool { return w.p.api.After != nil })
}

// fillOwners sets what the request leaves out of the columns that refer to
// the caller.
func (p *plan) fillOwners(r *request) {
	for _, c := range p.owners {
		if r.user.id != nil && !r.given.has(c.index) {
			r.values[c.index] = r.user.id
			r.given.add(c.index)
		}
	}
}

// interactive reports whether something must be decided between statements.
func (j *job) interactive() bool {
	if j.once != nil {
		return true
	}
	for _, w := range j.writes {
		if w.p.api.Before != nil || w.p.api.After != nil || w.r.keeps || w.r.refer != nil {
			return true
		}
	}
	return false
}

// write executes all writes as one list of statements.
func (j *job) write(ctx context.Context) error {
	stmts := make([]sqlite.Stmt, 0, len(j.writes))
	ends := make([]int, len(j.writes))
	for i, w := range j.writes {
		begin := len(stmts)
		stmts = w.statements(w.conditions(stmts), w.r.user.system)
		ends[i] = len(stmts)
		if len(j.writes) > 1 {
			j.watch(i, stmts[begin:])
		}
	}
	err := j.s.db.Write(ctx, stmts...)
	var at *sqlite.StmtError
	if errors.As(err, &at) {
		for j.at = 0; ends[j.at] <= at.Index; {
			j.at++
		}
	}
	return j.refusal(ctx, err)
}

// watch notes that it is write i that the Done of its statements refuses.
func (j *job) watch(i int, stmts []sqlite.Stmt) {
	for k := range stmts {
		done := stmts[k].Done
		if done == nil {
			continue
		}
		stmts[k].Done = func(rows int) error {
			err := done(rows)
			if err != nil {
				j.at = i
			}
			return err
		}
	}
}

// update executes the writes one after the other in a transaction. One that
// was lost for reasons outside of it is run again, where there are none.
func (j *job) update(ctx context.Context) error {
	hold := j.s.cfg.HookTimeout + holdTime
	run := func(tx *sqlite.Tx) error { return j.run(ctx, tx) }
	err := j.s.db.UpdateWithin(ctx, hold, run)
	if errors.Is(err, sqlite.ErrRolledBack) {
		err = j.s.db.UpdateAlone(ctx, hold, run)
	}
	return j.refusal(ctx, err)
}

// nested is update inside of the application's transaction.
func (j *job) nested(ctx context.Context, tx *sqlite.Tx) error {
	err := tx.Nested(func() error { return j.run(ctx, tx) })
	for _, w := range j.writes {
		w.r.named = fieldSet{} // what a reference lacks cannot be told outside of tx
	}
	return j.refusal(ctx, err)
}

func (j *job) run(ctx context.Context, tx *sqlite.Tx) error {
	if j.once != nil {
		if err := j.once.look(tx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, j.s.cfg.HookTimeout)
	defer cancel()
	for i, w := range j.writes {
		j.at = i
		w.r = j.asked[i].clone() // a transaction may be run again
		if w.r.refer != nil {
			if err := w.r.resolve(); err != nil {
				return err
			}
			if err := w.validate(); err != nil { // what was not known before
				return err
			}
		}
		if err := j.s.perform(ctx, tx, w); err != nil {
			return err
		}
	}
	if j.once != nil {
		return j.once.keep(tx)
	}
	return nil
}

// perform executes one write in tx: the rule is asked, then the hook, then
// the row is written as the hook has left it.
func (s *Service) perform(ctx context.Context, tx *sqlite.Tx, w *write) error {
	if w.cond != nil {
		if err := tx.Write(w.conditions(nil)...); err != nil {
			return err
		}
	}
	var unknown error // files to be kept, told to whom the rule lets pass only
	if w.r.keeps {    // the rule may ask what the files are
		old, err := w.admit(tx, true)
		if err != nil {
			return err
		}
		unknown = w.p.resolveFiles(w.r, old)
	}
	old, err := w.admit(tx, w.r.user.system)
	if err == nil {
		err = unknown
	}
	if err != nil {
		return err
	}
	if w.p.api.Before != nil || w.p.api.After != nil {
		w.change = w.newChange(old)
	}
	write := func() error {
		if err := s.before(ctx, tx, w); err != nil {
			return err
		}
		return tx.Write(w.statements(nil, true)...)
	}
	if w.op != Create || w.p.api.Conflict != Ignore || w.p.api.Before == nil {
		return write()
	}
	err = tx.Nested(func() error {
		if err := write(); err != nil || w.rows > 0 {
			return err
		}
		return errIgnored // and so is what the hook has done
	})
	if errors.Is(err, errIgnored) {
		err = nil
	}
	return err
}

// errIgnored undoes what the hook of a create has done that creates nothing.
var errIgnored = errors.New("key is taken")

// admit asks the rule, unless system, and reads the row that is to be changed,
// with all columns of the table.
func (w *write) admit(tx *sqlite.Tx, system bool) (old []driver.Value, err error) {
	p, r := w.p, w.r
	sh := shape{given: r.given, named: r.named, system: system}
	if w.op == Create {
		if sh.system {
			return nil, nil
		}
		if p.create != nil {
			sh.kind = grantShape
			st := p.cached(sh)
			if err := tx.Write(sqlite.Stmt{SQL: st.sql, Args: st.bind(r), Done: granted}); err != nil {
				return nil, err
			}
		}
		return nil, w.admitReplace(tx)
	}
	asked := p.update
	if sh.kind = admitShape; w.op == Delete {
		asked, sh = p.del, shape{kind: leaveShape, system: sh.system}
	}
	st := p.cached(sh)
	err = tx.Query(st.sql, st.bind(r), func(row []driver.Value) error {
		old = append([]driver.Value(nil), row...)
		return nil
	})
	if err == nil && old == nil {
		err = w.missing(asked)
	}
	return old, err
}

// admitReplace asks whether the row may be replaced that has the key which the
// request gives, if there is one.
func (w *write) admitReplace(tx *sqlite.Tx) error {
	p, r := w.p, *w.r
	w.replaces = nil
	if r.key = r.values[p.table.key.index]; p.api.Conflict != Replace || r.key == nil {
		return nil
	}
	rows := 0
	ask := func(sh shape) error {
		st := p.cached(sh)
		rows = 0
		return tx.Query(st.sql, st.bind(&r), func([]driver.Value) error { rows++; return nil })
	}
	err := ask(shape{kind: admitShape, system: true})
	if err != nil || rows == 0 {
		return err
	}
	if !p.allows(Update, r.user) {
		return ErrDenied
	}
	if err = ask(shape{kind: admitShape, given: r.given, named: r.named}); err == nil {
		err = granted(rows)
	}
	w.replaces = r.key
	return err
}

// statements appends what executes w. With asked, the rule has granted it
// already, or does not count.
func (w *write) statements(stmts []sqlite.Stmt, asked bool) []sqlite.Stmt {
	p, r := w.p, w.r
	if len(r.uploads) > 0 {
		stmts = p.files.register(stmts, p, r)
	}
	switch w.op {
	case Create:
		stmts = w.insert(stmts, asked)
	case Update:
		stmts = w.update(stmts, asked)
	case Delete:
		sh := shape{kind: removeShape, granted: asked}
		st := p.cached(sh)
		w.key = r.key
		stmts = append(stmts, sqlite.Stmt{SQL: st.sql, Args: st.bind(r), Done: w.found(p.del)})
	}
	if w.drops() {
		stmts = p.files.collect(stmts, p, &w.unused)
	}
	return stmts
}

// drops reports whether files may have no row any more when w is done.
func (w *write) drops() bool {
	switch {
	case w.p.files == nil:
		return false
	case w.op == Delete:
		return true // which may cascade
	case len(w.p.fileColumns) == 0:
		return false
	}
	return w.op == Update || len(w.r.uploads) > 0 || w.p.api.Conflict == Replace
}

// insert appends what creates the record.
func (w *write) insert(stmts []sqlite.Stmt, asked bool) []sqlite.Stmt {
	p, r := w.p, w.r
	sh := shape{
		kind: insertShape, given: r.given, named: r.named, granted: asked, system: r.user.system,
		mayUpdate: p.api.Conflict == Replace && p.allows(Update, r.user),
	}
	if w.replaces != nil && identity(w.replaces) == identity(r.values[p.table.key.index]) {
		sh.replaces = true
	}
	ignore := p.api.Conflict == Ignore
	if create := sh.judged(p.create); create != nil && (sh.given.empty() || ignore) {
		ask := sh
		ask.kind = grantShape
		st := p.cached(ask)
		stmts = append(stmts, sqlite.Stmt{SQL: st.sql, Args: st.bind(r), Done: granted})
	}
	st := p.cached(sh)
	stmt := sqlite.Stmt{SQL: st.sql, Args: st.bind(r), Rows: &w.rows}
	stmt.Done = func(rows int) error {
		switch {
		case rows > 0 && w.key == nil: // possible in ordinary tables, and out of reach
			return badRequest("db constraint: not null")
		case ignore:
			return nil
		}
		return granted(rows)
	}
	if p.check == nil || r.user.system {
		stmt.Row = func(row []driver.Value) { w.key = row[0] }
		return append(stmts, stmt)
	}
	args := p.checkOne.bind(r)
	at := p.checkOne.keyIndex()
	stmt.Row = func(row []driver.Value) { w.key, args[at] = row[0], row[0] }
	return append(stmts, stmt, sqlite.Stmt{SQL: p.checkOne.sql, Args: args, Done: func(rows int) error {
		if w.rows == 0 {
			return nil // ignored, there is no row of ours to check
		}
		return granted(rows)
	}})
}

// update appends what changes the given columns of the record.
func (w *write) update(stmts []sqlite.Stmt, asked bool) []sqlite.Stmt {
	p, r := w.p, w.r
	sh := shape{kind: updateShape, given: r.given, named: r.named, granted: asked, system: r.user.system}
	st := p.cached(sh)
	w.key = r.key
	stmts = append(stmts, sqlite.Stmt{SQL: st.sql, Args: st.bind(r), Done: w.found(p.update)})
	if p.check != nil && !r.given.empty() && !r.user.system {
		stmts = append(stmts, sqlite.Stmt{SQL: p.checkOne.sql, Args: p.checkOne.bind(r), Done: granted})
	}
	if w.cond != nil {
		stmts = append(stmts, w.readBack())
	}
	return stmts
}

func granted(rows int) error {
	if rows == 0 {
		return ErrDenied
	}
	return nil
}

// found returns a Done for a statement by key with the rule r.
func (w *write) found(r *rule.Rule) func(rows int) error {
	return func(rows int) error {
		if rows == 0 {
			return w.missing(r)
		}
		return nil
	}
}

// missing is the answer when a statement by key found no row that it may act
// on. With a rule, nobody learns whether the row exists.
func missing(r *rule.Rule) error {
	if r != nil {
		return ErrDenied
	}
	return ErrNotFound
}

// missing is the func for a row that the rule r of w did not grant.
func (w *write) missing(r *rule.Rule) error {
	if w.r.user.system {
		r = nil
	}
	return missing(r)
}

// refusal turns an error into what the client is told about the write that it
// comes from.
func (j *job) refusal(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, errAnswered) {
		return err
	}
	w := j.writes[min(j.at, len(j.writes)-1)]
	return w.located(j.s.refusal(ctx, w.p, w.r, err, w.guarded()))
}

// guarded reports whether a rule is part of the statements.
func (w *write) guarded() bool {
	p := w.p
	if w.cond != nil && p.read != nil || p.check != nil && w.op != Delete {
		return true
	}
	switch w.op {
	case Create:
		return p.create != nil || p.update != nil && p.api.Conflict == Replace
	case Update:
		return p.update != nil
	}
	return p.del != nil
}

func (r *request) clone() *request {
	c := *r
	c.values = slices.Clone(r.values)
	return &c
}

// resolve replaces references to earlier writes by their keys.
func (r *request) resolve() error {
	resolved := func(v driver.Value) (driver.Value, error) {
		ref, ok := v.(reference)
		if !ok {
			return v, nil
		}
		if ref.to.key == nil || ref.to.op == Create && ref.to.rows == 0 {
			return nil, errNoID
		}
		return ref.to.key, nil
	}
	var err error
	if r.key, err = resolved(r.key); err != nil {
		return err
	}
	for i, v := range r.values {
		if r.values[i], err = resolved(v); err != nil {
			return err
		}
	}
	return nil
}

// A reference stands for the id of the record of an earlier write.
type reference struct{ to *write }
