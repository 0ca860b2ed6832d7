package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// installed is what is known of a database that will be replaced.
type installed struct {
	known         bool
	applicationID int32
}

// lookAt looks at a database that will be replaced, and whether anybody else has it open.
func (c Config) lookAt(ctx context.Context, path string) (old installed, err error) {
	db, err := c.open(path)
	if err != nil {
		return old, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Nothing changes: in WAL mode, too, an exclusive lock can only be had by who is alone
	// (https://www.sqlite.org/pragma.html#pragma_locking_mode).
	if err := run(ctx, db, "PRAGMA busy_timeout = 1000", "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"); err != nil {
		return old, err
	}
	err = db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&old.applicationID)
	old.known = err == nil
	return old, err
}

// seclude leaves no write-ahead log, which would be taken for that of another file at the same
// path, and lets nobody else open the database until db is closed.
func seclude(ctx context.Context, db *sql.DB) error {
	return run(ctx, db, "PRAGMA busy_timeout = 1000", "PRAGMA journal_mode = DELETE", "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE")
}

func run(ctx context.Context, db *sql.DB, statements ...string) error {
	for _, statement := range statements {
		var result any // of some pragmas
		err := db.QueryRowContext(ctx, statement).Scan(&result)
		switch {
		case err == nil || errors.Is(err, sql.ErrNoRows):
		case isBusy(err):
			return fmt.Errorf("%w: stop the program first (%w)", ErrInUse, err)
		default:
			return fmt.Errorf("the database to replace: %w", err)
		}
	}
	return nil
}

// isBusy tells SQLITE_BUSY and SQLITE_LOCKED, of whatever driver.
func isBusy(err error) bool { return strings.Contains(err.Error(), "locked") }

// verify refuses a restored copy that is damaged or not the right one.
func (c Config) verify(ctx context.Context, scratch string, old installed, o RestoreOptions) error {
	if err := c.integrity(ctx, scratch, old, o.Force); err != nil {
		return err
	}
	if o.Check != nil {
		return o.Check(ctx, scratch)
	}
	return nil
}

func (c Config) integrity(ctx context.Context, scratch string, old installed, force bool) (err error) {
	db, err := c.open(scratch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, statement := range append(slices.Clone(wary), "PRAGMA query_only = ON") {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if err := integrityCheck(ctx, db); err != nil {
		return err
	}
	var id int32
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	switch {
	case c.ApplicationID != 0 && id != c.ApplicationID:
		return fmt.Errorf("the copy has application_id %d, %d is wanted", id, c.ApplicationID)
	case old.known && id != old.applicationID && !force:
		return fmt.Errorf("the copy has application_id %d, the database to replace has %d", id, old.applicationID)
	}
	return nil
}

// wary is how a copy is looked at: its schema may come from anybody who could write to the replica.
// A row that breaks a CHECK constraint is no damage: the constraint may be younger than the row.
var wary = []string{"PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA ignore_check_constraints = ON"}

// integrityCheck returns ErrCorrupt with the first things that are wrong.
func integrityCheck(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "PRAGMA integrity_check(3)")
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	defer rows.Close()
	var found []error
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			found = append(found, errors.New(text))
		}
	}
	if err := rows.Err(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %w", ErrCorrupt, errors.Join(found...))
	}
	return nil
}

// install puts scratch in a claimed place where nothing is, or an empty file. When somebody has
// made a database there meanwhile, nothing changes and the error is fs.ErrExist.
func (c Config) install(scratch, path string) (err error) {
	exists, err := hasContent(path)
	if err == nil && exists {
		err = fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	if err != nil {
		return err
	}
	stamp := c.stamp()
	var aside renames
	defer func() {
		if err != nil {
			err = errors.Join(err, aside.undo())
		}
	}()
	// An orphaned log or journal would be taken for that of the new file.
	if err := aside.moveBeside(path, path+stamp); err != nil {
		return err
	}
	if err := c.setAside(&aside, path, stamp); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.Link(scratch, path); err != nil { // unlike a renaming, it replaces nothing
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Rename(scratch, path); err != nil { // there are file systems without links
			return err
		}
	}
	aside = nil // it is done
	return syncDir(path)
}

// replace puts scratch in the place of the database at path, and returns where that is kept. When
// it fails, nothing has changed.
func (c Config) replace(ctx context.Context, scratch, path string, force bool) (kept string, err error) {
	stamp := c.stamp()
	kept = path + stamp
	db, err := c.open(path)
	if err == nil {
		defer func() { err = errors.Join(err, db.Close()) }()
		err = seclude(ctx, db)
	}
	broken := err != nil
	if broken && (!force || errors.Is(err, ErrInUse)) {
		return "", err
	}
	if err := os.Link(path, kept); err != nil {
		return "", fmt.Errorf("keep the database that is replaced: %w", err)
	}
	var aside renames
	defer func() {
		if err != nil && kept == "" {
			err = errors.Join(err, aside.undo(), os.Remove(path+stamp))
		}
	}()
	if broken { // it is no database any more: what belongs to it goes with it
		if err := aside.moveBeside(path, kept); err != nil {
			return "", err
		}
	}
	if err := c.setAside(&aside, path, stamp); err != nil {
		return "", err
	}
	if err := os.Rename(scratch, path); err != nil {
		return "", err
	}
	return kept, syncDir(path)
}

// setAside renames what a replicator has noted about the file that was at path. It may hold what
// never reached the replica.
func (c Config) setAside(aside *renames, path, stamp string) error {
	state := filepath.Join(c.dirFor(path), stateDir)
	return aside.rename(state, state+stamp)
}

// renames are files and directories that have other names now: the old one and the new one of each.
type renames [][2]string

// rename gives a file another name, if there is one.
func (r *renames) rename(from, to string) error {
	err := os.Rename(from, to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		*r = append(*r, [2]string{from, to})
	}
	return err
}

// moveBeside renames what is beside a database.
func (r *renames) moveBeside(path, to string) error {
	for _, suffix := range besideDatabase {
		if err := r.rename(path+suffix, to+suffix); err != nil {
			return err
		}
	}
	return nil
}

// undo gives them their old names, the last one first. What somebody else has put there meanwhile
// stays: it is the log of his database.
func (r renames) undo() error {
	var errs []error
	for _, names := range slices.Backward(r) {
		_, err := os.Lstat(names[0])
		switch {
		case err == nil:
			err = fmt.Errorf("%s is left as %s: %w", names[0], names[1], fs.ErrExist)
		case errors.Is(err, fs.ErrNotExist):
			err = os.Rename(names[1], names[0])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stateDir is where Litestream notes what it has copied, below Config.Dir.
const stateDir = "litestream"

func (c Config) stamp() string {
	return ".before-" + c.Now().UTC().Format("20060102T150405.000Z")
}

func syncDir(file string) error {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
