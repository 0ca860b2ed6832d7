package records_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bedplate/bedplate/records"
)

// filesBelow returns the paths of what is in a directory and is no directory.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDirKeepsFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "files") + string(filepath.Separator)
	d := openStoreDir(t, path)
	putFile(t, d, "0190a6ce-one", []byte("one"))
	other := openStoreDir(t, path)
	wantFile(t, other, "0190a6ce-one", []byte("one"))
	putFile(t, other, "0190a6ce-two", []byte("two"))
	wantSizes(t, d, map[string]int64{"0190a6ce-one": 3, "0190a6ce-two": 3})

	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// Directories that are removed come again.
	if err := os.RemoveAll(filepath.Join(path, "01")); err != nil {
		t.Fatal(err)
	}
	wantNoFile(t, d, "0190a6ce-one")
	wantSizes(t, d, map[string]int64{})
	putFile(t, d, "0190a6ce-one", []byte("again"))
	wantFile(t, other, "0190a6ce-one", []byte("again"))
}

func TestDirClosed(t *testing.T) {
	t.Parallel()
	d, err := records.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	putFile(t, d, "id", []byte("x"))
	f, err := d.Open(t.Context(), "id")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "x" {
		t.Errorf("a file that was open: %q, %v", got, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, openErr := d.Open(t.Context(), "id")
	for what, err := range map[string]error{
		"Put": d.Put(t.Context(), "id", strings.NewReader("y"), 1), "Open": openErr, "Delete": d.Delete(t.Context(), "id"),
		"List": d.List(t.Context(), func(string, int64, time.Time) error { return nil }),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: %v, want fs.ErrClosed", what, err)
		}
	}
}

// A failed upload leaves nothing; one that was cut off is listed and can be
// deleted, as is nothing else that may be lying about.
func TestDirLeftovers(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := openStoreDir(t, path)
	putFile(t, d, "id", []byte("x"))
	for _, r := range []io.Reader{strings.NewReader("short"), iotest.ErrReader(errors.New("broken")), bytes.NewReader(pattern(1 << 20))} {
		if err := d.Put(t.Context(), "id", r, 1<<19); err == nil {
			t.Error("stored what is broken")
		}
	}
	if got := filesBelow(t, path); len(got) != 1 {
		t.Errorf("left %v", got)
	}

	// During an upload there is a file that is not under its id yet.
	arriving := map[string]int64{}
	r := readerFunc(func([]byte) (int, error) {
		arriving = sizesOf(t, d)
		return 0, io.ErrUnexpectedEOF
	})
	if err := d.Put(t.Context(), "new", io.MultiReader(strings.NewReader("half"), r), 8); err == nil {
		t.Error("stored what is broken")
	}
	if len(arriving) != 2 || arriving["id"] != 1 || arriving["new"] != 0 {
		t.Errorf("listed %v during an upload", arriving)
	}
	wantSizes(t, d, map[string]int64{"id": 1})

	for _, name := range []string{"tmp/CUTOFF", "tmp/not an id", "id/idid", "id/other", "id/not an id", "toplevel", "long/longer"} {
		name = filepath.Join(path, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("yy"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(path, "id", "iddir"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantSizes(t, d, map[string]int64{"id": 1, "idid": 2, "CUTOFF": 2})
	if f, err := d.Open(t.Context(), "iddir"); err == nil {
		t.Error("opened a directory")
		_ = f.Close()
	}
	wantNoFile(t, d, "CUTOFF")
	if err := d.Delete(t.Context(), "CUTOFF"); err != nil {
		t.Error(err)
	}
	wantSizes(t, d, map[string]int64{"id": 1, "idid": 2})
}

// Links that somebody planted lead nowhere: nothing outside is read, listed,
// written or deleted.
func TestG1_DirLinks(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(dir, outside string) error{
		"file": func(dir, outside string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "id"), 0o700), os.Symlink(filepath.Join(outside, "id"), filepath.Join(dir, "id", "id")))
		},
		"relative": func(dir, outside string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "id"), 0o700), os.Symlink("../../outside/id", filepath.Join(dir, "id", "id")))
		},
		"inside": func(dir, outside string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "id"), 0o700), os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600),
				os.Symlink("../secret", filepath.Join(dir, "id", "id")))
		},
		"dangling": func(dir, outside string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "id"), 0o700), os.Symlink(filepath.Join(outside, "new"), filepath.Join(dir, "id", "id")))
		},
		"directory": func(dir, outside string) error { return os.Symlink(outside, filepath.Join(dir, "id")) },
		"arriving": func(dir, outside string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "tmp")), os.Symlink(outside, filepath.Join(dir, "tmp")))
		},
		"both": func(dir, outside string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "tmp")), os.Symlink(outside, filepath.Join(dir, "tmp")), os.Symlink(outside, filepath.Join(dir, "id")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			dir, outside := filepath.Join(base, "files"), filepath.Join(base, "outside")
			if err := errors.Join(os.Mkdir(outside, 0o700), os.WriteFile(filepath.Join(outside, "id"), []byte("secret"), 0o600)); err != nil {
				t.Fatal(err)
			}
			d := openStoreDir(t, dir)
			if err := plant(dir, outside); err != nil {
				t.Fatal(err)
			}
			look := func(when string) {
				t.Helper()
				if f, err := d.Open(t.Context(), "id"); err == nil {
					if b, _ := io.ReadAll(f); string(b) != "ours" {
						t.Errorf("%s: read %q", when, b)
					}
					_ = f.Close()
				}
				for id, size := range sizesOf(t, d) {
					if id != "id" || size != 4 {
						t.Errorf("%s: listed %s of %d bytes", when, id, size)
					}
				}
				got := filesBelow(t, outside)
				if len(got) != 1 {
					t.Fatalf("%s: outside there are %v", when, got)
				}
				if b, err := os.ReadFile(got[0]); err != nil || string(b) != "secret" {
					t.Errorf("%s: outside there is %q, %v", when, b, err)
				}
			}
			look("at first")
			_ = d.Put(t.Context(), "id", strings.NewReader("ours"), 4) // where a file is a link, it is replaced
			look("after Put")
			_ = d.Delete(t.Context(), "id")
			look("after Delete")
		})
	}
}

// A process that is killed leaves no file under its id that is not complete,
// loses none that it said to be stored, and all it leaves can be found.
func TestDirKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts many processes")
	}
	path := filepath.Join(t.TempDir(), "files")
	leftovers := 0
	for round := range 20 {
		stored := killWhileStoring(t, path, rand.IntN(30))
		d, err := records.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		complete := map[string]bool{}
		for id := range sizesOf(t, d) {
			f, err := d.Open(t.Context(), id)
			if errors.Is(err, fs.ErrNotExist) {
				leftovers++
			} else if err != nil {
				t.Fatal(err)
			} else {
				content, err := io.ReadAll(f)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				if idOf(content) != id {
					t.Errorf("round %d: %s has %d bytes that are not its own", round, id, len(content))
				}
				complete[id] = true
			}
			if err := d.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		for _, id := range stored {
			if !complete[id] {
				t.Errorf("round %d: %s was stored and is lost", round, id)
			}
		}
		if left := filesBelow(t, path); len(left) > 0 {
			t.Errorf("round %d: %v is left", round, left)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d uploads were cut off", leftovers)
}

// killWhileStoring starts a process that stores files, kills it when it has
// said some things, and returns which files it said to be stored.
func killWhileStoring(t *testing.T, path string, after int) (stored []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDirKilledChild$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), "RECORDS_TEST_STORE="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	said := 0
	for lines.Scan() {
		id, ok := strings.CutPrefix(lines.Text(), "stored ")
		if ok {
			stored = append(stored, id)
		} else if lines.Text() != "storing" {
			continue
		}
		if said++; said == after+1 {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if said <= after {
		t.Fatalf("the process ended by itself after %q", stored)
	}
	return stored
}

// TestDirKilledChild is the process of TestDirKilled.
func TestDirKilledChild(t *testing.T) {
	path := os.Getenv("RECORDS_TEST_STORE")
	if path == "" {
		t.Skip("runs in a child process only")
	}
	d, err := records.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		go func() {
			for {
				content := make([]byte, rand.IntN(64<<10))
				for i := range content {
					content[i] = byte(rand.Uint32())
				}
				id := idOf(content)
				fmt.Println("storing")
				// Many small writes, so that some are interrupted between two.
				if err := d.Put(context.Background(), id, io.LimitReader(onlyReader{iotest.OneByteReader(bytes.NewReader(content))}, 1<<20), int64(len(content))); err != nil {
					panic(err)
				}
				fmt.Println("stored " + id)
			}
		}()
	}
	select {}
}

func idOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:16])
}
