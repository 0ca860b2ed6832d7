// Command bare is the yardstick: net/http answering a fixed JSON document.
// A GET costs what a request costs before any work is done; a POST also reads
// its body.
package main

import (
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"strconv"
)

// answer is about the size of one record.
const answer = `{"author":"AZq3bq2Xf0yXo0kq5o8kMA==","body":"harbor lantern meadow river copper signal garden winter morning letter window engine paper summit","id":"AZq3bq2Xf0yXo0kq5o8kMQ==","room":"AZq3bq2X"}`

// bodyLimit bounds what a POST may carry.
const bodyLimit = 10 << 20

func main() {
	listen := flag.String("listen", "127.0.0.1:8090", "address to listen on")
	flag.Parse()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /", reply)
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, bodyLimit)); err != nil {
			http.Error(w, "reading the body", http.StatusBadRequest)
			return
		}
		reply(w, r)
	})
	err := http.ListenAndServe(*listen, mux)
	if !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func reply(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = io.WriteString(w, answer)
}
