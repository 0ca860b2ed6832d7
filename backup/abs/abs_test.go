package abs

import (
	"slices"
	"testing"

	"github.com/benbjohnson/litestream/abs"

	"github.com/bedplate/bedplate/backup"
)

func TestClient(t *testing.T) {
	t.Parallel()
	if !slices.Contains(backup.Schemes(), scheme) {
		t.Errorf("schemes %v", backup.Schemes())
	}
	for _, want := range []struct{ url, prefix, endpoint string }{
		{"abs://me@box", "", ""},
		{"abs://me@box/a//b/?endpoint=https://host", "a/b", "https://host"},
	} {
		c, err := client(want.url)
		if err != nil {
			t.Fatal(err)
		}
		if c := c.(*abs.ReplicaClient); c.AccountName != "me" || c.Bucket != "box" || c.Path != want.prefix || c.Endpoint != want.endpoint {
			t.Errorf("%s: %q %q %q %q", want.url, c.AccountName, c.Bucket, c.Path, c.Endpoint)
		}
	}
	if _, err := backup.New(backup.Config{URL: "abs://box/x"}); err == nil {
		t.Error("no error")
	}
}
