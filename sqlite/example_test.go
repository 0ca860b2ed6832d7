package sqlite_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/bedplate/bedplate/sqlite"
)

// tempPath returns the path of a new database file, and a function that
// removes it.
func tempPath() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "app.db"), func() { _ = os.RemoveAll(dir) }
}

// openNotes opens a new database with a table of notes.
func openNotes() (db *sqlite.DB, remove func()) {
	path, removeFile := tempPath()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, `CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT`)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
		removeFile()
	}
}

func ExampleOpen() {
	path, remove := tempPath()
	defer remove()

	db, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
	}()
	fmt.Println(db.Err())
	// Output: <nil>
}

func ExampleDB_Update() {
	db, remove := openNotes()
	defer remove()
	ctx := context.Background()

	var id int64
	err := db.Update(ctx, func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(ctx, `INSERT INTO note (body) VALUES (?) RETURNING id`, "milk").Scan(&id)
	})
	fmt.Println(id, err)

	// What a function wrote is undone when it returns an error.
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM note`); err != nil {
			return err
		}
		return fmt.Errorf("better not")
	})
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// better not
}

func ExampleDB_View() {
	db, remove := openNotes()
	defer remove()
	ctx := context.Background()
	err := db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO note (body) VALUES ('milk'), ('bread')`)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	err = db.View(ctx, func(tx *sqlite.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT body FROM note ORDER BY id`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var body string
			if err := rows.Scan(&body); err != nil {
				return err
			}
			fmt.Println(body)
		}
		return rows.Err()
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// milk
	// bread
}

func ExampleDB_Migrate() {
	path, remove := tempPath()
	defer remove()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, path, sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			log.Fatal(err)
		}
	}()

	// An application would embed a directory of files.
	migrations := fstest.MapFS{
		"0001_create_note.sql": {Data: []byte(`CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;`)},
		"0002_add_done.sql":    {Data: []byte(`ALTER TABLE note ADD COLUMN done INTEGER NOT NULL DEFAULT 0;`)},
	}
	fmt.Println(db.Migrate(ctx, migrations))
	fmt.Println(db.Migrate(ctx, migrations)) // nothing is left to do
	err = db.View(ctx, func(tx *sqlite.Tx) error {
		var n int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM _migration`).Scan(&n)
		fmt.Println(n, "migrations")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// <nil>
	// <nil>
	// 2 migrations
}

func ExampleChangeLog() {
	db, remove := openNotes()
	defer remove()
	ctx := context.Background()

	changes, err := db.ChangeLog("main")
	if err != nil {
		log.Fatal(err)
	}
	if err := changes.Track(ctx, "note"); err != nil {
		log.Fatal(err)
	}
	at, err := changes.Head(ctx)
	if err != nil {
		log.Fatal(err)
	}

	// Whoever writes: a program without this package would be noticed, too.
	for _, statement := range []string{
		`INSERT INTO note (body) VALUES ('milk')`,
		`UPDATE note SET body = 'oat milk'`,
		`DELETE FROM note`,
	} {
		if err := db.Write(ctx, sqlite.Stmt{SQL: statement}); err != nil {
			log.Fatal(err)
		}
	}

	// Usually in a loop: Wait until there is more behind at, and go on there.
	var page sqlite.ChangePage
	err = db.Read(ctx, func(r *sqlite.Reader) (err error) {
		page, err = changes.Page(r, at, math.MaxInt64, 100)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range page.Changes {
		switch c.Op {
		case sqlite.RowInsert:
			fmt.Println(c.Table, c.Columns, "insert", c.New)
		case sqlite.RowUpdate:
			fmt.Println(c.Table, c.Columns, "update", c.Old, c.New)
		case sqlite.RowDelete:
			fmt.Println(c.Table, c.Columns, "delete", c.Old)
		case sqlite.LogBreak: // changes of c.Table are missing
		case sqlite.LogEvent: // of Publish
		}
	}
	fmt.Println(page.Gap, page.End.Seq-at.Seq)
	// Output:
	// note [id body] insert [1 milk]
	// note [id body] update [1 milk] [1 oat milk]
	// note [id body] delete [1 oat milk]
	// false 3
}
