package records_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/records/s3files"
)

var (
	_ records.FileStore = (*records.Dir)(nil)
	_ records.FileStore = (*s3files.Store)(nil)
)

// storeKinds open an empty store each.
func storeKinds() map[string]func(t *testing.T) records.FileStore {
	return map[string]func(t *testing.T) records.FileStore{
		"Dir": func(t *testing.T) records.FileStore { return openStoreDir(t, filepath.Join(t.TempDir(), "files")) },
		"S3":  func(t *testing.T) records.FileStore { return openBucket(t, "") },
		"S3 with a prefix": func(t *testing.T) records.FileStore {
			return openBucket(t, "app/uploads/")
		},
	}
}

func openStoreDir(t *testing.T, path string) *records.Dir {
	t.Helper()
	d, err := records.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// openBucket opens a bucket of this process that holds files of others also.
func openBucket(t *testing.T, prefix string) *s3files.Store {
	t.Helper()
	backend := s3mem.New()
	server := httptest.NewUnstartedServer(gofakes3.New(backend).Server())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"other/" + prefix + "a", prefix + "below/a", prefix + "not_an_id", strings.TrimSuffix(prefix, "/") + ".a"} {
		if _, err := backend.PutObject("bucket", key, nil, strings.NewReader("x"), 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	s, err := s3files.New(s3files.Config{
		Bucket: "bucket", Prefix: prefix, Endpoint: server.URL, PathStyle: true,
		AccessKeyID: "id", SecretAccessKey: "secret", TempDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pattern returns bytes that differ from one place to another.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*7
	}
	return b
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

// sizesOf lists a store.
func sizesOf(t *testing.T, s records.FileStore) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := s.List(t.Context(), func(id string, size int64, stored time.Time) error {
		if _, ok := all[id]; ok {
			t.Errorf("%q is listed twice", id)
		}
		if age := time.Since(stored); age < -time.Minute || age > time.Minute {
			t.Errorf("%q was stored at %v", id, stored)
		}
		all[id] = size
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantSizes(t *testing.T, s records.FileStore, want map[string]int64) {
	t.Helper()
	if got := sizesOf(t, s); !maps.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func putFile(t *testing.T, s records.FileStore, id string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), id, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, s records.FileStore, id string, want []byte) {
	t.Helper()
	f, err := s.Open(t.Context(), id)
	if err != nil {
		t.Error(err)
		return
	}
	got, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Errorf("%s: %v", id, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: read %d bytes, not the %d that were stored", id, len(got), len(want))
	}
}

func wantNoFile(t *testing.T, s records.FileStore, id string) {
	t.Helper()
	if f, err := s.Open(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want fs.ErrNotExist", id, err)
		if err == nil {
			_ = f.Close()
		}
	}
}

func TestFileStores(t *testing.T) {
	t.Parallel()
	for kind, open := range storeKinds() {
		for name, test := range map[string]func(t *testing.T, s records.FileStore){
			"put and open":       testStorePut,
			"replace":            testStoreReplace,
			"seek":               testStoreSeek,
			"delete":             testStoreDelete,
			"list":               testStoreList,
			"wrong sizes":        testStoreWrongSizes,
			"failing reader":     testStoreFailingReader,
			"concurrent":         testStoreConcurrent,
			"list while it goes": testStoreListConcurrent,
			"cancelled":          testStoreCancelled,
			"G1 odd ids":         testStoreOddIDs,
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

func testStorePut(t *testing.T, s records.FileStore) {
	sizes := map[string]int64{}
	for i, size := range []int{0, 1, 511, 4096, 1<<20 + 1, 5 << 20} {
		want := pattern(size)
		ids := []string{fmt.Sprintf("seekable-%d", i), fmt.Sprintf("stream-%d", i), fmt.Sprintf("%d", i), fmt.Sprintf("-%d", i), strings.Repeat("a", 63) + fmt.Sprint(i)}
		for k, id := range ids {
			r := io.Reader(bytes.NewReader(want))
			switch k {
			case 1:
				r = onlyReader{iotest.DataErrReader(r)}
			case 2:
				r = io.MultiReader(bytes.NewReader(want[:size/2]), bytes.NewReader(want[size/2:]))
			case 3: // from the middle of something
				b := bytes.NewReader(append([]byte("before"), want...))
				if _, err := b.Seek(6, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				r = b
			}
			if err := s.Put(t.Context(), id, r, int64(size)); err != nil {
				t.Fatal(err)
			}
			sizes[id] = int64(size)
			wantFile(t, s, id, want)
		}
	}
	wantSizes(t, s, sizes)
	wantNoFile(t, s, "seekable")
	wantNoFile(t, s, "s")
}

func testStoreReplace(t *testing.T, s records.FileStore) {
	putFile(t, s, "id", []byte("first"))
	putFile(t, s, "id", []byte("the second"))
	wantFile(t, s, "id", []byte("the second"))
	wantSizes(t, s, map[string]int64{"id": 10})
}

func testStoreSeek(t *testing.T, s records.FileStore) {
	want := pattern(1 << 20)
	putFile(t, s, "id", want)
	f, err := s.Open(t.Context(), "id")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		offset int64
		whence int
		pos    int64
		length int
	}{
		{0, io.SeekEnd, 1 << 20, 1},
		{0, io.SeekStart, 0, 0},
		{0, io.SeekStart, 0, 10},
		{0, io.SeekCurrent, 10, 100},
		{5, io.SeekCurrent, 115, 70000},
		{-1000, io.SeekEnd, 1<<20 - 1000, 2000},
		{-100, io.SeekCurrent, 1<<20 - 100, 100},
		{1, io.SeekStart, 1, 1 << 20},
		{1 << 40, io.SeekStart, 1 << 40, 1},
		{0, io.SeekStart, 0, 1 << 20},
	} {
		pos, err := f.Seek(step.offset, step.whence)
		if err != nil || pos != step.pos {
			t.Fatalf("Seek(%d, %d): %d, %v, want %d", step.offset, step.whence, pos, err, step.pos)
		}
		got, err := io.ReadAll(io.LimitReader(f, int64(step.length)))
		if err != nil {
			t.Fatal(err)
		}
		from := min(pos, int64(len(want)))
		to := min(from+int64(step.length), int64(len(want)))
		if !bytes.Equal(got, want[from:to]) {
			t.Errorf("at %d: %d bytes, not those of the file", pos, len(got))
		}
	}
	if _, err := f.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought to -1")
	}
	if _, err := f.Seek(0, 7); err == nil {
		t.Error("sought from nowhere")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := f.Seek(0, io.SeekStart); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Seek after Close: %v", err)
	}

	small := pattern(1000)
	putFile(t, s, "small", small)
	if f, err = s.Open(t.Context(), "small"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(iotest.TestReader(f, small), f.Close()); err != nil {
		t.Error(err)
	}
}

func testStoreDelete(t *testing.T, s records.FileStore) {
	putFile(t, s, "a1", []byte("one"))
	putFile(t, s, "a2", []byte("two"))
	for range 2 { // the second time there is none
		if err := s.Delete(t.Context(), "a1"); err != nil {
			t.Error(err)
		}
		wantNoFile(t, s, "a1")
	}
	if err := s.Delete(t.Context(), "never"); err != nil {
		t.Error(err)
	}
	wantFile(t, s, "a2", []byte("two"))
	wantSizes(t, s, map[string]int64{"a2": 3})
}

func testStoreList(t *testing.T, s records.FileStore) {
	wantSizes(t, s, map[string]int64{})
	want := map[string]int64{}
	for i := range 30 {
		id := fmt.Sprintf("%x-%d", i, i)
		putFile(t, s, id, pattern(i))
		want[id] = int64(i)
	}
	wantSizes(t, s, want)
	stop := errors.New("stop")
	calls := 0
	err := s.List(t.Context(), func(string, int64, time.Time) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("List ended with %v after %d calls", err, calls)
	}
	// A sweep deletes what it is told of.
	err = s.List(t.Context(), func(id string, _ int64, _ time.Time) error { return s.Delete(t.Context(), id) })
	if err != nil {
		t.Error(err)
	}
	wantSizes(t, s, map[string]int64{})
}

func testStoreWrongSizes(t *testing.T, s records.FileStore) {
	putFile(t, s, "old", []byte("old"))
	for name, tt := range map[string]struct {
		length int
		size   int64
		err    error
	}{
		"one short":  {999, 1000, io.ErrUnexpectedEOF},
		"empty":      {0, 1, io.ErrUnexpectedEOF},
		"short":      {1 << 20, 4 << 20, io.ErrUnexpectedEOF},
		"endless":    {10, 1<<63 - 1, io.ErrUnexpectedEOF},
		"one long":   {1001, 1000, fs.ErrInvalid},
		"not empty":  {1, 0, fs.ErrInvalid},
		"long":       {4 << 20, 1 << 20, fs.ErrInvalid},
		"negative":   {1, -1, fs.ErrInvalid},
		"negative 2": {0, -1 << 63, fs.ErrInvalid},
	} {
		for _, id := range []string{"new", "old"} {
			for _, r := range []io.Reader{bytes.NewReader(pattern(tt.length)), onlyReader{bytes.NewReader(pattern(tt.length))}} {
				if err := s.Put(t.Context(), id, r, tt.size); !errors.Is(err, tt.err) {
					t.Errorf("%s: %v, want %v", name, err, tt.err)
				}
			}
		}
	}
	wantNoFile(t, s, "new")
	wantFile(t, s, "old", []byte("old"))
	wantSizes(t, s, map[string]int64{"old": 3})
}

func testStoreFailingReader(t *testing.T, s records.FileStore) {
	broken := errors.New("broken")
	for _, before := range []int{0, 10, 1 << 20, 2 << 20} {
		r := io.MultiReader(bytes.NewReader(pattern(before)), iotest.ErrReader(broken))
		if err := s.Put(t.Context(), "id", r, 2<<20); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", before, err)
		}
	}
	wantNoFile(t, s, "id")
	wantSizes(t, s, map[string]int64{})
}

func testStoreConcurrent(t *testing.T, s records.FileStore) {
	want := map[string]int64{"same": 100}
	var wg sync.WaitGroup
	for g := range 8 {
		for i := range 4 {
			want[fmt.Sprintf("ab-%d-%d", g, i)] = int64(1000 * g)
		}
		wg.Go(func() {
			for i := range 4 {
				id := fmt.Sprintf("ab-%d-%d", g, i)
				data := bytes.Repeat([]byte{byte(g*4 + i)}, 1000*g)
				if err := s.Put(t.Context(), id, bytes.NewReader(data), int64(len(data))); err != nil {
					t.Error(err)
				}
				wantFile(t, s, id, data)
				if err := s.Put(t.Context(), "same", bytes.NewReader(bytes.Repeat([]byte{byte(g)}, 100)), 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantSizes(t, s, want)
	f, err := s.Open(t.Context(), "same")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 100 || !bytes.Equal(got, bytes.Repeat(got[:1], 100)) {
		t.Errorf("a mixture: %v", got)
	}
}

// What is there all the time is listed, whatever else comes and goes.
func testStoreListConcurrent(t *testing.T, s records.FileStore) {
	var stay []string
	for i := range 20 {
		stay = append(stay, fmt.Sprintf("%d0-stays", i))
		putFile(t, s, stay[i], []byte("x"))
	}
	slices.Sort(stay)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%d%d-goes", i%20, g)
				if err := s.Put(t.Context(), id, strings.NewReader("y"), 1); err != nil {
					t.Error(err)
				}
				if err := s.Delete(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		var got []string
		err := s.List(t.Context(), func(id string, _ int64, _ time.Time) error {
			if strings.HasSuffix(id, "stays") {
				got = append(got, id)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if slices.Sort(got); !slices.Equal(got, stay) {
			t.Errorf("listed %v, want %v", got, stay)
		}
	}
	cancel()
	wg.Wait()
}

func testStoreCancelled(t *testing.T, s records.FileStore) {
	putFile(t, s, "old", []byte("old"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancelLate()
	for ctx, want := range map[context.Context]error{cancelled: context.Canceled, late: context.DeadlineExceeded} {
		if err := s.Put(ctx, "new", strings.NewReader("new"), 3); !errors.Is(err, want) {
			t.Errorf("Put: %v", err)
		}
		if err := s.Put(ctx, "new", strings.NewReader(""), 0); !errors.Is(err, want) {
			t.Errorf("Put: %v", err)
		}
		if _, err := s.Open(ctx, "old"); !errors.Is(err, want) {
			t.Errorf("Open: %v", err)
		}
		if err := s.Delete(ctx, "old"); !errors.Is(err, want) {
			t.Errorf("Delete: %v", err)
		}
		err := s.List(ctx, func(string, int64, time.Time) error { return errors.New("called") })
		if !errors.Is(err, want) {
			t.Errorf("List: %v", err)
		}
	}
	// While it is being read.
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(strings.NewReader("begins"), readerFunc(func(p []byte) (int, error) {
		cancel()
		return copy(p, "ends"), nil
	}))
	if err := s.Put(ctx, "new", r, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	wantNoFile(t, s, "new")
	wantFile(t, s, "old", []byte("old"))
	wantSizes(t, s, map[string]int64{"old": 3})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func testStoreOddIDs(t *testing.T, s records.FileStore) {
	putFile(t, s, "ok", []byte("ok"))
	for _, id := range []string{
		"", ".", "..", "../x", "../../x", "/", "/etc/passwd", "a/b", "a/../ok", "ok/", "ok/.", "./ok", `..\x`, `a\b`, "C:", "c:ok",
		"a\x00", "ok\x00.txt", "\x00", "a b", " ok", "ok ", "ok\n", "a.b", "a_b", "é", "ｏｋ", "\u202eok", "o\xffk", "%6fk", "ok?versionId=1", "ok#x",
		strings.Repeat("a", 65), strings.Repeat("a", 4096), strings.Repeat("../", 1365) + "x", "tmp/x", "tmp/", "*", "~", "$HOME",
	} {
		ctx := t.Context()
		f, err := s.Open(ctx, id)
		if err == nil {
			_ = f.Close()
		}
		for what, err := range map[string]error{
			"Put": s.Put(ctx, id, strings.NewReader("x"), 1), "Open": err, "Delete": s.Delete(ctx, id),
		} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s %.20q: %v, want fs.ErrInvalid", what, id, err)
			} else if len(err.Error()) > 200 || strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("%s %.20q: the error repeats it", what, id)
			}
		}
	}
	// Odd, but ids all the same.
	for _, id := range []string{"tmp", "CON", "nul", "-", "--", "-rf", "0", strings.Repeat("Z", 64)} {
		putFile(t, s, id, []byte(id))
		wantFile(t, s, id, []byte(id))
		if err := s.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	wantSizes(t, s, map[string]int64{"ok": 2})
}

// A program that cannot write where the files are is told so when it starts.
func TestOpenDirRefusals(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", file, filepath.Join(file, "below"), filepath.Join(parent, "no", "parent"), "a\x00b"} {
		if d, err := records.OpenDir(path); err == nil {
			t.Errorf("opened %q", path)
			_ = d.Close()
		}
	}
}
