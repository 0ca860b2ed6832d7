package replicator

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// errNoCopy is about a copy that is not there, or cannot be one that a follower has left.
var errNoCopy = errors.New("there is no copy that can be gone on with")

// A pageDB is a database whose pages are replaced by SQLite itself, through its virtual table
// sqlite_dbpage (https://www.sqlite.org/dbpage.html), which leaves locks and rollback to it.
type pageDB struct {
	path     string
	maxBytes int64
	db       *sql.DB
	conn     *sql.Conn
	put      *sql.Stmt // replaces a page
	most     int64     // bytes of pages that are kept in memory until they are committed
	fetched  string    // name of the object that is beside the copy as a whole

	txid     ltx.TXID
	counter  uint32 // change counter of the file
	pageSize uint32
	pages    uint32
}

// Places in the first page of a database (https://www.sqlite.org/fileformat.html#the_database_header).
const (
	writeVersionAt  = 18 // 1: rollback journal, 2: write-ahead log
	readVersionAt   = 19
	changeCounterAt = 24
	headerSize      = 100
)

// A copyState is what the file beside the copy says: which transaction the copy is at. SQLite adds
// one to the change counter of the file with each of its transactions, so the counter tells whether
// the one that was under way at last was committed.
type copyState struct {
	TXID    ltx.TXID `json:"txid"`
	Counter uint32   `json:"counter"`        // in the file at that state
	Next    ltx.TXID `json:"next,omitempty"` // the state after the transaction that follows
}

func statePath(path string) string { return path + "-txid" }

// openPages opens a copy where a follower has left it, also if that was killed. The error is
// errNoCopy when there is none, or somebody else has changed it.
func openPages(ctx context.Context, path string, maxBytes int64) (_ *pageDB, err error) {
	var s copyState
	text, err := os.ReadFile(statePath(path))
	if errors.Is(err, fs.ErrNotExist) || err == nil && json.Unmarshal(text, &s) != nil {
		return nil, fmt.Errorf("%w: nothing is known of it", errNoCopy)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errNoCopy
		}
		return nil, err
	}
	d := &pageDB{path: path, maxBytes: maxBytes, most: mostHeld}
	defer func() {
		if err != nil {
			_ = d.close()
		}
	}()
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	if err := d.conn.QueryRowContext(ctx, "PRAGMA page_size").Scan(&d.pageSize); err != nil {
		return nil, err
	}
	if err := d.conn.QueryRowContext(ctx, "PRAGMA page_count").Scan(&d.pages); err != nil {
		return nil, err
	}
	if d.counter, err = d.readCounter(ctx); err != nil {
		return nil, err
	}
	switch {
	case s.TXID != 0 && d.counter == s.Counter:
		d.txid = s.TXID
	case s.Next != 0 && d.counter == s.Counter+1:
		d.txid = s.Next
	default:
		return nil, fmt.Errorf("%w: somebody has changed it", errNoCopy)
	}
	return d, nil
}

func (d *pageDB) connect(ctx context.Context) (err error) {
	// The schema is of no interest, and may need what this SQLite library does not have.
	const pragmas = "?_pragma=busy_timeout(1000)&_pragma=journal_mode(DELETE)&_pragma=synchronous(FULL)&_pragma=writable_schema(ON)&_pragma=trusted_schema(OFF)&_pragma=cache_size(-16000)&_pragma=cache_spill(OFF)"
	if d.db, err = sql.Open("sqlite", "file:"+(&url.URL{Path: d.path}).EscapedPath()+pragmas); err != nil {
		return err
	}
	d.db.SetMaxOpenConns(1)
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	if d.put, err = d.conn.PrepareContext(ctx, "INSERT INTO sqlite_dbpage (pgno, data) VALUES (?, ?)"); err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	return nil
}

func (d *pageDB) close() error {
	var errs []error
	if d.put != nil {
		errs = append(errs, d.put.Close())
	}
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	errs = append(errs, d.forget())
	return errors.Join(errs...)
}

func (d *pageDB) readCounter(ctx context.Context) (uint32, error) {
	var page []byte
	if err := d.conn.QueryRowContext(ctx, "SELECT data FROM sqlite_dbpage WHERE pgno = 1").Scan(&page); err != nil {
		return 0, fmt.Errorf("read the copy: %w", err)
	}
	if len(page) < headerSize {
		return 0, fmt.Errorf("%w: it has no first page", errNoCopy)
	}
	return binary.BigEndian.Uint32(page[changeCounterAt:]), nil
}

// apply makes one transaction of an object. If that is damaged, nothing has changed.
//
// Nobody is kept from reading while the store is waited for: changed pages stay in memory until the
// end, and an object with too many of them is read to a file first.
func (d *pageDB) apply(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo) error {
	if d.fetched != objectName(o) {
		err := d.change(ctx, client, o, "BEGIN IMMEDIATE", d.most)
		if !errors.Is(err, errManyPages) {
			return err
		}
		if err := d.fetch(ctx, client, o); err != nil {
			return errors.Join(err, d.forget())
		}
	}
	if _, err := d.conn.ExecContext(ctx, "PRAGMA cache_spill=ON"); err != nil {
		return err
	}
	// Exclusive from the start, since pages are written to the copy before the end.
	err := d.change(ctx, &fetchedClient{client, fetchedPath(d.path)}, o, "BEGIN EXCLUSIVE", 0)
	if _, e := d.conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA cache_spill=OFF"); e != nil {
		return errors.Join(err, e)
	}
	if isBusy(err) {
		return err // the file serves for the next attempt
	}
	return errors.Join(err, d.forget())
}

// change makes a transaction of an object. The error is errManyPages if that has more than most
// bytes of pages; 0: no limit.
func (d *pageDB) change(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo, begin string, most int64) (err error) {
	if _, err := d.conn.ExecContext(ctx, begin); err != nil {
		return fmt.Errorf("change the copy: %w", err)
	}
	defer func() {
		if err != nil {
			_, e := d.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			err = errors.Join(err, e)
		}
	}()
	counter, err := d.readCounter(ctx)
	if err != nil {
		return err
	}
	if counter != d.counter {
		return fmt.Errorf("%w: somebody has changed it", errNoCopy)
	}
	commit, err := d.putPages(ctx, client, o, most)
	if err != nil {
		return err
	}
	if err := writeState(d.path, copyState{TXID: d.txid, Counter: d.counter, Next: o.MaxTXID}); err != nil {
		return err
	}
	if _, err := d.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("change the copy, which somebody may be reading for long: %w", err)
	}
	d.txid, d.counter, d.pages = o.MaxTXID, d.counter+1, commit
	return nil
}

// putPages replaces pages and returns how many the database has then.
func (d *pageDB) putPages(ctx context.Context, client litestream.ReplicaClient, o *ltx.FileInfo, most int64) (commit uint32, err error) {
	var first []byte
	grown, size := d.pages, int64(0)
	begin := func(h ltx.Header) error {
		if err := d.mayBe(h); err != nil {
			return err
		}
		if o.Size > 2*int64(h.Commit)*int64(h.PageSize)+1<<20 {
			return damagedObject(o, "%d bytes for a database of %d pages", o.Size, h.Commit)
		}
		if most > 0 && o.Size > most {
			return errManyPages
		}
		return nil
	}
	h, err := readObject(ctx, client, o, pageSink{begin: begin, page: func(n uint32, data []byte) error {
		if size += int64(len(data)); most > 0 && size > most {
			return errManyPages
		}
		if n == nextPage(grown, ltx.LockPgno(d.pageSize)) {
			grown = n
		}
		if n == 1 { // comes last, as it tells SQLite to read the schema again
			first = bytes.Clone(data)
			return nil
		}
		_, err := d.put.ExecContext(ctx, n, data)
		return err
	}})
	if err != nil {
		return 0, err
	}
	if err := checkGrowth(o, h, d.pages, grown); err != nil {
		return 0, err
	}
	if first == nil { // so that the change counter changes
		if err := d.conn.QueryRowContext(ctx, "SELECT data FROM sqlite_dbpage WHERE pgno = 1").Scan(&first); err != nil {
			return 0, err
		}
	}
	first[writeVersionAt], first[readVersionAt] = 1, 1
	if _, err := d.put.ExecContext(ctx, 1, first); err != nil {
		return 0, err
	}
	if h.Commit < d.pages {
		if _, err := d.put.ExecContext(ctx, h.Commit+1, nil); err != nil {
			return 0, err
		}
	}
	return h.Commit, nil
}

// mayBe checks what an object says it makes of the copy.
func (d *pageDB) mayBe(h ltx.Header) error {
	size := int64(h.Commit) * int64(h.PageSize)
	switch {
	case h.PageSize != d.pageSize:
		return &codeError{wire.CodeCorrupt, fmt.Errorf("pages of %d bytes follow those of %d", h.PageSize, d.pageSize)}
	case d.maxBytes > 0 && size > d.maxBytes:
		return &codeError{wire.CodeTooLarge, fmt.Errorf("the database has %d bytes, %d are allowed", size, d.maxBytes)}
	}
	return nil
}

// putCopy makes a restored database the copy at path. It is not in use yet.
func putCopy(fresh, path string, txid ltx.TXID) error {
	counter, err := useRollback(fresh)
	if err != nil {
		return err
	}
	// What is known of an old copy is forgotten first. If that was left in the middle of a
	// transaction, a reader may still need the journal until the file is gone.
	if err := removeFiles(statePath(path), fetchedPath(path), path, path+"-journal", path+"-wal", path+"-shm"); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	if err := syncDir(path); err != nil {
		return err
	}
	return writeState(path, copyState{TXID: txid, Counter: counter})
}

// useRollback makes a database file one that uses a rollback journal, and returns its change
// counter.
func useRollback(path string) (counter uint32, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	header := make([]byte, headerSize)
	if _, err := f.ReadAt(header, 0); err != nil {
		return 0, err
	}
	_, err = f.WriteAt([]byte{1, 1}, writeVersionAt)
	return binary.BigEndian.Uint32(header[changeCounterAt:]), err
}

// writeState replaces the file beside the copy.
func writeState(path string, s copyState) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return replaceFile(statePath(path), text)
}

func removeFiles(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
