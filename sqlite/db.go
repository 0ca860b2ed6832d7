package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// Synchronous says what an acknowledged write has survived.
// See https://www.sqlite.org/pragma.html#pragma_synchronous.
type Synchronous int

const (
	// Full, the default: the write is on the disk and survives a power cut.
	Full Synchronous = iota
	// Normal: the write survives the death of the process; a power cut may
	// lose the last acknowledged writes, never the database. Numbers of a
	// [ChangeLog] that were lost are then used again: call its Renew.
	Normal
)

func (s Synchronous) pragma() string {
	if s == Normal {
		return "NORMAL"
	}
	return "FULL"
}

// An Attachment is another database file that every connection sees under
// Name, as in "SELECT * FROM name.table". A transaction that writes to two
// files is not atomic across them when the power fails
// (https://www.sqlite.org/lang_attach.html).
type Attachment struct {
	Name string // letters, digits and underscores; not main or temp
	Path string
}

// Options configure [Open]. The zero value is the safe choice throughout.
type Options struct {
	// Synchronous is Full by default.
	Synchronous Synchronous

	// Readers is the greatest number of reading connections, opened as they
	// are needed; default twice the number of processors, from 2 to 8.
	Readers int

	// MaxQueue bounds the writes that wait for the writer; default 4096.
	// Beyond it writes fail with [ErrBusy].
	MaxQueue int

	// MaxBatch bounds the writes that share a commit; default 256. With 1
	// every write has a commit of its own.
	MaxBatch int

	// MaxHold bounds how long one Update may keep the writer; default 30 s.
	MaxHold time.Duration

	// MaxStatement bounds how long one Write, or one statement of Query and
	// Read, may take before it is interrupted; default 10 s.
	MaxStatement time.Duration

	// BusyTimeout is how long to wait for another process; default 10 s.
	BusyTimeout time.Duration

	// CacheSize is the page cache of a connection in KiB; default 8192.
	CacheSize int

	// Checkpoint is the size of the write-ahead log, in pages, at which a
	// commit checkpoints it; default 4000, or 16384 with Replicated. In the
	// background it is checkpointed sooner, so commits rarely have to.
	Checkpoint int

	// Replicated says that another process follows the write-ahead log of
	// the database, or may soon: it has a read transaction open nearly all
	// the time and checkpoints the log itself, as Litestream does. The log
	// is then left alone up to half of Checkpoint, so that a replicator that
	// starts again finds there what it has missed. A replicator that stands
	// still in its transaction keeps the log growing.
	Replicated bool

	// Ballast is the size in bytes of a file beside the database,
	// PATH-ballast, that is deleted when the disk is full so that reading
	// goes on; default 1 MiB, none if negative.
	Ballast int64

	// Schemas are JSON Schemas by the name that the SQL function
	// jsonschema(name, value) knows them by, beside the built-in
	// std.FileUpload, std.FileUploads and std.KeyValue.
	Schemas map[string]string

	// Attach lists further database files.
	Attach []Attachment

	// ChangeLog bounds the change logs, see [ChangeLog].
	ChangeLog ChangeLogOptions

	// Logger gets what no caller is told; default slog.Default().
	Logger *slog.Logger

	// Now is the clock of the SQL functions and of the age of changes;
	// default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.Readers, min(max(2, 2*runtime.GOMAXPROCS(0)), 8))
	def(&o.MaxQueue, 4096)
	def(&o.MaxBatch, 256)
	def(&o.CacheSize, 8192)
	if o.Replicated {
		def(&o.Checkpoint, 16384)
	}
	def(&o.Checkpoint, 4000)
	if o.MaxHold == 0 {
		o.MaxHold = 30 * time.Second
	}
	if o.MaxStatement == 0 {
		o.MaxStatement = 10 * time.Second
	}
	if o.BusyTimeout == 0 {
		o.BusyTimeout = 10 * time.Second
	}
	if o.Ballast == 0 {
		o.Ballast = 1 << 20
	}
	o.ChangeLog = o.ChangeLog.withDefaults()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// validate reports every mistake at once.
func (o Options) validate(path string) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("sqlite: "+format, args...)) }
	switch {
	case path == "":
		bad("path is empty")
	case strings.HasPrefix(path, ":memory:"), strings.HasPrefix(path, "file:"):
		bad("path %q: a plain file path is needed; for a throw-away database use a file in a temporary directory", path)
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"readers", o.Readers}, {"max queue", o.MaxQueue}, {"max batch", o.MaxBatch}, {"cache size", o.CacheSize}, {"checkpoint", o.Checkpoint}} {
		if f.value < 1 {
			bad("%s is negative", f.name)
		}
	}
	if o.MaxHold < 0 || o.BusyTimeout < 0 || o.MaxStatement < 0 {
		bad("a duration is negative")
	}
	if o.Synchronous != Full && o.Synchronous != Normal {
		bad("synchronous is neither Full nor Normal")
	}
	seen := map[string]bool{"main": true, "temp": true}
	for _, a := range o.Attach {
		if !plainName(a.Name) {
			bad("attach %q: the name may hold letters, digits and underscores only", a.Name)
		}
		if seen[strings.ToLower(a.Name)] {
			bad("attach %q: the name is taken", a.Name)
		}
		seen[strings.ToLower(a.Name)] = true
		if a.Path == "" {
			bad("attach %q: path is empty", a.Name)
		}
	}
	return errors.Join(errs...)
}

func plainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return s != ""
}

// DB is one SQLite database: one writer, several readers. It is safe for
// concurrent use. Create it with [Open].
type DB struct {
	path    string
	opts    Options
	log     *slog.Logger
	schemas *schemaSet
	ids     *idSource

	writer    writer
	readers   readers
	ballast   ballast
	maintain  maintainer
	watch     watch
	logs      []*ChangeLog // of main and of the attached databases
	commits   commits
	pruner    pruner
	snapshots snapshots
	altered   atomic.Int64 // see SchemaChanges

	migrating sync.RWMutex // read-locked by Migrate

	forget    func() // of opened
	closeOnce sync.Once
	closeErr  error
}

// Open opens the database file at path, creating it (readable by its owner
// only) when it does not exist. It reports all mistakes of opts at once and
// refuses an SQLite older than 3.51.3.
func Open(ctx context.Context, path string, opts Options) (_ *DB, err error) {
	opts = opts.withDefaults()
	set, err := newSchemaSet(opts.Schemas)
	if err != nil {
		err = fmt.Errorf("sqlite: %w", err)
	}
	if err := errors.Join(checkVersion(), opts.validate(path), err); err != nil {
		return nil, err
	}
	db := &DB{path: path, opts: opts, log: opts.Logger, schemas: set, ids: newIDSource(opts.Now)}
	for _, p := range db.files() {
		if err := checkSecondLibrary(p); err != nil {
			return nil, err
		}
		if err := createFile(p); err != nil {
			return nil, fmt.Errorf("sqlite: create database: %w", err)
		}
	}
	db.forget = opened.add(db.files())
	defer func() {
		if err != nil {
			db.forget()
		}
	}()
	db.ballast.open(path, opts.Ballast)
	db.watch.init(opts.MaxStatement)
	w, err := db.openConn(false)
	if err = db.classify(err); errors.Is(err, ErrDiskFull) {
		db.ballast.release() // it is there for this
		w, err = db.openConn(false)
		err = db.classify(err)
	}
	if err != nil {
		db.ballast.close()
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	if err := ctx.Err(); err != nil {
		db.ballast.close()
		return nil, errors.Join(err, w.close())
	}
	w.tx.sync = func() error { return db.syncLogs(w, nil) }
	db.logs = db.newLogs()
	db.writer.init(db, w)
	db.readers.init(db)
	db.commits.init(db)
	db.snapshots.init()
	db.maintain.start(db)
	db.pruner.start(db)
	db.openLogs(ctx, w)
	return db, nil
}

// files returns the paths of all database files.
func (db *DB) files() []string {
	paths := []string{db.path}
	for _, a := range db.opts.Attach {
		paths = append(paths, a.Path)
	}
	return paths
}

// createFile makes sure that a new database cannot be read by other users of
// the machine; SQLite gives its side files the mode of the main file.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// Path returns the path that the database was opened with.
func (db *DB) Path() string { return db.path }

// Err returns nil while the database accepts writes; otherwise why it does
// not: [ErrClosed], [ErrDiskFull], or [ErrFailed] after a commit has failed.
// It is what a readiness probe wants to know.
func (db *DB) Err() error {
	if err := db.writer.err(); err != nil {
		return err
	}
	if db.ballast.exhausted() {
		return ErrDiskFull
	}
	return nil
}

// Close waits for running writes and reads, then closes the file. A running
// Snapshot is given up, and calls that come later fail with [ErrClosed]. Close
// may be called more than once.
func (db *DB) Close() error {
	db.closeOnce.Do(func() {
		db.pruner.close()
		db.closeErr = db.commits.close() // who waits for commits is told at once
		db.snapshots.close()
		db.maintain.stop()
		defer db.watch.close()
		w := db.writer.close()
		db.migrating.Lock() // waits for a running Migrate
		defer db.migrating.Unlock()
		db.closeErr = errors.Join(db.closeErr, db.readers.close())
		if db.writer.failure() == nil {
			if err := w.exec("PRAGMA optimize"); err != nil {
				db.log.Warn("optimize database", "error", err)
			}
		}
		db.closeErr = errors.Join(db.closeErr, w.close())
		db.ballast.close()
		db.forget()
	})
	return db.closeErr
}

// openErr returns ErrClosed after Close.
func (db *DB) openErr() error {
	if err := db.writer.err(); errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// openConn opens the writer or a reader.
func (db *DB) openConn(readOnly bool) (*conn, error) {
	raw, err := db.connect(readOnly)
	if err != nil {
		return nil, err
	}
	c := newConn(raw)
	if c.handle, err = databaseHandle(raw); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	c.watch = &db.watch
	db.watch.add(c)
	if readOnly {
		c.tx.beginSQL, c.tx.commitSQL, c.tx.rollbackSQL = "BEGIN /* view */", []string{"COMMIT /* view */"}, []string{"ROLLBACK /* view */"}
	} else {
		name := quoteName(savepointName)
		c.tx.beginSQL, c.tx.commitSQL, c.tx.rollbackSQL = "SAVEPOINT "+name, []string{"RELEASE " + name}, []string{"ROLLBACK TO " + name, "RELEASE " + name}
	}
	raw.RegisterAuthorizer(c.tx.authorize)
	mode, err := c.pragma("journal_mode")
	if err == nil && mode != "wal" {
		err = fmt.Errorf("journal mode is %v, WAL is needed; is the file on a network file system?", mode)
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (db *DB) connect(readOnly bool) (*sqlite3.SQLiteConn, error) {
	var b strings.Builder
	pragma := func(format string, args ...any) { fmt.Fprintf(&b, "PRAGMA "+format+";", args...) }
	for i, a := range db.opts.Attach {
		fmt.Fprintf(&b, "ATTACH %s AS %s;", quoteText(fileURI(a.Path, "")), quoteName(db.opts.Attach[i].Name))
	}
	for _, name := range db.schemaNames() {
		if !readOnly {
			pragma("%s.journal_mode=WAL", quoteName(name))
		}
		pragma("%s.synchronous=%s", quoteName(name), db.opts.Synchronous.pragma())
		pragma("%s.cache_size=-%d", quoteName(name), db.opts.CacheSize)
	}
	pragma("temp_store=MEMORY")
	pragma("analysis_limit=400")
	if readOnly {
		pragma("wal_autocheckpoint=0")
		pragma("query_only=ON")
	} else {
		pragma("wal_autocheckpoint=%d", db.opts.Checkpoint)
	}
	dsn := fileURI(db.path, fmt.Sprintf("?_mutex=no&_busy_timeout=%d", db.opts.BusyTimeout.Milliseconds()))
	dc, err := openRaw(dsn, functionOptions{now: db.opts.Now, schemas: db.schemas, ids: db.ids}, b.String())
	if err != nil {
		return nil, err
	}
	return dc.(*sqlite3.SQLiteConn), nil
}

// schemaNames returns main and the names of the attached databases.
func (db *DB) schemaNames() []string {
	names := []string{"main"}
	for _, a := range db.opts.Attach {
		names = append(names, a.Name)
	}
	return names
}

// Connector returns a connector for the application's own database/sql
// handle on this file, with this handle's pragmas and SQL functions:
//
//	own := sql.OpenDB(db.Connector())
//
// What it writes takes no part in group commit.
func (db *DB) Connector() driver.Connector { return connector{db} }

type connector struct{ db *DB }

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.db.connect(false) }
func (c connector) Driver() driver.Driver                        { return Driver{} }

// fileURI returns path as an SQLite URI, so that no character of it is taken
// for a parameter (https://www.sqlite.org/uri.html).
func fileURI(path, params string) string {
	path = filepath.ToSlash(path)
	if strings.HasPrefix(path, "/") {
		path = "//" + path // with an authority, an empty one
	}
	return "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path) + params
}

// savepointPrefix begins the names of our own savepoints.
const savepointPrefix = "bedplate_"

// savepointName is the savepoint around each function of Update.
const savepointName = savepointPrefix + "update"

func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
func quoteText(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// SchemaVersion returns a number that changes with every change of the schema
// of the file or of an attached one, by whomever
// (https://www.sqlite.org/pragma.html#pragma_schema_version).
func (db *DB) SchemaVersion(ctx context.Context) (sum int64, err error) {
	for _, name := range db.schemaNames() {
		err := db.Query(ctx, "PRAGMA "+quoteName(name)+".schema_version", nil, func(row []driver.Value) error {
			sum = sum*1_000_003 + row[0].(int64)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// SchemaChanges counts how often this handle may have changed the schema:
// while it stays the same, only others can have done it.
func (db *DB) SchemaChanges() int64 { return db.altered.Load() }
