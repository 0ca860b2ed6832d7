package records

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Bounds of what is done for one request.
const (
	maxUploads     = 256              // files in one request, unless MaxFiles is more
	storeWorkers   = 4                // files stored or deleted at once
	collectAtOnce  = 100              // files that nobody refers to, deleted after a write
	cleanupTimeout = 10 * time.Second // for taking files that are not needed out of the registry
	deleteTimeout  = time.Second      // for deleting them from the store while a request waits
)

// files keeps the content of file columns. A file is stored before the row that
// refers to it is written, and registered in the transaction that writes it. The
// registry, the table _file in each database file, counts by triggers how many
// values refer to a file; see [files.install]. A file that no value refers to is
// taken out of the registry with the next write and then deleted. What a crash
// leaves behind is for [Service.SweepFiles].
type files struct {
	db  *sqlite.DB
	cfg FilesConfig
	now func() time.Time
	log *slog.Logger

	installing sync.Mutex // guards the installation, and what follows
	failed     error      // why the last one failed
	again      time.Time  // when it is to be tried again

	registries  atomic.Pointer[map[string]installation] // by database
	sweeping    sync.Mutex                              // held by SweepFiles
	missingTold atomic.Int64                            // when a missing file was logged, Unix nanoseconds
}

// newFiles returns nil without a configuration, and otherwise all mistakes of
// it. bodyLimit bounds files whose size has no limit of its own.
func newFiles(db *sqlite.DB, cfg *FilesConfig, bodyLimit int64, now func() time.Time, log *slog.Logger) (*files, error) {
	if cfg == nil {
		return nil, nil
	}
	f := &files{db: db, cfg: *cfg, now: now, log: log}
	f.registries.Store(&map[string]installation{})
	var errs []error
	if cfg.Store == nil {
		errs = append(errs, errors.New("records: files: no store"))
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{{"max size", cfg.MaxSize}, {"max files", int64(cfg.MaxFiles)}, {"user quota", cfg.UserQuota}, {"total quota", cfg.TotalQuota}, {"grace", int64(cfg.Grace)}} {
		if limit.value < 0 {
			errs = append(errs, fmt.Errorf("records: files: %s is negative", limit.name))
		}
	}
	if f.cfg.MaxSize == 0 {
		f.cfg.MaxSize = bodyLimit
	}
	if f.cfg.MaxFiles == 0 {
		f.cfg.MaxFiles = 32
	}
	if f.cfg.Grace == 0 {
		f.cfg.Grace = time.Hour
	}
	return f, errors.Join(errs...)
}

// An upload is a file that came with a request.
type upload struct {
	id     string // in the store
	column *column
	size   int64
	data   []byte // nil once it is stored
}

// An installation of a registry counts right as long as the schema of the
// database is the one that it was made for. If not ok, it could not be made.
type installation struct {
	schema int64
	ok     bool
}

func (f *files) installed(database string) bool { return (*f.registries.Load())[database].ok }

func (f *files) maxUploads() int { return max(maxUploads, f.cfg.MaxFiles) }

// store stores all uploads or none.
func (f *files) store(ctx context.Context, uploads []*upload) error {
	if len(uploads) > f.maxUploads() {
		return errTooManyFiles
	}
	err := each(uploads, func(u *upload) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return f.cfg.Store.Put(ctx, u.id, bytes.NewReader(u.data), u.size)
	})
	if err != nil {
		f.discard(uploads)
		return storeRefusal(fmt.Errorf("store a file: %w", err))
	}
	for _, u := range uploads {
		u.data = nil
	}
	return nil
}

// storeRefusal turns an error of the store into what the client is told.
func storeRefusal(err error) error {
	status := http.StatusServiceUnavailable
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		status = http.StatusInsufficientStorage
	}
	return (&Error{Status: status}).because(err)
}

// discard deletes uploads whose rows were not written.
func (f *files) discard(uploads []*upload) {
	ids := make([]string, 0, len(uploads))
	for _, u := range uploads {
		ids = append(ids, u.id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	if _, err := f.removeUnknown(ctx, ids, false); err != nil {
		f.log.Warn("files whose rows were not written are left to the sweep", "error", err)
	}
}

// register appends the statements that enter the uploads of r into the
// registry, and refuse those that a quota has no room for. They come before
// the one that writes the row.
func (f *files) register(stmts []sqlite.Stmt, p *plan, r *request) []sqlite.Stmt {
	if len(r.uploads) == 0 {
		return stmts
	}
	database := p.table.database
	if !f.installed(database) {
		return append(stmts, sqlite.Stmt{SQL: "SELECT 1", Done: func(int) error {
			return (&Error{Status: http.StatusServiceUnavailable}).because(fmt.Errorf("database %s has no registry of files", database))
		}})
	}
	owner, userQuota := r.user.id, f.cfg.UserQuota
	if r.user.system {
		userQuota = 0
		if owner == nil {
			owner = []byte{} // not an anonymous caller
		}
	}
	for _, u := range r.uploads {
		stmt := sqlite.Stmt{Args: []driver.Value{u.id, u.size, owner}, Done: func(rows int) error {
			if rows == 0 {
				return errQuota
			}
			return nil
		}}
		stmt.SQL = "INSERT INTO " + quote(database) + `."_file" (id, size, owner) SELECT ?1, ?2, ?3 WHERE 1`
		limit := func(owner string, quota int64) {
			if quota > 0 {
				stmt.Args = append(stmt.Args, quota)
				stmt.SQL += fmt.Sprintf(` AND ?2 + coalesce((SELECT bytes FROM %s."_file_usage" WHERE owner = %s), 0) <= ?%d`, quote(database), owner, len(stmt.Args))
			}
		}
		limit("quote(?3)", userQuota)
		limit("''", f.cfg.TotalQuota)
		stmt.SQL += " RETURNING 1"
		stmts = append(stmts, stmt)
	}
	return stmts
}

// collect appends the statement that looks for files that no value refers to.
// It comes behind all that register and write rows. After the commit, unused
// holds what remove is to be called with.
func (f *files) collect(stmts []sqlite.Stmt, p *plan, unused *[]string) []sqlite.Stmt {
	if !f.installed(p.table.database) {
		return stmts
	}
	return append(stmts, unusedStatement(p.table.database, unused))
}

// unusedStatement is cheap, since it comes with nearly every write.
func unusedStatement(database string, unused *[]string) sqlite.Stmt {
	var ids []string
	return sqlite.Stmt{
		SQL:  "SELECT id FROM " + quote(database) + `."_file" WHERE refs = 0 LIMIT ?1`,
		Args: []driver.Value{int64(collectAtOnce)},
		Row: func(row []driver.Value) {
			if id, ok := row[0].(string); ok {
				ids = append(ids, id)
			}
		},
		Done: func(int) error {
			*unused, ids = ids, nil
			return nil
		},
	}
}

// remove takes files that no value refers to out of the registries, and then
// deletes them. It returns how many; what it cannot delete soon is left to the
// sweep.
func (f *files) remove(ids []string) (removed int) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	removed, err := f.removeUnused(ctx, ids, false)
	if err != nil {
		f.log.Warn("files that are not used any more are left to the sweep", "error", err)
	}
	return removed
}

// removeUnused is remove; see deleteAll for all.
func (f *files) removeUnused(ctx context.Context, ids []string, all bool) (removed int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return 0, err
	}
	var gone []string
	for database, reg := range *f.registries.Load() {
		var here []string
		stmt := unusedStatement(database, &here)
		stmt.SQL = "DELETE FROM " + quote(database) + `."_file" WHERE refs = 0 AND id IN (SELECT value FROM json_each(?1)) RETURNING id`
		stmt.Args = []driver.Value{string(list)}
		err := f.db.Write(ctx, reg.unchanged(database), stmt)
		if errors.Is(err, errSchemaChanged) {
			continue
		}
		if err != nil {
			return 0, err
		}
		gone = append(gone, here...)
	}
	return f.removeUnknown(ctx, gone, all)
}

// unchanged returns a statement that fails with errSchemaChanged if the
// triggers need not be those that were installed, nor the tables: somebody
// else may have made a table anew, or moved values to a new column, and then a
// count of 0 need not be right.
func (reg installation) unchanged(database string) sqlite.Stmt {
	same := false
	return sqlite.Stmt{
		SQL: schemaVersion(database),
		Row: func(row []driver.Value) { same = row[0] == reg.schema },
		Done: func(int) error {
			if !same || !reg.ok {
				return errSchemaChanged
			}
			return nil
		},
	}
}

// schemaVersion returns a query for a number that changes with the schema
// (https://www.sqlite.org/pragma.html#pragma_schema_version).
func schemaVersion(database string) string { return "PRAGMA " + quote(database) + ".schema_version" }

var errSchemaChanged = errors.New("the schema has changed")

// deleteAll deletes files from the store and returns how many. With all it
// goes on after an error, and takes as long as ctx; else a request waits for
// it, and err is the first error.
func (f *files) deleteAll(ctx context.Context, ids []string, all bool) (deleted int, err error) {
	if !all {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deleteTimeout)
		defer cancel()
	}
	var count atomic.Int64
	err = each(ids, func(id string) error {
		err := f.cfg.Store.Delete(ctx, id)
		switch {
		case err == nil:
			count.Add(1)
		case all:
			f.log.Warn("delete a file that is not used any more", "file", id, "error", err)
			return ctx.Err()
		}
		return err
	})
	return int(count.Load()), err
}

// each calls fn for every item, some at a time, and returns when all calls
// have. After an error it makes no further ones.
func each[T any](items []T, fn func(T) error) error {
	var next atomic.Int64
	var failed atomic.Bool
	errs := make([]error, min(storeWorkers, len(items)))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil && !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				if errs[w] = fn(items[i]); errs[w] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// newFileID returns a random UUID (RFC 9562 5.4). Nobody can guess it.
func newFileID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

var (
	errQuota        = &Error{Status: http.StatusRequestEntityTooLarge, Text: "quota exceeded"}
	errFileTooLarge = &Error{Status: http.StatusRequestEntityTooLarge, Text: "file too large"}
	errTooManyFiles = badRequest("too many files")
	errUnknownFile  = badRequest("unknown file")
)
