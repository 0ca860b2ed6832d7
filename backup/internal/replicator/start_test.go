package replicator_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// A variable that is left over in the environment does not turn a program into a replicator.
func TestStaleVariable(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{
		"file:1:nonce", "file:" + fmt.Sprint(os.Getpid()), "file:x:nonce", "file:-1:nonce",
		fmt.Sprintf("other:%d:nonce", os.Getpid()), fmt.Sprintf("file:%d:", os.Getpid()), ":::", "file",
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe, "-test.run=^$", "-test.v")
			cmd.Env = append(os.Environ(), wire.Env+"="+value)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("PASS")) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestOrderRefused(t *testing.T) {
	t.Parallel()
	url := "file://" + t.TempDir()
	for _, test := range []struct {
		name    string
		order   wire.Order
		setting setting
		code    wire.Code
		want    string
	}{
		{"nonce", wire.Order{URL: url, Mode: wire.List}, setting{nonce: "another"}, "", "not for this process"},
		{"protocol", wire.Order{URL: url, Mode: wire.List, Protocol: wire.Protocol + 1}, setting{}, "", "version 2 of the protocol"},
		{"garbage", wire.Order{URL: url}, setting{line: []byte("{{{")}, "", "cannot be understood"},
		{"nothing", wire.Order{URL: url}, setting{line: []byte("")}, "", "cannot be understood"},
		{"too long", wire.Order{URL: url}, setting{line: bytes.Repeat([]byte("x"), 2<<20)}, "", "longer than"},
		{"mode", wire.Order{URL: url, Mode: "dance"}, setting{}, "", `unknown mode "dance"`},
		{"variable", wire.Order{URL: url, Mode: wire.List, Env: map[string]string{"A=B": "c"}}, setting{}, wire.CodeConfig, "cannot be set"},
		{"url", wire.Order{URL: "file:relative", Mode: wire.List}, setting{}, wire.CodeConfig, "has to be absolute"},
		{"panic", wire.Order{URL: "faulty:///panic", Mode: wire.List, Env: map[string]string{"X": "s3cr3t"}}, setting{}, "", "panic: the client has a bug, and tells ***"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := startChild(t, test.order, test.setting)
			e := c.done()
			if e.Code != test.code || !strings.Contains(e.Error, test.want) {
				t.Errorf("%q %q, want %q %q", e.Code, e.Error, test.code, test.want)
			}
			if c.cmd.ProcessState.Success() {
				t.Error("it exits with 0")
			}
			if first := c.all()[0]; first.Kind != wire.Hello || first.Protocol != wire.Protocol {
				t.Errorf("first it says %+v", first)
			}
		})
	}
}

// A replicator whose program dies at once must not run as the program.
func TestOrphan(t *testing.T) {
	t.Parallel()
	c := startChild(t, wire.Order{URL: "file://" + t.TempDir(), Mode: "dance"}, setting{
		env: "file:1:text", name: "app (replicator of 1)", nonce: "text",
	})
	if e := c.done(); !strings.Contains(e.Error, "unknown mode") {
		t.Errorf("%+v", e)
	}
}

// What a replicator needs to know is neither in its arguments nor in its environment.
func TestNothingToSee(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.order.Env = map[string]string{"AWS_SECRET_ACCESS_KEY": "top-secret-value"}
	c := s.replicate()
	for _, name := range []string{"environ", "cmdline"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.cmd.Process.Pid, name))
		if err != nil {
			t.Skip(err)
		}
		if bytes.Contains(text, []byte("top-secret")) || bytes.Contains(text, []byte(s.replica)) {
			t.Errorf("%s holds %q", name, text)
		}
	}
}

// A program that does not listen stops nothing.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.order.FinalSync = time.Hour
	c := s.replicate()
	s.exec("INSERT INTO t (v) VALUES ('x')")
	if e := c.end(); e.Error != "" || e.TXID == 0 || e.TXID != e.ReplicaTXID {
		t.Errorf("%+v", e)
	}
	if n := s.rows(); n != 1 {
		t.Errorf("%d rows", n)
	}
}
