package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// restoreTries is how often a restore begins anew when objects are compacted or deleted
	// while it reads them, or the store fails.
	restoreTries = 5

	// maxDamaged is how many damaged objects are done without, where others have the same
	// transactions, before a restore is given up.
	maxDamaged = 100

	// restoreReport is how often a restore says how far it is.
	restoreReport = 5 * time.Second
)

// errEnded is why something ended that was told to.
var errEnded = errors.New("it was told to stop")

// restore writes a copy of the database to Order.Output.
func (c *child) restore(ctx context.Context) wire.Event {
	ctx, cancel := c.untilStopped(ctx)
	defer cancel()
	restored, err := c.restoreTo(ctx, c.order.Output, target{ltx.TXID(c.order.TXID), c.order.Timestamp})
	if err != nil {
		return c.failed(err)
	}
	return wire.Event{Kind: wire.Done, Restored: &restored}
}

// untilStopped returns a context that ends when the program says so, or is gone. Nothing else can
// be asked for meanwhile.
func (c *child) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		defer c.guard()
		for command := range c.commands {
			if command.Op == wire.Stop {
				break
			}
			c.send(wire.Event{Kind: wire.Reply, ID: command.ID, Error: fmt.Sprintf("%s is not for this mode", command.Op)})
		}
		cancel(errEnded)
	}()
	return ctx, func() { cancel(nil) }
}

// restoreTo writes a state to a file that does not exist.
func (c *child) restoreTo(ctx context.Context, output string, t target) (wire.Restored, error) {
	if t.txid != 0 && !t.time.IsZero() {
		return wire.Restored{}, &codeError{wire.CodeConfig, errors.New("a transaction and a time are given")}
	}
	if _, err := os.Lstat(output); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s: %w", output, fs.ErrExist)
		}
		return wire.Restored{}, err
	}
	r := &restoration{c: c, output: output, target: t, damaged: map[ltx.FileInfo]error{}}
	for try := 1; ; try++ {
		restored, err := r.try(ctx)
		var broken *damagedError
		var gap *gapError
		switch {
		case err == nil:
			return restored, nil
		case ctx.Err() != nil:
			return wire.Restored{}, context.Cause(ctx)
		case errors.As(err, &broken) && len(r.damaged) < maxDamaged && r.leaveOut(broken.object, err):
			try--
			continue
		case r.first != nil && (errors.As(err, &gap) || codeOf(err) == wire.CodeNoBackup):
			return wire.Restored{}, fmt.Errorf("%w, and nothing else has those transactions", r.first)
		case try >= restoreTries || !r.worthAnother(err):
			if errors.As(err, &gap) {
				err = &codeError{wire.CodeCorrupt, err}
			}
			return wire.Restored{}, err
		}
		c.log.Debug("restore: again", "error", err)
		if !pause(ctx, time.Duration(try)*200*time.Millisecond) {
			return wire.Restored{}, context.Cause(ctx)
		}
	}
}

// A restoration is a restore under way.
type restoration struct {
	c       *child
	output  string
	target  target
	damaged map[ltx.FileInfo]error
	first   error // of damaged
	fetched int64
	files   int
}

// leaveOut does without a damaged object. It reports whether that is new.
func (r *restoration) leaveOut(o *ltx.FileInfo, why error) bool {
	if r.damaged[*o] != nil {
		return false
	}
	r.damaged[*o] = why
	if r.first == nil {
		r.first = why
	}
	r.c.log.Error("the replica is damaged", "error", why)
	return true
}

func (r *restoration) skip(o *ltx.FileInfo) bool { return r.damaged[*o] != nil }

// worthAnother reports whether an error may have gone by the next try: that of a store, and those
// that come of what happens in the replica meanwhile.
func (r *restoration) worthAnother(err error) bool {
	switch codeOf(err) {
	case wire.CodeOther, wire.CodeNotInTime:
		return !errors.Is(err, fs.ErrExist)
	default:
		return false
	}
}

func (r *restoration) try(ctx context.Context) (res wire.Restored, err error) {
	objects, err := readCatalog(ctx, r.c.client, fastTimes)
	if err != nil {
		return res, err
	}
	path, err := objects.plan(ctx, r.c.client, r.target, r.skip)
	if err != nil {
		return res, err
	}
	partial := r.output + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return res, err
	}
	f, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return res, err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			_ = os.Remove(partial) // or the next restore does
		}
	}()
	db := &copyFile{f: f, maxBytes: r.c.order.MaxBytes}
	last, err := r.apply(ctx, db, path)
	if err != nil {
		return res, err
	}
	if made := time.UnixMilli(last.Timestamp); !r.target.time.IsZero() && made.After(r.target.time) {
		return res, fmt.Errorf("object %s is younger than the wanted state", objectName(path[len(path)-1]))
	}
	size := db.size()
	if err := f.Sync(); err != nil {
		return res, err
	}
	err, f = f.Close(), nil
	if err != nil {
		return res, err
	}
	if err := os.Rename(partial, r.output); err != nil {
		return res, err
	}
	if err := syncDir(r.output); err != nil {
		return res, err
	}
	return wire.Restored{
		TXID: uint64(last.MaxTXID), Time: time.UnixMilli(last.Timestamp).UTC(),
		Bytes: size, Fetched: r.fetched, Files: r.files,
	}, nil
}

// apply writes one object after the other to db and returns the header of the last.
func (r *restoration) apply(ctx context.Context, db *copyFile, path []*ltx.FileInfo) (last ltx.Header, err error) {
	reported := time.Now()
	total := int64(0)
	for _, o := range path {
		total += o.Size
	}
	read := int64(0)
	client, stop := r.c.readAhead(ctx, path)
	defer stop()
	for i, o := range path {
		h, err := readObject(ctx, client, o, pageSink{begin: db.begin, page: func(n uint32, data []byte) error {
			if time.Since(reported) > restoreReport {
				reported = time.Now()
				r.c.log.Info("restoring", "object", i+1, "objects", len(path), "bytes_read", read, "bytes_to_read", total, "page", n)
			}
			return db.page(n, data)
		}})
		if err == nil {
			err = db.end(o)
		} else if code := codeOf(err); code == wire.CodeTooLarge || code == wire.CodeFullDisk {
			// It may be a flipped bit that has made it so large.
			if e := r.c.check(ctx, o); e != nil {
				err = e
			}
		}
		if err != nil {
			return last, err
		}
		last = h
		read += o.Size
		r.fetched += o.Size
		r.files++
	}
	return last, nil
}

// check reads an object as a whole for nothing but to know whether that can be done.
func (c *child) check(ctx context.Context, o *ltx.FileInfo) error {
	_, err := readObject(ctx, c.client, o, discard)
	return err
}

// syncDir makes a change in the directory of a file last.
func syncDir(file string) error {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
