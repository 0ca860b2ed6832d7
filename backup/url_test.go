package backup_test

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/backup"
)

// hostKey is the public key of an SFTP server, for a URL.
func hostKey() string {
	key := append([]byte{0, 0, 0, 11}, "ssh-ed25519\x00\x00\x00 0123456789abcdef0123456789\xfb\xff\xbfdef"...)
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(key)
}

func TestURL(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"file", "s3", "sftp", "gs", "abs", "nats", "webdav", "webdavs"} {
		backup.Register(scheme) // as the clients' packages do
	}
	key := url.QueryEscape(hostKey())
	for text, mistake := range map[string]string{
		"":                  "missing",
		"/var/backups":      "is not one",
		"s3:bucket":         "is not one",
		"%":                 "is not one",
		"oss://bucket/x":    "no client for oss://",
		"S3://bucket/x":     "lower case",
		"s3://bucket/x#top": "fragment",

		"file:///var/backups/app":       "",
		"file:///var/back%20ups":        "",
		"file://var/backups":            "absolute",
		"file:///":                      "absolute",
		"file:///var/..":                "absolute",
		"file://user@/var/backups":      "absolute",
		"file:///var/backups?sync=1":    "no parameters",
		"file:///var/backups?a=1&b=%zz": "cannot be understood",

		"s3://bucket": "",
		"s3://my.bucket/prefix?region=eu-central-1":               "",
		"s3://bucket/p?endpoint=https://minio.example.com:9000":   "",
		"s3://bucket/p?endpoint=http://127.0.0.1:9000":            "",
		"s3://bucket/p?endpoint=http://[::1]:9000":                "",
		"s3://bucket/p?endpoint=http://localhost:9000":            "",
		"s3://bucket/p?endpoint=http://minio:9000":                "unencrypted",
		"s3://bucket/p?endpoint=http://127.0.0.1.example.com":     "unencrypted",
		"s3://bucket/p?endpoint=http://minio:9000&plaintext=true": "",
		"s3://bucket/p?endpoint=http://minio:9000&plaintext=1":    "only be true",
		"s3://bucket/p?endpoint=172.200.1.1":                      "endpoint has to be a URL",
		"s3://bucket/p?endpoint=https://key:secret@minio":         "address only",
		"s3://bucket/p?endpoint=https://a&endpoint=http://b":      "more than once",
		"s3://bucket/p?endpoint=":                                 "no value",
		"s3://bucket/p?regoin=eu-central-1":                       `"regoin" is not known`,
		"s3://bucket/p?skipVerify=true":                           `"skipVerify" is not known`,
		"s3://bucket/p?sseKmsKeyId=alias/app":                     "",
		"s3://bucket/p?sseCustomerKey=secret-six":                 "no place in it",
		"s3://bucket/p?sse-customer-key=secret-six":               "no place in it",
		"s3://bucket/p?sseCustomerAlgorithm=AES256":               "sseKmsKeyId",
		"s3://bucket/p?session_token=secret-six":                  `"session_token" has no place in it`,
		"s3://key:secret-one@bucket/p":                            "credentials",
		"s3://bucket.minio.example.org:9000/p":                    "no name of a bucket",
		"s3://Bucket/p":                                           "no name of a bucket",
		"s3:///p":                                                 "missing",

		"sftp://app@host/var/backups?hostKey=" + key:                             "",
		"sftp://app@host/~/backups?keyPath=/etc/app/key&hostKey=" + key:          "",
		"sftp://app@host/b?hostKey=" + strings.ReplaceAll(hostKey(), " ", "%20"): "", // with a plus sign
		"sftp://app@host/var/backups":                                            "hostKey is missing",
		"sftp://app@host/var/backups?hostKey=SHA256:abc":                         "no public key",
		"sftp://app@host/var/backups?hostKey=ssh-rsa" + key[11:]:                 "no public key",
		"sftp://app@host/var/backups?hostKey=" + key + "+me@here":                "no public key",
		"sftp://app:secret-two@host/var/backups?hostKey=" + key:                  "SFTP_PASSWORD",
		"sftp://host/var/backups?hostKey=" + key:                                 "user is missing",
		"sftp://app@host/?hostKey=" + key:                                        "directory is missing",
		"sftp://app@host/b?keyPath=id&hostKey=" + key:                            "keyPath has to be absolute",

		"gs://bucket/prefix":          "",
		"gs://key@bucket/prefix":      "credentials",
		"gs://bucket/prefix?x=1":      "no parameters",
		"gs://bucket/p?token=sesame":  "Config.Credentials",
		"gs://bucket:80/prefix":       "no name of a bucket",
		"abs://account@container/p":   "",
		"abs://container/p":           "account is missing",
		"abs://account@Container/p":   "no name of a container",
		"abs://a:secret-three@cont/p": "AZURE_ACCOUNT_KEY",
		"abs://account@container/p?endpoint=https://blob.example.com":          "",
		"abs://account@container/p?endpoint=http://127.0.0.1:10000/account":    "",
		"abs://account@container/p?endpoint=http://blob.example.com":           "unencrypted",
		"abs://account@container/p?endpoint=https://b.example.com/?sig=secret": "address only",

		"nats://host/bucket":                       "",
		"nats://host:4222/bucket/p?ca=/etc/ca.pem": "",
		"nats://host/bucket?plaintext=true":        "",
		"nats://host":                              "bucket is missing",
		"nats://me:secret-four@host/bucket":        "NATS_PASSWORD",
		"nats://host/bucket?ca=ca.pem":             "ca has to be an absolute path",
		"nats://host/bucket?cert=/etc/c.pem":       "go together",

		"webdavs://me@host/path":               "",
		"webdavs://me:secret-five@host/path":   "WEBDAV_PASSWORD",
		"webdav://me@127.0.0.1:8080/path":      "",
		"webdav://me@host/path":                "unencrypted",
		"webdav://me@host/path?plaintext=true": "",
	} {
		_, err := backup.New(backup.Config{URL: text})
		switch {
		case mistake == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case mistake != "" && (err == nil || !strings.Contains(err.Error(), mistake)):
			t.Errorf("%s: %v, want %q", text, err, mistake)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error shows a secret: %v", text, err)
		}
	}
}

func TestURLMistakesAtOnce(t *testing.T) {
	t.Parallel()
	backup.Register("sftp")
	_, err := backup.New(backup.Config{URL: "sftp://app:pw@host?regoin=x&keyPath=y#z"})
	if err == nil {
		t.Fatal("no error")
	}
	for _, mistake := range []string{"regoin", "SFTP_PASSWORD", "directory", "keyPath", "hostKey", "fragment"} {
		if !strings.Contains(err.Error(), mistake) {
			t.Errorf("%v does not tell %s", err, mistake)
		}
	}
}
