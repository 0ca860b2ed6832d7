package s3files_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

type fault = func(w http.ResponseWriter, r *http.Request, next http.Handler)

func status(code int) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body) // or else the connection is reset under what is still sent
		w.WriteHeader(code)
	}
}

// hang answers when the client has gone, which it must.
func hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // or else nobody notices
	<-r.Context().Done()
}

// cut ends the connection in the middle of what is sent or received.
func cut(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	if r.Method == http.MethodPut {
		_, _ = io.ReadFull(r.Body, make([]byte, 1000))
	}
	panic(http.ErrAbortHandler)
}

// What the store does not acknowledge is an error, and it is told at the
// latest when the context or the patience ends.
func TestPutFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault   fault
		timeout time.Duration // of the store
		limit   time.Duration // of the context
		want    error
	}{
		"500":       {fault: status(500)},
		"503":       {fault: status(503)},
		"403":       {fault: status(403)},
		"400":       {fault: status(400)},
		"404":       {fault: status(404)},
		"301":       {fault: status(301)},
		"full":      {fault: status(507), want: syscall.ENOSPC},
		"cut":       {fault: cut},
		"hang":      {fault: hang, limit: 200 * time.Millisecond, want: context.DeadlineExceeded},
		"stalled":   {fault: hang, timeout: 200 * time.Millisecond, want: context.DeadlineExceeded},
		"unread":    {fault: func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }, timeout: 200 * time.Millisecond, want: context.DeadlineExceeded},
		"not HTTP":  {fault: raw("nonsense\r\n\r\n")},
		"header":    {fault: raw("HTTP/1.1 200 OK\r\nx: " + strings.Repeat("x", 1<<20) + "\r\n\r\n")},
		"no answer": {fault: raw("")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.open(t, tt.timeout)
			f.misbehave(tt.fault)
			ctx := t.Context()
			if tt.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.limit)
				defer cancel()
			}
			data := pattern(16 << 20)
			err := s.Put(ctx, "id", bytes.NewReader(data), int64(len(data)))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v", err)
			}
			if strings.Contains(fmt.Sprint(err), "the-secret") {
				t.Errorf("the error tells the secret: %v", err)
			}
			f.misbehave(nil)
			if keys := f.stored(t); len(keys) > 0 {
				t.Errorf("stored %q", keys)
			}
			if _, err := f.open(t, 0).Open(t.Context(), "id"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// raw answers in its own words.
func raw(answer string) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}
}

// A fault that passes is overcome, and the content sent from its beginning.
func TestRetries(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]fault{"500": status(500), "cut": cut} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.open(t, 0)
			data := pattern(1 << 20)
			var failed atomic.Bool
			f.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if failed.CompareAndSwap(false, true) {
					_, _ = io.ReadFull(r.Body, make([]byte, 1000))
					tt(w, r, next)
					return
				}
				next.ServeHTTP(w, r)
			})
			b := bytes.NewReader(append([]byte("before"), data...))
			if _, err := b.Seek(6, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if err := s.Put(t.Context(), "id", b, int64(len(data))); err != nil {
				t.Fatal(err)
			}
			got, err := readAll(t.Context(), s, "id")
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// A slow upload is none that stands still.
func TestSlowPut(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	f := newFake(t)
	const timeout = 4 * time.Second
	s := f.open(t, timeout)
	data := pattern(64 << 20) // of which the system may hold some, which looks like progress
	began := time.Now()
	f.misbehave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		body, read := r.Body, 0
		r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			<-time.After(time.Until(began.Add(3 * timeout / 2 * time.Duration(read) / time.Duration(len(data)))))
			n, err := body.Read(p[:min(len(p), 1<<18)])
			read += n
			return n, err
		}))
		next.ServeHTTP(w, r)
	})
	err := s.Put(t.Context(), "id", bytes.NewReader(data), int64(len(data)))
	if took := time.Since(began); err != nil || took < timeout {
		t.Errorf("after %v: %v", took, err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A content that is not what was stored is not taken for it.
func TestReadFaults(t *testing.T) {
	t.Parallel()
	data := pattern(4 << 20)
	get := func(f func(w http.ResponseWriter, r *http.Request)) fault {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				f(w, r)
				return
			}
			next.ServeHTTP(w, r)
		}
	}
	send := func(w http.ResponseWriter, length int, data []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(length))
		_, _ = w.Write(data)
	}
	flipped := slices.Clone(data)
	flipped[len(data)/2] ^= 1
	for name, tt := range map[string]struct {
		fault fault
		limit time.Duration
		from  int64
		want  error
	}{
		"gone":     {fault: get(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })},
		"500":      {fault: get(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })},
		"replaced": {fault: get(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(412) })},
		"cut": {fault: get(func(w http.ResponseWriter, _ *http.Request) {
			send(w, len(data), data[:1<<20])
			panic(http.ErrAbortHandler)
		}), want: io.ErrUnexpectedEOF},
		"cut at the last byte": {fault: get(func(w http.ResponseWriter, _ *http.Request) {
			send(w, len(data), data[:len(data)-1])
			panic(http.ErrAbortHandler)
		}), want: io.ErrUnexpectedEOF},
		"shorter": {fault: get(func(w http.ResponseWriter, _ *http.Request) { send(w, 1000, data[:1000]) })},
		"longer":  {fault: get(func(w http.ResponseWriter, _ *http.Request) { send(w, len(data)+1, append(slices.Clone(data), 'x')) })},
		"without end": {fault: get(func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(data)
			}
		})},
		"range ignored": {fault: get(func(w http.ResponseWriter, _ *http.Request) { send(w, len(data), data) }), from: 1000},
		"hang": {fault: get(func(w http.ResponseWriter, r *http.Request) {
			send(w, len(data), data[:1000])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), want: context.DeadlineExceeded},
		"hang, with a deadline": {fault: get(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), limit: 2 * time.Second, want: context.DeadlineExceeded},
		"wrong checksum": {fault: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodGet {
				next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Amz-Checksum-Sha256", r.Header.Get("X-Test"))
					send(w, len(flipped), flipped)
				})
				r.Header.Set("X-Test", sumOf(data))
			}
			next.ServeHTTP(w, r)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			if err := f.open(t, 0).Put(t.Context(), "id", bytes.NewReader(data), int64(len(data))); err != nil {
				t.Fatal(err)
			}
			timeout := time.Minute
			if tt.want != nil && errors.Is(tt.want, context.DeadlineExceeded) && tt.limit == 0 {
				timeout = 2 * time.Second // and not less, because Open has to succeed
			}
			s := f.open(t, timeout)
			f.misbehave(tt.fault)
			ctx := t.Context()
			if tt.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.limit)
				defer cancel()
			}
			file, err := s.Open(ctx, "id")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.Seek(tt.from, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(file)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if len(got) >= len(data) || tt.from > 0 && len(got) > 0 {
				t.Errorf("read %d bytes all the same", len(got))
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Errors of the other requests are errors too.
func TestOtherFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault fault
		want  error
	}{
		"500":      {fault: status(500)},
		"403":      {fault: status(403)},
		"hang":     {fault: hang, want: context.DeadlineExceeded},
		"cut":      {fault: cut},
		"not HTTP": {fault: raw("nonsense\r\n\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.open(t, 0)
			if err := s.Put(t.Context(), "id", strings.NewReader("x"), 1); err != nil {
				t.Fatal(err)
			}
			if tt.want != nil {
				s = f.open(t, 200*time.Millisecond)
			}
			f.misbehave(tt.fault)
			_, openErr := s.Open(t.Context(), "id")
			_, listErr := ids(t.Context(), s)
			for what, err := range map[string]error{"Open": openErr, "Delete": s.Delete(t.Context(), "id"), "List": listErr} {
				if err == nil || errors.Is(err, fs.ErrNotExist) || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", what, err, tt.want)
				}
			}
			f.misbehave(nil)
			if keys := f.stored(t); !slices.Equal(keys, []string{"p/id"}) {
				t.Errorf("stored %q", keys)
			}
		})
	}
}

// What the answer to a request for a list begins with, and one file in it.
const (
	listHead  = `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name><Prefix>p/</Prefix>`
	listEntry = `<Contents><Key>p/a</Key><Size>1</Size><LastModified>2006-01-02T15:04:05.000Z</LastModified></Contents>`
)

// A list that does not go on, or is cut off, is an error rather than a short list.
func TestListFaults(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"the same page":      listHead + `<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>` + listEntry + `</ListBucketResult>`,
		"no token":           listHead + `<IsTruncated>true</IsTruncated>` + listEntry + `</ListBucketResult>`,
		"cut off":            listHead + listEntry,
		"no date":            listHead + `<Contents><Key>p/a</Key><Size>1</Size></Contents></ListBucketResult>`,
		"not XML":            `nonsense`,
		"of something else":  `<html><body>Welcome</body></html>`,
		"an error within":    `<?xml version="1.0"?><Error><Code>InternalError</Code></Error>`,
		"nothing whatsoever": ``,
	} {
		f := newFake(t)
		f.misbehave(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _, _ = io.WriteString(w, body) })
		if all, err := ids(t.Context(), f.open(t, 0)); err == nil {
			t.Errorf("%s: listed %q", name, all)
		}
	}
}

// Nor is one that never ends read for ever.
func TestListWithoutEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: parses 60 MB of XML, one attempt after the other")
	}
	t.Parallel()
	f := newFake(t)
	var sent int
	f.misbehave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.WriteString(w, listHead)
		for r.Context().Err() == nil {
			n, _ := io.WriteString(w, listEntry)
			sent += n
		}
	})
	if _, err := ids(t.Context(), f.open(t, 0)); err == nil {
		t.Error("a list without end has one")
	}
	f.Close()
	if sent > 3*(20<<20) { // for each attempt what is read and what was on its way
		t.Errorf("a list without end was read for %d bytes", sent)
	}
}
