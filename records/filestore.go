package records

import (
	"context"
	"io"
	"time"
)

// A FileStore keeps the content of uploaded files under ids of letters, digits
// and dashes. It is safe for concurrent use. [OpenDir] keeps it in a directory,
// package s3files in a bucket.
type FileStore interface {
	// Put stores size bytes of r under id. When it returns, they survive a
	// loss of power. After an error there is nothing under id, or what there
	// is will be deleted.
	Put(ctx context.Context, id string, r io.Reader, size int64) error

	// Open opens a file for reading. The error is fs.ErrNotExist if there is
	// none. ctx counts until the file is closed.
	Open(ctx context.Context, id string) (io.ReadSeekCloser, error)

	// Delete deletes a file. That there is none is no error. Where a request
	// waits for it, ctx ends soon, and the sweep tries again.
	Delete(ctx context.Context, id string) error

	// List calls fn for every file, with the time it was stored, in any order.
	// An error of fn ends it.
	List(ctx context.Context, fn func(id string, size int64, stored time.Time) error) error
}

// FilesConfig configures where and how the content of file columns is kept.
// Limits that are 0 have the default named there, or none.
type FilesConfig struct {
	// Store is needed. It is one database handle's alone, with the files
	// attached to it: what those do not know is removed.
	Store FileStore

	MaxSize    int64 // bytes of one file; default: what Config.BodyLimit lets through
	MaxFiles   int   // files in one column of a row; default 32
	UserQuota  int64 // bytes that one caller may have stored at a time in a database file; all anonymous ones count as one
	TotalQuota int64 // bytes stored at a time in a database file

	// Grace is how old a stored file must be to be removed by
	// [Service.SweepFiles] when no row refers to it; default 1 h. It must be
	// longer than any request takes.
	Grace time.Duration
}
