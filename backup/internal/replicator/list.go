package replicator

import (
	"cmp"
	"context"
	"slices"

	"github.com/benbjohnson/litestream"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// maxPoints bounds what a list tells. The newest are told.
const maxPoints = 100_000

// list tells what could be restored. The times of snapshots and of level 0 are those of the
// transactions; others may be those of the objects, which are made later.
func (c *child) list(ctx context.Context) wire.Event {
	ctx, cancel := c.untilStopped(ctx)
	defer cancel()
	objects, err := readCatalog(ctx, c.client, func(level int) bool {
		return level == 0 || level == litestream.SnapshotLevel
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return c.failed(err)
	}
	var points []wire.Point
	for level, list := range objects {
		for _, o := range list {
			points = append(points, wire.Point{
				Level: level, MinTXID: uint64(o.MinTXID), MaxTXID: uint64(o.MaxTXID), Time: o.CreatedAt.UTC(), Bytes: o.Size,
			})
		}
	}
	if extra := len(points) - maxPoints; extra > 0 {
		slices.SortStableFunc(points, func(a, b wire.Point) int { return cmp.Compare(a.MaxTXID, b.MaxTXID) })
		points = points[extra:]
		slices.SortStableFunc(points, func(a, b wire.Point) int {
			return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.MaxTXID, b.MaxTXID))
		})
	}
	return wire.Event{Kind: wire.Done, Points: points}
}
