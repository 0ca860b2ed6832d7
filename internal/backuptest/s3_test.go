package backuptest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/bedplate/bedplate/internal/backuptest"
)

// client returns a client with the credentials of now, which tries once.
func client(t *testing.T, server *backuptest.S3) *s3.Client {
	t.Helper()
	keys, err := server.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(server.Endpoint()), Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: keys["AWS_ACCESS_KEY_ID"], SecretAccessKey: keys["AWS_SECRET_ACCESS_KEY"]}, nil
		}),
	})
}

type op struct {
	*s3.Client
	ifMatch, ifNoneMatch *string
}

func (o op) put(ctx context.Context, key, body string) (tag string, err error) {
	out, err := o.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader(body), IfMatch: o.ifMatch, IfNoneMatch: o.ifNoneMatch,
		Metadata: map[string]string{"kept": "yes"},
	})
	if err != nil {
		return "", err
	}
	return *out.ETag, nil
}

func (o op) get(ctx context.Context, key string) (string, error) {
	out, err := o.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	if err == nil && out.Metadata["kept"] != "yes" {
		err = errors.New("the metadata is lost")
	}
	return string(body), err
}

func (o op) delete(ctx context.Context, key string) error {
	_, err := o.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: &key, IfMatch: o.ifMatch})
	return err
}

func code(err error) string {
	var told smithy.APIError
	if errors.As(err, &told) {
		return told.ErrorCode()
	}
	return ""
}

func TestObjects(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), backuptest.NewS3(t)
	c := op{Client: client(t, server)}
	if _, err := c.put(ctx, "a/1", "one"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.get(ctx, "a/1"); got != "one" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	server.Write("a/1", []byte("won"))
	server.Write("b/2", nil)
	if got, err := c.get(ctx, "a/1"); got != "won" || err != nil {
		t.Errorf("got %q, %v after Write", got, err)
	}
	if keys := server.Keys("a/"); len(keys) != 1 || keys[0] != "a/1" {
		t.Errorf("got keys %q", keys)
	}
	server.Delete("a/1")
	if _, ok := server.Read("a/1"); ok {
		t.Error("it is there after Delete")
	}
	if puts, all := server.Requests(backuptest.Puts), server.Requests(); puts != 1 || all != 3 {
		t.Errorf("counted %d and %d requests, want 1 and 3", puts, all)
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), backuptest.NewS3(t)
	plain := client(t, server)
	first := op{Client: plain, ifNoneMatch: aws.String("*")}
	tag, err := first.put(ctx, "lock", "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.put(ctx, "lock", "two"); code(err) != "PreconditionFailed" {
		t.Errorf("put over what exists: %v", err)
	}
	newer, err := op{Client: plain, ifMatch: &tag}.put(ctx, "lock", "three")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (op{Client: plain, ifMatch: &tag}).put(ctx, "lock", "four"); code(err) != "PreconditionFailed" {
		t.Errorf("put over what has changed: %v", err)
	}
	if err := (op{Client: plain, ifMatch: &tag}).delete(ctx, "lock"); code(err) != "PreconditionFailed" {
		t.Errorf("delete what has changed: %v", err)
	}
	if err := (op{Client: plain, ifMatch: &newer}).delete(ctx, "lock"); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := (op{Client: plain, ifMatch: &newer}).delete(ctx, "lock"); code(err) != "NoSuchKey" {
		t.Errorf("delete what is gone: %v", err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), backuptest.NewS3(t)
	c := op{Client: client(t, server)}
	body := strings.Repeat("0123456789", 10_000)
	server.Write("k", []byte(body))

	for _, tt := range []struct {
		name string
		set  func()
		want string // code of the error
	}{
		{"fail", func() { server.Fail(http.StatusInternalServerError) }, "InternalError"},
		{"slow down", func() { server.Fail(http.StatusServiceUnavailable) }, "SlowDown"},
		{"deny", func() { server.Deny() }, "ExpiredToken"},
	} {
		tt.set()
		if _, err := c.put(ctx, "k", "x"); code(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}

	server.Fail(http.StatusInternalServerError, backuptest.Gets, backuptest.Lists)
	if _, err := c.put(ctx, "k", body); err != nil {
		t.Errorf("a put while only gets fail: %v", err)
	}

	server.Truncate()
	if got, err := c.get(ctx, "k"); err == nil || got != "" && !strings.HasPrefix(body, got) {
		t.Errorf("truncated: got %d bytes, %v", len(got), err)
	}
	if _, err := c.put(ctx, "half", body); err == nil {
		t.Error("a truncated put has worked")
	}
	if half, _ := server.Read("half"); !bytes.Equal(half, []byte(body[:len(body)/2])) {
		t.Errorf("%d bytes are stored, want the first half", len(half))
	}

	server.Slow(time.Millisecond)
	if got, err := c.get(ctx, "k"); got != body || err != nil {
		t.Errorf("slow: got %d bytes, %v", len(got), err)
	}

	server.Hang()
	before := server.Requests()
	answered := make(chan error, 1)
	go func() {
		_, err := c.get(ctx, "k")
		answered <- err
	}()
	for server.Requests() == before {
		select {
		case err := <-answered:
			t.Fatalf("answered before it was mended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	server.Mend()
	if err := <-answered; err != nil {
		t.Errorf("mended: %v", err)
	}

	server.Down()
	if _, err := c.get(ctx, "k"); err == nil {
		t.Error("answered while it was down")
	}
	server.Up()
	if got, err := c.get(ctx, "k"); got != body || err != nil {
		t.Errorf("up again: got %d bytes, %v", len(got), err)
	}

	server.Rotate()
	if _, err := c.get(ctx, "k"); code(err) != "ExpiredToken" {
		t.Errorf("with old credentials: %v", err)
	}
	if _, err := (op{Client: client(t, server)}).get(ctx, "k"); err != nil {
		t.Errorf("with new credentials: %v", err)
	}
}
