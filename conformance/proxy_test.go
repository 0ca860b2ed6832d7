package conformance

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProxies subscribes through proxies that are told nothing but where the
// server is: events must not be held back, and the server must learn that a
// client has gone.
func TestProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds and starts servers")
	}
	t.Parallel()
	server := serveFixture(t, freePort(t), "--config", oneStreamConfig(t))

	// One after the other, as the server allows for one stream only.
	for _, p := range []struct {
		name, program, config string
		args                  []string
		compressed            bool
	}{
		{
			name: "nginx", program: "nginx", args: nginxArgs,
			config: fmt.Sprintf(nginxConfig, ""),
		}, {
			name: "nginx that compresses", program: "nginx", args: nginxArgs,
			config: fmt.Sprintf(nginxConfig, "gzip on; gzip_types *;"), compressed: true,
		}, {
			name: "Caddy", program: "caddy", args: caddyArgs,
			config: fmt.Sprintf(caddyConfig, ""),
		}, {
			name: "Caddy that compresses", program: "caddy", args: caddyArgs,
			config: fmt.Sprintf(caddyConfig, "encode gzip"), // which leaves event streams alone
		},
	} {
		t.Run(p.name, func(t *testing.T) {
			proxy := startProxy(t, p.program, p.args, p.config, server)
			client := &http.Client{Transport: &http.Transport{}} // which asks for gzip
			defer client.CloseIdleConnections()

			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			stream := subscribe(ctx, t, client, proxy)
			if stream.compressed != p.compressed {
				t.Errorf("compressed: %t, want %t", stream.compressed, p.compressed)
			}
			if first := stream.next(t); !strings.Contains(first.text, ": ping") {
				t.Errorf("the first block is %q", first.text)
			}
			checkPromptness(ctx, t, stream, server)
			for range 2 {
				if b := stream.next(t); !b.isHeartbeat() {
					t.Errorf("got %q, want a heartbeat", b.text)
				}
			}

			if code := trySubscribe(ctx, t, server); code != http.StatusServiceUnavailable {
				t.Errorf("status %d for one stream too many, want 503", code)
			}
			stream.close()
			left := time.Now()
			for code := 0; code != http.StatusOK; {
				code = trySubscribe(ctx, t, server)
			}
			t.Logf("the server learnt after %v that the client was gone", time.Since(left))
		})
	}
}

const records = "/api/records/v1/open_strict_table"

// checkPromptness writes records, each when the event of the one before is here. If
// events were held back until something follows them, there would be a heartbeat, of
// which there is one a second, between any two.
func checkPromptness(ctx context.Context, t *testing.T, s *stream, server string) {
	t.Helper()
	const rounds = 15
	prompt := 0
	var latencies []time.Duration
	for i := 1; i <= rounds; i++ {
		text := fmt.Sprintf("proxy %d", i)
		code := do(ctx, t, http.MethodPost, server+records, fmt.Sprintf(`{"text_not_null":%q}`, text))
		answered := time.Now()
		if code != http.StatusOK {
			t.Fatalf("create: status %d", code)
		}
		b := s.next(t)
		if !b.isHeartbeat() {
			prompt++
		}
		for b.isHeartbeat() {
			b = s.next(t)
		}
		if !strings.Contains(b.text, `data: {"Insert":{`) || !strings.Contains(b.text, fmt.Sprintf("%q", text)) ||
			!strings.HasSuffix(b.text, fmt.Sprintf(`,"seq":%d}`, i)) {
			t.Fatalf("event %d is %q", i, b.text)
		}
		latencies = append(latencies, b.at.Sub(answered))
	}
	slices.Sort(latencies)
	t.Logf("from the answer to the event: median %v, at most %v", latencies[rounds/2], latencies[rounds-1])
	if prompt < rounds/3 {
		t.Errorf("%d of %d events come before a heartbeat: they are held back", prompt, rounds)
	}
}

// trySubscribe returns the status of a subscription that it gives up at once.
func trySubscribe(ctx context.Context, t *testing.T, server string) int {
	t.Helper()
	return do(ctx, t, http.MethodGet, server+records+"/subscribe/*", "")
}

// do makes a request on a connection of its own and returns the status,
// without reading the answer to its end.
func do(ctx context.Context, t *testing.T, method, url, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// A stream is what a subscriber reads.
type stream struct {
	compressed bool
	blocks     <-chan block
	close      func()
}

// A block is what stands between empty lines.
type block struct {
	text string
	at   time.Time
}

func (b block) isHeartbeat() bool { return !strings.Contains(b.text, "data:") }

// next waits for a block.
func (s *stream) next(t *testing.T) block {
	t.Helper()
	select {
	case b, ok := <-s.blocks:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return b
	case <-time.After(patience):
		t.Fatal("nothing on the stream any more")
	}
	panic("unreachable")
}

func subscribe(parent context.Context, t *testing.T, client *http.Client, url string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(parent)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+records+"/subscribe/*", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := client.Do(req) //nolint:bodyclose // whoever reads it closes it
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusServiceUnavailable { // the stream before this one is being ended
		res.Body.Close()
		cancel()
		return subscribe(parent, t, client, url)
	}
	if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("subscribe: %s, %s", res.Status, got)
	}
	blocks := make(chan block, 100)
	go func() {
		defer close(blocks)
		defer res.Body.Close()
		var lines []string
		for scanner := bufio.NewScanner(res.Body); scanner.Scan(); {
			if line := scanner.Text(); line != "" {
				lines = append(lines, line)
				continue
			}
			blocks <- block{strings.Join(lines, "\n"), time.Now()}
			lines = nil
		}
	}()
	s := &stream{compressed: res.Uncompressed, blocks: blocks, close: func() {
		cancel()
		for range blocks { // until the reader has ended
		}
	}}
	t.Cleanup(s.close)
	return s
}

// nginx as distributions configure it, but in one process that writes only
// below its own directory.
var nginxArgs = []string{"-e", "stderr", "-p", "DIR/", "-c", "DIR/config"}

const nginxConfig = `
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	%s
	server {
		listen 127.0.0.1:PORT;
		location / {
			proxy_pass SERVER;
		}
	}
}
`

var caddyArgs = []string{"run", "--adapter", "caddyfile", "--config", "DIR/config"}

const caddyConfig = `
{
	admin off
}
http://127.0.0.1:PORT {
	%s
	reverse_proxy SERVER
}
`

// startProxy starts a program, until the end of the test, and waits until it
// listens. In its arguments and configuration DIR, PORT and SERVER stand for
// its directory, its port and the address of the server behind it.
func startProxy(t *testing.T, program string, args []string, config, server string) (url string) {
	t.Helper()
	path := findProxy(t, program)
	dir, port := t.TempDir(), freePort(t)
	fill := strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(port), "SERVER", server)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(fill.Replace(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()

	cmd := exec.CommandContext(t.Context(), path)
	for _, a := range args {
		cmd.Args = append(cmd.Args, fill.Replace(a))
	}
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() { <-ended })

	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for deadline := time.Now().Add(patience); ; {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
			return "http://" + address
		}
		select {
		case <-ended:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		text, _ := os.ReadFile(output.Name())
		t.Fatalf("%s does not listen: %v\n%s", program, err, text)
	}
}

// findProxy returns where a program is: where `make proxies` puts it, or else
// where the system has it.
func findProxy(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", ".bin", "proxies", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if os.Getenv("BEDPLATE_REQUIRE_PROXIES") != "" {
		t.Fatalf("%s is not there, in spite of BEDPLATE_REQUIRE_PROXIES: run make proxies", name)
	}
	t.Skipf("%s is not there: make proxies gets it on Debian and its relatives", name)
	return ""
}

// oneStreamConfig writes the fixture's configuration with quick heartbeats and
// one stream at a time.
func oneStreamConfig(t *testing.T) (path string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("fixture", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	migrations, err := filepath.Abs(filepath.Join("fixture", "migrations"))
	if err != nil {
		t.Fatal(err)
	}
	relative := "\nmigrations: migrations "
	if strings.Count(string(text), relative) != 1 {
		t.Fatal("the fixture's configuration has no migrations")
	}
	config := strings.Replace(string(text), relative, "\nmigrations: "+strconv.Quote(migrations)+" ", 1) +
		"\nrealtime:\n  heartbeat_sec: 1\n  max_streams: 1\n"
	path = filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
