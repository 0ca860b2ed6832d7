package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"strings"
)

// The tables of a log, in the file that it is of.
//
//   - _change has the entries. The newest one always stays, so that numbers
//     go on from it: AUTOINCREMENT would write one more page. An event has
//     its channel in old and its JSON in new.
//   - _change_shape says which table the images of an entry are of, and how
//     they are written; ended is the entry from which on it is used no more.
//   - _change_table has the tracked tables by name, with their shapes; 0 while
//     there is no such table.
//   - _change_mark says when the log had got as far as seq, in milliseconds
//     since 1970, and how many bytes the entries since the mark before have.
//   - _change_state has one row: floor is the newest entry that was pruned,
//     file tells the file from a copy of it, key is that of Sealer.
var changeTables = [...]string{
	"_change(seq INTEGER PRIMARY KEY, shape INTEGER NOT NULL, op INTEGER NOT NULL, old TEXT, new TEXT) STRICT",
	"_change_shape(id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, columns TEXT NOT NULL, ended INTEGER) STRICT",
	"_change_table(name TEXT PRIMARY KEY COLLATE NOCASE, shape INTEGER NOT NULL) STRICT, WITHOUT ROWID",
	"_change_mark(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT",
	"_change_state(id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, key BLOB NOT NULL, floor INTEGER NOT NULL, file TEXT NOT NULL) STRICT",
}

// internalTable reports whether the changes of a table cannot be tracked
// because it is SQLite's own or ours.
func internalTable(name string) bool {
	name = foldName(name)
	return strings.HasPrefix(name, "sqlite_") || name == "_change" || strings.HasPrefix(name, "_change_") || name == "_migration"
}

// foldName returns the name of a table or database in lower case, as SQLite
// sees it: ASCII letters only.
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, name)
}

// sameName reports whether two names are the same to SQLite.
func sameName(a, b string) bool { return foldName(a) == foldName(b) }

// in returns a statement with its "$." replaced by the name of the database.
func (l *ChangeLog) in(text string) string {
	return strings.ReplaceAll(text, "$.", quoteName(l.name)+".")
}

// complete reports whether all tables of the log are there, and whether any is.
func (l *ChangeLog) complete(c *conn) (all, some bool, err error) {
	n := 0
	err = c.query(context.Background(), l.in(`SELECT count(*) FROM $.sqlite_schema WHERE type = 'table'
		AND name IN ('_change', '_change_shape', '_change_table', '_change_mark', '_change_state')`), nil,
		func(row []driver.Value) error {
			n = int(row[0].(int64))
			return nil
		})
	return n == len(changeTables), n > 0, err
}

// newestSeq is SQL for the number of the newest entry, 0 if there is none.
const newestSeq = "coalesce((SELECT max(c.seq) FROM $._change AS c), 0)"

// installed reports whether there is a log, of this very file, and with its
// newest entry.
func (l *ChangeLog) installed(c *conn) (ok bool, err error) {
	if ok, _, err = l.complete(c); !ok || err != nil {
		return false, err
	}
	ok = false
	err = c.query(context.Background(), l.in("SELECT file, floor <= "+newestSeq+" FROM $._change_state"), nil, func(row []driver.Value) error {
		ok = row[0] == l.file && row[1] == int64(1)
		return nil
	})
	return ok, err
}

// install makes the tables of the log where they are missing, and a new epoch
// when there is none or when it is that of another file.
func (l *ChangeLog) install(c *conn) error {
	ok, err := l.installed(c)
	if ok || err != nil {
		return err
	}
	all, some, err := l.complete(c)
	if err != nil {
		return err
	}
	if !all {
		c.tx.altered = true
		for _, table := range changeTables {
			if err := c.exec("CREATE TABLE IF NOT EXISTS " + quoteName(l.name) + "." + table); err != nil {
				return err
			}
		}
		// Shapes are numbered anew: triggers must not go on with old numbers.
		if err := l.silence(c); err != nil {
			return err
		}
		if some {
			// Somebody has dropped tables: what is left belongs to nothing.
			for _, table := range []string{"_change", "_change_mark", "_change_shape"} {
				if err := c.exec(l.in("DELETE FROM $." + table)); err != nil {
					return err
				}
			}
			if err := c.exec(l.in("UPDATE $._change_table SET shape = 0; DELETE FROM $._change_state")); err != nil {
				return err
			}
		}
	}
	return l.renew(c)
}

// renew begins a new epoch.
func (l *ChangeLog) renew(c *conn) error {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	return c.query(context.Background(), l.in(`INSERT INTO $._change_state (id, epoch, key, floor, file) VALUES (1, ?1, ?2, 0, ?3)
		ON CONFLICT (id) DO UPDATE SET epoch = ?1, key = ?2, file = ?3, floor = min(floor, `+newestSeq+`)`),
		[]driver.Value{strings.ToLower(rand.Text()[:12]), key, l.file}, nil)
}
