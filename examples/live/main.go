// Command live is a guest book: whoever looks at the page sees what others
// write, as they write it.
//
//	go run ./examples/live
//	curl -N 'http://127.0.0.1:8080/api/records/v1/entries/subscribe/*'
//	curl -N http://127.0.0.1:8080/api/realtime/v1/news
//	curl http://127.0.0.1:8080/write -d text=Hello
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

//go:embed page.html
var page []byte

const schema = `CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 200)) STRICT`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		err = run(ctx, "live.db", listener)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string, listener net.Listener) error {
	b, err := bedplate.Open(ctx, bedplate.Config{
		Path:       path,
		Migrations: fstest.MapFS{"0001_entry.sql": {Data: []byte(schema)}},
		Records:    []records.API{{Name: "entries", Table: "entry", World: records.Read, Subscriptions: true}},
		Realtime:   &realtime.Config{Accept: accept},
	})
	if err != nil {
		return err
	}
	defer b.Close()
	mux := http.NewServeMux()
	b.Mount(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		if err := write(r.Context(), b, r.FormValue("text")); err != nil {
			http.Error(w, "This cannot be written.", http.StatusBadRequest)
		}
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return b.ServeListener(ctx, srv, listener)
}

// accept lets everybody listen to the one channel that there is.
func accept(_ *http.Request, channel string) error {
	if channel != "news" {
		return &realtime.Error{Status: http.StatusForbidden}
	}
	return nil
}

// write adds an entry and announces it on the channel, both or neither. The
// entry itself reaches subscribers without that.
func write(ctx context.Context, b *bedplate.Backend, text string) error {
	return b.DB.Update(ctx, func(tx *sqlite.Tx) error {
		var id int64
		if err := tx.QueryRowContext(ctx, `INSERT INTO entry (text) VALUES (?) RETURNING id`, text).Scan(&id); err != nil {
			return err
		}
		return b.Realtime.PublishTx(ctx, tx, "news", map[string]string{"text": fmt.Sprintf("Entry %d was written.", id)})
	})
}
