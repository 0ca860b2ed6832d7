package records_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

type userKey struct{}

func ExampleNew() {
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
			CREATE TABLE diary (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, entry TEXT) STRICT;
			INSERT INTO diary (owner, entry) VALUES ('ann', 'Rain.'), ('bob', 'Sun.')`)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	svc, err := records.New(db, records.Config{
		APIs: []records.API{{
			Name:          "diary",
			Table:         "diary",
			Authenticated: records.Read,
			ReadRule:      `_ROW_.owner = _USER_.id`,
		}},
		Caller: func(ctx context.Context) records.Caller {
			return records.Caller{ID: ctx.Value(userKey{})} // left there by the sign-in
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	for _, path := range []string{"/diary/1", "/diary/2", "/diary?skip_cursor=true"} {
		w := httptest.NewRecorder()
		svc.ServeHTTP(w, httptest.NewRequestWithContext(context.WithValue(ctx, userKey{}, "ann"), "GET", path, nil))
		fmt.Printf("%d %q\n", w.Code, w.Body)
	}
	// Output:
	// 200 "{\"entry\":\"Rain.\",\"id\":1,\"owner\":\"ann\"}"
	// 403 ""
	// 200 "{\"records\":[{\"entry\":\"Rain.\",\"id\":1,\"owner\":\"ann\"}]}"
}
