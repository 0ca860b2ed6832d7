package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is no order of this user is not obeyed, and told once only.
func TestOrders(t *testing.T) {
	t.Parallel()
	const valid = `{"id":"x","force":true}`
	for name, tt := range map[string]struct {
		make   func(t *testing.T, file string)
		want   string // in the log
		remain bool   // it cannot be removed
	}{
		"no JSON": {func(t *testing.T, file string) { write(t, file, "{") }, "unexpected end", false},
		"symbolic link": {func(t *testing.T, file string) {
			write(t, file+"-target", valid)
			if err := os.Symlink(file+"-target", file); err != nil {
				t.Fatal(err)
			}
		}, "an order is refused", false},
		"too long":      {func(t *testing.T, file string) { write(t, file, `{"id":"`+strings.Repeat("x", maxName+1)+`"}`) }, "too long", false},
		"much too long": {func(t *testing.T, file string) { write(t, file, valid+strings.Repeat(" ", maxSmall)) }, "is larger than", false},
		"directory": {func(t *testing.T, file string) {
			if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not a file", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, tt.make, tt.want, tt.remain)
		})
	}
}

// wantRefused makes the file of an order and looks at it some times.
func wantRefused(t *testing.T, order func(t *testing.T, file string), want string, remain bool) {
	t.Helper()
	var log bytes.Buffer
	conf := &config{DataDir: t.TempDir()}
	if err := conf.makeBackupDir(); err != nil {
		t.Fatal(err)
	}
	b := &backups{conf: conf, log: slog.New(slog.NewTextHandler(&log, nil)), changed: make(chan struct{}, 1)}
	order(t, conf.orderFile())
	for range 3 {
		if b.obey(t.Context()) {
			t.Error("it is obeyed")
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) || strings.Contains(got, "being promoted") {
		t.Errorf("the log is\n%s", got)
	}
	if _, err := os.Lstat(conf.orderFile()); (err == nil) != remain {
		t.Errorf("after that: %v", err)
	}
}

func TestCheckOwner(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	me := os.Geteuid()
	if err := checkOwner("x", info, me+1, me); err != nil {
		t.Error(err)
	}
	if _, known := ownerOf(info); known {
		if err := checkOwner("x", info, me+1); err == nil {
			t.Error("a file of another user is taken")
		}
	}
}

// The temporary name may be that of a link to elsewhere.
func TestReplaceSmall(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "small")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	write(t, elsewhere, "kept")
	if err := os.Symlink(elsewhere, file+".new"); err != nil {
		t.Fatal(err)
	}
	if err := replaceSmall(file, "new"); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := readSmall(file, &got, os.Geteuid()); err != nil || got != "new" {
		t.Errorf("%q, %v", got, err)
	}
	if text, err := os.ReadFile(elsewhere); err != nil || string(text) != "kept" {
		t.Errorf("elsewhere: %q, %v", text, err)
	}
}

// Where the databases were, but are no more, a promotion counts for nothing.
func TestRecall(t *testing.T) {
	t.Parallel()
	conf := &config{DataDir: t.TempDir(), Databases: []string{"other", "third"}}
	if err := conf.makeBackupDir(); err != nil {
		t.Fatal(err)
	}
	promoted := func() string {
		t.Helper()
		b := &backups{conf: conf}
		for _, name := range conf.databases() {
			b.databases = append(b.databases, backedUp{name: name})
		}
		if err := b.recall(); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range b.databases {
			if d.promoted {
				names = append(names, d.name)
			}
		}
		return strings.Join(names, " ")
	}
	write(t, conf.databaseFile("main"), "a database")
	if got := promoted(); got != "" {
		t.Errorf("a database that nobody has promoted: %q", got)
	}
	write(t, conf.databaseFile("third"), "")
	if err := replaceSmall(conf.promotedFile(), []string{"main", "other", "third", "fourth"}); err != nil {
		t.Fatal(err)
	}
	if got := promoted(); got != "main" {
		t.Errorf("promoted: %q", got)
	}
	if err := os.Remove(conf.databaseFile("main")); err != nil {
		t.Fatal(err)
	}
	if got := promoted(); got != "" {
		t.Errorf("moved away: %q", got)
	}
	write(t, conf.databaseFile("main"), "of another server")
	if got := promoted(); got != "" {
		t.Errorf("made anew: %q", got)
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"one\n\ttwo \"three\" é": "one\n\ttwo \"three\" é", "\x1b]0;x\a": `\x1b]0;x\a`,
		"\u009b31m": `\u009b31m`, "a\rb": `a\rb`, "\u202e": `\u202e`, "it's": "it's",
	} {
		if got := shown(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSnapshotTime(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	for file, ok := range map[string]bool{
		"/x/main-20261121T030000Z.db": true, "my-db-20261121T030000Z_01.db": true,
		"main-20261121T030000Z.db.gz": false, "main-20261321T030000Z.db": false, "-20261121T030000Z.db": false, "main.db": false,
	} {
		if at, is := snapshotTime(file); is != ok || ok && !at.Equal(want) {
			t.Errorf("%s: %v, %v", file, at, is)
		}
	}
}
