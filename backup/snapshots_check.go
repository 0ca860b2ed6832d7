package backup

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
)

// checkFile checks the database file at path, which nobody writes to, as it would be checked when
// it is restored. It leaves nothing beside it. The error of a damaged one is [ErrCorrupt].
func (c SnapshotsConfig) checkFile(ctx context.Context, path string) error {
	open := c.Open
	if open == nil {
		// An immutable file is read without a log, locks or shared memory.
		open = func(path string) (*sql.DB, error) {
			uri := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}
			return sql.Open(c.Driver, uri.String())
		}
	}
	db, err := open(path)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, statement := range wary {
		if _, err = db.ExecContext(ctx, statement); err != nil {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			break
		}
	}
	if err == nil {
		err = integrityCheck(ctx, db)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checksum returns the SHA-256 of what r gives, in hex.
func checksum(ctx context.Context, r io.Reader) (string, error) {
	hash := sha256.New()
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		_, err := io.CopyN(hash, r, 1<<20)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(hash.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
