package bedplate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
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

func newBenchSite(b *testing.B) *benchSite {
	b.Helper()
	ctx := b.Context()
	backend, err := bedplate.Open(ctx, bedplate.Config{
		Path: filepath.Join(b.TempDir(), "app.db"),
		Auth: &auth.Config{Logger: slog.New(slog.DiscardHandler), Limits: auth.Limits{Registrations: auth.Limit{Events: -1}}},
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

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkAuthenticatedRead compares reads with a bearer token and without,
// in turns. One operation is a round of both; ratio is authenticated requests
// per second over anonymous ones.
func BenchmarkAuthenticatedRead(b *testing.B) {
	s := newBenchSite(b)
	t, err := s.login()
	if err != nil {
		b.Fatal(err)
	}
	read := func(token string) func() error {
		return func() error {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.url+"/api/records/v1/note/1", nil)
			if err != nil {
				return err
			}
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			_, err = s.send(req)
			return err
		}
	}
	var anonymous, authenticated []time.Duration
	const requests = 4000
	for b.Loop() {
		anonymous = append(anonymous, together(b, 16, requests, read("")))
		authenticated = append(authenticated, together(b, 16, requests, read(t.AuthToken)))
	}
	b.ReportMetric(float64(median(anonymous))/float64(median(authenticated)), "ratio")
	b.ReportMetric(requests/median(authenticated).Seconds(), "authenticated/s")
	b.ReportMetric(requests/median(anonymous).Seconds(), "anonymous/s")
}

// BenchmarkLogin compares sign-ins with the bare hash that each of them costs,
// in turns; ratio is the time of a sign-in over that of the hash.
func BenchmarkLogin(b *testing.B) {
	s := newBenchSite(b)
	hasher, err := password.NewHasher(password.Params{}, 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	var hashes, logins []time.Duration
	const each = 64
	for b.Loop() {
		hashes = append(hashes, together(b, 4, each, func() error {
			_, err := hasher.Hash(b.Context(), benchPassword)
			return err
		}))
		logins = append(logins, together(b, 4, each, func() error {
			_, err := s.login()
			return err
		}))
	}
	b.ReportMetric(float64(median(logins))/float64(median(hashes)), "ratio")
	b.ReportMetric(each/median(logins).Seconds(), "logins/s")
	b.ReportMetric(each/median(hashes).Seconds(), "hashes/s")
}
