package s3files_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records/s3files"
)

// A file is sent in one piece with its length and a checksum that the
// signature covers, whatever it comes from, and nothing is left in TempDir.
func TestPutRequest(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	cfg := f.config(t)
	s, err := s3files.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	data := pattern(3 << 20)
	hexSum := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, r := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
		if err := s.Put(t.Context(), "id", r, int64(len(data))); err != nil {
			t.Fatal(err)
		}
		all := f.heard()
		if len(all) != 1 {
			t.Fatalf("%d requests", len(all))
		}
		req := all[0]
		got := []string{
			req.Method, req.URL.Path, fmt.Sprint(req.ContentLength), strings.Join(req.TransferEncoding, ","), req.Header.Get("Content-Encoding"),
			req.Header.Get("X-Amz-Content-Sha256"), req.Header.Get("X-Amz-Checksum-Sha256"),
		}
		want := []string{"PUT", "/bucket/p/id", "3145728", "", "", hexSum, sumOf(data)}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		auth := req.Header.Get("Authorization")
		if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=the-id/") || !strings.Contains(auth, "/us-east-1/s3/aws4_request") ||
			!strings.Contains(auth, ";x-amz-checksum-sha256;x-amz-content-sha256;") {
			t.Errorf("Authorization: %s", auth)
		}
	}
	if left, err := os.ReadDir(cfg.TempDir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Nothing but the configuration decides where requests go, and as whom.
func TestEnvironmentIsIgnored(t *testing.T) {
	f := newFake(t)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "env", "AWS_SESSION_TOKEN": "env", "AWS_REGION": "env", "AWS_PROFILE": "env",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_CONFIG_FILE": "env",
	} {
		t.Setenv(name, value)
	}
	s := f.open(t, 0)
	if err := s.Put(t.Context(), "id", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	for _, req := range f.heard() {
		if auth := req.Header.Get("Authorization"); !strings.Contains(auth, "Credential=the-id/") || !strings.Contains(auth, "/us-east-1/") {
			t.Errorf("Authorization: %s", auth)
		}
		if req.Header.Get("X-Amz-Security-Token") != "" {
			t.Error("a token from the environment")
		}
	}
}

// Reading in order takes one request, each change of place another.
func TestReadRequests(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.open(t, 0)
	data := pattern(32 << 20) // more than fits between two ends of a connection
	if err := s.Put(t.Context(), "id", bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
	f.heard()
	file, err := s.Open(t.Context(), "id")
	if err != nil {
		t.Fatal(err)
	}
	var offset int64
	for _, step := range []struct{ seek, n int64 }{{0, 10}, {10, 4096}, {1 << 20, 100}, {1<<20 + 100, 50}, {5, 5}, {int64(len(data)) - 7, 7}, {int64(len(data)), 0}, {3, 0}} {
		if offset, err = file.Seek(step.seek, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(file, step.n))
		if err != nil || !bytes.Equal(got, data[offset:offset+step.n]) {
			t.Fatalf("at %d: %d bytes, %v", offset, len(got), err)
		}
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, req := range f.heard() {
		got = append(got, strings.TrimSpace(req.Method+" "+req.Header.Get("Range")))
	}
	want := []string{"HEAD", "GET", "GET bytes=1048576-", "GET bytes=5-", "GET bytes=33554425-"}
	if !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

// A bucket with more files than fit on a page is listed to its end, in order,
// and no others.
func TestListPages(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.open(t, 0)
	var want []string
	for i := range 2500 {
		id := fmt.Sprintf("%04d", i)
		want = append(want, id)
		for _, key := range []string{"p/" + id, "q/" + id, "p/below/" + id} {
			if _, err := f.backend.PutObject("bucket", key, map[string]string{"Last-Modified": "Mon, 2 Jan 2006 15:04:05 GMT"}, strings.NewReader("x"), 1, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := ids(t.Context(), s)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %d files, want %d: %v", len(got), len(want), err)
	}
	if n := len(f.heard()); n != 3 {
		t.Errorf("%d requests", n)
	}
}

// A bucket that is missing is not a file that is missing: nobody should
// conclude that the files are gone.
func TestNoBucket(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	cfg := f.config(t)
	cfg.Bucket = "another"
	s, err := s3files.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, openErr := s.Open(t.Context(), "id")
	_, listErr := ids(t.Context(), s)
	for what, err := range map[string]error{
		"Put": s.Put(t.Context(), "id", strings.NewReader("x"), 1), "Open": openErr, "Delete": s.Delete(t.Context(), "id"), "List": listErr,
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want another error", what, err)
		}
	}
}

// The way is that of the configuration, also when a server sends us elsewhere.
func TestNoRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := newFake(t)
	f := newFake(t)
	f.misbehave(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	s := f.open(t, 0)
	if err := s.Put(t.Context(), "id", strings.NewReader("x"), 1); err == nil {
		t.Error("no error")
	}
	if _, err := s.Open(t.Context(), "id"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
	if n := len(elsewhere.heard()); n > 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}
