package backupproof_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// check wants the database file at path to be sound and to hold exactly what it must after some
// commit. It may be in use, and is not changed.
func check(ctx context.Context, path string, bulk int64) (m *model, err error) {
	db, err := sql.Open(sqlite.DriverName, "file:"+path+"?mode=ro&_busy_timeout=10000")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil) // everything as of one moment
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()

	var verdict string
	if err := tx.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&verdict); err != nil {
		return nil, err
	}
	if verdict != "ok" {
		return nil, fmt.Errorf("integrity_check: %s", verdict)
	}
	if err := checkSchema(ctx, tx); err != nil {
		return nil, err
	}
	var n int64
	if err := tx.QueryRowContext(ctx, "SELECT n FROM counter").Scan(&n); err != nil {
		return nil, err
	}
	origins, err := readOrigins(ctx, tx)
	if err != nil {
		return nil, err
	}
	m = after(n, origins)
	var errs []error
	for _, t := range m.tables(bulk) {
		if err := checkTable(ctx, tx, t); err != nil {
			errs = append(errs, fmt.Errorf("table %s is not as after commit %d: %w", t.name, n, err))
		}
	}
	return m, errors.Join(errs...)
}

func readOrigins(ctx context.Context, tx *sql.Tx) ([]change, error) {
	found, err := tx.QueryContext(ctx, "SELECT n, life FROM origin ORDER BY n")
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var origins []change
	for found.Next() {
		var c change
		if err := found.Scan(&c.n, &c.life); err != nil {
			return nil, err
		}
		origins = append(origins, c)
	}
	return origins, found.Err()
}

// checkSchema wants what schema creates, and nothing else but what belongs to somebody else by its
// name.
func checkSchema(ctx context.Context, tx *sql.Tx) error {
	var names string
	err := tx.QueryRowContext(ctx, `SELECT group_concat(name, ' ' ORDER BY name) FROM sqlite_schema
		WHERE name NOT LIKE '\_%' ESCAPE '\' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`).Scan(&names)
	const want = "balance bulk counter entry entry_body entry_key origin pair picture"
	if err == nil && names != want {
		err = fmt.Errorf("the schema holds %s, want %s", names, want)
	}
	return err
}

func checkTable(ctx context.Context, tx *sql.Tx, t table) error {
	found, err := tx.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", t.columns, t.name, t.order))
	if err != nil {
		return err
	}
	defer found.Close()
	next, stop := iter.Pull(t.rows)
	defer stop()
	got := make(row, strings.Count(t.columns, ",")+1)
	into := make([]any, len(got))
	for i := range got {
		into[i] = &got[i]
	}
	for found.Next() {
		if err := found.Scan(into...); err != nil {
			return err
		}
		switch want, ok := next(); {
		case !ok:
			return fmt.Errorf("there is a row too much, %.100q", got)
		case !slices.Equal(got, want):
			return fmt.Errorf("there is a row %.100q, want %.100q", got, want)
		}
	}
	if err := found.Err(); err != nil {
		return err
	}
	if want, ok := next(); ok {
		return fmt.Errorf("row %.100q is missing", want)
	}
	return nil
}

// TestCheck makes sure that differences would be seen.
func TestCheck(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "app.db")
	db, err := open(ctx, path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const bulk = 3 * bulkRow
	if err := fill(ctx, db, bulk); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for range (entriesKept + 700) / 100 {
		err := db.Update(ctx, func(tx *sqlite.Tx) (err error) {
			for i := 0; i < 100 && err == nil; i++ {
				_, err = commit(ctx, tx, 1+total/1000)
				total++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := check(ctx, path, bulk)
	if err != nil {
		t.Fatal(err)
	}
	if m.n != total || m.life(1000) != 1 || m.life(1001) != 2 || m.life(total) != 3 {
		t.Fatalf("got commit %d with the lives %v", m.n, m.origins)
	}
	if _, err := check(ctx, path, 2*bulk); err == nil {
		t.Error("rows that are missing were not noticed")
	}
	for _, change := range []string{
		"UPDATE counter SET n = n + 1",
		"UPDATE origin SET life = 9 WHERE life = 3",
		"UPDATE balance SET amount = amount + 1 WHERE id = 2",
		"DELETE FROM entry WHERE id = (SELECT max(id) FROM entry)",
		"DELETE FROM entry WHERE id = 1000",
		"INSERT INTO entry (id, key, body) VALUES (1, '', '')",
		"UPDATE pair SET n = n - 1 WHERE n = (SELECT max(n) FROM pair)",
		"UPDATE picture SET data = substr(data, 2) WHERE id = 2000",
		"DELETE FROM bulk WHERE id = 2",
		"DROP INDEX entry_key",
		"CREATE TABLE other (x)",
	} {
		scratch := filepath.Join(t.TempDir(), "app.db")
		if err := db.Snapshot(ctx, "main", scratch); err != nil {
			t.Fatal(err)
		}
		own, err := sql.Open(sqlite.DriverName, scratch)
		if err != nil {
			t.Fatal(err)
		}
		_, err = own.ExecContext(ctx, change)
		if err := errors.Join(err, own.Close()); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
		if _, err := check(ctx, scratch, bulk); err == nil {
			t.Errorf("%s: not noticed", change)
		}
	}
}
