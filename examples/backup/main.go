// Command backup keeps notes in a database of its own, with any driver and without the rest of
// Bedplate, and copies it to another directory while it writes:
//
//	go run ./examples/backup 'file:///var/backups/notes' 'Buy milk'
//	rm notes.db*
//	go run ./examples/backup 'file:///var/backups/notes' 'Call Ada' # the milk is still there
//
// With Bedplate, the replica goes into bedplate.Config instead, and everything but [backup.New]
// happens in Open and Close:
//
//	b, err := bedplate.Open(ctx, bedplate.Config{Path: "app.db", Replica: replica})
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	_ "github.com/mattn/go-sqlite3"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file" // replicas at file://
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: backup URL TEXT")
	}
	if err := run(context.Background(), os.Stdout, "notes.db", os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, path, url, text string) (err error) {
	replica, err := backup.New(backup.Config{URL: url, Driver: "sqlite3"})
	if err != nil {
		return err
	}
	if _, err := replica.RestoreIfMissing(ctx, path, nil); err != nil {
		return err
	}
	db, err := sql.Open("sqlite3", path+"?_journal_mode=WAL&_busy_timeout=10000")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), replica.Close()) }()
	db.SetMaxOpenConns(1) // the pragma is of a connection
	if _, err := db.ExecContext(ctx, `PRAGMA wal_autocheckpoint = 16384; CREATE TABLE IF NOT EXISTS note (text TEXT)`); err != nil {
		return err
	}
	if err := replica.Start(ctx, path, "", nil); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `INSERT INTO note VALUES (?)`, text); err != nil {
		return err
	}
	if err := replica.WaitReplicated(ctx); err != nil { // only then it is safe from the loss of the disk
		return err
	}
	var notes string
	err = db.QueryRowContext(ctx, `SELECT group_concat(text, ', ') FROM note`).Scan(&notes)
	fmt.Fprintln(out, notes)
	return err
}
