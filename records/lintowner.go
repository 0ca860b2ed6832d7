package records

import (
	"slices"
	"strings"

	"github.com/bedplate/bedplate/internal/rule"
	"github.com/bedplate/bedplate/internal/sqltoken"
)

// ties says of columns, by folded name, what a rule makes sure of when it
// grants. The name "" stands for the caller itself.
type ties map[string]tie

type tie uint8

const (
	rowIsUser  tie = 1 << iota // the column of the row is the caller's id
	reqIsUser                  // the request gives the caller's id
	reqSafe                    // the request does not give anybody else's
	compared                   // the caller is not anonymous
	nullIsUser                 // likewise rowIsUser, also where both are NULL
)

func (t ties) any(what tie) bool {
	for _, has := range t {
		if has&what != 0 {
			return true
		}
	}
	return false
}

// ties returns what src makes sure of; with loose, what some of its parts do.
func (l *linter) ties(src string, loose bool) ties {
	op, parts := rule.Split(src)
	if op == "" {
		return l.leaf(parts[0])
	}
	all := ties{}
	for i, part := range parts {
		of := l.ties(part, loose)
		if i == 0 {
			all = of
			continue
		}
		if op == "AND" || loose {
			for name, has := range of {
				all[name] |= has
			}
			continue
		}
		for name := range all {
			all[name] &= of[name]
		}
	}
	return all
}

// leaf returns what a comparison makes sure of, and nothing for everything
// else.
func (l *linter) leaf(src string) ties {
	tokens, err := sqltoken.Scan(src)
	if err != nil {
		return nil
	}
	if name, ok := leftOut(tokens); ok {
		return ties{sqltoken.Fold(name): reqSafe}
	}
	if isSignedIn(tokens) {
		return ties{"": compared}
	}
	left, rest := l.operand(tokens)
	op, rest := sameness(rest)
	right, rest := l.operand(rest)
	if op == "" || left.kind == "" || right.kind == "" || len(rest) > 0 {
		return ties{}
	}
	if left.kind == "user" || left.kind == "row" && right.kind == "req" || left.kind == "null" {
		left, right = right, left
	}
	null := op == "IS"
	switch {
	case left.kind == "row" && right.kind == "user" && null:
		return ties{left.name: rowIsUser | nullIsUser}
	case left.kind == "row" && right.kind == "user":
		return ties{left.name: rowIsUser, "": compared}
	case left.kind == "req" && right.kind == "user" && null:
		return ties{left.name: reqIsUser | reqSafe}
	case left.kind == "req" && right.kind == "user":
		return ties{left.name: reqIsUser | reqSafe, "": compared}
	case left.kind == "req" && right.kind == "row" && left.name == right.name:
		return ties{left.name: reqSafe}
	case left.kind == "req" && right.kind == "null" && null:
		if c := l.p.table.column(left.name); c != nil && c.notNull {
			return ties{left.name: reqSafe}
		}
	}
	return ties{}
}

// leftOut recognizes a condition that the request does not name a column.
func leftOut(t []sqltoken.Token) (name string, ok bool) {
	isField := func(t []sqltoken.Token) bool { return len(t) == 2 && t[0].Is("IN") && t[1].Name() == "_REQ_FIELDS_" }
	switch {
	case len(t) == 4 && t[1].Is("NOT") && isField(t[2:]):
		return t[0].Value(), true
	case len(t) == 4 && t[0].Is("NOT") && isField(t[2:]):
		return t[1].Value(), true
	case len(t) == 6 && t[0].Is("NOT") && t[1].IsPunct("(") && isField(t[3:5]) && t[5].IsPunct(")"):
		return t[2].Value(), true
	}
	return "", false
}

// isSignedIn recognizes _USER_.id IS NOT NULL.
func isSignedIn(t []sqltoken.Token) bool {
	return len(t) >= 4 && t[0].Name() == "_USER_" &&
		(len(t) == 6 && t[3].Is("IS") && t[4].Is("NOT") && t[5].Is("NULL") || len(t) == 5 && t[3].Is("NOT") && t[4].Is("NULL") || len(t) == 4 && t[3].Is("NOTNULL"))
}

// operand is one side of a comparison: "user", "row" or "req" with the folded
// name of a column, or "null".
type operand struct{ kind, name string }

// operand reads one side of a comparison; what it does not know has no kind.
func (l *linter) operand(t []sqltoken.Token) (operand, []sqltoken.Token) {
	if len(t) >= 3 && t[1].IsPunct(".") {
		name := sqltoken.Fold(t[2].Name())
		switch t[0].Name() {
		case "_USER_":
			return operand{"user", ""}, t[3:]
		case "_ROW_":
			return operand{"row", name}, t[3:]
		case "_REQ_":
			return operand{"req", name}, t[3:]
		}
		return operand{}, nil
	}
	switch {
	case len(t) == 0:
		return operand{}, nil
	case t[0].Is("NULL"):
		return operand{"null", ""}, t[1:]
	case l.p.table.column(t[0].Name()) != nil && t[0].Name() != "": // a bare name is one of the row
		return operand{"row", sqltoken.Fold(t[0].Name())}, t[1:]
	}
	return operand{}, nil
}

// sameness reads an operator that asks whether two values are the same.
func sameness(t []sqltoken.Token) (op string, rest []sqltoken.Token) {
	switch {
	case len(t) > 0 && (t[0].IsPunct("=") || t[0].IsPunct("==")):
		return "=", t[1:]
	case len(t) > 4 && t[0].Is("IS") && t[1].Is("NOT") && t[2].Is("DISTINCT") && t[3].Is("FROM"):
		return "IS", t[4:]
	case len(t) > 1 && t[0].Is("IS") && !t[1].Is("NOT") && !t[1].Is("DISTINCT"):
		return "IS", t[1:]
	}
	return "", nil
}

// mentions reports whether a rule says anything about a column of the row or
// of the request.
func mentions(src, name string) bool {
	tokens, _ := sqltoken.Scan(src)
	for i, t := range tokens {
		named := i > 1 && tokens[i-1].IsPunct(".") && (tokens[i-2].Name() == "_ROW_" || tokens[i-2].Name() == "_REQ_")
		field := i+1 < len(tokens) && tokens[i+1].Is("IN") || i+2 < len(tokens) && tokens[i+1].Is("NOT") && tokens[i+2].Is("IN")
		if named && sqltoken.Fold(t.Name()) == name || field && sqltoken.Fold(t.Value()) == name {
			return true
		}
	}
	return false
}

// findOwners collects the columns of the table of p that hold a user's id:
// they refer to the user table, or a rule compares them with the caller.
func (l *linter) findOwners(p *plan) {
	l.p = p
	if p.table.view {
		return
	}
	owners := l.owners[p.table.sql()]
	for _, c := range p.table.columns {
		owner := c.ref != nil && strings.EqualFold(c.ref.table, l.userTable)
		for _, src := range []string{p.api.CreateRule, p.api.UpdateRule, p.api.DeleteRule, p.api.ReadRule, p.api.Check} {
			owner = owner || src != "" && l.ties(src, true)[sqltoken.Fold(c.name)]&(rowIsUser|reqIsUser) != 0
		}
		known := slices.ContainsFunc(owners, func(o *column) bool { return o.name == c.name })
		if owner && !known && !c.generated {
			owners = append(owners, c)
		}
	}
	l.owners[p.table.sql()] = owners
}

// owner looks at the rules about the columns that hold a user's id.
func (l *linter) owner() {
	owners := l.owners[l.p.table.sql()]
	if len(owners) == 0 {
		return
	}
	if l.may(Create) {
		l.createOwner(owners)
	}
	if l.may(Update) {
		l.ownerMoves(owners)
	}
	l.readRule(owners)
	l.nullOwner()
}

// createOwner finds creates that may name somebody else.
func (l *linter) createOwner(owners []*column) {
	api := &l.p.api
	create, check := l.ties(api.CreateRule, false), l.ties(api.Check, false)
	some, later := l.ties(api.CreateRule, true), l.ties(api.Check, true)
	var names []string
	mentioned := false
	for _, c := range owners {
		name := sqltoken.Fold(c.name)
		switch {
		case create[name]&(reqIsUser|reqSafe) != 0, check[name]&rowIsUser != 0:
			return
		case l.p.input[c.name] == nil:
			continue // out of the caller's hands
		}
		mentioned = mentioned || some[name]|later[name] != 0 || mentions(api.CreateRule, name) || mentions(api.Check, name)
		names = append(names, c.name)
	}
	text := strings.Join(names, ", ")
	switch {
	case len(names) == 0:
	case mentioned:
		l.find("create rule", SeverityInfo, LintCreateOwner, "could not tell whether it ties %s to _USER_.id", text)
	case api.AutofillUser:
		l.find("create rule", SeverityWarning, LintCreateOwner, "a request may name somebody else in %s, since AutofillUser fills in only what is left out: add '%s' NOT IN _REQ_FIELDS_, or _REQ_.%s = _USER_.id",
			text, names[0], names[0])
	default:
		l.find("create rule", SeverityWarning, LintCreateOwner, "nothing ties %s to _USER_.id, so a record can be made in somebody else's name: add _REQ_.%s = _USER_.id", text, names[0])
	}
}

// ownerMoves finds updates that may give a row of the caller to others.
func (l *linter) ownerMoves(owners []*column) {
	api := &l.p.api
	some, update, check := l.ties(api.UpdateRule, true), l.ties(api.UpdateRule, false), l.ties(api.Check, false)
	for _, c := range owners {
		name := sqltoken.Fold(c.name)
		switch {
		case some[name]&rowIsUser == 0, // it is not what makes one the owner
			l.p.input[c.name] == nil, c == l.p.table.key,
			update[name]&reqSafe != 0, check[name]&rowIsUser != 0:
		case some[name]&(reqIsUser|reqSafe) != 0, mentions(api.Check, name):
			l.find("update rule", SeverityInfo, LintOwnerMoves, "could not tell whether an update may change %s", c.name)
		default:
			l.find("update rule", SeverityWarning, LintOwnerMoves, "it compares %[1]s with _USER_.id before the update only, so the owner may give a record to somebody else: add '%[1]s' NOT IN _REQ_FIELDS_, or set Check to _ROW_.%[1]s = _USER_.id", c.name)
		}
	}
}

// readRule finds tables of which one may write only what is one's own, but
// read everything.
func (l *linter) readRule(owners []*column) {
	api := &l.p.api
	if !l.may(Read) || api.ReadRule != "" || l.p.table.view {
		return
	}
	var owned []string
	for _, w := range []struct {
		op    Permission
		src   string
		means tie
	}{{Create, api.CreateRule, reqIsUser}, {Update, api.UpdateRule, rowIsUser}, {Delete, api.DeleteRule, rowIsUser}} {
		if l.may(w.op) && l.ties(w.src, true).any(w.means) {
			owned = append(owned, opName(w.op))
		}
	}
	switch {
	case len(owned) == 0:
	case api.World&Read != 0:
		l.find("read rule", SeverityInfo, LintNoReadRule, "there is none: everybody reads the records of all users (%s)", owners[0].name)
	default:
		l.find("read rule", SeverityWarning, LintNoReadRule, "there is none: whoever is signed in reads the records of all users, although %s asks for one's own (%s)",
			strings.Join(owned, ", "), owners[0].name)
	}
}

// nullOwner finds rules by which an anonymous caller owns what nobody does.
func (l *linter) nullOwner() {
	for _, r := range []struct {
		op         Permission
		place, src string
	}{{Read, "read rule", l.p.api.ReadRule}, {Update, "update rule", l.p.api.UpdateRule}, {Delete, "delete rule", l.p.api.DeleteRule}} {
		if l.p.api.World&r.op == 0 {
			continue
		}
		of := l.ties(r.src, true)
		for _, c := range l.p.table.columns {
			if of[sqltoken.Fold(c.name)]&nullIsUser != 0 && !c.notNull {
				l.find(r.place, SeverityWarning, LintNullOwner, "%s IS _USER_.id also holds for an anonymous caller and records without %s: write =", c.name, c.name)
			}
		}
	}
}
