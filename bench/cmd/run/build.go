package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// binaries are the built programs: name to path.
type binaries map[string]string

// program says how one binary is built.
type program struct {
	pkg  string
	tags string
}

var programs = map[string]program{
	"load":             {pkg: "./cmd/load"},
	"sse":              {pkg: "./cmd/sse"},
	"bare":             {pkg: "./cmd/bare"},
	"ours":             {pkg: "./cmd/ours"},
	"pocketbase":       {pkg: "./cmd/pocketbase"},
	"pocketbase-mattn": {pkg: "./cmd/pocketbase", tags: "no_default_driver"},
	"slowfs.so":        {pkg: "slowfs.c"},
}

// build makes what the servers need, stripped, in dir.
func build(ctx context.Context, dir string, servers []server) (binaries, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	needed := map[string]bool{"load": true, "sse": true}
	for _, s := range servers {
		needed[s.binary] = true
		if s.slow {
			needed["slowfs.so"] = true
		}
	}
	bin := make(binaries)
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		progress("building %s", name)
		p, out := programs[name], filepath.Join(dir, name)
		var cmd *exec.Cmd
		if name == "slowfs.so" {
			cmd = exec.CommandContext(ctx, "gcc", "-O2", "-shared", "-fPIC", "-o", out, p.pkg, "-ldl")
		} else {
			cmd = exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", p.tags, "-o", out, p.pkg)
		}
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", name, err, text)
		}
		bin[name] = out
	}
	return bin, nil
}
