// Command shop sells what there is, for money or for a voucher.
//
//	go run ./examples/shop
//	curl http://127.0.0.1:8080/api/records/v1/orders --json '{"product": 1, "count": 2, "email": "ann@example.com"}'
//	curl http://127.0.0.1:8080/redeem -d code=welcome -d email=ann@example.com
package main

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"log"
	"net/http"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

//go:embed *.sql
var migrations embed.FS

// An Order is a record of the API "orders".
type Order struct {
	Product int64  `json:"product" validate:"required"`
	Count   int64  `json:"count" validate:"min=1,max=10"`
	Email   string `json:"email" validate:"required,email"`
}

func main() {
	b, mux, err := open(context.Background(), "shop.db")
	if err == nil {
		err = b.Serve(context.Background(), &http.Server{Addr: "127.0.0.1:8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second})
	}
	log.Fatal(err)
}

func open(ctx context.Context, path string) (*bedplate.Backend, *http.ServeMux, error) {
	after := func(_ context.Context, c *records.Change) {
		log.Printf("Order %d is paid with %d.", c.ID, c.Values["total"])
	}
	b, err := bedplate.Open(ctx, bedplate.Config{Path: path, Migrations: migrations, Records: []records.API{
		{Name: "products", Table: "product", World: records.Read},
		{Name: "orders", Table: "purchase", World: records.Create, Bind: Order{}, Before: sell, After: after},
	}})
	if err != nil {
		return nil, nil, err
	}
	orders, err := records.TableOf[Order](b.Records, "orders")
	mux := http.NewServeMux()
	b.Mount(mux)
	mux.HandleFunc("POST /redeem", func(w http.ResponseWriter, r *http.Request) {
		order := Order{Count: 1, Email: r.FormValue("email")}
		err := b.DB.Update(r.Context(), func(tx *sqlite.Tx) error { // the voucher and the order, both or neither
			err := tx.QueryRowContext(r.Context(), `DELETE FROM voucher WHERE code = ? RETURNING product`, r.FormValue("code")).Scan(&order.Product)
			if err == nil {
				_, err = orders.In(tx).Insert(r.Context(), order)
			}
			return err
		})
		if err != nil {
			http.Error(w, "This voucher cannot be redeemed.", http.StatusConflict)
		}
	})
	return b, mux, err
}

// sell takes what is ordered from the stock, and sets the price.
func sell(ctx context.Context, c *records.Change) error {
	var total int64
	err := c.Tx.QueryRowContext(ctx, `UPDATE product SET stock = stock - ?2 WHERE id = ?1 AND stock >= ?2 RETURNING price * ?2`, c.Values["product"], c.Values["count"]).Scan(&total)
	if errors.Is(err, sql.ErrNoRows) {
		return records.Refuse(http.StatusConflict, "Sold out.")
	}
	c.Values["total"] = total
	return err
}
