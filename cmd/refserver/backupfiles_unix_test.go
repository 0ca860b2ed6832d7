//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nothing waits for who may write to a pipe.
func TestPipes(t *testing.T) {
	t.Parallel()
	pipe := func(t *testing.T, file string) {
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, pipe, "is not a file", false)

	config, data := backedUpConfig(t, "backup: {snapshots: {interval: 24h}}\n")
	if err := os.MkdirAll(filepath.Join(data, "backup"), 0o700); err != nil {
		t.Fatal(err)
	}
	pipe(t, filepath.Join(data, "backup", "status.json"))
	for _, command := range []string{"backup status", "promote"} {
		if out, err := tryCommand(t, config, "", strings.Fields(command)...); err == nil || !strings.Contains(err.Error(), "is not a file") {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
}
