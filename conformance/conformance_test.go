// Package conformance runs the published TrailBase client against the
// reference server with the conformance fixture.
package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestJavaScriptClient(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: installs an npm package and runs node, which takes a minute on a fresh machine")
	}
	t.Parallel()
	js := installClient(t)
	url := serveFixture(t, freePort(t))
	for _, script := range []string{"run.mjs", "auth.mjs", "realtime.mjs"} {
		runScript(t, js, script, "BEDPLATE_URL="+url)
	}
}

// TestOpenIDConnect signs in at a provider that is not ours, by discovery.
func TestOpenIDConnect(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: installs an npm package and runs node, which takes a minute on a fresh machine")
	}
	t.Parallel()
	js := installClient(t)
	port, provider := freePort(t), freePort(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(`
server:
  site_url: http://127.0.0.1:%d
auth:
  custom_uri_schemes: [myapp]
  user_identifier: REQUIRE_EMAIL
  oauth_providers:
    - name: oidc0
      issuer: http://127.0.0.1:%d
      client_id: bedplate
      client_secret: a secret of the test
      allow_private_addresses: true
`, port, provider)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	url := serveFixture(t, port, "--config", config)
	runScript(t, js, "oidc.mjs", "BEDPLATE_URL="+url, fmt.Sprintf("OIDC_URL=http://127.0.0.1:%d", provider))
}

// runScript runs a file of tests and wants all of them to pass.
func runScript(t *testing.T, dir, name string, env ...string) {
	t.Helper()
	script, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=tap", name)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it has children
	cmd.WaitDelay = patience
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", name, err, out)
	}
	// A run that found no tests, or skipped some, is no success either.
	if n := bytes.Count(script, []byte("\ntest(")); n == 0 || !bytes.Contains(out, fmt.Appendf(nil, "\n# pass %d\n", n)) {
		t.Errorf("want all %d tests of %s to pass:\n%s", n, name, out)
	}
}

// installClient copies the script and installs what it needs beside it, so
// that tests at the same time do not meet.
func installClient(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "run.mjs", "auth.mjs", "oidc.mjs", "realtime.mjs"} {
		text, err := os.ReadFile(filepath.Join("js", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// serveFixture starts serve.sh on a port, waits until it is healthy and
// checks at the end of the test that it stops when it is told to and leaves
// nothing behind.
func serveFixture(t *testing.T, port int, args ...string) (url string) {
	t.Helper()
	tmp := t.TempDir()
	var output bytes.Buffer
	cmd := exec.Command("./serve.sh", append([]string{"--port", fmt.Sprint(port)}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop serve.sh: %v", err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve.sh: %v\n%s", err, &output)
			}
		case <-time.After(patience):
			t.Errorf("serve.sh does not stop")
			_ = cmd.Process.Kill()
			<-ended
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("serve.sh left %v behind (%v)", left, err)
		}
	})

	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it builds the server first
	defer cancel()
	for {
		if body, err := get(ctx, url+"/api/healthcheck"); err == nil && strings.EqualFold(body, "ok") {
			return url
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("serve.sh ended early: %v\n%s", err, &output)
		case <-ctx.Done():
			t.Fatal("serve.sh is not healthy after minutes")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// patience is how long a test waits for what should happen soon, on a busy machine, too.
const patience = 2 * time.Minute

// freePort is a port that nobody listens on, or is given until a server does: it is below those that the
// system hands out.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.N(20_000)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no port is free")
	return 0
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	return string(body), err
}
