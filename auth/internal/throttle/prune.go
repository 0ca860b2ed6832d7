package throttle

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/bedplate/bedplate/sqlite"
)

const (
	defaultMaxRows = 1_000_000

	// pruneChunk rows are deleted by one write, which takes a few
	// milliseconds.
	pruneChunk = 500
)

// Prune deletes what limits nobody any more and returns how many rows it
// deleted. When more than MaxRows are left, those go that would be the first to
// limit nobody: whoever makes up names to push out the state of others pushes
// out those names, each of which owes one event, before an account that has
// reached its limit. Prune is to be called about once a minute. It deletes in small
// writes, between which others have their turn.
func (s *Store) Prune(ctx context.Context) (int, error) {
	now := s.now().UnixMicro()
	deleted, err := s.pruneRows(ctx, -1, "WHERE tat <= ? ORDER BY tat LIMIT ?", now)
	if err != nil {
		return deleted, err
	}
	limit := int64(s.MaxRows)
	if limit <= 0 {
		limit = defaultMaxRows
	}
	var rows int64
	err = s.db.Query(ctx, "SELECT count(*) FROM _throttle", nil, func(row []driver.Value) error {
		rows, _ = row[0].(int64)
		return nil
	})
	if err != nil {
		return deleted, fmt.Errorf("throttle: counting rows: %w", err)
	}
	if rows <= limit {
		return deleted, nil
	}
	more, err := s.pruneRows(ctx, rows-limit, "ORDER BY tat LIMIT ?")
	return deleted + more, err
}

// pruneRows deletes at most n rows, or all if n is negative, of those that the
// end of a SELECT picks, whose last parameter is its limit.
func (s *Store) pruneRows(ctx context.Context, n int64, which string, args ...driver.Value) (int, error) {
	deleted := 0
	for n != 0 {
		chunk := int64(pruneChunk)
		if n > 0 {
			chunk = min(chunk, n)
		}
		var rows int
		err := s.db.Write(ctx, sqlite.Stmt{
			SQL:  "DELETE FROM _throttle WHERE key IN (SELECT key FROM _throttle " + which + ") RETURNING 1",
			Args: append(args[:len(args):len(args)], chunk),
			Rows: &rows,
		})
		if err != nil {
			return deleted, fmt.Errorf("throttle: deleting rows: %w", err)
		}
		deleted += rows
		if int64(rows) < chunk {
			break
		}
		if n > 0 {
			n -= chunk
		}
	}
	return deleted, nil
}
