package sqlite_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

// Statements that would end the transaction that a function shares with
// others, in every disguise.
var controls = []string{
	"COMMIT", "commit", "END", "END TRANSACTION", "ROLLBACK", "ROLLBACK TRANSACTION", "BEGIN", "BEGIN IMMEDIATE",
	"COMMIT;", ";COMMIT", " \t\r\n\fCOMMIT", "COMMIT--", "COMMIT/**/", "\ufeffCOMMIT",
	"/* harmless */ COMMIT", "-- harmless\nCOMMIT", "/* TO */ ROLLBACK", "ROLLBACK /* TO */", "ROLLBACK -- TO",
	"SELECT 1; COMMIT", "SELECT 1; ROLLBACK", "SELECT 1; COMMIT; BEGIN", "SELECT 1; ROLLBACK; BEGIN", "COMMIT; BEGIN",
	"INSERT INTO item (id) VALUES (501); ROLLBACK; BEGIN; INSERT INTO item (id) VALUES (502)",
	"EXPLAIN SELECT 1; ROLLBACK; BEGIN",
	"ROLLBACK; SELECT ' TO'",
	"RELEASE " + sqlite.SavepointName,
	`RELEASE SAVEPOINT "` + strings.ToUpper(sqlite.SavepointName) + `"`,
	"/**/RELEASE[" + sqlite.SavepointName + "]",
	"RELEASE " + sqlite.SavepointName + "; SAVEPOINT " + sqlite.SavepointName,
	"RELEASE " + sqlite.SavepointName + "; ROLLBACK; BEGIN; SAVEPOINT " + sqlite.SavepointName,
}

func TestTransactionControl(t *testing.T) {
	t.Parallel()
	type method struct {
		name string
		run  func(tx *sqlite.Tx, query string) error
	}
	methods := []method{
		{"Exec", func(tx *sqlite.Tx, query string) error { return run(tx, query) }},
		{"ExecArgs", func(tx *sqlite.Tx, query string) error {
			_, err := tx.ExecContext(bg, "SELECT ?;"+query, 1)
			return err
		}},
		{"Query", func(tx *sqlite.Tx, query string) error {
			rows, err := tx.QueryContext(bg, query)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return errors.Join(rows.Err(), rows.Close())
		}},
		{"QueryRow", func(tx *sqlite.Tx, query string) error { return tx.QueryRowContext(bg, query).Scan(new(int)) }},
		{"Prepare", func(tx *sqlite.Tx, query string) error {
			stmt, err := tx.PrepareContext(bg, query)
			if err != nil {
				return err
			}
			_, err = stmt.ExecContext(bg)
			return err
		}},
	}
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for _, query := range controls {
				control(t, query, m.run, nil)
				if m.name == "Exec" || m.name == "Query" {
					control(t, query, m.run, errOwn)
				}
			}
		})
	}
}

// control has one function of several in a commit run query and checks what
// the others were told.
func control(t *testing.T, query string, exe func(*sqlite.Tx, string) error, outcome error) {
	t.Helper()
	db := sqlitetest.Open(t, itemSchema, sqlite.Options{Logger: quiet, Synchronous: sqlite.Normal, Ballast: -1})
	var refused error
	errs := together(t, db,
		write(db, 1), update(db, 2), write(db, 3, 4),
		func() error {
			return db.Update(bg, func(tx *sqlite.Tx) error {
				if err := exec(tx, 500); err != nil {
					return err
				}
				refused = exe(tx, query)
				return errors.Join(exec(tx, 510), outcome)
			})
		},
		write(db, 5), update(db, 6), write(db, 7, 8))
	var want []int64
	for i, ids := range [][]int64{{1}, {2}, {3, 4}, {500, 510}, {5}, {6}, {7, 8}} {
		switch {
		case errs[i] == nil:
			want = append(want, ids...)
		case i != 3 && !errors.Is(errs[i], sqlite.ErrRolledBack):
			t.Errorf("%q, then %v: call %d: %v", query, outcome, i, errs[i])
		}
	}
	if refused == nil && !strings.Contains(query, ";") { // Prepare and QueryRow stop after the first statement
		t.Errorf("%q, then %v: not refused", query, outcome)
	}
	got := map[int64]bool{}
	for _, id := range items(t, db) {
		got[id] = true
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("%q, then %v: item %d was acknowledged and is missing", query, outcome, id)
		}
		delete(got, id)
	}
	if errs[3] == nil {
		delete(got, 501) // what came before the refused statement in one string
	}
	for id := range got {
		t.Errorf("%q, then %v: item %d was refused and is there; the function ended with %v", query, outcome, id, errs[3])
	}
	if err := errors.Join(write(db, 1000)(), update(db, 1001)()); err != nil {
		t.Errorf("%q, then %v: later writes: %v", query, outcome, err)
	}
}

// The same in the statements of a Write.
func TestTransactionControlInWrite(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"BEGIN", "COMMIT", "/**/ ROLLBACK", "END", "SAVEPOINT mine", "RELEASE " + sqlite.SavepointName, `RELEASE "write"`, "PRAGMA query_only=ON",
		"ATTACH ':memory:' AS other",
	} {
		for _, single := range []bool{true, false} {
			db, err := sqlite.Open(bg, t.TempDir()+"/test.db", sqlite.Options{Logger: quiet, Synchronous: sqlite.Normal, Ballast: -1})
			check(t, err)
			check(t, db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, itemSchema) }))
			stmts := []sqlite.Stmt{{SQL: query}}
			if !single {
				stmts = []sqlite.Stmt{insert(500), {SQL: query}, insert(501)}
			}
			alone := db.Write(bg, stmts...)
			errs := together(t, db, write(db, 1), update(db, 2), func() error { return db.Write(bg, stmts...) }, write(db, 3, 4), update(db, 5))
			errs = append(errs, write(db, 6)(), update(db, 7)())
			check(t, db.Close())

			// What others see counts, not what the writer believes.
			db, err = sqlite.Open(bg, db.Path(), sqlite.Options{Ballast: -1})
			check(t, err)
			there := map[int64]bool{}
			for _, id := range items(t, db) {
				there[id] = true
			}
			for i, ids := range [][]int64{{1}, {2}, {}, {3, 4}, {5}, {6}, {7}} {
				for _, id := range ids {
					if (errs[i] == nil) != there[id] {
						t.Errorf("Write %q (single %v): item %d there: %v, answer: %v", query, single, id, there[id], errs[i])
					}
				}
				if i != 2 && errs[i] != nil && !errors.Is(errs[i], sqlite.ErrRolledBack) {
					t.Errorf("Write %q (single %v): another write failed: %v", query, single, errs[i])
				}
			}
			if alone != nil && errs[2] != nil && (there[500] || there[501]) {
				t.Errorf("Write %q: it failed (%v, %v) and left items", query, alone, errs[2])
			}
			check(t, db.Close())
		}
	}
}

// A function must not be able to spoil the writer for those who come later.
func TestUpdateLeavesWriterAlone(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"PRAGMA query_only=ON", "PRAGMA foreign_keys=OFF", "PRAGMA synchronous=OFF", "PRAGMA journal_mode=DELETE", "PRAGMA journal_mode=OFF",
		"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA ignore_check_constraints=ON", "PRAGMA case_sensitive_like=OFF", "PRAGMA trusted_schema=ON",
		"SELECT 1; PRAGMA query_only=ON",
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			db := sqlitetest.Open(t, `CREATE TABLE item (id INTEGER PRIMARY KEY CHECK (id > 0), note TEXT) STRICT; CREATE TABLE part (item INTEGER REFERENCES item)`,
				sqlite.Options{Logger: quiet})
			_ = db.Update(bg, func(tx *sqlite.Tx) error { return run(tx, query) })
			for name, err := range map[string]error{"write": write(db, 1)(), "update": update(db, 2)()} {
				if err != nil {
					t.Errorf("later %s: %v", name, err)
				}
			}
			if err := db.Write(bg, sqlite.Stmt{SQL: "INSERT INTO part VALUES (404)"}); sqlite.Code(err) != 787 {
				t.Errorf("foreign keys: %v", err)
			}
			if err := write(db, -1)(); sqlite.Code(err) != 275 {
				t.Errorf("check constraints: %v", err)
			}
			check(t, db.Update(bg, func(tx *sqlite.Tx) error {
				for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "locking_mode": "normal", "trusted_schema": "0"} {
					var got string
					if err := tx.QueryRowContext(bg, "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
						t.Errorf("%s is %s, %v", pragma, got, err)
					}
				}
				var like bool
				if err := tx.QueryRowContext(bg, "SELECT 'a' LIKE 'A'").Scan(&like); err != nil || like {
					t.Errorf("LIKE ignores case: %v, %v", like, err)
				}
				return nil
			}))
		})
	}
}
