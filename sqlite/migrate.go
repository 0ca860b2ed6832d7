package sqlite

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"sort"
	"strconv"

	sqlite3 "github.com/mattn/go-sqlite3"
)

// migrationName is "0001_name.sql", or with a letter and two underscores as
// in "U1728810800__name.sql".
var migrationName = regexp.MustCompile(`^[UV]?(\d{1,18})_{1,2}([^/]+)\.sql$`)

const migrationTable = `CREATE TABLE IF NOT EXISTS _migration (
	version  INTEGER PRIMARY KEY,
	name     TEXT NOT NULL,
	checksum TEXT NOT NULL, -- SHA-256 of the file, hexadecimal
	applied  INTEGER NOT NULL -- Unix seconds
) STRICT`

var errForeignTable = errors.New("_migration is not the table that Migrate makes")

type migration struct {
	version  int64
	name     string
	checksum string
	text     string
}

// Migrate applies the .sql files at the root of fsys that the database has
// not seen, in the order of their numbers: "0001_create_note.sql", or the
// "U1728810800__create_note.sql" of TrailBase. Each file is one transaction
// with its record in the table _migration. As SQLite advises for changes of
// the schema (https://www.sqlite.org/lang_altertable.html#otheralter), foreign
// keys are off while a file runs and checked before it commits.
//
// Several processes may call it at the same time. A file that was changed
// after it had been applied is an error, and so are migrations in the
// database that fsys does not hold ([ErrNewerSchema]). Other file names
// ending in .sql are refused. It should run before the database is used.
func (db *DB) Migrate(ctx context.Context, fsys fs.FS) error {
	files, err := readMigrations(fsys)
	if err != nil {
		return fmt.Errorf("sqlite: read migrations: %w", err)
	}
	db.migrating.RLock()
	defer db.migrating.RUnlock()
	if err := db.Err(); err != nil {
		return err
	}
	c, err := db.openConn(false)
	if err != nil {
		return fmt.Errorf("sqlite: migrate: %w", db.classify(err))
	}
	c.tx.migrating = true
	err = db.migrate(ctx, c, files)
	db.altered.Add(1)
	db.commits.committed()
	return errors.Join(db.classify(err), c.close())
}

// CheckMigrations returns the error with which [DB.Migrate] would refuse the
// database file at path for what is recorded in it: [ErrNewerSchema], or that
// a file was changed after it had been applied. A database without migrations
// is fine. It is for a file that nobody uses, such as a restored one that is to
// be put in its place: nothing is created or changed, no locks are taken, and a
// file with a log or a journal beside it, which says more than the file, is an
// error.
func CheckMigrations(ctx context.Context, path string, fsys fs.FS) error {
	files, err := readMigrations(fsys)
	if err != nil {
		return fmt.Errorf("sqlite: read migrations: %w", err)
	}
	if err := checkMigrations(ctx, path, files); err != nil {
		return fmt.Errorf("sqlite: check migrations of %s: %w", path, err)
	}
	return nil
}

func checkMigrations(ctx context.Context, path string, files []migration) (err error) {
	if err := checkVersion(); err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	for _, side := range []string{"-journal", "-wal"} {
		switch info, err := os.Stat(path + side); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case info.Size() > 0:
			return fmt.Errorf("it has a %s file, which would not be read", side)
		}
	}
	opened, err := Driver{}.Open(fileURI(path, "?mode=ro&immutable=1"))
	if err != nil {
		return err
	}
	c := newConn(opened.(*sqlite3.SQLiteConn))
	defer func() { err = errors.Join(err, c.close()) }()
	// In a hostile file it may be something that takes for ever to read.
	there, table := false, false
	err = c.query(ctx, "SELECT type = 'table' AND rootpage > 0 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = '_migration' COLLATE NOCASE", nil,
		func(row []driver.Value) error {
			there, table = true, row[0] == int64(1)
			return nil
		})
	switch {
	case err != nil || !there:
		return err
	case !table:
		return errForeignTable
	}
	_, err = c.pending(ctx, files)
	return err
}

func readMigrations(fsys fs.FS) ([]migration, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return nil, err
	}
	var files []migration
	var errs []error
	byVersion := map[int64]string{}
	for _, name := range names {
		m := migrationName.FindStringSubmatch(path.Base(name))
		if m == nil {
			errs = append(errs, fmt.Errorf("%s: the name must be a number, an underscore and a title, as in 0001_title.sql", name))
			continue
		}
		version, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if other, dup := byVersion[version]; dup {
			errs = append(errs, fmt.Errorf("%s and %s have the same number", other, name))
			continue
		}
		byVersion[version] = name
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if bytes.IndexByte(text, 0) >= 0 {
			errs = append(errs, fmt.Errorf("%s: holds a NUL byte, behind which SQLite reads nothing", name))
			continue
		}
		sum := sha256.Sum256(text)
		files = append(files, migration{version, name, hex.EncodeToString(sum[:]), string(text)})
	}
	sort.Slice(files, func(i, j int) bool { return files[i].version < files[j].version })
	return files, errors.Join(errs...)
}

func (db *DB) migrate(ctx context.Context, c *conn, files []migration) error {
	if err := c.exec("PRAGMA foreign_keys=OFF"); err != nil {
		return err
	}
	if err := c.exec(migrationTable); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The write lock is taken before looking, so that of several
		// processes one applies a file and the others see it applied.
		if err := c.exec("BEGIN IMMEDIATE"); err != nil {
			return err
		}
		next, err := c.pending(ctx, files)
		if err == nil && next != nil {
			if err = db.apply(c, next); err != nil {
				err = fmt.Errorf("migration %s: %w", next.name, err)
			}
		}
		if err != nil {
			if !c.raw.AutoCommit() {
				err = errors.Join(err, c.exec("ROLLBACK"))
			}
			return err
		}
		if err := c.exec("COMMIT"); err != nil || next == nil {
			return err
		}
	}
}

// pending returns the first file that has not been applied, or nil.
func (c *conn) pending(ctx context.Context, files []migration) (*migration, error) {
	applied := map[int64][2]string{}
	err := c.query(ctx, "SELECT version, name, checksum FROM _migration ORDER BY version", nil,
		func(row []driver.Value) error {
			version, isInt := row[0].(int64)
			name, isName := row[1].(string)
			checksum, isText := row[2].(string)
			if !isInt || !isName || !isText {
				return errForeignTable
			}
			applied[version] = [2]string{name, checksum}
			return nil
		})
	if err != nil {
		return nil, err
	}
	var next *migration
	for i := range files {
		f := &files[i]
		a, ok := applied[f.version]
		delete(applied, f.version)
		switch {
		case ok && a[1] != f.checksum:
			return nil, fmt.Errorf("migration %s was changed after it had been applied", f.name)
		case !ok && next == nil:
			next = f
		}
	}
	for version, a := range applied {
		return nil, fmt.Errorf("%w: it has migration %d (%s), which is not among the files", ErrNewerSchema, version, a[0])
	}
	return next, nil
}

// apply applies a file, without the triggers of change logs and those that count
// files, which could be in its way. Tables that it touches get a break instead,
// and package records counts anew.
func (db *DB) apply(c *conn, m *migration) error {
	// What others have gone around before gets its break, too.
	if err := db.syncLogs(c, nil); err != nil {
		return err
	}
	for _, l := range db.logs {
		if err := l.silence(c); err != nil {
			return err
		}
	}
	if err := dropCounters(c); err != nil {
		return err
	}
	c.tx.running, c.tx.touched = ofFunction, map[string]bool{}
	err := c.tx.note(c.exec(m.text))
	touched := c.tx.touched
	c.tx.running, c.tx.touched = ours, nil
	if err != nil {
		return err
	}
	if c.raw.AutoCommit() {
		return errors.New("the file has ended its transaction")
	}
	err = db.syncLogs(c, func(database, table string) bool { return !touched[foldName(database+"."+table)] })
	if err != nil {
		return err
	}
	err = c.query(context.Background(), "PRAGMA foreign_key_check", nil, func(row []driver.Value) error {
		return fmt.Errorf("a row of table %v refers to a row of %v that does not exist", row[0], row[2])
	})
	if err != nil {
		return err
	}
	return c.query(context.Background(), "INSERT INTO _migration (version, name, checksum, applied) VALUES (?, ?, ?, ?)",
		[]driver.Value{m.version, m.name, m.checksum, db.opts.Now().Unix()}, nil)
}

// dropCounters drops the triggers with which package records counts files. It
// makes them when it finds that they are not there.
func dropCounters(c *conn) error {
	var drops []string
	err := c.query(context.Background(), "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 6) = '_file_'", nil,
		func(row []driver.Value) error {
			drops = append(drops, "DROP TRIGGER "+quoteName(row[0].(string)))
			return nil
		})
	for _, drop := range drops {
		err = errors.Join(err, c.exec(drop))
	}
	return err
}
