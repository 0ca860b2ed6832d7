package backup

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
	"github.com/bedplate/bedplate/internal/iox"
)

// RestoreOptions says what to restore, and how.
type RestoreOptions struct {
	// TXID is the transaction whose state is wanted, Timestamp the time: the newest state that is
	// not younger. Only one of them can be given; none means the newest state there is.
	TXID      uint64
	Timestamp time.Time

	// Replace puts the copy in the place of a database that is there. That one is kept beside it,
	// see Restored.Kept. Nobody may have it open. Without Replace an existing file is an error,
	// fs.ErrExist.
	Replace bool

	// Lease takes the lease of the replica before anything is read, as [Replica.RestoreIfMissing]
	// does, for a copy that will be replicated from path: what another machine writes there in the
	// meantime would be lost, so it is [ErrLeased] then. When a database is replaced that is always
	// done. [RestoreFile] has no lease.
	Lease bool

	// Force, with Replace, also replaces a file that cannot be opened as a database, and one that
	// belongs to another application by its application_id. Whether anybody has it open cannot be
	// told then.
	Force bool

	// Check looks at the copy, a file at path that nobody else knows of yet, before it gets its
	// place. When it returns an error, nothing has changed.
	Check func(ctx context.Context, path string) error
}

// Restored tells what [Replica.Restore] has done.
type Restored struct {
	TXID     uint64        `json:"txid"`
	Time     time.Time     `json:"time"`  // of the last transaction
	Bytes    int64         `json:"bytes"` // size of the database
	Objects  int           `json:"objects"`
	Duration time.Duration `json:"duration_ns"`
	Kept     string        `json:"kept,omitempty"` // where the replaced database is
}

// Restore writes a copy of the database to path. It is made under another name in the same
// directory, checked (every object that is read by its checksums, the result by PRAGMA
// integrity_check, its application_id, and RestoreOptions.Check) and only then put in place, at
// once. Whatever goes wrong, what was at path is still there. It needs room for the copy.
//
// A Replica need not be started for it, and can be.
func (r *Replica) Restore(ctx context.Context, path string, o RestoreOptions) (Restored, error) {
	res, err := r.restore(ctx, path, o)
	if err != nil {
		return Restored{}, fmt.Errorf("backup: restore: %w", err)
	}
	return res, nil
}

func (r *Replica) restore(ctx context.Context, path string, o RestoreOptions) (res Restored, err error) {
	if path, err = databasePath(path); err != nil {
		return res, err
	}
	if o.TXID != 0 && !o.Timestamp.IsZero() {
		return res, errors.New("a transaction and a time are given")
	}
	cfg := r.cfg
	other := cmp.Or(r.replicatesOther(path), cfg.dirOfOther(path))
	switch {
	case other != "" && o.Lease:
		return res, fmt.Errorf("the replica is that of the database %s, which is there; move it away if this one takes its place", other)
	case other != "":
		cfg.Dir = "" // which is that of the other database
	}
	p, err := cfg.claim(ctx, path, o)
	if err != nil {
		return res, err
	}
	defer p.release()
	if other != "" || !p.exists && !o.Lease {
		return p.put(ctx, o, r.fetcher(o), ctx.Err)
	}
	err = r.underLease(ctx, path, false, func(ctx context.Context, sure func() error) error {
		res, err = p.put(ctx, o, r.fetcher(o), sure)
		return err
	})
	return res, err
}

// replicatesOther returns the path of the database for which this Replica was started, if that is
// another one.
func (r *Replica) replicatesOther(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started || r.path == path {
		return ""
	}
	return r.path
}

// RestoreFile puts a copy of the database file at from, such as one of [Snapshots], at path, with
// the same checks as [Replica.Restore], and that of its checksum if there is one. The file must be
// whole: one with a log or journal beside it is refused, as what is only there would be missing.
// Nothing may have it open, least of all this process, whose locks on it would be lost.
//
// Of cfg it uses what is about databases: Driver, Open, Dir, ApplicationID, MaxSize and Now. o must
// not name a transaction or a time.
func RestoreFile(ctx context.Context, cfg Config, from, path string, o RestoreOptions) (Restored, error) {
	res, err := restoreFile(ctx, cfg.withDefaults(), from, path, o)
	if err != nil {
		return Restored{}, fmt.Errorf("backup: restore %s: %w", from, err)
	}
	return res, nil
}

func restoreFile(ctx context.Context, cfg Config, from, path string, o RestoreOptions) (Restored, error) {
	if o.TXID != 0 || !o.Timestamp.IsZero() {
		return Restored{}, errors.New("a file holds one state only")
	}
	path, err := databasePath(path)
	if err != nil {
		return Restored{}, err
	}
	if cfg.dirOfOther(path) != "" {
		cfg.Dir = ""
	}
	p, err := cfg.claim(ctx, path, o)
	if err != nil {
		return Restored{}, err
	}
	defer p.release()
	return p.put(ctx, o, func(ctx context.Context, scratch string) (Restored, error) {
		return cfg.copyFile(ctx, from, scratch)
	}, ctx.Err)
}

func (c Config) copyFile(ctx context.Context, from, to string) (res Restored, err error) {
	source, info, err := openRegular(from)
	if err != nil {
		return res, err
	}
	defer source.Close()
	if c.MaxSize > 0 && info.Size() > c.MaxSize {
		return res, fmt.Errorf("it has %d bytes, Config.MaxSize is %d", info.Size(), c.MaxSize)
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		beside, err := os.Lstat(from + suffix)
		switch {
		case err == nil && beside.Size() > 0:
			return res, fmt.Errorf("a part of it may be in its %s; open and close it with SQLite first", suffix[1:])
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return res, err
		}
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return res, err
	}
	sum := sha256.New()
	err = iox.CopyExactly(ctx, target, io.TeeReader(source, sum), info.Size())
	if err = errors.Join(err, target.Sync(), target.Close()); err != nil {
		return res, err
	}
	if err := compareSum(from+checksumExt, hex.EncodeToString(sum.Sum(nil))); err != nil {
		return res, err
	}
	return Restored{Time: info.ModTime(), Bytes: info.Size(), Objects: 1}, nil
}

// compareSum compares a checksum with that in a file, if there is one.
func compareSum(file, sum string) error {
	f, _, err := openRegular(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	want, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err == nil && !strings.HasPrefix(string(want), sum+" ") {
		err = fmt.Errorf("%w: %s has another checksum", ErrCorrupt, filepath.Base(file))
	}
	return err
}

// openRegular opens a file that is a regular one: to open a pipe might take for ever.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) {
		err = fmt.Errorf("%s was replaced", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// put makes a copy beside the place by means of write, checks it and moves it there, unless sure
// fails.
func (p *place) put(ctx context.Context, o RestoreOptions, write func(ctx context.Context, scratch string) (Restored, error), sure func() error) (res Restored, err error) {
	began := time.Now()
	scratch := p.path + scratchInfix + rand.Text()
	defer func() {
		for _, suffix := range scratchSuffixes {
			if e := os.Remove(scratch + suffix); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}()
	if res, err = write(ctx, scratch); err != nil {
		return res, err
	}
	if err := p.cfg.verify(ctx, scratch, p.old, o); err != nil {
		return res, err
	}
	if err := sure(); err != nil {
		return res, err
	}
	if p.exists {
		res.Kept, err = p.cfg.replace(ctx, scratch, p.path, o.Force)
	} else {
		err = p.cfg.install(scratch, p.path)
	}
	res.Duration = time.Since(began)
	return res, err
}

// fetcher returns what writes the wanted state of the replica.
func (r *Replica) fetcher(o RestoreOptions) func(ctx context.Context, scratch string) (Restored, error) {
	return func(ctx context.Context, scratch string) (Restored, error) { return r.fetch(ctx, scratch, o) }
}

// fetch writes a state of the replica to a file that does not exist.
func (r *Replica) fetch(ctx context.Context, output string, o RestoreOptions) (Restored, error) {
	done, err := r.runJob(ctx, wire.Order{
		Mode: wire.Restore, Output: output, TXID: o.TXID, Timestamp: o.Timestamp, MaxBytes: r.cfg.MaxSize,
	})
	if err != nil {
		return Restored{}, err
	}
	if done.Restored == nil {
		return Restored{}, errors.New("the replicator did not say what it has restored")
	}
	d := done.Restored
	return Restored{TXID: d.TXID, Time: d.Time, Bytes: d.Bytes, Objects: d.Files}, nil
}

// RestoreIfMissing restores the newest state to path if there is no database, and reports whether
// it has. It is for the start of a program, before it opens the database: an empty replica is no
// error then, but one that cannot be reached is, because it may hold what is missing. Another
// machine that still replicates there makes it [ErrLeased]. check is [RestoreOptions].Check and may
// be nil.
func (r *Replica) RestoreIfMissing(ctx context.Context, path string, check func(ctx context.Context, path string) error) (bool, error) {
	restored, err := r.restoreIfMissing(ctx, path, check)
	if err != nil {
		return false, fmt.Errorf("backup: restore a missing database: %w", err)
	}
	return restored, nil
}

func (r *Replica) restoreIfMissing(ctx context.Context, path string, check func(ctx context.Context, path string) error) (bool, error) {
	path, err := databasePath(path)
	if err != nil {
		return false, err
	}
	if exists, err := hasContent(path); exists || err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	res, err := r.restore(ctx, path, RestoreOptions{Check: check, Lease: true})
	switch {
	case errors.Is(err, ErrNoBackup):
		r.cfg.Logger.Info("backup: nothing to restore, a new database begins", "path", path)
		return false, nil
	case errors.Is(err, fs.ErrExist):
		if exists, e := hasContent(path); exists || e != nil { // another process was faster
			return false, e
		}
		return false, err
	case err != nil:
		return false, err
	}
	r.cfg.Logger.Info("backup: restored", "path", path, "txid", res.TXID, "time", res.Time, "bytes", res.Bytes, "duration", res.Duration)
	return true, nil
}

// hasContent reports whether there is a database at path. An empty file is none: that is what a
// process leaves that died while it made one.
func hasContent(path string) (bool, error) {
	for _, p := range []string{path, path + "-wal"} {
		info, err := os.Stat(p)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil || info.Size() > 0 {
			return err == nil, err
		}
	}
	return false, nil
}
