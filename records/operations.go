package records

import (
	"context"
	"database/sql/driver"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/sqlite"
)

// maxBulk bounds the records of one create.
const maxBulk = 1024

// read appends one record to dst. head is the position in the change log, if
// there is one.
func (s *Service) read(p *plan, r *request, expand []string, dst []byte) (body []byte, head string, err error) {
	if !p.allows(Read, r.user) {
		return nil, "", ErrDenied
	}
	x, err := s.expander(p, expand, r.user)
	if err != nil {
		return nil, "", err
	}
	st := p.readOne
	if p.live != nil {
		st = p.live.readHead
	}
	found := false
	row := func(row []driver.Value) (err error) {
		found = true
		if len(row) > len(p.output) {
			head, _ = row[len(p.output)].(string)
		}
		dst, err = p.appendRecord(dst, row, x, nil)
		return err
	}
	// A statement by key takes no time worth interrupting.
	ctx := context.Background()
	if x == nil {
		err = s.db.Query(ctx, st.sql, st.bind(r), row)
	} else {
		err = s.db.Read(ctx, func(rd *sqlite.Reader) error {
			x.query = rd.Query
			return rd.Query(st.sql, st.bind(r), row)
		})
	}
	if err != nil {
		return nil, "", refusal(err, p.read != nil)
	}
	if !found {
		return nil, "", missing(p.read)
	}
	if head != "" {
		head, err = p.live.cursor(head)
	}
	return dst, head, err
}

// missing is the answer when a statement by key found no row that it may act
// on. With a rule, nobody learns whether the row exists.
func missing(r *rule.Rule) error {
	if r != nil {
		return ErrDenied
	}
	return ErrNotFound
}

// create inserts records in one transaction and returns their keys. A record
// whose key was taken yields no key with Conflict Ignore.
func (s *Service) create(ctx context.Context, p *plan, records []*request) ([]driver.Value, error) {
	keys := make([]created, len(records))
	stmts := make([]sqlite.Stmt, 0, len(records))
	guarded := p.create != nil || p.check != nil || p.update != nil && p.api.Conflict == Replace
	for i, r := range records {
		stmts = p.createStatements(stmts, r, &keys[i])
	}
	if err := s.db.Write(ctx, stmts...); err != nil {
		return nil, refusal(err, guarded)
	}
	out := make([]driver.Value, 0, len(keys))
	for _, k := range keys {
		if k.rows != 0 {
			out = append(out, k.key)
		}
	}
	return out, nil
}

// created is the outcome of the insert of one record.
type created struct {
	rows int // 0: with Ignore, its key was taken
	key  driver.Value
}

// createStatements appends what creates r; out tells whether it did.
func (p *plan) createStatements(stmts []sqlite.Stmt, r *request, out *created) []sqlite.Stmt {
	sh := shape{given: r.given, named: r.given, mayUpdate: p.api.Conflict == Replace && p.allows(Update, r.user)}
	for _, c := range p.owners {
		if r.user.id != nil && !r.given.has(c.index) {
			r.values[c.index] = r.user.id
			sh.given.add(c.index)
		}
	}
	ignore := p.api.Conflict == Ignore
	if p.create != nil && (sh.given.empty() || ignore) {
		grant := p.grantStatement(sh)
		stmts = append(stmts, sqlite.Stmt{SQL: grant.sql, Args: grant.bind(r), Done: granted})
	}
	insert := p.cached(sh, p.createStatement)
	stmt := sqlite.Stmt{SQL: insert.sql, Args: insert.bind(r), Rows: &out.rows, Row: func(row []driver.Value) { out.key = row[0] }}
	stmt.Done = func(rows int) error {
		switch {
		case rows > 0 && out.key == nil: // possible in ordinary tables, and out of reach
			return badRequest("db constraint: not null")
		case ignore:
			return nil
		}
		return granted(rows)
	}
	if p.check == nil {
		return append(stmts, stmt)
	}
	args := p.checkOne.bind(r)
	at := p.checkOne.keyIndex()
	stmt.Row = func(row []driver.Value) { out.key, args[at] = row[0], row[0] }
	return append(stmts, stmt, sqlite.Stmt{SQL: p.checkOne.sql, Args: args, Done: func(rows int) error {
		if out.rows == 0 {
			return nil // ignored, there is no row of ours to check
		}
		return granted(rows)
	}})
}

func granted(rows int) error {
	if rows == 0 {
		return ErrDenied
	}
	return nil
}

// update changes the given columns of one record.
func (s *Service) update(ctx context.Context, p *plan, r *request) error {
	sh := shape{update: true, given: r.given, named: r.given}
	st := p.cached(sh, p.updateStatement)
	n := 0
	stmts := []sqlite.Stmt{{SQL: st.sql, Args: st.bind(r), Rows: &n}}
	if p.check != nil && !r.given.empty() {
		stmts[0].Done = func(rows int) error {
			if rows == 0 {
				return missing(p.update)
			}
			return nil
		}
		stmts = append(stmts, sqlite.Stmt{SQL: p.checkOne.sql, Args: p.checkOne.bind(r), Done: granted})
	}
	if err := s.db.Write(ctx, stmts...); err != nil {
		return refusal(err, p.update != nil || p.check != nil)
	}
	if n == 0 {
		return missing(p.update)
	}
	return nil
}

// delete removes one record.
func (s *Service) delete(ctx context.Context, p *plan, r *request) error {
	n := 0
	err := s.db.Write(ctx, sqlite.Stmt{SQL: p.deleteOne.sql, Args: p.deleteOne.bind(r), Rows: &n})
	if err != nil {
		return refusal(err, p.del != nil)
	}
	if n == 0 {
		return missing(p.del)
	}
	return nil
}
