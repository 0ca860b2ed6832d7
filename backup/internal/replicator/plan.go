package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// maxObjects bounds how many objects a replica may list. With the longest retention that makes
// sense it has some ten thousands.
const maxObjects = 2_000_000

// A catalog is what a replica holds: objects by level, in the order of their transactions. Each is
// of a range of transactions, and has the pages that these changed as the last of them left them;
// one that begins with transaction 1 has all pages.
type catalog [litestream.SnapshotLevel + 1][]*ltx.FileInfo

// readCatalog lists the replica. It begins with level 0: what is compacted meanwhile turns up at a
// higher level before it is deleted at a lower one.
func readCatalog(ctx context.Context, client litestream.ReplicaClient, useMetadata func(level int) bool) (*catalog, error) {
	var c catalog
	total := 0
	for level := range c {
		objects, err := listLevel(ctx, client, level, 0, useMetadata(level), maxObjects-total)
		if err != nil {
			return nil, err
		}
		c[level] = objects
		total += len(objects)
	}
	return &c, nil
}

// fastTimes makes listings that do not ask for the time of each object.
func fastTimes(int) bool { return false }

// listLevel returns the objects of a level from transaction seek on, in their order.
func listLevel(ctx context.Context, client litestream.ReplicaClient, level int, seek ltx.TXID, useMetadata bool, limit int) (objects []*ltx.FileInfo, err error) {
	files, err := client.LTXFiles(ctx, level, seek, useMetadata)
	if err != nil {
		return nil, fmt.Errorf("list level %d of the replica: %w", level, err)
	}
	defer func() {
		if e := files.Close(); err == nil && e != nil {
			objects, err = nil, fmt.Errorf("list level %d of the replica: %w", level, e)
		}
	}()
	for files.Next() {
		o := files.Item()
		if o.MinTXID == 0 || o.MinTXID > o.MaxTXID {
			continue // no object has such a name
		}
		if len(objects) >= limit {
			return nil, fmt.Errorf("the replica has more than %d objects", maxObjects)
		}
		objects = append(objects, o)
	}
	if err := files.Err(); err != nil {
		return nil, fmt.Errorf("list level %d of the replica: %w", level, err)
	}
	slices.SortFunc(objects, func(a, b *ltx.FileInfo) int {
		return cmp.Or(cmp.Compare(a.MinTXID, b.MinTXID), cmp.Compare(a.MaxTXID, b.MaxTXID))
	})
	return objects, nil
}

// newest returns the highest transaction that any object has.
func (c *catalog) newest() ltx.TXID {
	newest := ltx.TXID(0)
	for _, level := range c {
		for _, o := range level {
			newest = max(newest, o.MaxTXID)
		}
	}
	return newest
}

// path returns the objects that, one after the other, lead from the state after transaction from
// as far as usable objects do. Few large ones are preferred to many small ones.
func (c *catalog) path(from ltx.TXID, usable func(*ltx.FileInfo) bool) []*ltx.FileInfo {
	var path []*ltx.FileInfo
	var best *ltx.FileInfo
	var next [len(c)]int
	for at := from; ; at = best.MaxTXID {
		for level, objects := range c {
			if level == litestream.SnapshotLevel && from > 0 {
				continue // what is there need not be read again
			}
			for next[level] < len(objects) && objects[next[level]].MinTXID <= at+1 {
				o := objects[next[level]]
				next[level]++
				if usable(o) && (best == nil || o.MaxTXID > best.MaxTXID || o.MaxTXID == best.MaxTXID && o.Size < best.Size) {
					best = o
				}
			}
		}
		if best == nil || best.MaxTXID <= at {
			return path
		}
		path = append(path, best)
	}
}

// A target says which state is wanted: that after txid, or else the newest that is not younger
// than time, or else the newest.
type target struct {
	txid ltx.TXID
	time time.Time
}

// A gapError is about transactions that no object has although there are later ones. It can also
// come of a listing that was not made at one moment.
type gapError struct{ have, newest ltx.TXID }

func (e *gapError) Error() string {
	return fmt.Sprintf("what follows transaction %d is missing, up to %d", e.have, e.newest)
}

// plan returns the objects that make the target. Those that skip tells are damaged.
func (c *catalog) plan(ctx context.Context, client litestream.ReplicaClient, t target, skip func(*ltx.FileInfo) bool) ([]*ltx.FileInfo, error) {
	switch {
	case t.txid != 0:
		path := c.path(0, func(o *ltx.FileInfo) bool { return o.MaxTXID <= t.txid && !skip(o) })
		if len(path) > 0 && path[len(path)-1].MaxTXID == t.txid {
			return path, nil
		}
		return nil, c.noSuch(t.txid)
	case !t.time.IsZero():
		return c.planTime(ctx, client, t.time, skip)
	default:
		path := c.path(0, func(o *ltx.FileInfo) bool { return !skip(o) })
		newest := c.newest()
		switch {
		case newest == 0:
			return nil, &codeError{wire.CodeNoBackup, errors.New("the replica is empty")}
		case len(path) == 0:
			return nil, &gapError{0, newest}
		case path[len(path)-1].MaxTXID < newest:
			return nil, &gapError{path[len(path)-1].MaxTXID, newest}
		}
		return path, nil
	}
}

// noSuch is the error for a state that cannot be had.
func (c *catalog) noSuch(txid ltx.TXID) error {
	before, after := ltx.TXID(0), ltx.TXID(0)
	for _, level := range c {
		for _, o := range level {
			if o.MaxTXID < txid {
				before = max(before, o.MaxTXID)
			} else if o.MaxTXID > txid && (after == 0 || o.MaxTXID < after) {
				after = o.MaxTXID
			}
		}
	}
	text := fmt.Sprintf("the state after transaction %d is not in the replica", txid)
	if before != 0 {
		text += fmt.Sprintf("; the one before it is that of %d", before)
	}
	if after != 0 {
		text += fmt.Sprintf("; the one behind it is that of %d", after)
	}
	return &codeError{wire.CodeNoBackup, errors.New(text)}
}

// planTime returns the objects for a time. What an object begins with is the time of the last of
// its transactions; those times go up with the transactions, but for clocks that were set back.
func (c *catalog) planTime(ctx context.Context, client litestream.ReplicaClient, t time.Time, skip func(*ltx.FileInfo) bool) ([]*ltx.FileInfo, error) {
	var until [len(c)]ltx.TXID // the highest of each level that is not younger
	for level, objects := range c {
		objects = slices.DeleteFunc(slices.Clone(objects), skip)
		var err error
		n := sort.Search(len(objects), func(i int) bool {
			if err != nil {
				return true
			}
			var made time.Time
			made, err = timeOf(ctx, client, objects[i])
			return made.After(t)
		})
		if err != nil {
			return nil, err
		}
		if n > 0 {
			until[level] = objects[n-1].MaxTXID
		}
	}
	path := c.path(0, func(o *ltx.FileInfo) bool { return o.MaxTXID <= until[o.Level] && !skip(o) })
	if len(path) == 0 {
		return nil, &codeError{wire.CodeNoBackup, fmt.Errorf("no state as old as of %s is in the replica", t.UTC().Format(time.RFC3339Nano))}
	}
	reached := path[len(path)-1].MaxTXID
	if most := slices.Max(until[:]); reached < most {
		return nil, &gapError{reached, most}
	}
	return path, c.checkSuccessor(ctx, client, reached, t, skip)
}

// checkSuccessor reads what comes next after transaction reached, as a whole: were its time
// damaged, an older state than the wanted one would be taken for that.
func (c *catalog) checkSuccessor(ctx context.Context, client litestream.ReplicaClient, reached ltx.TXID, t time.Time, skip func(*ltx.FileInfo) bool) error {
	var next *ltx.FileInfo
	for level, objects := range c {
		if level == litestream.SnapshotLevel {
			continue
		}
		for _, o := range objects {
			switch {
			case o.MinTXID > reached+1 || o.MaxTXID <= reached:
			case skip(o):
				return &gapError{reached, o.MaxTXID} // nobody knows how old it is
			case next == nil || o.Size < next.Size:
				next = o
			}
		}
	}
	if next == nil {
		return nil
	}
	h, err := readObject(ctx, client, next, discard)
	if err != nil {
		return err
	}
	if made := time.UnixMilli(h.Timestamp); !made.After(t) {
		return &gapError{reached, next.MaxTXID} // it could not be read before
	}
	return nil
}
