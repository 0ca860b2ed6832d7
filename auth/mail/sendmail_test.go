package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/auth/mail"
)

// The tests of Sendmail do not run in parallel: a program cannot be started
// while another child, just forked, still has it open for writing.

// newSendmail installs a program that begins in a directory of its own.
func newSendmail(t *testing.T, script string) (m *mail.Sendmail, dir string) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "sendmail")
	script = fmt.Sprintf("#!/bin/sh\ncd '%s' || exit 1\n%s\n", dir, script)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	m, err := mail.NewSendmail(mail.SendmailConfig{Path: path, From: `"Example, Inc." <no-reply@app.example>`, Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return m, dir
}

func TestSendmailDelivers(t *testing.T) {
	m, dir := newSendmail(t, `printf '%s\n' "$@" >args; cat >message`)
	msg := hello
	msg.To = "-oQ/x@example.com" // looks like an option
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if want := "-i\n-f\nno-reply@app.example\n--\n-oQ/x@example.com\n"; err != nil || string(args) != want {
		t.Errorf("arguments %q, %v, want %q", args, err, want)
	}
	data, err := os.ReadFile(filepath.Join(dir, "message"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "\r") {
		t.Error("the message has carriage returns")
	}
	checkHello(t, string(data))
}

func TestSendmailErrors(t *testing.T) {
	tests := map[string]struct {
		script    string
		permanent bool
	}{
		"no such user":    {"cat >/dev/null; echo no such user; exit 67", true},
		"try again":       {"cat >/dev/null; echo busy >&2; exit 75", false},
		"some failure":    {"exit 1", false},
		"killed":          {"kill -9 $$", false},
		"talks very much": {"cat >/dev/null; yes no | head -c 300000; exit 65", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, _ := newSendmail(t, tt.script)
			err := m.Send(t.Context(), hello)
			if err == nil || isPermanent(err) != tt.permanent {
				t.Fatalf("got %v", err)
			}
			if text := err.Error(); len(text) > 500 || strings.Contains(text, "\n") {
				t.Errorf("the text of the error: %q", text)
			}
		})
	}
}

func TestSendmailHangs(t *testing.T) {
	m, dir := newSendmail(t, "echo $$ >pid.new; mv pid.new pid; exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan error)
	go func() { sent <- m.Send(ctx, hello) }()
	pid := filepath.Join(dir, "pid")
	for deadline := time.Now().Add(2 * time.Minute); ; {
		if _, err := os.Stat(pid); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the program did not start")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) || isPermanent(err) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	number, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	// Neither alive nor a zombie.
	if _, err := os.Stat("/proc/self"); err == nil {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(number))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("process %s is still there: %v", number, err)
		}
	}
}

// It may hand the mail to a child that keeps its output, and succeed.
func TestSendmailLeavesChildBehind(t *testing.T) {
	m, _ := newSendmail(t, "cat >message; sleep 3 & exit 0")
	if err := m.Send(t.Context(), hello); err != nil {
		t.Error(err)
	}
}

func TestNewSendmailReportsEveryMistake(t *testing.T) {
	_, err := mail.NewSendmail(mail.SendmailConfig{Path: "sendmail", From: "x", Timeout: -1})
	for _, want := range []string{"absolute", "the sender", "the timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mail.NewSendmail(mail.SendmailConfig{Path: plain, From: "a@app.example"}); err == nil {
		t.Error("a file that is no program was accepted")
	}
}

func TestA15_SendmailRefuses(t *testing.T) {
	m, dir := newSendmail(t, ">called")
	for _, to := range []string{"a@example.com b@example.com", "a@example.com\nBcc: b@example.com", "-t", ""} {
		msg := hello
		msg.To = to
		if err := m.Send(t.Context(), msg); !isPermanent(err) {
			t.Errorf("%q: got %v, want a permanent error", to, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "called")); err == nil {
		t.Error("the program was run")
	}
}

func TestLogShowsTheMessage(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := mail.NewLog(slog.New(slog.NewTextHandler(&out, nil))).Send(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{hello.To, hello.Subject, "A1B2C3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
}
