package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// describeMachine says where and with what the numbers were made.
func describeMachine(dir string, bin binaries) []string {
	lines := []string{
		time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		fmt.Sprintf("%d × %s", runtime.NumCPU(), procField("/proc/cpuinfo", "model name")),
		"memory " + procField("/proc/meminfo", "MemTotal"),
		fmt.Sprintf("%s, Linux %s, data on %s", runtime.Version(), firstLine("/proc/sys/kernel/osrelease"), filesystem(dir)),
		"load average at the start " + firstLine("/proc/loadavg"),
	}
	if fsync, err := fsyncTime(dir); err == nil {
		lines = append(lines, fmt.Sprintf("4 KiB append and fsync, median %v", fsync.Round(time.Microsecond)))
	}
	if version := peerVersion(bin["pocketbase"]); version != "" {
		lines = append(lines, "PocketBase "+version)
	}
	return lines
}

// peerVersion reads from the binary which PocketBase it contains.
func peerVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/pocketbase/pocketbase" {
			return dep.Version
		}
	}
	return ""
}

// procField returns the first value of a "name: value" line.
func procField(path, name string) string {
	data, _ := os.ReadFile(path)
	for line := range strings.SplitSeq(string(data), "\n") {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func firstLine(path string) string {
	data, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// filesystem names the kind of file system dir is on. On one in memory the
// durable writes cost nothing and say nothing.
func filesystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	switch st.Type {
	case 0xef53:
		return "ext4"
	case 0x58465342:
		return "xfs"
	case 0x9123683e:
		return "btrfs"
	case 0x01021994:
		return "tmpfs (durable writes are not measured!)"
	case 0x794c7630:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

// fsyncTime is the median time of appending a page to a file and syncing it.
func fsyncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	var times []float64
	for range 50 {
		begin := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(begin)))
	}
	return time.Duration(median(times)), nil
}
