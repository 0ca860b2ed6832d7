package replicator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// mostHeld is how many bytes of changed pages are kept in memory until they are committed. With
// more, SQLite would write some to the copy early, for which nobody may read it.
const mostHeld = 64 << 20

// errManyPages is about an object with more pages than that.
var errManyPages = errors.New("the object has many pages")

func fetchedPath(path string) string { return path + "-object" }

// fetch reads an object to a file beside the copy, and makes sure that it is right.
func (d *pageDB) fetch(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo) (err error) {
	if err := d.forget(); err != nil {
		return err
	}
	f, err := os.OpenFile(fetchedPath(d.path), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	body := &objectReader{ctx: ctx, client: client, object: o}
	_, err = io.Copy(f, io.LimitReader(body, o.Size+1))
	body.close()
	if body.err != nil {
		err = fmt.Errorf("read object %s: %w", objectName(o), body.err)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	sink := pageSink{begin: d.mayBe, page: discard.page}
	if _, err := readObject(ctx, &fetchedClient{client, fetchedPath(d.path)}, o, sink); err != nil {
		return err
	}
	d.fetched = objectName(o)
	return nil
}

// forget removes the file beside the copy.
func (d *pageDB) forget() error {
	d.fetched = ""
	return removeFiles(fetchedPath(d.path))
}

// A fetchedClient reads an object from a file.
type fetchedClient struct {
	litestream.ReplicaClient
	path string
}

// OpenLTXFile opens the file, which is that of the only object that is asked for.
func (c *fetchedClient) OpenLTXFile(_ context.Context, _ int, _, _ ltx.TXID, offset, _ int64) (io.ReadCloser, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// isBusy reports whether SQLite could not do something because of others who have the database
// open.
func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}
