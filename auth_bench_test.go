package bedplate_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/internal/password"
	"github.com/bedplate/bedplate/records"
)

// A benchSite is a backend with one row that everybody may read and one user.
type benchSite struct {
	url    string
	client *http.Client
}

const benchPassword = "Correct.horse.7"

func newBenchSite(b *testing.B, cost auth.Argon2) *benchSite {
	b.Helper()
	ctx := b.Context()
	backend, err := bedplate.Open(ctx, bedplate.Config{
		Path: filepath.Join(b.TempDir(), "app.db"),
		Auth: &auth.Config{Logger: slog.New(slog.DiscardHandler), Argon2: cost},
		Migrations: fstest.MapFS{"0001_note.sql": {Data: []byte(`CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
			INSERT INTO note (id, text) VALUES (1, 'a note of some length, as notes are');`)}},
		Records: []records.API{{Name: "note", Table: "note", World: records.Read}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	if _, err := backend.Auth.CreateUser(ctx, auth.CreateUser{Email: "ada@example.com", Password: benchPassword, Verified: true}); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(backend.Handler())
	b.Cleanup(server.Close)
	return &benchSite{server.URL, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

func (s *benchSite) send(req *http.Request) ([]byte, error) {
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	return body, err
}

func (s *benchSite) login() (auth.Tokens, error) {
	var t auth.Tokens
	req, err := http.NewRequest(http.MethodPost, s.url+"/api/auth/v1/login", //nolint:noctx // ends with the benchmark
		bytes.NewReader([]byte(`{"email":"ada@example.com","password":"`+benchPassword+`"}`)))
	if err != nil {
		return t, err
	}
	req.Header.Set("Content-Type", "application/json")
	body, err := s.send(req)
	if err == nil {
		err = json.Unmarshal(body, &t)
	}
	return t, err
}

// together runs fn n times in all, from some goroutines, and returns how long
// that took.
func together(b *testing.B, goroutines, n int, fn func() error) time.Duration {
	b.Helper()
	start := time.Now()
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range n / goroutines {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkAuthenticatedRead compares reads with a bearer token and without,
// in turns. One operation is a round of both; ratio is authenticated requests
// per second over anonymous ones.
func BenchmarkAuthenticatedRead(b *testing.B) {
	s := newBenchSite(b, auth.Argon2{})
	t, err := s.login()
	if err != nil {
		b.Fatal(err)
	}
	const requests, clients = 8000, 16
	var conns [clients]*wire
	for i := range conns {
		conns[i] = dial(b, s.url)
	}
	read := func(header string) time.Duration {
		request := []byte("GET /api/records/v1/note/1 HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n")
		start := time.Now()
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				for range requests / clients {
					if err := c.roundTrip(request); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	var anonymous, authenticated, ratios []float64
	for b.Loop() {
		without := read("")
		with := read("Authorization: Bearer " + t.AuthToken + "\r\n")
		anonymous = append(anonymous, requests/without.Seconds())
		authenticated = append(authenticated, requests/with.Seconds())
		ratios = append(ratios, without.Seconds()/with.Seconds())
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(authenticated), "authenticated/s")
	b.ReportMetric(median(anonymous), "anonymous/s")
}

// A wire sends requests that are written already, so that what is measured is
// the server and not a client that builds headers on the same processors.
type wire struct {
	net.Conn
	r *bufio.Reader
}

func dial(b *testing.B, url string) *wire {
	b.Helper()
	c, err := new(net.Dialer).DialContext(b.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return &wire{c, bufio.NewReader(c)}
}

// roundTrip sends a request and reads its response, which must be status 200
// and have a length.
func (c *wire) roundTrip(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("status %q", line)
		case len(line) == 2:
			_, err := c.r.Discard(length)
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
}

// BenchmarkLogin measures what a sign-in costs beside its password hash: the
// processor time, client included, of sign-ins whose hash costs nearly nothing
// and of the hash that is used by default, in turns. ratio is that of a whole
// sign-in over the bare hash. The two are not measured in one because a hash
// walks through 19 MiB, and the noise of that is greater than all the rest.
func BenchmarkLogin(b *testing.B) {
	s := newBenchSite(b, auth.Argon2{Memory: 64, Time: 1})
	hasher, err := password.NewHasher(password.Params{}, 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	const logins, hashes, clients = 800, 64, 8
	cost := func(n int, fn func() error) float64 {
		before := processorTime(b)
		together(b, clients, n, fn)
		return (processorTime(b) - before).Seconds() / float64(n)
	}
	var ratios, beside []float64
	for b.Loop() {
		hash := cost(hashes, func() error {
			_, err := hasher.Hash(b.Context(), benchPassword)
			return err
		})
		login := cost(logins, func() error {
			_, err := s.login()
			return err
		})
		ratios = append(ratios, 1+login/hash)
		beside = append(beside, login*1e6)
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(beside), "us-beside")
}

// processorTime is what this process has used of all processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
