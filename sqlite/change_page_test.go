package sqlite_test

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestPage(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{ChangeLog: sqlite.ChangeLogOptions{MaxRows: 6}})
	l := mainLog(t, db, "item")
	e := head(t, l).Epoch
	for id := range int64(9) {
		check(t, write(db, id)()) // changes 2 to 10
	}
	check(t, l.Prune(bg)) // floor 4
	for _, test := range []struct {
		after       sqlite.Position
		upTo        int64
		limit       int
		gap         bool
		first, last int64 // 0: no changes
		end         int64
	}{
		{sqlite.Position{Epoch: e, Seq: 4}, math.MaxInt64, 100, false, 5, 10, 10},
		{sqlite.Position{Epoch: e, Seq: 4}, math.MaxInt64, 3, false, 5, 7, 7},
		{sqlite.Position{Epoch: e, Seq: 7}, math.MaxInt64, 3, false, 8, 10, 10},
		{sqlite.Position{Epoch: e, Seq: 4}, 8, 100, false, 5, 8, 8},
		{sqlite.Position{Epoch: e, Seq: 4}, 8, 2, false, 5, 6, 6},
		{sqlite.Position{Epoch: e, Seq: 4}, 8, 0, false, 5, 5, 5},
		{sqlite.Position{Epoch: e, Seq: 8}, 8, 100, false, 0, 0, 8},
		{sqlite.Position{Epoch: e, Seq: 9}, 8, 100, false, 0, 0, 9},
		{sqlite.Position{Epoch: e, Seq: 10}, math.MaxInt64, 100, false, 0, 0, 10},
		{sqlite.Position{Epoch: e, Seq: 11}, math.MaxInt64, 100, true, 0, 0, 10},
		{sqlite.Position{Epoch: e, Seq: 11}, 7, 100, true, 0, 0, 7},
		{sqlite.Position{Epoch: e, Seq: math.MaxInt64}, math.MaxInt64, 100, true, 0, 0, 10},
		{sqlite.Position{Epoch: "other", Seq: 5}, math.MaxInt64, 100, true, 0, 0, 10},
		{sqlite.Position{}, math.MaxInt64, 100, true, 0, 0, 10},
		{sqlite.Position{Epoch: e, Seq: 3}, math.MaxInt64, 2, true, 5, 6, 6},
		{sqlite.Position{Epoch: e, Seq: 0}, 8, 100, true, 5, 8, 8},
		{sqlite.Position{Epoch: e, Seq: -5}, math.MaxInt64, 100, true, 5, 10, 10},
		{sqlite.Position{Epoch: e, Seq: math.MinInt64}, math.MinInt64, -1, true, 0, 0, 4},
		{sqlite.Position{Epoch: e, Seq: 1}, 2, 100, true, 0, 0, 4},
	} {
		p := page(t, db, l, test.after, test.upTo, test.limit)
		var first, last int64
		if n := len(p.Changes); n > 0 {
			first, last = p.Changes[0].Seq, p.Changes[n-1].Seq
		}
		if p.Gap != test.gap || first != test.first || last != test.last || p.End != (sqlite.Position{Epoch: e, Seq: test.end}) {
			t.Errorf("page behind %v up to %d, %d: gap %t, from %d to %d, end %v", test.after, test.upTo, test.limit, p.Gap, first, last, p.End)
		}
	}
}

func TestPageBytes(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	f := follow(t, db, mainLog(t, db, "item"))
	for range 10 {
		execute(t, db, "INSERT INTO item (note) VALUES (printf('%.1000000c', 'x'))")
	}
	execute(t, db, "UPDATE item SET note = printf('%.9000000c', 'y') WHERE id = 1")
	sizes := []int{5, 5, 1}
	at := f.at
	for i, want := range sizes {
		p := page(t, db, f.l, at, math.MaxInt64, 1000)
		if len(p.Changes) != want || p.End.Seq != p.Changes[want-1].Seq {
			t.Errorf("page %d has %d changes, want %d", i, len(p.Changes), want)
		}
		for _, c := range p.Changes {
			if c.Size < 1_000_000 {
				t.Errorf("size is %d", c.Size)
			}
		}
		at = p.End
	}
}

// A page is of one snapshot: of a reader or of a scratch.
func TestPageSnapshot(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{ChangeLog: sqlite.ChangeLogOptions{MaxRows: 1}})
	l := mainLog(t, db, "item")
	at := head(t, l)
	check(t, write(db, 1, 2, 3)())
	read := func(q sqlite.Querier) {
		want := page(t, db, l, at, math.MaxInt64, 10)
		first, err := l.Page(q, at, math.MaxInt64, 10)
		check(t, err)
		check(t, write(db, want.End.Seq*10)())
		check(t, l.Prune(bg))
		second, err := l.Page(q, at, math.MaxInt64, 10)
		check(t, err)
		if len(first.Changes) != len(want.Changes) || len(second.Changes) != len(want.Changes) || second.End != want.End || second.Gap != want.Gap {
			t.Errorf("pages are %+v and %+v, want %+v", first, second, want)
		}
	}
	check(t, db.Read(bg, func(r *sqlite.Reader) error {
		read(r)
		return nil
	}))
	s, err := db.Scratch(bg)
	check(t, err)
	defer func() { check(t, s.Close()) }()
	check(t, s.Read(func() error {
		read(s)
		return nil
	}))
}

// Entries that somebody has tampered with stand for a break, and a warning is
// logged; the rest is delivered.
func TestPageTampered(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: slog.New(slog.NewTextHandler(&text, nil))})
	l := mainLog(t, db, "item")
	f := follow(t, db, l)
	for i, tamper := range []string{
		"new = '[1'", "new = '[1,2,3]'", "new = '[]'", "new = NULL", "new = 'x'", "new = '{}'", "new = '[1,{\"$b\":\"0\"}]'", "new = '[1,truthy]'",
		"old = '[1,2]'", "op = 2", "op = 3", "op = 0", "op = 99", "op = -1", "new = x'00'", `new = '["\u00e","b"]'`, "new = '[' || printf('%.100000c', '[')",
	} {
		check(t, write(db, int64(10*i), int64(10*i+1), int64(10*i+2))())
		if err := db.Write(bg, sqlite.Stmt{SQL: "UPDATE _change SET " + tamper + " WHERE seq = (SELECT max(seq) - 1 FROM _change)"}); err != nil {
			if !strings.Contains(err.Error(), "cannot store") {
				t.Errorf("%s: %v", tamper, err)
			}
			f.changes()
			continue
		}
		text.Reset()
		f.want(fmt.Sprintf("item: insert [%d <nil>]", 10*i), "item: break", fmt.Sprintf("item: insert [%d <nil>]", 10*i+2))
		if !strings.Contains(text.String(), "cannot be read") {
			t.Errorf("%s: logged is %q", tamper, text.String())
		}
	}
	// Of no table that is tracked.
	check(t, write(db, 1000)())
	execute(t, db, "UPDATE _change SET shape = 77 WHERE seq = (SELECT max(seq) FROM _change)")
	check(t, write(db, 1001)())
	f.want("item: insert [1001 <nil>]")
	// The shape itself. It was read and is cached, so by another handle.
	execute(t, db, "UPDATE _change_shape SET columns = 'x'")
	other, err := sqlite.Open(bg, db.Path(), sqlite.Options{Logger: quiet})
	check(t, err)
	defer func() { check(t, other.Close()) }()
	otherLog, err := other.ChangeLog("main")
	check(t, err)
	p := page(t, other, otherLog, sqlite.Position{Epoch: f.at.Epoch}, math.MaxInt64, 1)
	if len(p.Changes) != 1 || p.Changes[0].Op != sqlite.LogBreak {
		t.Errorf("page is %+v", p)
	}
}

func TestPageColumnsShared(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	f := follow(t, db, mainLog(t, db, "item"))
	check(t, write(db, 1, 2)())
	c := f.changes()
	if &c[0].Columns[0] != &c[1].Columns[0] {
		t.Error("columns are copied for each change")
	}
	if got := c[0].New; len(got) != 2 || got[0] != driver.Value(int64(1)) || c[0].Old != nil {
		t.Errorf("change is %+v", c[0])
	}
}

// While there are entries behind it, a page is not empty, however many were
// left out because they are from before a change of the columns.
func TestPageSkipsOldShapes(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, itemSchema)
	f := follow(t, db, mainLog(t, db, "item"))
	check(t, write(db, 1, 2, 3, 4, 5)())
	execute(t, db, "ALTER TABLE item ADD COLUMN x TEXT")
	check(t, write(db, 6)())
	p := page(t, db, f.l, f.at, math.MaxInt64, 1)
	if len(p.Changes) != 1 || p.Changes[0].Op != sqlite.LogBreak || p.End.Seq != p.Changes[0].Seq {
		t.Errorf("page is %+v", p)
	}
	f.want("item: break", "item: insert [6 <nil> <nil>]")
}
