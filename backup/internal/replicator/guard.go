package replicator

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/benbjohnson/litestream"
)

// A guard knows what counts in the write-ahead log, and can keep others from writing. It has a
// connection of its own besides Litestream's, as long as the process lives.
type guard struct {
	path     string
	file     *os.File // the database; never closed, as the index is not
	database *sql.DB
	conn     *sql.Conn
	index    *walIndex
}

// errOtherFiles means that nothing that this process has open is of use any more.
var errOtherFiles = errors.New("the files of the database are not those that were opened")

// mostBumps is how often what is behind the end of the log is written over before that is given up.
// Once is enough, as a frame is valid only behind the one that it was written after.
const mostBumps = 10

const bumpSeq = "INSERT INTO _litestream_seq (id, seq) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET seq = seq + 1"

func openGuard(ctx context.Context, path string) (_ *guard, err error) {
	if _, err := os.Stat(path); err != nil { // it would be made
		return nil, err
	}
	g := &guard{path: path}
	dsn := fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)&_pragma=wal_autocheckpoint(0)", path, busyTimeout.Milliseconds())
	if g.database, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.conn, err = g.database.Conn(ctx); err != nil {
		return nil, err
	}
	if err := g.conn.Raw(persistWAL); err != nil {
		return nil, err
	}
	var mode string
	if err := g.conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, fmt.Errorf("the journal mode of the database is %s, WAL is needed", mode)
	}
	// Litestream makes these at a time when it must not write.
	for _, table := range []string{
		"CREATE TABLE IF NOT EXISTS _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
		"CREATE TABLE IF NOT EXISTS _litestream_lock (id INTEGER)",
	} {
		if _, err := g.conn.ExecContext(ctx, table); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() < litestream.WALHeaderSize {
		if _, err := g.conn.ExecContext(ctx, bumpSeq); err != nil {
			return nil, err
		}
	}
	if g.file, err = os.Open(path); err != nil {
		return nil, err
	}
	if g.index, err = openWALIndex(path); err != nil {
		return nil, errors.Join(err, g.file.Close())
	}
	return g, g.keep()
}

// keep keeps other processes from deleting the log when they close the database, and makes sure that
// none has: the error is errOtherFiles then.
//
// A connection does the former by a lock on the database, of which SQLite knows that it has it. But
// it is gone when the process closes any descriptor of the file, as Litestream does.
func (g *guard) keep() error {
	if err := lockShared(g.file); err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	same, err := isFile(g.path, g.file)
	if err != nil {
		return err
	}
	if same {
		same, err = isFile(g.path+"-shm", g.index.file)
	}
	if !same && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		return errOtherFiles
	}
	return err
}

// isFile reports whether f is what has the name now.
func isFile(name string, f *os.File) (bool, error) {
	there, err := os.Stat(name)
	if err != nil {
		return false, err
	}
	open, err := f.Stat()
	return err == nil && os.SameFile(there, open), err
}

// persistWAL keeps SQLite from deleting the log when the last connection is closed: the next
// replicator goes on there.
func persistWAL(conn any) error {
	control, ok := conn.(interface {
		FileControlPersistWAL(dbName string, mode int) (int, error)
	})
	if !ok {
		return errors.New("the driver cannot keep the write-ahead log")
	}
	_, err := control.FileControlPersistWAL("main", 1)
	return err
}

// locked runs fn while nobody can write. It gets the end of the log, behind which is nothing that
// could be taken for a part of it, and may call release before it returns.
func (g *guard) locked(ctx context.Context, fn func(end walMark, release func()) error) error {
	end, err := g.begin(ctx)
	if err != nil {
		return err
	}
	release := sync.OnceFunc(func() { _, _ = g.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") })
	defer release()
	return fn(end, release)
}

// begin begins a transaction that can write, at a time when nothing is behind the end of the log.
func (g *guard) begin(ctx context.Context) (end walMark, err error) {
	for bumps := 0; ; bumps++ {
		if _, err := g.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
			return end, fmt.Errorf("wait for a writer: %w", err)
		}
		more := false
		if end, err = g.index.read(ctx); err == nil {
			more, err = g.index.goesOn(end)
		}
		switch {
		case err != nil:
			return end, errors.Join(err, g.exec(ctx, "ROLLBACK"))
		case !more:
			return end, nil
		case bumps == mostBumps:
			return end, errors.Join(errors.New("what is behind the end of the log cannot be written over"), g.exec(ctx, "ROLLBACK"))
		}
		// Written over, it cannot be taken for anything any more.
		if err := g.exec(ctx, bumpSeq, "COMMIT"); err != nil {
			return end, errors.Join(err, g.exec(ctx, "ROLLBACK"))
		}
	}
}

// clean writes over what is behind the end of the log, unless somebody is writing. When the last
// process has closed the database, the next one takes everything in the log for committed.
func (g *guard) clean(ctx context.Context) (found bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, checkpointPatience)
	defer cancel()
	if g.index.lock(waiting) != nil {
		return false, nil
	}
	end, err := g.index.read(ctx)
	if err == nil {
		found, err = g.index.goesOn(end)
	}
	if err = errors.Join(err, g.index.unlock()); err == nil && found {
		_, _, err = g.write(ctx)
	}
	return found, err
}

// write makes a commit of no meaning, and returns the ends of the log before and after it.
func (g *guard) write(ctx context.Context) (before, after walMark, err error) {
	if before, err = g.begin(ctx); err != nil {
		return before, after, err
	}
	if err := g.exec(ctx, bumpSeq, "COMMIT"); err != nil {
		return before, after, errors.Join(err, g.exec(ctx, "ROLLBACK"))
	}
	after, err = g.index.read(ctx)
	return before, after, err
}

func (g *guard) exec(ctx context.Context, statements ...string) error {
	for _, s := range statements {
		if _, err := g.conn.ExecContext(context.WithoutCancel(ctx), s); err != nil {
			return err
		}
	}
	return nil
}

// hold keeps the log from beginning anew until done is called.
func (g *guard) hold(ctx context.Context) (done func(), err error) {
	conn, err := g.database.Conn(ctx)
	if err != nil {
		return nil, err
	}
	done = sync.OnceFunc(func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		_ = conn.Close()
	})
	for _, s := range []string{"BEGIN", "SELECT count(*) FROM _litestream_seq"} {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			done()
			return nil, err
		}
	}
	return done, nil
}

func (g *guard) close() {
	if g.conn != nil {
		_ = g.conn.Close()
	}
	_ = g.database.Close()
}
