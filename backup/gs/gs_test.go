package gs

import (
	"slices"
	"testing"

	"github.com/benbjohnson/litestream/gs"

	"github.com/bedplate/bedplate/backup"
)

func TestClient(t *testing.T) {
	t.Setenv("STORAGE_EMULATOR_HOST", "")
	if !slices.Contains(backup.Schemes(), scheme) {
		t.Errorf("schemes %v", backup.Schemes())
	}
	for url, prefix := range map[string]string{"gs://bucket": "", "gs://bucket/": "", "gs://bucket/a//b/": "a/b"} {
		c, err := client(url)
		if err != nil {
			t.Fatal(err)
		}
		if c := c.(*gs.ReplicaClient); c.Bucket != "bucket" || c.Path != prefix {
			t.Errorf("%s: bucket %q, path %q", url, c.Bucket, c.Path)
		}
	}
	if _, err := backup.New(backup.Config{URL: "gs://Bucket/x?y=z"}); err == nil {
		t.Error("no error")
	}
}

func TestEmulator(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "localhost:4443": true, "127.0.0.1:4443": true, "http://[::1]:4443": true, "https://x.localhost": true,
		"example.com:4443": false, "https://example.com": false, "127.0.0.1.example.com": false, "http://u@127.0.0.1@example.com": false, "%": false,
	} {
		t.Setenv("STORAGE_EMULATOR_HOST", host)
		if _, err := client("gs://bucket"); (err == nil) != ok {
			t.Errorf("%q: %v", host, err)
		}
	}
}
