package s3files_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/bedplate/bedplate/records/s3files"
)

func valid() s3files.Config {
	return s3files.Config{Bucket: "app-files", Region: "eu-central-1", AccessKeyID: "id", SecretAccessKey: "secret"}
}

func TestNew(t *testing.T) {
	t.Parallel()
	provider := credentials.NewStaticCredentialsProvider("id", "secret", "")
	for name, change := range map[string]func(c *s3files.Config){
		"Amazon":         func(*s3files.Config) {},
		"prefix":         func(c *s3files.Config) { c.Prefix = "a/B_c=1.x-/" },
		"session":        func(c *s3files.Config) { c.SessionToken = "abc+/=" },
		"provider":       func(c *s3files.Config) { c.AccessKeyID, c.SecretAccessKey, c.Credentials = "", "", provider },
		"endpoint":       func(c *s3files.Config) { c.Region, c.Endpoint = "", "https://s3.example.com:9000/path/" },
		"localhost":      func(c *s3files.Config) { c.Endpoint = "http://localhost:9000" },
		"loopback":       func(c *s3files.Config) { c.Endpoint = "http://127.3.2.1:9000" },
		"loopback 6":     func(c *s3files.Config) { c.Endpoint = "http://[::1]:9000" },
		"plaintext":      func(c *s3files.Config) { c.Endpoint, c.AllowPlaintext = "http://minio:9000", true },
		"dots":           func(c *s3files.Config) { c.Bucket, c.PathStyle = "files.example.com", true },
		"client":         func(c *s3files.Config) { c.HTTPClient = http.DefaultClient },
		"short patience": func(c *s3files.Config) { c.Timeout = time.Second },
	} {
		c := valid()
		change(&c)
		if _, err := s3files.New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefusals(t *testing.T) {
	t.Parallel()
	provider := credentials.NewStaticCredentialsProvider("id", "secret", "")
	for name, tt := range map[string]struct {
		change func(c *s3files.Config)
		want   string // in every mistake, one in a line
	}{
		"nothing": {func(c *s3files.Config) { *c = s3files.Config{} }, "the bucket\nthe region\nthe credentials"},
		"everything": {func(c *s3files.Config) {
			*c = s3files.Config{Bucket: "B", Prefix: "/", Region: "EU", Endpoint: "x", SecretAccessKey: "x y", Timeout: -1}
		}, "the bucket\nthe prefix\nthe region\nthe endpoint\nthe secret access key\none is missing\nthe timeout"},
		"upper case":        {func(c *s3files.Config) { c.Bucket = "Files" }, "the bucket"},
		"short bucket":      {func(c *s3files.Config) { c.Bucket = "ab" }, "the bucket"},
		"bucket with slash": {func(c *s3files.Config) { c.Bucket = "a/b/c" }, "the bucket"},
		"bucket ..":         {func(c *s3files.Config) { c.Bucket = "a..b" }, "the bucket"},
		"bucket, line":      {func(c *s3files.Config) { c.Bucket = "files\n" }, "the bucket"},
		"bucket, ARN":       {func(c *s3files.Config) { c.Bucket = "arn:aws:s3:::files" }, "the bucket"},
		"prefix, open":      {func(c *s3files.Config) { c.Prefix = "uploads" }, "the prefix"},
		"prefix, absolute":  {func(c *s3files.Config) { c.Prefix = "/uploads/" }, "the prefix"},
		"prefix, twice":     {func(c *s3files.Config) { c.Prefix = "a//" }, "the prefix"},
		"prefix, dots":      {func(c *s3files.Config) { c.Prefix = "a/../b/" }, "the prefix"},
		"prefix, dot":       {func(c *s3files.Config) { c.Prefix = "./" }, "the prefix"},
		"prefix, NUL":       {func(c *s3files.Config) { c.Prefix = "a\x00/" }, "the prefix"},
		"prefix, long":      {func(c *s3files.Config) { c.Prefix = strings.Repeat("a", 512) + "/" }, "the prefix"},
		"region, host":      {func(c *s3files.Config) { c.Region = "x.example.com/" }, "the region"},
		"scheme":            {func(c *s3files.Config) { c.Endpoint = "ftp://example.com" }, "the endpoint"},
		"no scheme":         {func(c *s3files.Config) { c.Endpoint = "localhost:9000" }, "the endpoint"},
		"no host":           {func(c *s3files.Config) { c.Endpoint = "https://:9000" }, "the endpoint"},
		"query":             {func(c *s3files.Config) { c.Endpoint = "https://example.com/?x=1" }, "the endpoint"},
		"plaintext":         {func(c *s3files.Config) { c.Endpoint = "http://192.168.1.2:9000" }, "the endpoint"},
		"plaintext, name":   {func(c *s3files.Config) { c.Endpoint = "http://localhost.example.com" }, "the endpoint"},
		"password":          {func(c *s3files.Config) { c.Endpoint = "https://u:hunter2@example.com" }, "the endpoint"},
		"bad password":      {func(c *s3files.Config) { c.Endpoint = "https://u:hunter2@exa mple.com" }, "the endpoint"},
		"no secret":         {func(c *s3files.Config) { c.SecretAccessKey = "" }, "one is missing"},
		"no id":             {func(c *s3files.Config) { c.AccessKeyID = "" }, "one is missing"},
		"token only":        {func(c *s3files.Config) { c.AccessKeyID, c.SecretAccessKey, c.SessionToken = "", "", "x" }, "they are missing"},
		"both":              {func(c *s3files.Config) { c.Credentials = provider }, "a provider and there are keys"},
		"end of line":       {func(c *s3files.Config) { c.SecretAccessKey = "hunter2\n" }, "the secret access key"},
		"timeout":           {func(c *s3files.Config) { c.Timeout = -1 }, "the timeout"},
	} {
		c := valid()
		tt.change(&c)
		s, err := s3files.New(c)
		if err == nil || s != nil {
			t.Errorf("%s: no error", name)
			continue
		}
		got := strings.Split(err.Error(), "\n")
		want := strings.Split(tt.want, "\n")
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %q", name, err, want)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", name, got[i], want[i])
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}
