// Command mux is a program with its own routes and its own sign-in that adds
// a record API to its mux.
//
//	go run ./examples/mux
//	curl http://127.0.0.1:8080/api/records/v1/posts
//	curl http://127.0.0.1:8080/api/records/v1/posts -H 'X-User: ada' -H 'Content-Type: application/json' -d '{"author": "ada", "text": "Hi"}'
package main

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/records"
)

//go:embed migrations/*.sql
var files embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		err = run(ctx, "app.db", listener)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string, listener net.Listener) error {
	migrations, err := fs.Sub(files, "migrations")
	if err != nil {
		return err
	}
	b, err := bedplate.Open(ctx, bedplate.Config{
		Path: path, Migrations: migrations, Caller: caller,
		Records: []records.API{{
			Name: "posts", Table: "posts",
			World:         records.Read,
			Authenticated: records.Create | records.Update | records.Delete,
			CreateRule:    `_REQ_.author = _USER_.id`,
			UpdateRule:    `_ROW_.author = _USER_.id`, Check: `_ROW_.author = _USER_.id`,
			DeleteRule: `_ROW_.author = _USER_.id`,
		}},
	})
	if err != nil {
		return err
	}
	defer b.Close()
	mux := http.NewServeMux()
	b.Mount(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the program's own page") })
	srv := &http.Server{Handler: signIn(mux), ReadHeaderTimeout: 10 * time.Second}
	return b.ServeListener(ctx, srv, listener)
}
