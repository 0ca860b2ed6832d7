package records_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

func ExampleTable() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, `
			CREATE TABLE entry (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, text TEXT NOT NULL) STRICT;
			CREATE TABLE counter (owner TEXT PRIMARY KEY, entries INTEGER NOT NULL DEFAULT 1) STRICT`)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	svc, err := records.New(db, records.Config{APIs: []records.API{{
		Name: "diary", Table: "entry",
		Authenticated: records.Create | records.Read,
		CreateRule:    `_REQ_.owner = _USER_.id`,
		ReadRule:      `_ROW_.owner = _USER_.id`,
	}}})
	if err != nil {
		log.Fatal(err)
	}

	type Entry struct {
		ID    int64  `json:"id"`
		Owner string `json:"owner"`
		Text  string `json:"text"`
	}
	diary, err := records.TableOf[Entry](svc, "diary")
	if err != nil {
		log.Fatal(err)
	}
	ann, bob := diary.As(records.Caller{ID: "ann"}), diary.As(records.Caller{ID: "bob"})

	// An entry and what the application keeps about it, both or neither.
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		if _, err := ann.In(tx).Insert(ctx, Entry{Owner: "ann", Text: "Rain."}); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO counter (owner) VALUES ('ann') ON CONFLICT DO UPDATE SET entries = entries + 1`)
		return err
	})
	fmt.Println(err)

	entry, err := ann.Get(ctx, 1)
	fmt.Println(entry.Text, err)
	_, err = bob.Get(ctx, 1)
	fmt.Println(errors.Is(err, records.ErrDenied))
	page, err := diary.AsSystem().List(ctx, records.Query{Filter: records.Where("text", "like", "Rain%"), Count: true})
	fmt.Println(page.Total, err)
	// Output:
	// <nil>
	// Rain. <nil>
	// true
	// 1 <nil>
}
