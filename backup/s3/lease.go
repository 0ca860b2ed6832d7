package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/s3"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

const (
	// leaseTimeout bounds a request about the lease, which is no larger than a line.
	leaseTimeout = 10 * time.Second

	// maxLease bounds the object in bytes.
	maxLease = 64 << 10
)

// A leaser holds leases in an object lock.json, by conditional requests. Writing is Litestream's
// s3.Leaser; this one can also tell who has the lease, and leaves released leases behind instead of
// deleting them, as some stores delete whatever the condition.
type leaser struct {
	*s3.Leaser
	replica *s3.ReplicaClient

	mu     sync.Mutex
	client *awss3.Client // nil: has to be made
}

var _ replicator.Leaser = (*leaser)(nil)

func newLeaser(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
	replica, ok := c.(*s3.ReplicaClient)
	if !ok {
		return nil, fmt.Errorf("no leases for a replica of type %s", c.Type())
	}
	l := &leaser{Leaser: s3.NewLeaser(), replica: replica}
	l.SetLogger(slog.New(slog.DiscardHandler))
	l.Bucket, l.Owner, l.TTL = replica.Bucket, owner, ttl
	if l.Path = path.Clean(replica.Path); l.Path == "." {
		l.Path = ""
	}
	return l, nil
}

// connect makes the client, with the settings of the replica's, which cannot be had.
func (l *leaser) connect(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		return nil
	}
	region, err := l.region(ctx)
	if err != nil {
		return err
	}
	options := []func(*config.LoadOptions) error{
		config.WithRegion(region),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(leaseTimeout)),
	}
	if l.replica.AccessKeyID != "" && l.replica.SecretAccessKey != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(l.replica.AccessKeyID, l.replica.SecretAccessKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return err
	}
	l.client = awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		o.UsePathStyle = l.replica.ForcePathStyle
		o.UseARNRegion = true
		if l.replica.Endpoint != "" {
			o.BaseEndpoint = aws.String(l.replica.Endpoint)
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	})
	l.SetClient(l.client)
	return nil
}

// region is that of the bucket, as Litestream finds it.
func (l *leaser) region(ctx context.Context) (string, error) {
	switch {
	case l.replica.Region != "":
		return l.replica.Region, nil
	case l.replica.Endpoint != "":
		return s3.DefaultRegion, nil
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(s3.DefaultRegion))
	if err != nil {
		return "", err
	}
	region, err := manager.GetBucketRegion(ctx, awss3.NewFromConfig(cfg), l.Bucket)
	if err != nil {
		return "", fmt.Errorf("find the region of the bucket, which the parameter region can tell: %w", err)
	}
	return region, nil
}

func (l *leaser) ReadLease(ctx context.Context) (*litestream.Lease, time.Duration, error) {
	if err := l.connect(ctx); err != nil {
		return nil, 0, err
	}
	out, err := l.client.GetObject(ctx, &awss3.GetObjectInput{
		Bucket: aws.String(l.Bucket), Key: aws.String(path.Join(l.Path, s3.DefaultLeasePath)),
	})
	var missing *types.NoSuchKey
	if errors.As(err, &missing) {
		return nil, 0, fs.ErrNotExist
	}
	if err != nil {
		return nil, 0, err
	}
	defer out.Body.Close()
	text, err := io.ReadAll(io.LimitReader(out.Body, maxLease))
	if err != nil {
		return nil, 0, err
	}
	age := time.Duration(0)
	if now, ok := middleware.GetServerTime(out.ResultMetadata); ok && out.LastModified != nil {
		age = max(now.Sub(*out.LastModified)-time.Second, 0) // both are whole seconds
	}
	lease := &litestream.Lease{}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(lease); err != nil || lease.Generation <= 0 {
		return &litestream.Lease{ETag: aws.ToString(out.ETag)}, age, replicator.ErrLeaseDamaged
	}
	lease.ETag = aws.ToString(out.ETag)
	return lease, age, nil
}

func (l *leaser) AcquireLease(ctx context.Context) (*litestream.Lease, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	return l.Leaser.AcquireLease(ctx)
}

func (l *leaser) RenewLease(ctx context.Context, held *litestream.Lease) (*litestream.Lease, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	lease, err := l.Leaser.RenewLease(ctx, held)
	var missing *types.NoSuchKey
	if errors.As(err, &missing) {
		return nil, litestream.ErrLeaseNotHeld
	}
	return lease, err
}

func (l *leaser) ReleaseLease(ctx context.Context, held *litestream.Lease) error {
	if err := l.connect(ctx); err != nil {
		return err
	}
	released := *l.Leaser
	released.Owner, released.TTL = "", 0
	_, err := released.RenewLease(ctx, held)
	return err
}
