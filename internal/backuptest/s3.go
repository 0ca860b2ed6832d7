// Package backuptest has an S3 server for tests of backups, which can be made to misbehave.
package backuptest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

const bucket = "bucket"

// An S3 is an S3 server on the loopback interface that keeps its objects in memory. It honours
// If-Match and If-None-Match, and accepts only the newest of its credentials. It is safe for
// concurrent use. Create it with [NewS3].
type S3 struct {
	tb    testing.TB
	store *s3mem.Backend
	next  http.Handler
	door  *door
	ctx   context.Context // ends with the test

	conditional sync.Mutex // held by requests that compare and change

	mu       sync.Mutex
	key      int    // number of the accepted credentials
	fault    *fault // nil: none
	requests map[Kind]int
}

// NewS3 starts a server with one empty bucket, which ends with the test.
func NewS3(tb testing.TB) *S3 {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &S3{tb: tb, store: s3mem.New(), ctx: ctx, requests: map[Kind]int{}}
	if err := s.store.CreateBucket(bucket); err != nil {
		tb.Fatal(err)
	}
	s.next = gofakes3.New(s.store, gofakes3.WithTimeSkewLimit(0)).Server()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("S3 server: %v", err)
	}
	s.door = &door{Listener: listener, inside: map[net.Conn]struct{}{}}
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return s.ctx },
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(s.door) }) // until it is closed
	tb.Cleanup(func() {
		cancel() // of requests that hang
		_ = server.Close()
		serving.Wait()
	})
	return s
}

// URL returns the URL of a replica below prefix, for backup.Config.
func (s *S3) URL(prefix string) string {
	parameters := url.Values{"endpoint": {s.Endpoint()}, "region": {"us-east-1"}}
	return (&url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix, RawQuery: parameters.Encode()}).String()
}

// Endpoint returns the URL of the server.
func (s *S3) Endpoint() string { return "http://" + s.door.Addr().String() }

// Credentials returns the environment variables with the credentials that are accepted now, for
// backup.Config.
func (s *S3) Credentials(context.Context) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]string{"AWS_ACCESS_KEY_ID": s.keyID(), "AWS_SECRET_ACCESS_KEY": "secret"}, nil
}

// Rotate makes new credentials. From now on the old ones have expired.
func (s *S3) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key++
}

// keyID is called with s.mu held.
func (s *S3) keyID() string { return fmt.Sprintf("KEY%d", s.key) }

// Down closes all connections. From now on new ones are closed, too, before anything is read.
func (s *S3) Down() { s.door.set(true) }

// Up ends Down.
func (s *S3) Up() { s.door.set(false) }

// Requests returns how many requests of the given kinds have arrived, of all if there are none.
func (s *S3) Requests(kinds ...Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, count := range s.requests {
		if includes(kinds, kind) {
			n += count
		}
	}
	return n
}

// ServeHTTP answers one request, or does with it what the fault says.
func (s *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := kindOf(r)
	s.mu.Lock()
	s.requests[kind]++
	f := s.fault
	accepted := strings.Contains(r.Header.Get("Authorization"), "Credential="+s.keyID()+"/")
	s.mu.Unlock()
	switch {
	case f != nil && includes(f.kinds, kind):
		f.serve(w, r, kind, http.HandlerFunc(s.serve))
	case !accepted:
		refuse(w, http.StatusForbidden, "ExpiredToken", "The provided token has expired.")
	default:
		s.serve(w, r)
	}
}

func (s *S3) serve(w http.ResponseWriter, r *http.Request) {
	ifMatch := r.Header.Get("If-Match")
	if ifMatch == "" && r.Header.Get("If-None-Match") == "" {
		s.next.ServeHTTP(w, r)
		return
	}
	s.conditional.Lock()
	defer s.conditional.Unlock()
	if ifMatch != "" && r.Method == http.MethodDelete { // of which gofakes3 knows nothing
		switch tag, err := s.tag(keyOf(r)); {
		case err != nil:
			refuse(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
			return
		case tag != strings.Trim(ifMatch, `"`):
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "The ETag does not match.")
			return
		}
	}
	s.next.ServeHTTP(w, r)
}

func (s *S3) tag(key string) (string, error) {
	object, err := s.store.HeadObject(bucket, key)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(object.Hash), object.Contents.Close()
}

// Keys returns the names of all objects that begin with prefix, sorted.
func (s *S3) Keys(prefix string) []string {
	s.tb.Helper()
	list, err := s.store.ListBucket(bucket, &gofakes3.Prefix{HasPrefix: true, Prefix: prefix}, gofakes3.ListBucketPage{})
	if err != nil {
		s.tb.Fatalf("S3 server: list: %v", err)
	}
	keys := make([]string, 0, len(list.Contents))
	for _, object := range list.Contents {
		keys = append(keys, object.Key)
	}
	return keys
}

// Read returns an object and whether it exists, whatever the fault.
func (s *S3) Read(key string) (data []byte, ok bool) {
	s.tb.Helper()
	object, err := s.store.GetObject(bucket, key, nil)
	if gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return nil, false
	}
	if err == nil {
		data, err = io.ReadAll(object.Contents)
		err = errors.Join(err, object.Contents.Close())
	}
	if err != nil {
		s.tb.Fatalf("S3 server: read %s: %v", key, err)
	}
	return data, true
}

// Write makes or replaces an object, whatever the fault. One that exists keeps its metadata.
func (s *S3) Write(key string, data []byte) {
	s.tb.Helper()
	_, err := s.store.PutObject(bucket, key, map[string]string{}, bytes.NewReader(data), int64(len(data)), nil)
	if err != nil {
		s.tb.Fatalf("S3 server: write %s: %v", key, err)
	}
}

// Delete removes an object, whatever the fault. It need not exist.
func (s *S3) Delete(key string) {
	s.tb.Helper()
	if _, err := s.store.DeleteObject(bucket, key); err != nil {
		s.tb.Fatalf("S3 server: delete %s: %v", key, err)
	}
}

// keyOf returns the name of the object that a request is about, "" for one about the bucket.
func keyOf(r *http.Request) string {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return key
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	body := fmt.Sprintf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // to a client that may be gone
}

// record answers a request into memory.
func record(next http.Handler, r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	return answer
}
