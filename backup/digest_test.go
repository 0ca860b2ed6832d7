package backup

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/bedplate/bedplate/sqlite" // the driver
)

// digestSchema has every kind of table.
const digestSchema = `
CREATE TABLE plain (a, b TEXT, c REAL);
CREATE TABLE keyed (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT UNIQUE);
CREATE TABLE "with""out" (k TEXT PRIMARY KEY, "select" BLOB) WITHOUT ROWID;
CREATE TABLE strict_one (n INT, t TEXT, x ANY) STRICT;
CREATE TABLE timed (at DATETIME, day DATE, ts TIMESTAMP, yes BOOLEAN);
CREATE TABLE named (rowid TEXT, _rowid_ TEXT, oid TEXT);
CREATE TABLE shadowed (RowID TEXT);
CREATE TABLE generated (a INT, v INT AS (a + 2), s INT AS (a + 1) STORED);
CREATE TABLE failing (a INT);
CREATE VIRTUAL TABLE words USING fts4(text);
CREATE VIEW seen AS SELECT * FROM plain;
CREATE INDEX plain_all ON plain (c, b, a);
CREATE TRIGGER after_plain AFTER INSERT ON plain BEGIN SELECT 1; END;
INSERT INTO plain VALUES (1, 'one', 1.5), (2, 'two', 2), (2, 'two', 2), (NULL, NULL, NULL);
INSERT INTO keyed (v) VALUES ('x'), ('y'), ('z');
INSERT INTO "with""out" VALUES ('k', x'00ff'), ('l', x'');
INSERT INTO strict_one VALUES (1, 'a', 1), (2, 'b', CAST(x'6374000000000000000064' AS TEXT)); -- ct and NULs and d
INSERT INTO timed VALUES (1700000000, '2024-01-01', 'not a time', 2);
INSERT INTO named VALUES ('r', 's', 't');
INSERT INTO shadowed VALUES ('r');
INSERT INTO generated (a) VALUES (1), (2);
INSERT INTO failing VALUES (1);
ALTER TABLE failing ADD COLUMN v TEXT AS (json(a || '{'));
INSERT INTO words VALUES ('some words'), ('and others');
PRAGMA user_version = 7;
PRAGMA application_id = 12;
`

func digestDB(t testing.TB, statements string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("bedplate", filepath.Join(t.TempDir(), "digest.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	digestExec(t, conn, statements)
	return conn
}

func digestExec(t testing.TB, conn *sql.Conn, statements string) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

func mustDigest(t testing.TB, conn *sql.Conn) digest {
	t.Helper()
	d, err := digestOf(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDigestSeesEveryChange(t *testing.T) {
	t.Parallel()
	source := mustDigest(t, digestDB(t, digestSchema))
	for _, c := range []struct{ name, statements, want string }{
		{"nothing", ``, ``},
		{"a vacuum", `VACUUM`, ``},
		{"a detour", `DELETE FROM "with""out"; INSERT INTO "with""out" VALUES ('l', x''), ('k', x'00ff')`, ``},
		{"a row less", `DELETE FROM plain WHERE a = 1`, `table "plain" has 3 rows instead of 4`},
		{"a duplicate more", `INSERT INTO plain VALUES (2, 'two', 2)`, `table "plain" has 5 rows instead of 4`},
		{"one for another", `DELETE FROM plain WHERE a = 1; INSERT INTO plain VALUES (2, 'two', 2)`, `table "plain" has other content`},
		{"rows swapped", `UPDATE keyed SET v = v || '!'; UPDATE keyed SET v = iif(id = 1, 'y', 'x') WHERE id < 3; UPDATE keyed SET v = 'z' WHERE id = 3`, `table "keyed" has other content`},
		{"text moved to the next column", `UPDATE strict_one SET t = CAST(x'6274000000000000000063' AS TEXT), x = 'd' WHERE n = 2`, `table "strict_one" has other content`},
		{"a rowid", `UPDATE plain SET rowid = 99 WHERE a IS NULL`, `table "plain" has other content`},
		{"a rowid behind a column", `UPDATE shadowed SET _rowid_ = 99`, `table "shadowed" has other content`},
		{"an integer as real", `UPDATE plain SET a = 1.0 WHERE a = 1`, `table "plain" has other content`},
		{"an integer as text", `UPDATE plain SET a = '1' WHERE a = 1`, `table "plain" has other content`},
		{"text as blob", `UPDATE plain SET b = CAST(b AS BLOB) WHERE a = 1`, `table "plain" has other content`},
		{"NULL as empty text", `UPDATE plain SET b = '' WHERE a IS NULL`, `table "plain" has other content`},
		{"an empty blob as NULL", `UPDATE "with""out" SET "select" = NULL WHERE k = 'l'`, `table "with\"out" has other content`},
		{"behind a NUL", `UPDATE plain SET b = 'one' || char(0) || 'x' WHERE a = 1`, `table "plain" has other content`},
		{"a large number", `UPDATE plain SET a = 1e300 * 1e300 WHERE a = 1`, `table "plain" has other content`},
		{"a time of the same moment", `UPDATE timed SET at = 1700000000000`, `table "timed" has other content`},
		{"a time that is none", `UPDATE timed SET ts = 'no time'`, `table "timed" has other content`},
		{"a boolean", `UPDATE timed SET yes = 1`, `table "timed" has other content`},
		{"a stored column", `UPDATE generated SET a = 3 WHERE a = 2`, `table "generated" has other content`},
		{"what is behind a virtual table", `UPDATE words SET text = 'some other' WHERE rowid = 1`, `table "words_content" has other content`},
		{"the next id", `UPDATE sqlite_sequence SET seq = 9`, `table "sqlite_sequence" has other content`},
		{"an empty table more", `CREATE TABLE empty (x)`, `table "sqlite_schema" has`},
		{"an index less", `DROP INDEX plain_all`, `table "sqlite_schema" has`},
		{"a view", `DROP VIEW seen; CREATE VIEW seen AS SELECT a FROM plain`, `table "sqlite_schema" has other content`},
		{"a table less", `DROP TABLE keyed`, `table "keyed" with 3 rows is missing`},
		{"the version", `PRAGMA user_version = 8`, `table "sqlite_settings" has other content`},
		{"the application", `PRAGMA application_id = 13`, `table "sqlite_settings" has other content`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := digestDB(t, digestSchema)
			digestExec(t, conn, c.statements)
			got := mustDigest(t, conn).difference(source)
			if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("difference: %q, want %q", got, c.want)
			}
		})
	}
}

// TestDigestCounts checks which tables there are.
func TestDigestCounts(t *testing.T) {
	t.Parallel()
	d := mustDigest(t, digestDB(t, digestSchema))
	for table, rows := range map[string]int64{
		"plain": 4, "keyed": 3, `with"out`: 2, "generated": 2, "sqlite_sequence": 1, "words_content": 2,
		"strict_one": 2, "timed": 1, "named": 1, "shadowed": 1, schemaTable: 21,
	} {
		if got := d.tables[table].rows; got != rows {
			t.Errorf("table %s: %d rows, want %d", table, got, rows)
		}
	}
	for _, name := range []string{"words", "seen"} {
		if _, ok := d.tables[name]; ok {
			t.Errorf("%s is digested", name)
		}
	}
	if d.size() != 15 {
		t.Errorf("%d tables, want 15", d.size())
	}
	if empty := mustDigest(t, digestDB(t, "")); empty.size() != 0 || empty.rows != 0 {
		t.Errorf("an empty database has %d tables with %d rows", empty.size(), empty.rows)
	} else if got := d.difference(empty); got == "" {
		t.Error("a full database is equal to an empty one")
	}
}

// TestDigestSurplus compares with a source that has less.
func TestDigestSurplus(t *testing.T) {
	t.Parallel()
	source := mustDigest(t, digestDB(t, ""))
	d := mustDigest(t, digestDB(t, ""))
	d.tables["more"] = tableDigest{rows: 3}
	if got, want := d.difference(source), `table "more" with 3 rows should not be there`; got != want {
		t.Errorf("difference: %q, want %q", got, want)
	}
}

func TestDigestEnds(t *testing.T) {
	t.Parallel()
	conn := digestDB(t, `CREATE TABLE many (n);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) INSERT INTO many SELECT i FROM n`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := digestOf(ctx, conn); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	if got := mustDigest(t, conn).rows; got != 300000 { // the connection is as good as before
		t.Errorf("%d rows", got)
	}
}

func BenchmarkDigest(b *testing.B) {
	for _, c := range []struct{ name, statements string }{
		{"records", `CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER, c REAL, d BLOB);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
			INSERT INTO t SELECT i, 'text of a middling length ' || hex(randomblob(50)), i * 7, i / 3.0, randomblob(16) FROM n`},
		{"numbers", `CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) INSERT INTO t SELECT i, i * 7 FROM n`},
		{"blobs", `CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, randomblob(100000) FROM n`},
	} {
		b.Run(c.name, func(b *testing.B) {
			conn := digestDB(b, c.statements)
			var size int64
			if err := conn.QueryRowContext(b.Context(), `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`).Scan(&size); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				mustDigest(b, conn)
			}
		})
	}
}
