package bedplate_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing/fstest"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
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
