package s3files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Open opens a file for reading. It asks for the size only; the content is
// requested by the first Read, and by the first one after a Seek to elsewhere.
// A file that is replaced meanwhile cannot be read any further. What is read
// as a whole is compared with its checksum, if the store keeps one.
func (s *Store) Open(ctx context.Context, id string) (io.ReadSeekCloser, error) {
	f, err := s.open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("opening a file in S3: %w", err)
	}
	return f, nil
}

func (s *Store) open(ctx context.Context, id string) (*file, error) {
	key, err := s.key(id)
	if err != nil {
		return nil, err
	}
	w := s.watch(ctx)
	defer w.end()
	head, err := s.client.HeadObject(w, &s3.HeadObjectInput{Bucket: &s.bucket, Key: key})
	if statusOf(err) == http.StatusNotFound {
		// The answer has no body, so it could be the bucket that is missing.
		if _, err := s.client.HeadBucket(w, &s3.HeadBucketInput{Bucket: &s.bucket}); err != nil {
			return nil, fmt.Errorf("looking for the bucket: %w", explain(w, err))
		}
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, explain(w, err)
	}
	if head.ContentLength == nil || *head.ContentLength < 0 {
		return nil, errors.New("the store does not tell its size")
	}
	return &file{store: s, ctx: ctx, key: key, size: *head.ContentLength, version: head.ETag}, nil
}

// A file is an object that is read piece by piece.
type file struct {
	store   *Store
	ctx     context.Context
	key     *string
	size    int64
	version *string // its ETag; nil if the store has none

	closed bool
	pos    int64         // of the next Read
	body   io.ReadCloser // what comes from pos on; nil if it was not requested
	watch  *watch        // over body
}

func (f *file) Read(p []byte) (int, error) {
	switch {
	case f.closed:
		return 0, fs.ErrClosed
	case len(p) == 0:
		return 0, nil
	case f.pos >= f.size:
		return 0, io.EOF
	}
	n, err := f.read(p[:min(int64(len(p)), f.size-f.pos)])
	if err != nil {
		f.drop()
		return n, fmt.Errorf("reading a file in S3: %w", err)
	}
	return n, nil
}

func (f *file) read(p []byte) (int, error) {
	if f.body == nil {
		if err := f.request(); err != nil {
			return 0, err
		}
	}
	f.watch.moved()
	n, err := f.body.Read(p)
	last := f.pos+int64(n) == f.size
	if last && err == nil {
		err = ended(f.body)
	}
	f.watch.pause()
	switch {
	case errors.Is(err, io.EOF) && last:
		f.drop()
		err = nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case err != nil:
		err = explain(f.watch, err)
		if last {
			n = 0 // without the last bytes nobody takes it for complete
		}
	}
	f.pos += int64(n)
	return n, err
}

// ended returns io.EOF if r is at its end.
func ended(r io.Reader) error {
	_, err := io.ReadFull(r, make([]byte, 1))
	if err == nil {
		return errors.New("there is more than its size")
	}
	return err
}

// request asks for what comes from pos on.
func (f *file) request() error {
	w := f.store.watch(f.ctx)
	in := &s3.GetObjectInput{Bucket: &f.store.bucket, Key: f.key, IfMatch: f.version}
	if f.pos > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", f.pos))
	} else {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	out, err := f.store.client.GetObject(w, in)
	if err != nil {
		err = explain(w, err)
		w.end()
		return err
	}
	f.body, f.watch = out.Body, w
	if aws.ToInt64(out.ContentLength) != f.size-f.pos {
		return fmt.Errorf("the store sends %d bytes, not %d", aws.ToInt64(out.ContentLength), f.size-f.pos)
	}
	return nil
}

func (f *file) Seek(offset int64, whence int) (int64, error) {
	if f.closed {
		return 0, fs.ErrClosed
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.size
	default:
		return 0, fmt.Errorf("%w: whence %d", fs.ErrInvalid, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("%w: a position before the beginning", fs.ErrInvalid)
	}
	if offset != f.pos {
		f.drop()
		f.pos = offset
	}
	return offset, nil
}

// drop ends a request.
func (f *file) drop() {
	if f.body == nil {
		return
	}
	// Its context first: the rest of the body is not to be waited for.
	f.watch.end()
	_ = f.body.Close()
	f.body, f.watch = nil, nil
}

func (f *file) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.drop()
	f.closed = true
	return nil
}
