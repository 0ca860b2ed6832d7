package replicator

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// memoryLimit is what the Go runtime tries to stay under. It is not a bound.
	memoryLimit = 192 << 20

	// maxProcs leaves the processors to the program.
	maxProcs = 2

	// oomScore makes the kernel end the replicator rather than the program when memory runs out:
	// it is started again.
	oomScore = "500"
)

// ignoreSignals leaves it to the program to end the replicator: what a terminal or a service manager
// sends to all processes comes before there was a last sync.
func ignoreSignals() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
}

// limitProcess keeps the replicator small beside the program.
func limitProcess() {
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(min(maxProcs, runtime.NumCPU()))
	if runtime.GOOS == "linux" {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0o600) // if it is allowed
	}
}

// setEnvironment sets variables for the clients.
func setEnvironment(env map[string]string) error {
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("the variable %q cannot be set", name)
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set the variable %q: %w", name, err)
		}
	}
	// Litestream's S3 client fails when AWS_CA_BUNDLE is set. SSL_CERT_FILE means the same to Go.
	if bundle := os.Getenv("AWS_CA_BUNDLE"); bundle != "" {
		if os.Getenv("SSL_CERT_FILE") == "" {
			if err := os.Setenv("SSL_CERT_FILE", bundle); err != nil {
				return err
			}
		}
		return os.Unsetenv("AWS_CA_BUNDLE")
	}
	return nil
}

// residentBytes is how much memory the process has.
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(min(m.Sys, 1<<62)) //nolint:gosec // bounded
}

// describe names the process that has a lock, by what it wrote in the file.
func describe(text []byte) string {
	name := strings.TrimSpace(string(text))
	if name == "" || len(name) > 20 || slices.ContainsFunc([]byte(name), func(b byte) bool { return b < '0' || b > '9' }) {
		return "another process"
	}
	return "process " + name
}
