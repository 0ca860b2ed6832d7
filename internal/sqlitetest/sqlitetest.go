// Package sqlitetest opens databases for tests.
package sqlitetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/sqlite"
)

// Open opens a new database in a temporary directory and runs schema, any
// number of SQL statements. There is at most one opts; the zero
// value is the default. When the test ends the database is closed and its file
// is checked: its structure with integrity_check, its references with
// foreign_key_check. A test may close it earlier.
func Open(tb testing.TB, schema string, opts ...sqlite.Options) *sqlite.DB {
	tb.Helper()
	return OpenFile(tb, filepath.Join(tb.TempDir(), "test.db"), schema, opts...)
}

// OpenFile is like [Open] for a file that the test names and that may exist.
func OpenFile(tb testing.TB, path, schema string, opts ...sqlite.Options) *sqlite.DB {
	tb.Helper()
	var o sqlite.Options
	switch len(opts) {
	case 0:
	case 1:
		o = opts[0]
	default:
		tb.Fatal("sqlitetest: more than one Options")
	}
	ctx := context.Background()
	db, err := sqlite.Open(ctx, path, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		Check(tb, path)
	})
	if strings.TrimSpace(schema) == "" {
		return db
	}
	// Not by db itself, whose options may leave no time for it.
	own := sql.OpenDB(db.Connector())
	_, err = own.ExecContext(ctx, schema)
	if err = errors.Join(err, own.Close()); err != nil {
		tb.Fatalf("schema: %v", err)
	}
	return db
}

// Check reports damage of the database file at path as an error of the test.
func Check(tb testing.TB, path string) {
	tb.Helper()
	escaped := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(filepath.ToSlash(filepath.Clean(path)))
	pool, err := sql.Open(sqlite.DriverName, "file:"+escaped)
	if err != nil {
		tb.Error(err)
		return
	}
	defer func() {
		if err := pool.Close(); err != nil {
			tb.Error(err)
		}
	}()
	for _, line := range report(tb, pool, "PRAGMA integrity_check") {
		if line != "[ok]" {
			tb.Errorf("integrity_check of %s: %s", path, line)
		}
	}
	for _, line := range report(tb, pool, "PRAGMA foreign_key_check") {
		tb.Errorf("foreign_key_check of %s: %s", path, line)
	}
}

// report returns the rows of a query, each as one line.
func report(tb testing.TB, pool *sql.DB, query string) (lines []string) {
	tb.Helper()
	rows, err := pool.QueryContext(context.Background(), query)
	if err != nil {
		tb.Errorf("%s: %v", query, err)
		return nil
	}
	defer func() { _ = rows.Close() }() // after rows.Err there is nothing more to learn
	columns, err := rows.Columns()
	if err != nil {
		tb.Errorf("%s: %v", query, err)
		return nil
	}
	row := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range row {
		into[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			tb.Errorf("%s: %v", query, err)
			return lines
		}
		lines = append(lines, fmt.Sprint(row))
	}
	if err := rows.Err(); err != nil {
		tb.Errorf("%s: %v", query, err)
	}
	return lines
}
