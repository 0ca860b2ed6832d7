package storetest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A process is a program that runs.
type process struct {
	orders
	t          *testing.T
	cmd        *exec.Cmd
	stdin      io.Writer
	messages   chan message // closed when it is gone
	replicator int
	last       int64 // commit that was acknowledged
}

// start starts a program, which is killed at the end of the test if not before.
func start(t *testing.T, o orders) *process {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{orders: o, t: t, cmd: exec.Command(os.Args[0]), messages: make(chan message, 100)}
	p.cmd.Env = append(os.Environ(), programVariable+"="+string(text))
	p.cmd.Stderr = logFile(t)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.messages)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var m message
			if json.Unmarshal(lines.Bytes(), &m) == nil { // and not the half of a line at the end
				p.messages <- m
			}
		}
	}()
	t.Cleanup(func() { p.kill() })
	p.replicator = p.next(func(m message) bool { return m.Replicator != 0 }).Replicator
	return p
}

// next waits for a message.
func (p *process) next(wanted func(message) bool) message {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case m, ok := <-p.messages:
			if !ok {
				p.t.Fatal("the program has ended")
			}
			p.last = max(p.last, m.Commit)
			if wanted(m) {
				return m
			}
		case <-timeout.C:
			p.t.Fatal("the program does not get on")
		}
	}
}

// await waits for n more commits.
func (p *process) await(n int) {
	p.t.Helper()
	p.next(func(m message) bool {
		if m.Commit != 0 {
			n--
		}
		return n <= 0
	})
}

// sync returns the transaction of a sync, and a commit that is in it.
func (p *process) sync() (commit int64, txid uint64) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, "sync\n"); err != nil {
		p.t.Fatal(err)
	}
	m := p.next(func(m message) bool { return m.TXID != 0 })
	return m.Synced, m.TXID
}

// kill kills the program, waits until its replicator has ended, and returns the last commit that
// was acknowledged.
func (p *process) kill() int64 {
	_ = p.cmd.Process.Kill() // it may be gone
	for m := range p.messages {
		p.last = max(p.last, m.Commit)
	}
	_ = p.cmd.Wait()
	await(p.t, "the replicator has ended", func() bool { return !runs(p.replicator) })
	return p.last
}

// runs reports whether a process runs. One that has ended may wait for its new parent for ever.
func runs(pid int) bool {
	if pid == 0 {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return syscall.Kill(pid, 0) == nil && (err != nil || !bytes.Contains(stat, []byte(") Z")))
}
