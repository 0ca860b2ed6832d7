package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

func TestShop(t *testing.T) {
	var lines strings.Builder
	log.SetOutput(&lines)
	log.SetFlags(0)
	defer log.SetOutput(os.Stderr)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	b, mux, err := open(ctx, filepath.Join(t.TempDir(), "shop.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	order := func(body string) string { return send(ctx, t, "POST", srv.URL+"/api/records/v1/orders", body) }
	redeem := func(code string) string {
		return send(ctx, t, "POST", srv.URL+"/redeem", url.Values{"code": {code}, "email": {"eve@example.com"}}.Encode())
	}
	product := func(id string) string { return send(ctx, t, "GET", srv.URL+"/api/records/v1/products/"+id, "") }

	for _, test := range []struct{ got, want string }{
		{product("1"), `200 {"id":1,"name":"Cup","price":950,"stock":5}`},
		{order(`{"product":1,"count":2,"email":"ann@example.com","total":1}`), `200 {"ids":["1"]}`},
		{order(`{"product":1,"count":4,"email":"ann@example.com"}`), "409 Sold out."},
		{order(`{"product":1,"count":0,"email":"ann"}`), "400 invalid count: min=1; invalid email: email"},
		{order(`{"product":1,"email":"ann@example.com"}`), "400 invalid count: min=1"},
		{order(`{"product":9,"count":1,"email":"ann@example.com"}`), "409 Sold out."},
		{send(ctx, t, "GET", srv.URL+"/api/records/v1/orders", ""), "403 "},
		{product("1"), `200 {"id":1,"name":"Cup","price":950,"stock":3}`},

		{redeem("nothing"), "409 This voucher cannot be redeemed."},
		{redeem("welcome"), "200 "},
		{redeem("welcome"), "409 This voucher cannot be redeemed."},
		{redeem("again"), "409 This voucher cannot be redeemed."}, // sold out
		{redeem("thanks"), "200 "},
		{product("1"), `200 {"id":1,"name":"Cup","price":950,"stock":2}`},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}

	var left string
	err = b.DB.View(ctx, func(tx *sqlite.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT group_concat(code) FROM voucher`).Scan(&left)
	})
	if err != nil || left != "again" {
		t.Errorf("vouchers left: %s, %v", left, err)
	}
	if got, want := lines.String(), "Order 1 is paid with 1900.\nOrder 2 is paid with 4900.\nOrder 3 is paid with 950.\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// send makes a request, with a form or JSON if there is a body, and returns
// the status and the body of the answer.
func send(ctx context.Context, t *testing.T, method, address, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if req.Header.Set("Content-Type", "application/x-www-form-urlencoded"); strings.HasPrefix(body, "{") {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, strings.TrimSpace(string(text)))
}
