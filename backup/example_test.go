package backup_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file" // file:// replicas
	"github.com/bedplate/bedplate/sqlite"
)

// A program with a database of its own, in WAL mode, loses it and has it back.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "app.db")
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))

	// run is the program, which does its work on a database.
	run := func(work func(*sql.DB, *backup.Replica) error) error {
		replica, err := backup.New(backup.Config{URL: "file://" + dir + "/replica", Logger: quiet})
		if err != nil {
			return err
		}
		defer func() { _ = replica.Close() }() // after the database
		restored, err := replica.RestoreIfMissing(ctx, path, nil)
		if err != nil {
			return err
		}
		fmt.Println("restored:", restored)
		db, err := sql.Open(sqlite.DriverName, path+"?_journal_mode=WAL&_busy_timeout=10000")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)"); err != nil {
			return err
		}
		if err := replica.Start(ctx, path, "", nil); err != nil {
			return err
		}
		return work(db, replica)
	}

	err = run(func(db *sql.DB, replica *backup.Replica) error {
		if _, err := db.ExecContext(ctx, "INSERT INTO note VALUES ('Hello')"); err != nil {
			return err
		}
		return replica.WaitReplicated(ctx) // what follows relies on it
	})
	if err != nil {
		log.Fatal(err)
	}

	// The disk is lost.
	for _, file := range []string{path, path + "-wal", path + "-shm", path + "-replica"} {
		if err := os.RemoveAll(file); err != nil {
			log.Fatal(err)
		}
	}

	err = run(func(db *sql.DB, _ *backup.Replica) error {
		var text string
		err := db.QueryRowContext(ctx, "SELECT text FROM note").Scan(&text)
		fmt.Println(text)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// restored: false
	// restored: true
	// Hello
}

// The state before a mistake is restored beside the database, and the rows are copied from there.
func ExampleReplica_Restore() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "app.db")
	db, err := sql.Open(sqlite.DriverName, path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(1) // what is attached is attached to a connection
	replica, err := backup.New(backup.Config{URL: "file://" + dir + "/replica", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = replica.Close() }()
	defer func() { _ = db.Close() }()
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	exec := func(query string, args ...any) {
		_, err := db.ExecContext(ctx, query, args...)
		must(err)
	}
	exec("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
	exec("INSERT INTO note (text) VALUES ('one'), ('two'), ('three')")
	must(replica.Start(ctx, path, "", nil))
	before, err := replica.Sync(ctx) // Timestamp, when nobody knows the transaction
	must(err)

	exec("DELETE FROM note WHERE id > 1") // the mistake
	exec("INSERT INTO note (id, text) VALUES (4, 'four')")

	beside := filepath.Join(dir, "before.db")
	_, err = replica.Restore(ctx, beside, backup.RestoreOptions{TXID: before})
	must(err)
	exec("ATTACH ? AS before", beside)
	exec("INSERT INTO note SELECT * FROM before.note WHERE id NOT IN (SELECT id FROM note)")
	exec("DETACH before")

	var texts string
	must(db.QueryRowContext(ctx, "SELECT group_concat(text, ' ') FROM (SELECT text FROM note ORDER BY id)").Scan(&texts))
	fmt.Println(texts)
	// Output: one two three four
}

// A trial restore proves that what is in the replica is what is in the database.
func ExampleReplica_Drill() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{Replicated: true})
	if err != nil {
		log.Fatal(err)
	}
	replica, err := backup.New(backup.Config{URL: "file://" + dir + "/replica", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = replica.Close() }()
	defer func() { _ = db.Close() }()
	if err := replica.Start(ctx, db.Path(), "", nil); err != nil {
		log.Fatal(err)
	}
	result, err := replica.Drill(ctx)
	fmt.Println(err, result.TXID > 0, result.Restore > 0)
	// Output: <nil> true true
}

// Snapshots are whole copies in a directory, best on another disk.
func ExampleSnapshots() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	snapshots, err := backup.NewSnapshots(backup.SnapshotsConfig{
		Dir:    filepath.Join(dir, "snapshots"),
		Take:   func(ctx context.Context, path string) error { return db.Snapshot(ctx, "main", path) },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer snapshots.Close() // before the database
	snapshots.Start()       // one at once, then each day

	snapshot, err := snapshots.Now(ctx) // and another
	if err != nil {
		log.Fatal(err)
	}
	// It can be opened as it is, or be put back.
	restored, err := backup.RestoreFile(ctx, backup.Config{}, snapshot.Path, filepath.Join(dir, "copy.db"), backup.RestoreOptions{})
	fmt.Println(err, restored.Bytes == snapshot.Bytes)
	// Output: <nil> true
}
