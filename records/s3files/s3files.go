// Package s3files keeps the files of record APIs in a bucket of Amazon S3 or
// of a store that speaks its protocol. It is a package of its own so that only
// programs that use it link the client.
//
//	store, err := s3files.New(s3files.Config{
//		Bucket: "app-files", Prefix: "uploads/", Region: "eu-central-1",
//		AccessKeyID: id, SecretAccessKey: secret,
//	})
//	…
//	records.Config{Files: &records.FilesConfig{Store: store}}
//
// The keys need the permissions s3:GetObject, s3:PutObject, s3:DeleteObject
// and, for the bucket, s3:ListBucket. Without the latter a file that is not
// there is an error like any other.
package s3files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	defaultTimeout = 30 * time.Second
	dialTimeout    = 10 * time.Second
	maxAnswer      = 8 << 20 // bytes of an answer that is not a file; a page of a list has up to 1,000 keys
	attempts       = 3
	backoff        = 200 * time.Millisecond // at most, before the second attempt; doubled for the third
)

// A Config says where the files are. Bucket, a Region or an Endpoint, and
// credentials are needed. Nothing is taken from the environment or from files.
type Config struct {
	Bucket string
	// Prefix stands before the id in the key of every file. It ends in "/".
	// All files right below it, or in a bucket without one, belong to the
	// store, and those whose names look like ids are swept.
	Prefix string
	Region string // default with an Endpoint: us-east-1

	// Endpoint is the URL of the store; default: that of Amazon in Region.
	Endpoint string
	// AllowPlaintext permits an Endpoint of http that is not this host. All
	// that is on the way can then read the files and replace what is read.
	AllowPlaintext bool
	PathStyle      bool // the bucket is named in the path of URLs rather than in the host

	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // of temporary credentials
	// Credentials is asked for the three above instead, from several
	// goroutines at once.
	Credentials aws.CredentialsProvider

	// HTTPClient makes the requests; default: one that uses no proxy and
	// follows no redirects.
	HTTPClient *http.Client
	// Timeout is how long the store may take to answer, or to go on with
	// what it sends or receives; default 30 s. Contexts end requests sooner.
	Timeout time.Duration
	// TempDir is where Put keeps content that it cannot rewind; default
	// os.TempDir().
	TempDir string
}

// A Store keeps files in a bucket. It implements records.FileStore, is safe
// for concurrent use and needs no Close.
type Store struct {
	client  *s3.Client
	bucket  string
	prefix  string
	timeout time.Duration
	tempDir string
}

// New checks the configuration and reports every mistake in it. It does not
// connect.
func New(cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuring files in S3: %w", err)
	}
	s := &Store{bucket: cfg.Bucket, prefix: cfg.Prefix, timeout: cfg.Timeout, tempDir: cfg.TempDir}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	options := s3.Options{
		Region:       cfg.Region,
		UsePathStyle: cfg.PathStyle,
		Credentials:  cfg.Credentials,
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
				return rand.N(backoff << max(0, attempt-1)), nil //nolint:gosec // spreads attempts, guards nothing
			})
		}),
		// What is stored has its checksum in a header; checksums behind the
		// content are unknown to many stores.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if options.Region == "" {
		options.Region = "us-east-1"
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = &cfg.Endpoint
	}
	if options.Credentials == nil {
		options.Credentials = credentials.NewStaticCredentialsProvider(cfg.AccessKeyID, cfg.SecretAccessKey, cfg.SessionToken)
	}
	client := cfg.HTTPClient
	if client == nil {
		client = newClient()
	}
	options.HTTPClient = bounded{client}
	s.client = s3.New(options)
	return s, nil
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	regionName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	keyPrefix  = regexp.MustCompile(`^([A-Za-z0-9_=.-]+/)*$`)
)

func (cfg *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !bucketName.MatchString(cfg.Bucket) || strings.Contains(cfg.Bucket, "..") {
		bad("the bucket: %q is not the name of one", cfg.Bucket)
	}
	if !keyPrefix.MatchString(cfg.Prefix) || len(cfg.Prefix) > 512 {
		bad("the prefix: %q is not of letters, digits and -_=. in parts that end in a slash, of at most 512 bytes", cfg.Prefix)
	}
	for part := range strings.SplitSeq(cfg.Prefix, "/") {
		if part == "." || part == ".." {
			bad("the prefix: %q has a part that clients take away", cfg.Prefix)
			break
		}
	}
	switch {
	case cfg.Region == "" && cfg.Endpoint == "":
		bad("the region: it is missing, and so is the endpoint")
	case cfg.Region != "" && !regionName.MatchString(cfg.Region):
		bad("the region: %q is not the name of one", cfg.Region)
	}
	if cfg.Endpoint != "" {
		if err := checkEndpoint(cfg.Endpoint, cfg.AllowPlaintext); err != nil {
			bad("the endpoint: %w", err)
		}
	}
	keys := map[string]string{"access key id": cfg.AccessKeyID, "secret access key": cfg.SecretAccessKey, "session token": cfg.SessionToken}
	for _, name := range []string{"access key id", "secret access key", "session token"} {
		if strings.ContainsFunc(keys[name], func(r rune) bool { return r <= ' ' || r > '~' }) {
			bad("the %s: it has a space or another character that is in no key", name)
		}
	}
	switch {
	case cfg.Credentials != nil && (cfg.AccessKeyID != "" || cfg.SecretAccessKey != "" || cfg.SessionToken != ""):
		bad("the credentials: there is a provider and there are keys")
	case cfg.Credentials == nil && cfg.AccessKeyID == "" && cfg.SecretAccessKey == "":
		bad("the credentials: they are missing")
	case cfg.Credentials == nil && (cfg.AccessKeyID == "" || cfg.SecretAccessKey == ""):
		bad("the access key id and the secret access key: one is missing")
	}
	if cfg.Timeout < 0 {
		bad("the timeout: %v is negative", cfg.Timeout)
	}
	return errors.Join(errs...)
}

func checkEndpoint(endpoint string, allowPlaintext bool) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return errors.New("not a URL") // err repeats it, and it may hold a password
	}
	switch {
	case u.User != nil:
		return errors.New("it has a user name, which belongs into the access key id")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%q is not a URL of https or http with a host", endpoint)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("%q has a query or a fragment", endpoint)
	case u.Scheme == "http" && !allowPlaintext && !isLoopback(u.Hostname()):
		return fmt.Errorf("%q is not encrypted, and %q is another host", endpoint, u.Hostname())
	}
	return nil
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:    dialTimeout,
			ExpectContinueTimeout:  time.Second,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded is a client whose answers are of a limited size, but for files.
type bounded struct{ *http.Client }

func (b bounded) Do(r *http.Request) (*http.Response, error) {
	resp, err := b.Client.Do(r)
	if err == nil && (r.Method != http.MethodGet || r.URL.Query().Has("list-type") || resp.StatusCode >= 300) {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// key returns the key of the file id.
func (s *Store) key(id string) (*string, error) {
	if !isID(id) {
		return nil, fmt.Errorf("%w: the id is not of 1 to 64 letters, digits and dashes", fs.ErrInvalid)
	}
	key := s.prefix + id
	return &key, nil
}

func isID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= 64
}

// explain adds to an error of the client what its cause is to those who know
// nothing of S3.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	if _, ok := errors.AsType[*types.NoSuchKey](err); ok {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if statusOf(err) == http.StatusInsufficientStorage {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return err
}

// statusOf returns the status that the store answered with, or 0.
func statusOf(err error) int {
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}
