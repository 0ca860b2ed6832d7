package s3files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Put stores size bytes of r under id; r must end there. The content is read
// twice, first for its checksum, which the store compares: from r itself if
// that is an io.Seeker, else from a temporary file. Stores take up to 5 GiB.
func (s *Store) Put(ctx context.Context, id string, r io.Reader, size int64) error {
	if err := s.put(ctx, id, r, size); err != nil {
		return fmt.Errorf("storing a file in S3: %w", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, id string, r io.Reader, size int64) error {
	key, err := s.key(id)
	if err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("%w: a size of %d bytes", fs.ErrInvalid, size)
	}
	content, err := newContent(ctx, r, size, s.tempDir)
	if err != nil {
		return err
	}
	defer content.close()
	sum, err := content.checksum(ctx)
	if err != nil {
		return err
	}
	w := s.watch(ctx)
	defer w.end()
	content.moved = w.moved
	_, err = s.client.PutObject(w, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: key, Body: content, ContentLength: &size,
		ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: &sum,
	})
	return explain(w, err)
}

// Delete deletes a file. In a bucket with versions the earlier ones stay.
func (s *Store) Delete(ctx context.Context, id string) error {
	if err := s.delete(ctx, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting a file in S3: %w", err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, id string) error {
	key, err := s.key(id)
	if err != nil {
		return err
	}
	w := s.watch(ctx)
	defer w.end()
	_, err = s.client.DeleteObject(w, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: key})
	return explain(w, err)
}

// List calls fn for every file, in the order of their ids.
func (s *Store) List(ctx context.Context, fn func(id string, size int64, stored time.Time) error) error {
	in := &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &s.prefix, Delimiter: aws.String("/")}
	for {
		page, err := s.page(ctx, in)
		if err != nil {
			return fmt.Errorf("listing files in S3: %w", err)
		}
		for _, o := range page.Contents {
			id, ok := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
			if !ok || !isID(id) {
				continue // not a file of ours
			}
			if o.LastModified == nil {
				return fmt.Errorf("listing files in S3: %q has no date", id)
			}
			if err := fn(id, aws.ToInt64(o.Size), *o.LastModified); err != nil {
				return fmt.Errorf("listing files in S3: %w", err)
			}
		}
		if !aws.ToBool(page.IsTruncated) {
			return nil
		}
		in.ContinuationToken = page.NextContinuationToken
	}
}

// page returns a page of a list. There is one, and if it is not the last, it
// says how to go on: a store that breaks off must not seem to have no files.
func (s *Store) page(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	w := s.watch(ctx)
	defer w.end()
	page, err := s.client.ListObjectsV2(w, in)
	if err != nil {
		return nil, explain(w, err)
	}
	if page.Name == nil {
		return nil, errors.New("the answer is not a list")
	}
	if next := aws.ToString(page.NextContinuationToken); aws.ToBool(page.IsTruncated) && (next == "" || next == aws.ToString(in.ContinuationToken)) {
		return nil, errors.New("the list does not go on")
	}
	return page, nil
}
