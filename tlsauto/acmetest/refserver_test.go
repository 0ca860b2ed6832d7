package acmetest

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDryRun has the reference server order from an authority, and its command try another one: beside the
// server, and without it.
func TestDryRun(t *testing.T) {
	long(t)
	program := buildServer(t)
	production, staging := newCA(t, caConfig{}), newCA(t, caConfig{})
	config := serverConfig(t, production, staging)

	// No authority answers before it can reach the process.
	reachable := make(chan struct{})
	production.set(held(reachable))
	s := startProgram(t, program, "serve", "--config", config, "--listen=127.0.0.1:0", "--http-redirect-address=127.0.0.1:0")
	web := &site{name: "server"}
	web.HTTP = s.await(t, `"redirecting","url":"http://([^"]+)"`)
	web.TLS = s.await(t, `"listening","url":"https://([^"]+)"`)
	production.Router.add(web)
	staging.Router.add(web)
	close(reachable)
	visitors := []client{{addr: web.TLS, name: nameA, roots: production.Roots}, {addr: web.TLS, name: nameB, roots: production.Roots}}
	var serials []string
	for _, visitor := range visitors {
		leaf, err := visitor.trusted(t.Context(), time.Minute)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.said())
		}
		serials = append(serials, leaf.SerialNumber.String())
	}
	check := []string{"tls", "check", "--dry-run", "--config", config}
	beside := startProgram(t, program, append(check, "--listen", web.TLS, "--http-redirect-address", web.HTTP)...)
	if err := beside.wait(t); err != nil || strings.Count(beside.said(), "ok  certificate  of CN=Pebble") != 2 || strings.Contains(beside.said(), "this command") {
		t.Errorf("beside a server: %v\n%s", err, beside.said())
	}
	for i, visitor := range visitors {
		if leaf, err := visitor.connect(t.Context()); err != nil || leaf.SerialNumber.String() != serials[i] {
			t.Errorf("%s is served in another way: %v", visitor.name, err)
		}
	}
	if n, m := production.orders(), staging.orders(); n != 2 || m != 2 {
		t.Errorf("%d orders in production and %d in staging, want 2 of each", n, m)
	}
	staging.Router.remove(web)
	s.interrupt(t)

	reachable = make(chan struct{})
	staging.set(held(reachable))
	alone := startProgram(t, program, append(check, "--listen=127.0.0.1:0", "--http-redirect-address=127.0.0.1:0", "--data-dir", filepath.Join(t.TempDir(), "none"))...)
	web = &site{name: "command"}
	web.TLS = alone.await(t, `ok  https +(\S+): this command answers`)
	web.HTTP = alone.await(t, `ok  http +(\S+): this command answers`)
	staging.Router.add(web)
	close(reachable)
	if err := alone.wait(t); err != nil || strings.Count(alone.said(), "ok  certificate  of CN=Pebble") != 2 {
		t.Errorf("without a server: %v\n%s", err, alone.said())
	}
}

func buildServer(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "refserver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/refserver")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return program
}

// serverConfig has one certificate that either issuer could order, and one of several names.
func serverConfig(t *testing.T, production, staging *CA) (file string) {
	t.Helper()
	dir := t.TempDir()
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: production.api.Certificate().Raw})
	roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: staging.api.Certificate().Raw})...)
	file = filepath.Join(dir, "config.yaml")
	for path, text := range map[string]string{
		filepath.Join(dir, "roots.pem"): string(roots),
		file: fmt.Sprintf(`
server: {data_dir: state}
tls:
  mode: acme
  acme: {domains: [%s, [%s, www.site.test]], agree_tos: true, directory: '%s', staging: '%s', ca_file: roots.pem}
`, nameA, nameB, production.URL, staging.URL),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// held lets requests wait for a channel to be closed.
func held(until <-chan struct{}) behaviour {
	return func(ca http.Handler, stop <-chan struct{}) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-until:
			case <-stop:
			}
			ca.ServeHTTP(w, r)
		})
	}
}

// A program is a process whose output is kept. It ends with the test at the latest.
type program struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of its end

	mu   sync.Mutex
	text bytes.Buffer
}

func startProgram(t *testing.T, path string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{cmd: exec.CommandContext(ctx, path, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel()
		<-p.exited
	})
	return p
}

func (p *program) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// await returns the first group of an expression, once it is in the output.
func (p *program) await(t *testing.T, expression string) string {
	t.Helper()
	re := regexp.MustCompile(expression)
	var found []string
	becomes(time.Minute, func() bool {
		if found = re.FindStringSubmatch(p.said()); found != nil {
			return true
		}
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
	if found == nil {
		t.Fatalf("no %s in\n%s", expression, p.said())
	}
	return found[1]
}

// wait waits for the end, and returns how the process ended.
func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(2 * time.Minute):
		t.Fatalf("it does not end:\n%s", p.said())
	}
	return p.err
}

func (p *program) interrupt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("%v\n%s", err, p.said())
	}
}
