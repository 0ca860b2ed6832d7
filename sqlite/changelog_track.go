package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
)

// Install makes the log's own tables, _change and _change_..., if
// they are not there. Track does it, too.
//
// It also begins a new epoch when the file is not the one that the log was
// made in but a copy of it. That cannot be told when the content of a file is
// replaced in place, as by cp over it, or on systems without inodes: see Renew.
func (l *ChangeLog) Install(ctx context.Context) error {
	if l.there.Load() {
		return l.db.openErr()
	}
	ok := false
	err := l.db.peek(ctx, func(c *conn) (err error) {
		ok, err = l.installed(c)
		return err
	})
	if err == nil && !ok {
		err = l.db.writer.do(ctx, &request{own: l.install})
	}
	if err != nil {
		return fmt.Errorf("sqlite: install the change log of %s: %w", l.name, err)
	}
	l.there.Store(true)
	return nil
}

// Renew begins a new epoch: every position from before is followed by a gap.
// Whoever has put older data into the file should call it, and who uses
// Synchronous Normal, after a power cut.
func (l *ChangeLog) Renew(ctx context.Context) error {
	l.there.Store(false) // it may not be any more
	if err := l.Install(ctx); err != nil {
		return err
	}
	if err := l.db.writer.do(ctx, &request{own: l.renew}); err != nil {
		return fmt.Errorf("sqlite: begin a new epoch of the change log of %s: %w", l.name, err)
	}
	return nil
}

// Track begins to record the changes of tables, beside those that are tracked
// already. Names are compared without regard to case. That a table is tracked
// is kept in the file, and by name: when it is dropped and created anew, its
// changes are recorded again.
//
// Views, virtual tables and SQLite's own tables cannot be tracked; all such
// names are reported at once, and then none of the tables is tracked. When
// there is nothing to do, Track does not write.
func (l *ChangeLog) Track(ctx context.Context, tables ...string) error {
	if err := l.Install(ctx); err != nil {
		return err
	}
	ready := false
	err := l.db.peek(ctx, func(c *conn) error {
		found, err := l.inspect(c)
		if err != nil {
			return err
		}
		ready = found.done()
		for _, name := range tables {
			ready = ready && slices.ContainsFunc(found.tables, func(t trackedTable) bool {
				return t.table != "" && sameName(t.name, name)
			})
		}
		return nil
	})
	if err == nil && !ready {
		err = l.db.writer.do(ctx, &request{own: func(c *conn) error { return l.track(c, tables) }})
	}
	if err != nil {
		return fmt.Errorf("sqlite: track changes in %s: %w", l.name, err)
	}
	return nil
}

func (l *ChangeLog) track(c *conn, tables []string) error {
	var errs []error
	for _, name := range tables {
		table, err := l.trackable(c, name)
		if err == nil && len(errs) == 0 {
			err = c.query(context.Background(), l.in("INSERT INTO $._change_table (name, shape) VALUES (?, 0) ON CONFLICT DO NOTHING"),
				[]driver.Value{table}, nil)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %q: %w", name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return l.sync(c, nil)
}

// trackable returns how the schema spells name, if it is a table that triggers
// can be made for.
func (l *ChangeLog) trackable(c *conn, name string) (table string, err error) {
	if internalTable(name) {
		return "", errors.New("is an internal table")
	}
	kind := "unknown"
	err = c.query(context.Background(), "PRAGMA "+quoteName(l.name)+".table_list("+quoteName(name)+")", nil,
		func(row []driver.Value) error {
			if schema, _ := row[0].(string); sameName(schema, l.name) {
				table, kind = row[1].(string), row[2].(string)
			}
			return nil
		})
	switch {
	case err != nil:
		return "", err
	case kind == "unknown":
		return "", errors.New("there is no such table")
	case kind != "table":
		return "", fmt.Errorf("is not an ordinary table: %s", kind)
	}
	return table, nil
}

// Untrack ends the recording of tables. Names of tables that are not tracked
// do not matter.
func (l *ChangeLog) Untrack(ctx context.Context, tables ...string) error {
	if err := l.Install(ctx); err != nil {
		return err
	}
	err := l.db.writer.do(ctx, &request{own: func(c *conn) error {
		found, err := l.inspect(c)
		if err != nil {
			return err
		}
		for _, t := range found.tables {
			if !slices.ContainsFunc(tables, func(name string) bool { return sameName(name, t.name) }) {
				continue
			}
			err := c.query(context.Background(), l.in("DELETE FROM $._change_table WHERE name = ?"), []driver.Value{t.name}, nil)
			if err == nil && t.shape != 0 {
				err = l.appendBreak(c, t.shape, true)
			}
			if err != nil {
				return err
			}
		}
		return l.sync(c, nil)
	}})
	if err != nil {
		return fmt.Errorf("sqlite: end to track changes in %s: %w", l.name, err)
	}
	return nil
}

// Tracked returns the names of the tables that are tracked, sorted. Some of
// them may not exist at the moment.
func (l *ChangeLog) Tracked(ctx context.Context) (tables []string, err error) {
	if err := l.Install(ctx); err != nil {
		return nil, err
	}
	err = l.db.Query(ctx, l.in("SELECT name FROM $._change_table ORDER BY name"), nil, func(row []driver.Value) error {
		tables = append(tables, row[0].(string))
		return nil
	})
	return tables, err
}

// WithoutChangeFeed is [DB.Update] with the log off, for imports and for
// changes of the schema that its triggers are in the way of, such as DROP
// COLUMN. Afterwards everybody who follows a tracked table of this file is told
// that there is a gap. With an error of fn, all is as it was before.
func (l *ChangeLog) WithoutChangeFeed(ctx context.Context, fn func(tx *Tx) error) error {
	return l.db.Update(ctx, func(tx *Tx) error {
		if err := l.silenceTx(tx); err != nil {
			return fmt.Errorf("sqlite: turn off the change log of %s: %w", l.name, err)
		}
		return fn(tx) // dropping triggers has altered the schema: they are back before the commit
	})
}

// silenceTx is silence by way of tx, which may end at any moment.
func (l *ChangeLog) silenceTx(tx *Tx) error {
	bg := context.Background()
	rows, err := tx.QueryContext(bg, l.in("SELECT name, sql FROM $.sqlite_schema WHERE type = 'trigger'"))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // after rows.Err there is nothing more to learn
	var own []trigger
	for rows.Next() {
		var t trigger
		if err := rows.Scan(&t.name, &t.sql); err != nil {
			return err
		}
		if t.ours() {
			own = append(own, t)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, t := range own {
		if _, err := tx.ExecContext(bg, t.drop(l.name)); err != nil {
			return err
		}
	}
	return nil
}
