// Package proc reads what processes consume, from /proc.
package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Used is what a server and this program had consumed at one moment.
type Used struct {
	Server time.Duration // CPU time
	Client time.Duration // CPU time
	RSS    float64       // of the server, in units of 2^20 bytes
}

// Usage reads the counters. A pid of 0 leaves the server's at zero.
func Usage(pid int) (Used, error) {
	var u Used
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return u, fmt.Errorf("reading own CPU time: %w", err)
	}
	u.Client = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	if pid == 0 {
		return u, nil
	}
	var err error
	if u.Server, err = cpuTime(pid); err != nil {
		return u, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	if u.RSS, err = residentMB(pid); err != nil {
		return u, fmt.Errorf("reading the server's memory: %w", err)
	}
	return u, nil
}

// cpuTime sums the time every thread of the process spent on a CPU. It has
// nanosecond resolution, unlike the clock ticks of /proc/PID/stat.
func cpuTime(pid int) (time.Duration, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(stats) == 0 {
		return 0, fmt.Errorf("process %d: %w", pid, errors.Join(err, fs.ErrNotExist))
	}
	var sum time.Duration
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		field, _, _ := strings.Cut(string(data), " ")
		ns, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parsing %s: %w", name, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// residentMB is the process's resident memory in units of 2^20 bytes.
func residentMB(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		value, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 64)
		if err != nil {
			return 0, fmt.Errorf("parsing VmRSS: %w", err)
		}
		return kb / 1024, nil
	}
	return 0, errors.New("no VmRSS")
}
