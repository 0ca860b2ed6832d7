package bedplate

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/bedplate/bedplate/sqlite"
)

// A Replica copies a database file elsewhere while it is used, and restores it. *backup.Replica of
// package backup is one.
type Replica interface {
	// RestoreIfMissing restores the file at path if there is none, and reports whether it has.
	// Before the copy gets its place, check looks at it.
	RestoreIfMissing(ctx context.Context, path string, check func(ctx context.Context, path string) error) (bool, error)

	// Start begins to copy the open database at path, which exec knows as schema.
	Start(ctx context.Context, path, schema string, exec func(ctx context.Context, query string, args ...any) error) error

	// Close copies what is left, which may take long. It is called after the database was closed,
	// of all replicas at the same time.
	Close() error
}

// A replication is the Replica of a database file.
type replication struct {
	replica    Replica
	schema     string
	path       string
	migrations fs.FS
}

// replications lists the database files that are replicated.
func (cfg Config) replications() []replication {
	var all []replication
	if cfg.Replica != nil {
		path := cfg.Path
		if cfg.DB != nil {
			path = cfg.DB.Path()
		}
		all = append(all, replication{cfg.Replica, "main", path, cfg.Migrations})
	}
	for _, d := range cfg.Databases {
		if d.Replica != nil {
			all = append(all, replication{d.Replica, d.Name, d.Path, d.Migrations})
		}
	}
	return all
}

// restoreMissing restores the files that are missing. A copy that is newer than this program is
// refused before it is put in place.
func restoreMissing(ctx context.Context, all []replication) error {
	for _, r := range all {
		check := func(ctx context.Context, path string) error {
			if r.migrations == nil {
				return nil
			}
			return sqlite.CheckMigrations(ctx, path, r.migrations)
		}
		if _, err := r.replica.RestoreIfMissing(ctx, r.path, check); err != nil {
			return fmt.Errorf("database %q: %w", r.schema, err)
		}
	}
	return nil
}

// startReplicas begins to replicate. Those that were started are closed by Close.
func (b *Backend) startReplicas(ctx context.Context, all []replication) error {
	for _, r := range all {
		b.replicas = append(b.replicas, r.replica)
		if err := r.replica.Start(ctx, r.path, r.schema, b.exec); err != nil {
			return fmt.Errorf("database %q: %w", r.schema, err)
		}
	}
	return nil
}

// exec runs a statement for a Replica.
func (b *Backend) exec(ctx context.Context, query string, args ...any) error {
	values := make([]driver.Value, len(args))
	for i, arg := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return err
		}
		values[i] = v
	}
	return b.DB.Write(ctx, sqlite.Stmt{SQL: query, Args: values})
}

func (b *Backend) closeReplicas() error {
	errs := make([]error, len(b.replicas))
	var closing sync.WaitGroup
	for i, r := range b.replicas {
		closing.Go(func() { errs[i] = r.Close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}
