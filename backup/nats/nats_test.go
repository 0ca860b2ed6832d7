package nats

import (
	"slices"
	"testing"

	"github.com/bedplate/bedplate/backup"
)

func TestClient(t *testing.T) {
	if !slices.Contains(backup.Schemes(), scheme) {
		t.Errorf("schemes %v", backup.Schemes())
	}
	t.Setenv("NATS_USER", "me")
	t.Setenv("NATS_PASSWORD", "pw")
	for _, c := range []struct {
		url, server, bucket, prefix string
		tls                         bool
	}{
		{"nats://host/box", "nats://host", "box", "", true},
		{"nats://host:4223/box/a/b/?ca=/ca.pem", "nats://host:4223", "box", "a/b", true},
		{"nats://host/box?plaintext=true", "nats://host", "box", "", false},
		{"nats://127.0.0.1:4222/box", "nats://127.0.0.1:4222", "box", "", false},
		{"nats://[::1]:4222/box", "nats://[::1]:4222", "box", "", false},
		{"nats://127.0.0.1.example.com/box", "nats://127.0.0.1.example.com", "box", "", true},
	} {
		made, err := client(c.url)
		if err != nil {
			t.Fatal(err)
		}
		got := made.(*replica)
		if got.URL != c.server || got.BucketName != c.bucket || got.Path != c.prefix || got.TLS != c.tls || got.Username != "me" || got.Password != "pw" {
			t.Errorf("%s: %q %q %q, TLS %v", c.url, got.URL, got.BucketName, got.Path, got.TLS)
		}
	}
	if _, err := client("nats://host"); err == nil {
		t.Error("no error without a bucket")
	}
	if _, err := backup.New(backup.Config{URL: "nats://host"}); err == nil {
		t.Error("no error from New")
	}
}
