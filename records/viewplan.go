package records

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/bedplate/bedplate/internal/sqltoken"
	"github.com/bedplate/bedplate/sqlite"
)

// live is what a plan has for subscriptions.
//
// Rows that are not in the database any more, or not in this state, are
// judged in a temporary table with the columns of the real one, their
// affinities and collations: so a rule gives the same for them.
type live struct {
	log      *sqlite.ChangeLog
	head     string // SQL of the position in the change log
	readHead *statement
	watch    *statement // finds a record that may be watched
	encoding string     // see View.Encoding

	images  string // the temporary table, quoted
	create  string
	insert  string
	ordinal string // its column that numbers the images, quoted
	apart   bool   // the rule cannot be judged for several users at once

	known  atomic.Pointer[places]
	warned atomic.Bool // that the conditions of a view could not be evaluated
}

func newLive(p *plan, log *sqlite.ChangeLog) *live {
	t := p.table
	l := &live{log: log, head: log.HeadExpr(), images: `temp.` + quote("_ROW_ "+t.database+"."+t.name), ordinal: quote(t.unused("_REQ_"))}
	var columns, names, values []string
	for i, c := range t.columns {
		columns = append(columns, quote(c.name)+" "+c.affinity(t.strict)+c.collate())
		names = append(names, quote(c.name))
		values = append(values, "?"+strconv.Itoa(i+2))
	}
	if t.key.alias {
		for _, name := range []string{"rowid", "oid", "_rowid_"} {
			if t.column(name) == nil {
				columns = append(columns, quote(name)+" INTEGER AS ("+quote(t.key.name)+") VIRTUAL")
			}
		}
	}
	// Without a rowid, so that none is there for a rule by mistake.
	l.create = "CREATE TABLE " + l.images + " (" + l.ordinal + " INTEGER PRIMARY KEY, " + strings.Join(columns, ", ") + ") WITHOUT ROWID"
	l.insert = "INSERT INTO " + l.images + " (" + l.ordinal + ", " + strings.Join(names, ", ") + ") VALUES (?1, " + strings.Join(values, ", ") + ")"

	var b builder
	b.add("SELECT +", rowColumn(t.key), " FROM ", t.sql(), ` AS "_ROW_"`)
	b.byKey(t, p.read, nil)
	l.watch = b.statement()
	l.readHead = p.readStatement(l.head)
	for _, o := range p.output {
		l.encoding += fmt.Sprintf("%s %d,", o.prefix, o.format)
	}
	return l
}

// unused returns name, made longer until no column is called so.
func (t *table) unused(name string) string {
	for t.column(name) != nil {
		name += "_"
	}
	return name
}

// cursor returns the position that head has read, as clients get it. It may
// read from the database: not to be called inside of DB.Read.
func (l *live) cursor(head string) (string, error) {
	at, err := sqlite.ParsePosition(head)
	if err != nil {
		return "", err
	}
	sealer, err := l.log.Sealer(context.Background(), at.Epoch)
	if err != nil { // the log has begun anew meanwhile, or cannot be asked
		return "", (&Error{Status: http.StatusServiceUnavailable}).because(err)
	}
	return sealer.Seal(at.Seq), nil
}

// affinity returns a type for a column of an ordinary table that has the
// affinity of c (https://www.sqlite.org/datatype3.html#determination_of_column_affinity).
func (c *column) affinity(strict bool) string {
	switch c.typ {
	case integerType:
		return "INTEGER"
	case textType:
		return "TEXT"
	case blobType:
		return "BLOB"
	case realType:
		return "REAL"
	}
	if c.declared == "" || strict {
		return "" // none
	}
	return "NUMERIC"
}

func (c *column) collate() string {
	if c.collation == "" {
		return ""
	}
	return " COLLATE " + quote(c.collation)
}

// live prepares the API of p for subscriptions and checks that its read rule
// can be judged on rows that are not in the table.
func (c *compiler) live(p *plan) error {
	log, err := c.db.ChangeLog(p.table.database)
	if err != nil {
		return err
	}
	p.live = newLive(p, log)
	if p.read == nil {
		return nil
	}
	if !p.table.key.alias && quotesRowid(p.read.Source()) {
		return errors.New("read rule: with Subscriptions it cannot use the rowid, which is not the primary key")
	}
	if c.scratch == nil {
		if c.scratch, err = c.db.Scratch(c.ctx); err != nil {
			return err
		}
	}
	j, err := newJudgement(p, nil)
	if err == nil {
		err = c.scratch.Read(func() error {
			tables, err := tablesOf(c.scratch)
			if err == nil {
				_, err = tables.load(p.live, p.table, nil)
			}
			if err != nil {
				return err
			}
			err = j.run(c.scratch, j.single, nil, 0, 0, nil, nil)
			if err == nil && p.read.UsesUser() {
				p.live.apart = j.run(c.scratch, j.few, nil, 0, 0, nil, nil) != nil
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("read rule: it cannot be used with Subscriptions: %w", err)
	}
	return nil
}

// quotesRowid reports whether a rule has the name of a rowid in quotes, on its
// own: where there is no such column, SQLite takes it for a string
// (https://www.sqlite.org/quirks.html#dblquote).
func quotesRowid(src string) bool {
	tokens, _ := sqltoken.Scan(src)
	for i, t := range tokens {
		if t.Kind == sqltoken.Quoted && isRowid(t.Name()) && (i == 0 || !tokens[i-1].IsPunct(".")) {
			return true
		}
	}
	return false
}

// places says where in the images of a change the columns of a table are.
type places struct {
	columns []string
	table   *table
	index   []int // by column index; -1: it is not there
}

// places returns the places for changes with these columns.
func (l *live) places(t *table, columns []string) *places {
	known := l.known.Load()
	if known != nil && known.table == t && sameColumns(known.columns, columns) {
		return known
	}
	m := &places{columns, t, make([]int, len(t.columns))}
	for i, c := range t.columns {
		m.index[i] = slices.IndexFunc(columns, func(name string) bool { return sqltoken.Fold(name) == sqltoken.Fold(c.name) })
	}
	l.known.Store(m)
	return m
}

func sameColumns(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// value returns the value of c in row.
func (m *places) value(row []driver.Value, c *column) driver.Value {
	if i := m.index[c.index]; i >= 0 && i < len(row) {
		return row[i]
	}
	return nil
}

// complete reports whether all columns are there.
func (m *places) complete() bool { return !slices.Contains(m.index, -1) }

// image returns a row as it was before (old) or after c.
func image(c *sqlite.Change, old bool) []driver.Value {
	if old {
		return c.Old
	}
	return c.New
}
