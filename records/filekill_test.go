package records_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/sqlite"
)

var killRounds = flag.Int("kills", 6, "how often TestKillDuringUploads kills the process that uploads")

const uploadSchema = `CREATE TABLE IF NOT EXISTS doc (id INTEGER PRIMARY KEY, one TEXT CHECK (jsonschema('std.FileUpload', one)), many TEXT CHECK (jsonschema('std.FileUploads', many)), n INTEGER CHECK (n < 90)) STRICT;
	CREATE TABLE IF NOT EXISTS part (id INTEGER PRIMARY KEY, doc INTEGER REFERENCES doc(id) ON DELETE CASCADE, file TEXT CHECK (jsonschema('std.FileUpload', file))) STRICT`

// uploadService opens the database and the files in dir. Its clock is ahead.
func uploadService(dir string, ahead time.Duration) (*records.Service, *sqlite.DB, *records.Dir, error) {
	ctx := context.Background()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := sqlite.Open(ctx, filepath.Join(dir, "test.db"), sqlite.Options{Ballast: -1, Logger: quiet})
	if err != nil {
		return nil, nil, nil, err
	}
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, uploadSchema)
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	store, err := records.OpenDir(filepath.Join(dir, "files"))
	if err != nil {
		return nil, nil, nil, err
	}
	svc, err := records.New(db, records.Config{
		APIs:   []records.API{{Name: "doc", Table: "doc", World: everything}, {Name: "part", Table: "part", World: everything}},
		Files:  &records.FilesConfig{Store: store},
		Now:    func() time.Time { return time.Now().Add(ahead) },
		Logger: quiet,
	})
	return svc, db, store, err
}

// TestUploadForever is the process that TestKillDuringUploads kills: it
// creates, changes and deletes records with files until then.
func TestUploadForever(t *testing.T) {
	dir := os.Getenv("BEDPLATE_TEST_UPLOADS")
	if dir == "" {
		t.Skip("runs as a child process of TestKillDuringUploads only")
	}
	svc, _, _, err := uploadService(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("uploading")
	for range 4 {
		go func() {
			var ids []string
			for {
				pick := func() string { return ids[rand.IntN(len(ids))] }
				switch n := rand.IntN(10); {
				case n < 5 || len(ids) == 0:
					r := call(svc, "", "POST", "/doc", fmt.Sprintf(`{"n":%d,"one":%s,"many":[%s,%s]}`, rand.IntN(100), someFile(), someFile(), someFile()))
					if r.status == 200 {
						ids = append(ids, r.body[len(`{"ids":["`):len(r.body)-len(`"]}`)])
						call(svc, "", "POST", "/part", fmt.Sprintf(`{"doc":%s,"file":%s}`, ids[len(ids)-1], someFile()))
					}
				case n < 7:
					call(svc, "", "PATCH", "/doc/"+pick(), fmt.Sprintf(`{"n":%d,"one":%s}`, rand.IntN(100), someFile()))
				case n < 8:
					call(svc, "", "PATCH", "/doc/"+pick(), `{"many":null}`)
				default:
					call(svc, "", "DELETE", "/doc/"+pick(), "")
				}
			}
		}()
	}
	select {} // until it is killed
}

// someFile is an upload whose name tells what is in it.
func someFile() string {
	data := bytes.Repeat([]byte{byte(rand.IntN(256))}, rand.IntN(20_000))
	sum := sha256.Sum256(data)
	return fmt.Sprintf(`{"filename":"%x.bin","data":%q}`, sum[:8], base64.URLEncoding.EncodeToString(data))
}

// Whenever the process dies, no row is without its files, and after a sweep
// no file is without a row.
func TestKillDuringUploads(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills processes, which takes seconds")
	}
	t.Parallel()
	dir := t.TempDir()
	swept, files := 0, 0
	for round := range *killRounds {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUploadForever$", "-test.v")
		child.Env = append(os.Environ(), "BEDPLATE_TEST_UPLOADS="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		child.Stderr = child.Stdout
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		started := make([]byte, 0, 4096)
		for !bytes.Contains(started, []byte("uploading")) {
			chunk := make([]byte, 1024)
			n, err := out.Read(chunk)
			started = append(started, chunk[:n]...)
			if err != nil {
				t.Fatalf("child: %v: %s", err, started)
			}
		}
		kill := time.NewTimer(50*time.Millisecond + rand.N(250*time.Millisecond))
		<-kill.C
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // it was killed

		removed, n := checkUploads(t, dir)
		swept, files = swept+removed, n
		if t.Failed() {
			t.Fatalf("in round %d", round+1)
		}
	}
	t.Logf("%d kills, %d files in the end, %d without a row were swept", *killRounds, files, swept)
}

// checkUploads looks at what a killed process has left behind.
func checkUploads(t *testing.T, dir string) (swept, files int) {
	t.Helper()
	ctx := t.Context()
	svc, db, store, err := uploadService(dir, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	referred := map[string]bool{}
	check := func(text string) {
		var meta struct {
			ID       string `json:"id"`
			Original string `json:"original_filename"`
		}
		if err := json.Unmarshal([]byte(text), &meta); err != nil {
			t.Fatal(err)
		}
		referred[meta.ID] = true
		f, err := store.Open(ctx, meta.ID)
		if err != nil {
			t.Errorf("the file of a row: %v", err)
			return
		}
		defer func() { _ = f.Close() }()
		data, err := io.ReadAll(f)
		sum := sha256.Sum256(data)
		if want := fmt.Sprintf("%x.bin", sum[:8]); err != nil || meta.Original != want {
			t.Errorf("the file of a row holds something else: %v", err)
		}
	}
	for _, query := range []string{
		`SELECT one FROM doc WHERE one IS NOT NULL`, `SELECT file FROM part WHERE file IS NOT NULL`,
		`SELECT value FROM doc, json_each(many) WHERE many IS NOT NULL`,
	} {
		for _, row := range rowsOf(t, db, query) {
			check(row[0])
		}
	}
	if swept, err = svc.SweepFiles(ctx); err != nil {
		t.Fatal(err)
	}
	err = store.List(ctx, func(id string, _ int64, _ time.Time) error {
		if files++; !referred[id] {
			t.Errorf("a file without a row is left: %s", id)
		}
		delete(referred, id)
		return nil
	})
	if err != nil || len(referred) > 0 {
		t.Errorf("%d files of rows are gone: %v", len(referred), err)
	}
	if left := one(t, db, `SELECT count(*) FROM _file WHERE refs <= 0`); left != "0" {
		t.Errorf("%s files are registered without a row", left)
	}
	if got := one(t, db, `PRAGMA integrity_check`); got != "ok" {
		t.Error(got)
	}
	return swept, files
}
