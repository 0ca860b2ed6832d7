package records

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bedplate/bedplate/sqlite"
)

// Bounds of what a sweep has in memory.
const (
	sweepBatch = 500    // files that are looked up at once
	maxSweep   = 10_000 // files to be deleted
)

// SweepFiles deletes files that no row refers to and that are older than
// FilesConfig.Grace, and returns how many. They are what a crash in the middle
// of a request leaves behind, a store that did not answer, and rows that were
// deleted by other means than requests. It is to be called every now and then,
// hourly for example; one call at a time has an effect.
//
// The store must be this database's alone, together with the files attached to
// it: what it does not know is deleted. Without Config.Files nothing is done.
func (s *Service) SweepFiles(ctx context.Context) (removed int, err error) {
	f := s.files
	if f == nil || !f.sweeping.TryLock() {
		return 0, nil
	}
	defer f.sweeping.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("records: sweep files: %w", err)
	}
	if err := f.install(ctx, nil); err != nil {
		return 0, err
	}
	removed, err = f.sweepRegistries(ctx)
	if err != nil {
		return removed, fmt.Errorf("records: sweep files: %w", err)
	}
	n, err := f.sweepStore(ctx)
	if removed += n; err != nil {
		err = fmt.Errorf("records: sweep files: %w", err)
	}
	return removed, err
}

// sweepRegistries corrects the counts and deletes the files whose count is 0.
func (f *files) sweepRegistries(ctx context.Context) (removed int, err error) {
	var wrong []string
	err = f.db.Read(ctx, func(r *sqlite.Reader) error {
		all, err := registries(r.Query)
		for i := 0; i < len(all) && err == nil; i++ {
			if !all[i].exists {
				continue
			}
			err = r.Query(all[i].miscounted(), nil, func(row []driver.Value) error {
				if row[0] != int64(0) {
					wrong = append(wrong, all[i].database)
				}
				return nil
			})
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, database := range wrong {
		if err := f.recount(ctx, database); err != nil {
			return 0, err
		}
	}
	for database := range *f.registries.Load() {
		for more := true; more; {
			var ids []string
			if err := f.db.Write(ctx, unusedStatement(database, &ids)); err != nil {
				return removed, err
			}
			n, err := f.removeUnused(ctx, ids, true)
			if removed += n; err != nil {
				return removed, err
			}
			more = n > 0 && len(ids) == collectAtOnce
		}
	}
	return removed, nil
}

// recount counts all files of a database anew. Nobody writes meanwhile.
func (f *files) recount(ctx context.Context, database string) error {
	return f.db.UpdateAlone(ctx, installTimeout, func(tx *sqlite.Tx) error {
		reg := registry{database: database}
		if err := reg.load(tx.Query); err != nil || !reg.exists {
			return err
		}
		return execute(ctx, tx, reg.recount())
	})
}

// sweepStore deletes what is in the store and in no registry, some at a time.
func (f *files) sweepStore(ctx context.Context) (removed int, err error) {
	for {
		unknown, err := f.unknown(ctx)
		if err != nil {
			return removed, err
		}
		n, err := f.removeUnknown(ctx, unknown, true)
		removed += n
		if err != nil || n == 0 || len(unknown) < maxSweep {
			return removed, err
		}
	}
}

// unknown returns files in the store that are older than Grace and in no
// registry. They are looked up only after they have been listed.
func (f *files) unknown(ctx context.Context) (unknown []string, err error) {
	before := f.now().Add(-f.cfg.Grace)
	enough := errors.New("enough")
	var batch []string
	lookUp := func() error {
		known, err := f.registered(ctx, batch)
		for _, id := range batch {
			if err == nil && !known[id] {
				unknown = append(unknown, id)
			}
		}
		batch = batch[:0]
		if err == nil && len(unknown) >= maxSweep {
			err = enough
		}
		return err
	}
	err = f.cfg.Store.List(ctx, func(id string, _ int64, stored time.Time) error {
		if !stored.Before(before) {
			return nil
		}
		if batch = append(batch, id); len(batch) < sweepBatch {
			return nil
		}
		return lookUp()
	})
	if err == nil {
		err = lookUp()
	}
	if errors.Is(err, enough) {
		err = nil
	}
	return unknown, err
}

// removeUnknown deletes those files that are in no registry now; see deleteAll
// for all.
func (f *files) removeUnknown(ctx context.Context, ids []string, all bool) (removed int, err error) {
	for batch := range slices.Chunk(ids, sweepBatch) {
		known, err := f.registered(ctx, batch)
		if err != nil {
			return removed, err
		}
		unknown := slices.DeleteFunc(slices.Clone(batch), func(id string) bool { return known[id] })
		n, err := f.deleteAll(ctx, unknown, all)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, ctx.Err()
}

// registered tells which files are in a registry, all at one moment.
func (f *files) registered(ctx context.Context, ids []string) (map[string]bool, error) {
	if errors.Is(f.db.Err(), sqlite.ErrFailed) {
		return nil, sqlite.ErrFailed // what the failed commit has left shows after a restart only
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	err = f.db.Read(ctx, func(r *sqlite.Reader) error {
		for database, reg := range *f.registries.Load() {
			if !reg.ok {
				return fmt.Errorf("database %s has no registry of files", database)
			}
			err := r.Query(`SELECT id FROM `+quote(database)+`."_file" WHERE id IN (SELECT value FROM json_each(?1))`, []driver.Value{string(list)},
				func(row []driver.Value) error {
					known[row[0].(string)] = true
					return nil
				})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return known, err
}
