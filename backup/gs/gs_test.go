package gs

import (
	"slices"
	"testing"

	"github.com/benbjohnson/litestream/gs"

	"github.com/bedplate/bedplate/backup"
)

func TestClient(t *testing.T) {
	t.Parallel()
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
