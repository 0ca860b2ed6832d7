package backup

import "testing"

func TestIdentity(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"file:///var/a", "file:///var/b/../a/", true},
		{"file:///var/a", "file:///var/b", false},
		{"s3://bucket/p", "s3://bucket/p/?region=eu-central-1", true},
		{"s3://bucket/p", "s3://bucket/q", false},
		{"s3://bucket/p", "s3://bucket2/p", false},
		{"s3://bucket/p", "s3://bucket/p?endpoint=https://minio", false},
		{"s3://bucket/p?endpoint=https://Minio/", "s3://bucket/p?endpoint=https://minio", true},
		{"sftp://me@host/a?hostKey=x", "sftp://me@HOST:22/a?hostKey=y&keyPath=/k", true},
		{"sftp://me@host/a", "sftp://you@host/a", false},
		{"sftp://me@host/a", "sftp://me@host:2222/a", false},
		{"abs://one@c/p", "abs://two@c/p", false},
		{"nats://host/b", "nats://host:4222/b", true},
		{"nats://host/b/p", "nats://host/b/q", false},
		{"webdavs://me@host/a", "webdavs://you@host/a", true},
		{"gs://bucket/p", "s3://bucket/p", false},
	} {
		if same := identity(c.a) == identity(c.b); same != c.same {
			t.Errorf("%s and %s: the same is %v", c.a, c.b, same)
		}
	}
}
