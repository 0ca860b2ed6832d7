package seal_test

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/bedplate/bedplate/internal/seal"
)

// line returns the line of a key file for a secret.
func line(secret []byte) string {
	return "bedplate-key-1 " + base64.RawURLEncoding.EncodeToString(secret) + "\n"
}

// write puts text into a new file of mode 0600.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreateFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "master.key")
	created, err := seal.CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := seal.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loaded.Open("a", created.Seal("a", []byte("seed"))); err != nil || string(got) != "seed" {
		t.Errorf("loaded key opens what the created one sealed: %q, %v", got, err)
	}

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^bedplate-key-1 [A-Za-z0-9_-]{43}\n$`).Match(text) {
		t.Errorf("file does not have the documented form")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %d entries, %v; want the key file alone", len(entries), err)
	}

	other, err := seal.CreateFile(filepath.Join(dir, "other.key"))
	if err != nil {
		t.Fatal(err)
	}
	if other.Derive("a") == created.Derive("a") {
		t.Errorf("two files have the same key")
	}
}

func TestCreateFileExists(t *testing.T) {
	t.Parallel()
	path := write(t, "mine")
	if k, err := seal.CreateFile(path); !errors.Is(err, fs.ErrExist) || k != nil {
		t.Errorf("CreateFile over a file: %v, want fs.ErrExist", err)
	} else if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".bedplate-key-") {
		t.Errorf("error %q does not name the file alone", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("CreateFile changed the file that was there")
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %d entries, %v; want 1", len(entries), err)
	}
	if _, err := seal.CreateFile(filepath.Join(path, "x")); err == nil {
		t.Errorf("CreateFile below a file succeeds")
	}
}

// Many create at once and many read meanwhile: one key comes out of it, and
// nobody sees a file that is not complete.
func TestJ7_CreateFileRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	const n = 16
	var created [n]*seal.Key
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			k, err := seal.CreateFile(path)
			switch {
			case err == nil:
				created[i] = k
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("CreateFile: %v", err)
			}
			// Whoever has lost finds the key of the winner.
			if _, err := seal.LoadFile(path); err != nil {
				t.Errorf("LoadFile after CreateFile: %v", err)
			}
		})
		wg.Go(func() {
			for {
				_, err := seal.LoadFile(path)
				if err == nil {
					return
				}
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("LoadFile meanwhile: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()

	loaded, err := seal.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	winners := 0
	for _, k := range created {
		if k == nil {
			continue
		}
		winners++
		if k.Derive("a") != loaded.Derive("a") {
			t.Errorf("the winner has another key than the file")
		}
	}
	if winners != 1 {
		t.Errorf("%d have created the file, want 1", winners)
	}
}

func TestLoadFileRotation(t *testing.T) {
	t.Parallel()
	before, after := newKey(t, 1), newKey(t, 2)
	old := before.Seal("a", []byte("old"))

	both, err := seal.LoadFile(write(t, "# since spring\n"+line(secret(2))+"\r\n\n# until then\r\n"+
		strings.TrimSuffix(line(secret(1)), "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := both.Open("a", old); err != nil || string(got) != "old" {
		t.Errorf("the second key does not open: %q, %v", got, err)
	}
	sealed := both.Seal("a", []byte("new"))
	if got, err := after.Open("a", sealed); err != nil || string(got) != "new" {
		t.Errorf("the first key does not seal: %q, %v", got, err)
	}
	if _, err := before.Open("a", sealed); err != seal.ErrOtherKey {
		t.Errorf("the old key alone: %v, want ErrOtherKey", err)
	}
	if both.Derive("a") != after.Derive("a") {
		t.Errorf("Derive does not take the first key")
	}
}

func TestJ7_LoadFileMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	k, err := seal.LoadFile(path)
	if !errors.Is(err, fs.ErrNotExist) || k != nil {
		t.Fatalf("LoadFile: %v, want fs.ErrNotExist", err)
	}
	if strings.Count(err.Error(), path) != 1 {
		t.Errorf("error %q does not name the path once", err)
	}
}

func TestJ7_LoadFileRefusesText(t *testing.T) {
	t.Parallel()
	good := line(secret(1))
	encoded := strings.TrimSpace(strings.TrimPrefix(good, "bedplate-key-1 "))
	for _, test := range []struct {
		name, text, reason string
	}{
		{"empty", "", "empty"},
		{"blank", "\n\n\r\n", "empty"},
		{"only comments", "# nothing here\n", "empty"},
		{"cut by a byte", good[:len(good)-2], "line 1: key is cut short"},
		{"cut in the middle", good[:30], "line 1: key is cut short"},
		{"cut in the prefix", good[:8], "line 1: not a key"},
		{"second key cut", good + line(secret(2))[:40], "line 2: key is cut short"},
		{"zero key", line(make([]byte, 32)), "line 1: all bytes are zero"},
		{"second key zero", good + line(make([]byte, 32)), "line 2: all bytes are zero"},
		{"key twice", good + "# again\n" + good, "line 3: key stands there twice"},
		{"too long a key", line(append(secret(1), 1)), "line 1: key is cut short or too long"},
		{"padded", strings.TrimSpace(good) + "=\n", "line 1: key is cut short or too long"},
		{"ordinary base64", "bedplate-key-1 " + base64.RawStdEncoding.EncodeToString(
			[]byte(strings.Repeat("\xFB\xEF\xBE\xFF", 8))), "line 1: key is not base64url"},
		{"trailing bits", "bedplate-key-1 " + strings.Repeat("A", 42) + "B\n", "line 1: key is not base64url"},
		{"line break inside", "bedplate-key-1 " + encoded[:20] + "\r" + encoded[21:] + "\n", "line 1: "},
		{"no prefix", encoded + "\n", "line 1: not a key"},
		{"other version", strings.Replace(good, "-1 ", "-2 ", 1), "line 1: not a key"},
		{"two spaces", strings.Replace(good, " ", "  ", 1), "line 1: key is cut short or too long"},
		{"space before", " " + good, "line 1: not a key"},
		{"space after", strings.TrimSpace(good) + " \n", "line 1: key is cut short or too long"},
		{"byte order mark", "\xEF\xBB\xBF" + good, "line 1: not a key"},
		{"garbage", "\x00\x01\xFF garbage", "line 1: not a key"},
		{"zero bytes", strings.Repeat("\x00", 59), "line 1: not a key"},
		{"PEM", "-----BEGIN PRIVATE KEY-----\n", "line 1: not a key"},
		{"garbage below", good + "password: hunter2\n", "line 2: not a key"},
		{"too large", good + "#" + strings.Repeat("x", 4<<10-len(good)), "larger than 4096 bytes"},
		{"far too large", good + strings.Repeat("#\n", 1<<20), "larger than 4096 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := write(t, test.text)
			k, err := seal.LoadFile(path)
			wantRefusal(t, k, err, path, test.reason)
			for _, s := range []string{"hunter2", encoded[:8], "\xFF"} {
				if err != nil && strings.Contains(err.Error(), s) {
					t.Errorf("error %q quotes the file", err)
				}
			}
		})
	}

	if _, err := seal.LoadFile(write(t, good+"#"+strings.Repeat("x", 4<<10-len(good)-1))); err != nil {
		t.Errorf("a file of exactly 4 KiB: %v", err)
	}
}

// wantRefusal checks for an error that has path and reason, and that does not
// pass for a missing file: nobody may put a new key in its place.
func wantRefusal(t *testing.T, k *seal.Key, err error, path, reason string) {
	t.Helper()
	switch {
	case err == nil || k != nil:
		t.Fatalf("LoadFile: %v, %v; want an error", k, err)
	case errors.Is(err, fs.ErrNotExist):
		t.Errorf("error %q passes for a missing file", err)
	case !strings.Contains(err.Error(), path+": "+reason):
		t.Errorf("error %q, want path and %q", err, reason)
	}
}
