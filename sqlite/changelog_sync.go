package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
)

// A trackedTable is a row of _change_table and what it stands for now.
type trackedTable struct {
	name  string // as it was tracked
	shape int64  // 0: none

	table    string // as the schema spells it; "": there is no such table
	columns  string // of table, encoded
	logged   []loggedColumn
	triggers []trigger
	renewed  bool // needs a shape, table or columns are not those of the old one
	stale    bool // triggers must be created
}

// inspection is what the schema and the log say about each other.
type inspection struct {
	tables []trackedTable
	drop   []trigger // of the log, but not as they must be
}

// done reports whether everything is as it must be.
func (i inspection) done() bool {
	for _, t := range i.tables {
		if t.stale || t.table == "" && t.shape != 0 {
			return false
		}
	}
	return len(i.drop) == 0
}

// inspect finds out what is not as it must be: a trigger is missing, or was
// rewritten by ALTER TABLE, or is on a table of another name, or is not the
// youngest of its table. SQLite runs the youngest first: behind a trigger that
// updates the row once more, the log would get the updates in the wrong order.
func (l *ChangeLog) inspect(c *conn) (result inspection, err error) {
	err = c.query(context.Background(), l.in(`SELECT t.name, t.shape, s.tbl, s.columns FROM $._change_table t
		LEFT JOIN $._change_shape s ON s.id = t.shape ORDER BY t.name`), nil, func(row []driver.Value) error {
		t := trackedTable{name: row[0].(string), shape: row[1].(int64)}
		t.table, _ = row[2].(string)
		t.columns, _ = row[3].(string)
		result.tables = append(result.tables, t)
		return nil
	})
	if err != nil {
		return inspection{}, err
	}
	all, err := l.schemaTriggers(c)
	if err != nil {
		return inspection{}, err
	}
	keep := map[string]bool{} // names of triggers that are as they must be
	for i := range result.tables {
		t := &result.tables[i]
		before, columnsBefore := t.table, t.columns
		table, columns, err := l.loggedColumns(c, t.name)
		if err != nil {
			return inspection{}, err
		}
		if t.table = table; table == "" {
			continue
		}
		if t.columns, err = encodeColumns(columns); err != nil {
			return inspection{}, err
		}
		t.logged = columns
		t.renewed = t.shape == 0 || before != table || columnsBefore != t.columns
		t.triggers = triggers(table, t.shape, columns)
		t.stale = t.renewed || !youngest(all, t.triggers)
		if !t.stale {
			for _, own := range t.triggers {
				keep[own.name] = true
			}
		}
	}
	for _, t := range all {
		if t.ours() && !keep[t.name] {
			result.drop = append(result.drop, t)
		}
	}
	return result, nil
}

// youngest reports whether want are the youngest of all triggers of their
// table.
func youngest(all, want []trigger) bool {
	var last []trigger
	for _, t := range slices.Backward(all) {
		if sameName(t.table, want[0].table) {
			if last = append(last, t); len(last) == len(want) {
				break
			}
		}
	}
	for _, t := range want {
		if !slices.ContainsFunc(last, func(have trigger) bool { return have.name == t.name && have.sql == t.sql }) {
			return false
		}
	}
	return true
}

// sync brings triggers and shapes into line with the schema, inside a write
// transaction, and appends a break for every table whose changes may have been
// missed, unless quiet, if not nil, says that there was none.
func (l *ChangeLog) sync(c *conn, quiet func(table string) bool) error {
	all, some, err := l.complete(c)
	if !some || err != nil {
		return err
	}
	if !all {
		if err := l.install(c); err != nil {
			return err
		}
	}
	found, err := l.inspect(c)
	if err != nil || found.done() {
		return err
	}
	c.tx.altered = true
	for _, t := range found.drop {
		if err := c.exec(t.drop(l.name)); err != nil {
			return err
		}
	}
	for i := range found.tables {
		if err := l.restore(c, &found.tables[i], quiet); err != nil {
			return fmt.Errorf("table %s: %w", found.tables[i].name, err)
		}
	}
	return nil
}

// restore does for one table what inspect has found.
func (l *ChangeLog) restore(c *conn, t *trackedTable, quiet func(table string) bool) error {
	bg := context.Background()
	if t.table == "" && t.shape != 0 {
		if err := l.appendBreak(c, t.shape, true); err != nil {
			return err
		}
		return c.query(bg, l.in("UPDATE $._change_table SET shape = 0 WHERE name = ?"), []driver.Value{t.name}, nil)
	}
	if !t.stale {
		return nil
	}
	if t.renewed {
		if err := l.reshape(c, t); err != nil {
			return err
		}
	}
	for _, trigger := range t.triggers {
		if err := c.exec(trigger.create(l.name)); err != nil {
			return err
		}
	}
	if !t.renewed && quiet != nil && quiet(t.table) {
		return nil
	}
	return l.appendBreak(c, t.shape, false)
}

// reshape gives a table a new shape.
func (l *ChangeLog) reshape(c *conn, t *trackedTable) error {
	bg := context.Background()
	err := c.query(bg, l.in("INSERT INTO $._change_shape (tbl, columns) VALUES (?, ?) RETURNING id"), []driver.Value{t.table, t.columns},
		func(row []driver.Value) error {
			t.shape = row[0].(int64)
			return nil
		})
	if err != nil {
		return err
	}
	t.triggers = triggers(t.table, t.shape, t.logged)
	return c.query(bg, l.in("UPDATE $._change_table SET shape = ? WHERE name = ?"), []driver.Value{t.shape, t.name}, nil)
}

// appendBreak appends a break of the table that a shape is of. Older shapes of
// the table end there, and this one when it is the last.
func (l *ChangeLog) appendBreak(c *conn, shape int64, last bool) error {
	bg := context.Background()
	var seq int64
	err := c.query(bg, l.in("INSERT INTO $._change (shape, op) VALUES (?, ?) RETURNING seq"), []driver.Value{shape, int64(LogBreak)},
		func(row []driver.Value) error {
			seq = row[0].(int64)
			return nil
		})
	if err != nil {
		return err
	}
	return c.query(bg, l.in(`UPDATE $._change_shape SET ended = ?1 WHERE ended IS NULL AND (id <> ?2 OR ?3)
		AND tbl = (SELECT s.tbl FROM $._change_shape AS s WHERE s.id = ?2) COLLATE NOCASE`), []driver.Value{seq, shape, last}, nil)
}

// syncLogs is sync for the logs of all databases.
func (db *DB) syncLogs(c *conn, quiet func(database, table string) bool) error {
	for _, l := range db.logs {
		var quietHere func(string) bool
		if quiet != nil {
			quietHere = func(table string) bool { return quiet(l.name, table) }
		}
		if err := l.sync(c, quietHere); err != nil {
			return fmt.Errorf("sqlite: keep the change log of %s in step with the schema: %w", l.name, err)
		}
	}
	return nil
}

// silence drops the triggers of the log, until the next sync.
func (l *ChangeLog) silence(c *conn) error {
	all, err := l.schemaTriggers(c)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.ours() {
			if err := c.exec(t.drop(l.name)); err != nil {
				return err
			}
		}
	}
	return nil
}
