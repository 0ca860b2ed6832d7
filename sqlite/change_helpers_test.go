package sqlite_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// mainLog tracks tables in the log of the main database.
func mainLog(tb testing.TB, db *sqlite.DB, tables ...string) *sqlite.ChangeLog {
	tb.Helper()
	l, err := db.ChangeLog("main")
	check(tb, err)
	check(tb, l.Track(bg, tables...))
	return l
}

func page(tb testing.TB, db *sqlite.DB, l *sqlite.ChangeLog, after sqlite.Position, upTo int64, limit int) (p sqlite.ChangePage) {
	tb.Helper()
	check(tb, db.Read(bg, func(r *sqlite.Reader) (err error) {
		p, err = l.Page(r, after, upTo, limit)
		return err
	}))
	return p
}

func head(tb testing.TB, l *sqlite.ChangeLog) sqlite.Position {
	tb.Helper()
	p, err := l.Head(bg)
	check(tb, err)
	return p
}

// follower reads a log from where it is made.
type follower struct {
	tb testing.TB
	db *sqlite.DB
	l  *sqlite.ChangeLog
	at sqlite.Position
}

func follow(tb testing.TB, db *sqlite.DB, l *sqlite.ChangeLog) *follower {
	tb.Helper()
	return &follower{tb, db, l, head(tb, l)}
}

// changes returns all changes since the last call.
func (f *follower) changes() (all []*sqlite.Change) {
	f.tb.Helper()
	for {
		p := page(f.tb, f.db, f.l, f.at, math.MaxInt64, 100)
		if p.Gap {
			f.tb.Fatal("unexpected gap")
		}
		all = append(all, p.Changes...)
		f.at = p.End
		if len(p.Changes) == 0 {
			return all
		}
	}
}

// want compares the changes since the last call with lines like
// "item: insert [1 a]", "item: update [1 a] [1 b]", "item: break".
func (f *follower) want(lines ...string) {
	f.tb.Helper()
	var got []string
	for _, c := range f.changes() {
		got = append(got, describe(c))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
		f.tb.Errorf("changes are\n%s\nwant\n%s", g, w)
	}
}

func describe(c *sqlite.Change) string {
	switch c.Op {
	case sqlite.RowInsert:
		return fmt.Sprintf("%s: insert %s", c.Table, row(c.New))
	case sqlite.RowUpdate:
		return fmt.Sprintf("%s: update %s %s", c.Table, row(c.Old), row(c.New))
	case sqlite.RowDelete:
		return fmt.Sprintf("%s: delete %s", c.Table, row(c.Old))
	case sqlite.LogBreak:
		return c.Table + ": break"
	}
	return fmt.Sprintf("event %s %s", c.Channel, c.Event)
}

func row(values []driver.Value) string { return fmt.Sprint(values) }

// execute runs each statement in a Write of its own.
func execute(tb testing.TB, db *sqlite.DB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if err := db.Write(bg, sqlite.Stmt{SQL: s}); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}

// outside returns a connection that this package knows nothing about, as that
// of another process would be.
func outside(tb testing.TB, db *sqlite.DB) *sql.DB {
	tb.Helper()
	pool, err := sql.Open(sqlite.DriverName, "file:"+db.Path()+"?_busy_timeout=100000")
	check(tb, err)
	pool.SetMaxOpenConns(1)
	tb.Cleanup(func() { check(tb, pool.Close()) })
	return pool
}

func outsideExec(tb testing.TB, pool *sql.DB, statements ...string) {
	tb.Helper()
	for _, s := range statements {
		if _, err := pool.ExecContext(bg, s); err != nil {
			tb.Fatalf("%s: %v", s, err)
		}
	}
}
