package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// A Finding is something about an API that may give callers more than they
// need, or that makes a rule slow.
type Finding struct {
	API      string   `json:"api"`
	Place    string   `json:"place,omitempty"` // such as "update rule"; empty: the API as a whole
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // one of the constants below
	Text     string   `json:"text"`
}

// String is the finding in one line.
func (f Finding) String() string {
	place := f.Place
	if place != "" {
		place = ": " + place
	}
	return fmt.Sprintf("%s: api %q%s: %s (%s)", f.Severity, f.API, place, f.Text, f.Code)
}

// Severity says how much a finding matters.
type Severity string

// The severities. What is often meant to be so, and what could not be told, is
// an Info.
const (
	SeverityInfo    Severity = "info"
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// The codes of findings.
const (
	LintCreateOwner     = "create-owner"      // a create may name somebody else as the owner
	LintOwnerMoves      = "owner-moves"       // an update may give a row to somebody else
	LintNoReadRule      = "no-read-rule"      // rows of others can be read
	LintNoWriteRule     = "no-write-rule"     // whoever is signed in may change any row
	LintWorldWrites     = "world-writes"      // without a sign-in rows can be written
	LintViewWrites      = "view-writes"       // permissions that have no effect
	LintRuleScans       = "rule-scans"        // a rule goes through a whole table
	LintKeyScans        = "key-scans"         // finding a record by its key goes through a whole table
	LintReferenceScans  = "reference-scans"   // a foreign key without an index
	LintOtherTables     = "other-tables"      // a rule of subscriptions that depends on other tables
	LintSecretVisible   = "secret-visible"    // a column that looks like a secret can be read
	LintNullOwner       = "null-owner"        // rows without an owner belong to whoever is anonymous
	LintReplaceUnguards = "replace-unguards"  // a create may overwrite any row
	LintViewWithoutRule = "view-without-rule" // a view shows rows that a read rule of another API keeps back
)

// Lint looks for APIs that give away more than they need and for rules that
// are slow: see the Lint constants. It changes nothing. It knows the rules and
// the schema, not what the application means, so a finding is a question, and
// without findings there can still be mistakes.
func (s *Service) Lint(ctx context.Context) ([]Finding, error) { return Lint(ctx, s.db, s.cfg) }

// Lint is [Service.Lint] for a service that is not there, as in a test or
// before a deployment. It needs APIs and UserTable of cfg, and leaves db as it
// is. The error has all mistakes that [New] would report.
func Lint(ctx context.Context, db *sqlite.DB, cfg Config) (_ []Finding, err error) {
	cfg = cfg.withDefaults()
	plans, mistakes, err := compile(ctx, db, cfg, nil)
	if err = errors.Join(mistakes, err); err != nil {
		return nil, err
	}
	sandbox, err := db.Sandbox(ctx, allowedFunction)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sandbox.Close()) }()
	l := linter{userTable: cfg.UserTable, sandbox: sandbox, plans: plans, owners: map[string][]*column{}}
	for _, api := range cfg.APIs {
		l.findOwners(plans[api.Name])
	}
	for _, api := range cfg.APIs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l.p = plans[api.Name]
		l.owner()
		l.permissions()
		if err := l.view(ctx, db, cfg.APIs); err != nil {
			return nil, fmt.Errorf("records: lint api %q: %w", api.Name, err)
		}
		l.secrets()
		if err := l.speed(); err != nil {
			return nil, fmt.Errorf("records: lint api %q: %w", api.Name, err)
		}
	}
	return l.findings, nil
}

type linter struct {
	userTable string
	sandbox   *sqlite.Sandbox
	plans     map[string]*plan
	owners    map[string][]*column // that hold a user's id, by table
	p         *plan                // that is being looked at
	findings  []Finding
}

func (l *linter) find(place string, severity Severity, code, format string, args ...any) {
	l.findings = append(l.findings, Finding{l.p.api.Name, place, severity, code, fmt.Sprintf(format, args...)})
}

// may reports whether any caller may do op.
func (l *linter) may(op Permission) bool { return (l.p.api.World|l.p.api.Authenticated)&op != 0 }

// permissions looks at the access control lists.
func (l *linter) permissions() {
	api := &l.p.api
	if l.p.table.view {
		if l.may(Create | Update | Delete) {
			l.find("", SeverityInfo, LintViewWrites, "%q is a view and cannot be written to, so these permissions have no effect", api.Table)
		}
		return
	}
	for _, w := range []struct {
		op          Permission
		place, rule string
	}{{Create, "create rule", api.CreateRule}, {Update, "update rule", api.UpdateRule}, {Delete, "delete rule", api.DeleteRule}} {
		switch {
		case !l.may(w.op):
		case api.World&w.op != 0 && w.rule == "":
			severity := SeverityError
			if w.op == Create {
				severity = SeverityWarning
			}
			l.find(w.place, severity, LintWorldWrites, "World has %s and no rule narrows it: everybody may %s, without a sign-in", opName(w.op), l.what(w.op))
		case api.World&w.op != 0:
			l.worldRule(w.op, w.place, w.rule)
		case w.op != Create && w.rule == "":
			l.find(w.place, SeverityWarning, LintNoWriteRule, "there is none: whoever is signed in may %s", l.what(w.op))
		}
	}
	if api.Conflict == Replace && l.may(Create) && l.may(Update) && api.UpdateRule == "" {
		l.find("update rule", SeverityWarning, LintReplaceUnguards, "there is none: a create with a key that is taken overwrites the row, whoever made it")
	}
}

// view finds a view that anybody may read whole, although another API has a
// read rule for a table that it is made of.
func (l *linter) view(ctx context.Context, db *sqlite.DB, apis []API) error {
	t := l.p.table
	if !t.view || l.p.api.ReadRule != "" || !l.may(Read) {
		return nil
	}
	views := map[string]string{}
	err := db.Query(ctx, "SELECT name, sql FROM "+quote(t.database)+".sqlite_schema WHERE type = 'view'", nil, func(row []driver.Value) error {
		views[sqltoken.Fold(row[0].(string))] = row[1].(string)
		return nil
	})
	if err != nil {
		return err
	}
	for i := range apis {
		of := l.plans[apis[i].Name].table
		if apis[i].ReadRule == "" || of.sql() == t.sql() || of.database != t.database {
			continue
		}
		reads, err := readsTable(t.create, maps.Clone(views), map[string]string{sqltoken.Fold(of.name): ""})
		if err != nil {
			return err
		}
		if reads {
			l.find("read rule", SeverityWarning, LintViewWithoutRule, "there is none: the view shows whatever it takes from %s, of which api %q shows only what its read rule grants", of.name, apis[i].Name)
			return nil
		}
	}
	return nil
}

func (l *linter) what(op Permission) string {
	if op == Create {
		return "create records"
	}
	return opName(op) + " any record"
}

// worldRule looks at the rule of something that World may do: it cannot grant
// an anonymous caller anything if it compares with the id, which is NULL then.
func (l *linter) worldRule(op Permission, place, src string) {
	switch {
	case l.ties(src, false).any(compared):
	case namesUser(src):
		l.find(place, SeverityInfo, LintWorldWrites, "World has %s; could not tell whether the rule asks for a sign-in", opName(op))
	case op == Create:
		l.find(place, SeverityInfo, LintWorldWrites, "World has create and the rule does not ask for a sign-in")
	default:
		l.find(place, SeverityWarning, LintWorldWrites, "World has %s and the rule does not ask for a sign-in", opName(op))
	}
}

// secrets looks for columns whose name says that they are nobody's business.
func (l *linter) secrets() {
	if !l.may(Read) {
		return
	}
	for _, o := range l.p.output {
		if o.typ != integerType && o.typ != realType && secretName(o.name) {
			l.find("exclude", SeverityWarning, LintSecretVisible, "column %q looks like a secret, and whoever may read sees it: exclude it, or let its name begin with an underscore", o.name)
		}
	}
}

// secretName reports whether a column of that name holds a secret, probably.
func secretName(name string) bool {
	words := nameWords(name)
	for i, w := range words {
		last := i == len(words)-1
		switch w {
		case "password", "passwd", "pwd", "passphrase", "passcode", "secret", "totp", "apikey":
			return true
		case "token":
			if last || words[i+1] == "hash" {
				return true
			}
		case "key":
			if last && i > 0 && slices.Contains([]string{"api", "private", "secret", "signing", "encryption", "master"}, words[i-1]) {
				return true
			}
		}
	}
	return false
}

// nameWords splits snake_case and camelCase, in lower case.
func nameWords(name string) []string {
	var b strings.Builder
	lower := false
	for _, r := range name {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r) || unicode.IsDigit(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// looksElsewhere reports whether a rule has a sub-query.
func looksElsewhere(src string) bool {
	return hasToken(src, func(t sqltoken.Token) bool { return t.Is("SELECT") })
}

// namesUser reports whether a rule depends on the caller.
func namesUser(src string) bool {
	return hasToken(src, func(t sqltoken.Token) bool { return t.Name() == "_USER_" })
}

func hasToken(src string, is func(sqltoken.Token) bool) bool {
	tokens, _ := sqltoken.Scan(src)
	return slices.ContainsFunc(tokens, is)
}
