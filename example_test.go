package bedplate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	b, err := bedplate.Open(context.Background(), bedplate.Config{
		Path: filepath.Join(dir, "app.db"),
		Migrations: fstest.MapFS{ // usually an embed.FS
			"0001_post.sql": {Data: []byte(`CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT NOT NULL) STRICT;`)},
		},
		Records: []records.API{{Name: "posts", Table: "post", World: records.Create | records.Read}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	mux := http.NewServeMux()
	b.Mount(mux) // beside the application's own routes

	post := httptest.NewRequest("POST", "/api/records/v1/posts", strings.NewReader(`{"title":"Hello"}`))
	post.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, post)
	fmt.Println(w.Code, w.Body)

	w = httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/api/records/v1/posts/1", nil))
	fmt.Println(w.Code, w.Body)
	// Output:
	// 200 {"ids":["1"]}
	// 200 {"id":1,"title":"Hello"}
}

// A list and what happens after it.
func ExampleOpen_subscriptions() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()

	b, err := bedplate.Open(ctx, bedplate.Config{
		Path: filepath.Join(dir, "app.db"),
		Migrations: fstest.MapFS{
			"0001_post.sql": {Data: []byte(`CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT NOT NULL) STRICT;`)},
		},
		Records: []records.API{{Name: "posts", Table: "post", World: records.Read, Subscriptions: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	server := httptest.NewServer(b.Handler())
	defer server.Close()

	list, err := http.Get(server.URL + "/api/records/v1/posts")
	if err != nil {
		log.Fatal(err)
	}
	_ = list.Body.Close()

	// The application's own write. Whether it comes before the subscription
	// or after it makes no difference.
	err = b.DB.Write(ctx,
		sqlite.Stmt{SQL: `INSERT INTO post (title) VALUES ('Hello')`},
		sqlite.Stmt{SQL: `DELETE FROM post`})
	if err != nil {
		log.Fatal(err)
	}

	gone := errors.New("gone")
	err = realtime.Subscribe(ctx, realtime.SubscribeOptions{
		URL: server.URL, API: "posts", Since: list.Header.Get("Change-Cursor"),
	}, func(e realtime.Event) error {
		fmt.Println(e.Op, string(e.Data))
		if e.Op == realtime.OpDelete {
			return gone
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// Insert {"id":1,"title":"Hello"}
	// Delete {"id":1,"title":"Hello"}
	// gone
}
