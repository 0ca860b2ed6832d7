package main

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// testTail follows a server through a restart.
func testTail(t *testing.T, binary string) {
	data := filepath.Join(t.TempDir(), "data")
	const apis = "/api/records/v1/"
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(idlePort(t)))
	s := start(t, binary, "--listen", listen, "--data-dir", data)
	res, err := http.DefaultClient.Do(newRequest(t, "GET", s.url+apis+"observations", ""))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	since := res.Header.Get("Change-Cursor")
	report := func(rating string) {
		t.Helper()
		if status, body := s.request(t, "POST", apis+"observations", `{"object":1,"observer":"a","seen_on":"2026-01-15","rating":`+rating+`}`); status != 200 {
			t.Fatalf("report: %d %s", status, body)
		}
	}
	all, stopAll := tail(t, "observations", "--url", s.url, "--since", since)
	good, stopGood := tail(t, "observations", "--url", s.url, "--since", since, "--filter", "rating[$gte]=4", "--filter", "observer=a")
	report("1")
	report("5")
	all.await(t, `"rating":5`)
	good.await(t, `"rating":5`)

	s.stop(t) // streams do not keep it from that
	s = start(t, binary, "--listen", listen, "--data-dir", data)
	report("4")
	all.await(t, `"rating":4`)
	good.await(t, `"rating":4`)
	stopAll()
	stopGood()
	lines := strings.Split(strings.TrimSpace(all.String()), "\n")
	if n := strings.Count(good.String(), "\n"); len(lines) != 3 || n != 2 {
		t.Errorf("%d lines, %d with the filter, want 3 and 2:\n%s\n%s", len(lines), n, all, good)
	}
	var first struct {
		Op, Position string
		Record       struct{ Rating int }
	}
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil || first.Op != "Insert" || first.Record.Rating != 1 || first.Position == "" {
		t.Errorf("%s: %v", lines[0], err)
	}
	again, stopAgain := tail(t, "observations", "--url", s.url, "--since", first.Position)
	again.await(t, `"rating":4`)
	stopAgain()
	if got, want := withoutPositions(again.String()), withoutPositions(strings.Join(lines[1:], "\n")+"\n"); got != want {
		t.Errorf("from the first position\n%s, want\n%s", got, want)
	}
	for _, tt := range []struct{ arg, want string }{{"nowhere", "405"}, {"sky", "403"}} {
		err := run(&program{t.Context(), strings.NewReader(""), io.Discard, io.Discard}, []string{"tail", tt.arg, "--url", s.url})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("tail %s: %v, want %s", tt.arg, err, tt.want)
		}
	}
	s.stop(t)
}

// idlePort is a port that nobody listens on, or is given meanwhile: it is below those that the system hands out.
func idlePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.N(20_000)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// withoutPositions removes what is another text each time.
func withoutPositions(lines string) string {
	return regexp.MustCompile(`"position":"[^"]+"`).ReplaceAllString(lines, "")
}

// tail runs the command until stop is called, which is no error.
func tail(t *testing.T, args ...string) (out *buffer, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := newBuffer(), make(chan error, 1)
	go func() {
		ended <- run(&program{ctx, strings.NewReader(""), out, io.Discard}, append([]string{"tail"}, args...))
	}()
	return out, func() {
		t.Helper()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("tail: %v", err)
			}
		case <-time.After(patience):
			t.Error("tail does not end")
		}
	}
}

// The token is in the header and nowhere else.
func TestTailToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, "from-file\n")
	seen := make(chan *http.Request, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	t.Setenv("BEDPLATE_TOKEN", "from-environment")
	for _, tt := range []struct {
		args []string
		want string
	}{{nil, "Bearer from-environment"}, {[]string{"--token-file", file}, "Bearer from-file"}} {
		var out, logs buffer
		err := run(&program{t.Context(), strings.NewReader(""), &out, &logs}, append([]string{"tail", "notes", "--record", "a/b", "--url", server.URL}, tt.args...))
		if err == nil || strings.Contains(err.Error()+out.String()+logs.String(), "from-") {
			t.Errorf("%v, %s, %s", err, &out, &logs)
		}
		r := <-seen
		if got := r.Header.Get("Authorization"); got != tt.want || r.URL.EscapedPath() != "/api/records/v1/notes/subscribe/a%2Fb" || r.URL.RawQuery != "" {
			t.Errorf("%s with %q, want %q", r.URL, got, tt.want)
		}
	}
	for name, args := range map[string][]string{
		"missing":  {"--token-file", file + "x"},
		"empty":    {"--token-file", os.DevNull},
		"filter":   {"--filter", "x"},
		"operator": {"--filter", "x[$gt=1"},
		"URL":      {"--url", "ftp://x"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := run(&program{ctx, strings.NewReader(""), io.Discard, io.Discard}, append([]string{"tail", "notes", "--url", server.URL}, args...))
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	if len(seen) > 0 {
		t.Errorf("%d requests in spite of mistakes", len(seen))
	}
}

func TestFilterValues(t *testing.T) {
	t.Parallel()
	for condition, want := range map[string]string{
		"a=1":            "filter[a]=1",
		"a=":             "filter[a]=",
		"a==1,2":         "filter[a]==1,2",
		"a[$gte]=x=y":    "filter[a][$gte]=x=y",
		"a[$ne][$x]=[=]": "filter[a][$ne][$x]=[=]",
		"a":              "", "=1": "", "[$gt]=1": "", "a[=1": "",
	} {
		got, err := filterValues([]string{condition})
		text := ""
		for k, v := range got {
			text = k + "=" + v[0]
		}
		if text != want || (err != nil) != (want == "") {
			t.Errorf("%s: %s, %v, want %s", condition, text, err, want)
		}
	}
	var c commands
	parser, err := kong.New(&c, kong.Vars{"version": "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"tail", "a", "--filter", "x=1,2", "--filter", "y=3"}); err != nil || len(c.Tail.Filter) != 2 || c.Tail.Filter[0] != "x=1,2" {
		t.Errorf("%q, %v", c.Tail.Filter, err)
	}
}
