package records_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

// Hooks sell what is in stock and tell of it when the order is committed.
func ExampleAPI_hooks() {
	db, done := exampleDB(`
		CREATE TABLE product (id INTEGER PRIMARY KEY, price INTEGER NOT NULL, stock INTEGER NOT NULL) STRICT;
		CREATE TABLE purchase (id INTEGER PRIMARY KEY, product INTEGER NOT NULL REFERENCES product, count INTEGER NOT NULL, total INTEGER NOT NULL DEFAULT 0) STRICT;
		INSERT INTO product (price, stock) VALUES (950, 3)`)
	defer done()
	svc, err := records.New(db, records.Config{APIs: []records.API{{
		Name: "orders", Table: "purchase",
		World:   records.Create,
		Exclude: []string{"total"}, // set by the hook alone
		Before: func(ctx context.Context, c *records.Change) error {
			var total int64
			err := c.Tx.QueryRowContext(ctx, `UPDATE product SET stock = stock - ?2 WHERE id = ?1 AND stock >= ?2 RETURNING price * ?2`,
				c.Values["product"], c.Values["count"]).Scan(&total)
			if errors.Is(err, sql.ErrNoRows) {
				return records.Refuse(http.StatusConflict, "Sold out.")
			}
			c.Values["total"] = total
			return err
		},
		After: func(_ context.Context, c *records.Change) {
			fmt.Printf("order %d: %d\n", c.ID, c.Values["total"])
		},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	exampleRequest(svc, "POST", "/orders", `{"product": 1, "count": 2}`)
	exampleRequest(svc, "POST", "/orders", `{"product": 1, "count": 2}`)
	// Output:
	// order 1: 1900
	// 200 {"ids":["1"]}
	// 409 Sold out.
}

// Conditions on values are judged before the database is asked.
func ExampleAPI_validation() {
	db, done := exampleDB(`CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT) STRICT`)
	defer done()
	svc, err := records.New(db, records.Config{APIs: []records.API{{
		Name: "accounts", Table: "account",
		World: records.Create | records.Update,
		Validate: map[string]string{
			"name":  "required,min=3,max=80",
			"email": "omitempty,max=254,email",
		},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	exampleRequest(svc, "POST", "/accounts", `{"name": "Ann"}`)
	exampleRequest(svc, "POST", "/accounts", `{"name": "Al", "email": "nowhere"}`)
	exampleRequest(svc, "PATCH", "/accounts/1", `{"email": "ann@example.com"}`)
	exampleRequest(svc, "POST", "/accounts", `{}`, "Accept", "application/problem+json")
	// Output:
	// 200 {"ids":["1"]}
	// 400 invalid email: email; invalid name: min=3
	// 200
	// 400 {"status":400,"title":"Bad Request","detail":"invalid name: required","errors":[{"pointer":"#/name","code":"required","detail":"A value is needed."}]}
}

// An order and its items, both or neither.
func ExampleService_ServeTransaction() {
	db, done := exampleDB(`
		CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer TEXT NOT NULL) STRICT;
		CREATE TABLE item (id INTEGER PRIMARY KEY, purchase INTEGER NOT NULL REFERENCES purchase, count INTEGER NOT NULL CHECK (count > 0)) STRICT;
		INSERT INTO purchase (id, customer) VALUES (41, 'Bob')`)
	defer done()
	svc, err := records.New(db, records.Config{APIs: []records.API{
		{Name: "orders", Table: "purchase", World: records.Create},
		{Name: "items", Table: "item", World: records.Create},
	}})
	if err != nil {
		log.Fatal(err)
	}
	h := http.HandlerFunc(svc.ServeTransaction)
	const request = `{"transaction": true, "operations": [
		{"Create": {"api_name": "orders", "value": {"customer": "Ada"}}},
		{"Create": {"api_name": "items", "value": {"purchase": {"$id": 0}, "count": %d}}}]}`
	exampleRequest(h, "POST", "/", fmt.Sprintf(request, 0))
	exampleRequest(h, "POST", "/", fmt.Sprintf(request, 2), "Idempotency-Key", "3f6b1c52")
	exampleRequest(h, "POST", "/", fmt.Sprintf(request, 2), "Idempotency-Key", "3f6b1c52") // as the answer was lost
	// Output:
	// 400 db constraint: check
	// 200 {"ids":["42","1"],"results":[{"Id":"42"},{"Id":"1"}]}
	// 200 {"ids":["42","1"],"results":[{"Id":"42"},{"Id":"1"}]}
}

// exampleDB opens a database of its own with that schema.
func exampleDB(schema string) (db *sqlite.DB, done func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	db, err = sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{})
	if err == nil {
		err = db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(ctx, schema)
			return err
		})
	}
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		_ = db.Close()
		_ = os.RemoveAll(dir)
	}
}

// exampleRequest sends a request and prints the answer.
func exampleRequest(h http.Handler, method, path, body string, header ...string) {
	r := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", w.Body)))
}
