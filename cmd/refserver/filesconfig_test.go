package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/records"
	"github.com/bedplate/bedplate/records/s3files"
)

func TestLoadFiles(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
files:
  max_size_bytes: 1
  max_files: 2
  user_quota_bytes: 3
  total_quota_bytes: 4
  s3:
    bucket: uploads
    prefix: app/
    region: eu-central-1
    endpoint: http://store.internal:9000
    allow_plaintext: true
    path_style: true
    access_key_id: id
    secret_access_key_file: secret
`)
	write(t, filepath.Join(filepath.Dir(path), "secret"), "a-secret\n")
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := (records.FilesConfig{MaxSize: 1, MaxFiles: 2, UserQuota: 3, TotalQuota: 4}); conf.Files != want {
		t.Errorf("limits %+v, want %+v", conf.Files, want)
	}
	want := &s3files.Config{
		Bucket: "uploads", Prefix: "app/", Region: "eu-central-1", Endpoint: "http://store.internal:9000",
		AllowPlaintext: true, PathStyle: true, AccessKeyID: "id", SecretAccessKey: "a-secret",
	}
	if !reflect.DeepEqual(conf.S3, want) {
		t.Errorf("S3 %+v, want %+v", conf.S3, want)
	}
}

func TestLoadFilesReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
files:
  max_size_bytes: 0               # want a whole number from 1
  max_files: 1.5                  # want a whole number, found 1.5
  user_quota_bytes: -1            # want a whole number from 1
  total_quota_bytes: many         # want a whole number, found "many"
  directory: elsewhere            # unknown key "directory"
  s3:
    bucket: A/b                   # "A/b" is not the name of one
    endpoint: http://store.internal # the endpoint: "http://store.internal" is not encrypted
    access_key_id: a b            # the access key id: it has a space
    access_key: id                # unknown key "access_key"
    path_style: 1                 # want true or false, found 1
    secret_access_key: one
    secret_access_key_file: two   # this secret is given twice
`
	wantMistakes(t, writeConfig(t, text), text)
}

// A secret that is not text is a mistake that does not tell the secret.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"1234567890123456", "1234567890123456.5", "0x1234567890123456", "{1234567890123456: a}", "[1234567890123456]", "true", "~"} {
		text := "files: {s3: {bucket: uploads, secret_access_key: " + secret + "}}\n" +
			"email: {smtp_host: mail.example.com, sender_address: a@example.com, smtp_password: " + secret + "}\n" +
			"auth: {oauth_providers: [{name: google, client_id: a, client_secret: " + secret + "}]}\n"
		_, err := loadConfig(writeConfig(t, text))
		if err == nil || strings.Count(err.Error(), ": want text in quotes") != 3 || strings.Contains(err.Error(), "123456789") || strings.Contains(err.Error(), "found") {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

// Only the server needs the keys, which it can have from its environment.
func TestOpenFilesInS3(t *testing.T) {
	for _, tt := range []struct {
		keys, id, secret string
		want             string // a part of the error; empty: none
	}{
		{"", "", "", ":3: files in S3: access_key_id and secret_access_key are needed"},
		{"", "id", "", "BEDPLATE_S3_SECRET_ACCESS_KEY"},
		{"", "id", "secret", ""},
		{", access_key_id: id", "", "secret", ""},
		{", access_key_id: id, secret_access_key: secret", "", "", ""},
		{", access_key_id: id, secret_access_key: secret", "", "not a key", ":3: configuring files in S3: the secret access key"},
	} {
		t.Setenv(accessKeyVariable, tt.id)
		t.Setenv(secretKeyVariable, tt.secret)
		path := writeConfig(t, "server: {}\nfiles:\n  s3: {bucket: uploads, region: eu-central-1"+tt.keys+"}\n")
		conf, err := loadConfig(path)
		if err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		files, done, err := conf.openFiles()
		if err != nil {
			err = conf.locate(err)
			if tt.want == "" || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "not a key") {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		defer done()
		if _, ok := files.Store.(*s3files.Store); !ok || tt.want != "" {
			t.Errorf("%+v: %T", tt, files.Store)
		}
	}
}

// The commands that only look do not touch the files.
func TestBackendFiles(t *testing.T) {
	t.Parallel()
	conf, err := loadConfig(writeConfig(t, "files: {max_files: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := conf.backend(slog.New(slog.DiscardHandler)).Files; got != nil {
		t.Errorf("%+v, want nil", got)
	}
}

// Files are in the data directory, closed to others, and survive a restart.
func testFiles(t *testing.T, binary string) {
	config := writeConfig(t, `
server: {data_dir: state}
migrations: sql
record_apis:
  - name: pictures
    table_name: picture
    acl_world: [CREATE, READ, DELETE]
files:
  max_size_bytes: 100
  total_quota_bytes: 150
`, "sql/README")
	write(t, filepath.Join(filepath.Dir(config), "sql", "0001_picture.sql"),
		`CREATE TABLE picture (id INTEGER PRIMARY KEY, file TEXT CHECK (jsonschema('std.FileUpload', file))) STRICT;`)
	const path = "/api/records/v1/pictures"
	create := func(s *process, size int) int {
		text, err := json.Marshal(map[string]any{"file": records.Upload{Data: bytes.Repeat([]byte{1}, size)}})
		if err != nil {
			t.Fatal(err)
		}
		status, _ := s.request(t, "POST", path, string(text))
		return status
	}

	s := start(t, "sh", "-c", `umask 000 && exec "$0" "$@"`, binary, "--listen", "127.0.0.1:0", "--config", config)
	if status := create(s, 101); status != 413 {
		t.Errorf("a file over the limit: %d, want 413", status)
	}
	if status := create(s, 100); status != 200 {
		t.Fatalf("create: %d", status)
	}
	if status := create(s, 100); status != 413 {
		t.Errorf("a file over the quota: %d, want 413", status)
	}
	s.stop(t)

	uploads := filepath.Join(filepath.Dir(config), "state", "uploads")
	if info, err := os.Stat(uploads); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v, want mode 0700", info, err)
	}
	if got := storedFiles(t, uploads); got != 1 {
		t.Errorf("%d stored files, want 1", got)
	}

	s = start(t, binary, "--listen", "127.0.0.1:0", "--config", config)
	res, err := http.DefaultClient.Do(newRequest(t, "GET", s.url+path+"/1/file/file", ""))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 200 || !bytes.Equal(content, bytes.Repeat([]byte{1}, 100)) {
		t.Errorf("download: %d %q %v", res.StatusCode, content, err)
	}
	if status, _ := s.request(t, "DELETE", path+"/1", ""); status != 200 {
		t.Errorf("delete: %d", status)
	}
	if got := storedFiles(t, uploads); got != 0 {
		t.Errorf("%d stored files, want none", got)
	}
	s.stop(t)
}

func storedFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
