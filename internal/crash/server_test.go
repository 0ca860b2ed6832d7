package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds each thing that a test waits for.
const patience = 2 * time.Minute

// A server is one process of the reference server.
type server struct {
	address    string // of which it has told
	client     *http.Client
	readyAfter time.Duration // from the start of the process to the first good answer

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been waited for
	log    string        // file with what the process printed
}

// build compiles the reference server into dir and returns its path.
func build(t *testing.T, dir string) string {
	t.Helper()
	binary := filepath.Join(dir, "refserver")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/refserver")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return binary
}

// start starts the server on data and waits until it is ready. It is killed at the end of the test
// at the latest.
func start(t *testing.T, binary, config, data string) *server {
	t.Helper()
	s := &server{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: writers}},
		exited: make(chan struct{}),
		log:    filepath.Join(filepath.Dir(binary), "server.log"),
	}
	output, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	s.cmd = exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--config", config)
	s.cmd.Stdout, s.cmd.Stderr = output, output

	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait() // killed, as a rule
	}()
	t.Cleanup(s.kill)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.awaitReady(ctx); err != nil {
		t.Fatalf("start: %v\n%s", err, s.output())
	}
	s.readyAfter = time.Since(began)
	return s
}

func (s *server) awaitReady(ctx context.Context) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-s.exited:
			return fmt.Errorf("the server has ended: %v", s.cmd.ProcessState)
		case <-ctx.Done():
			return err
		}
	}
}

// ready finds out where the server listens and asks it whether it is ready.
func (s *server) ready(ctx context.Context) error {
	if s.address == "" {
		text, err := os.ReadFile(s.log)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			var entry struct{ Msg, URL string }
			if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
				s.address = strings.TrimPrefix(entry.URL, "http://")
			}
		}
		if s.address == "" {
			return errors.New("the server has not told its address")
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/readyz"), nil)
	if err != nil {
		return err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answered %s", res.Status)
	}
	return nil
}

// kill ends the process with SIGKILL and waits for its end. It may be called more than once.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.client.CloseIdleConnections()
}

func (s *server) url(path string) string { return "http://" + s.address + path }

// output returns the end of what the server has printed.
func (s *server) output() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}
