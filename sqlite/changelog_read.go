package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
)

const (
	maxPageBytes = 4 << 20 // of entries; one more may come on top
	entryBytes   = 64      // of an entry, beside its texts
)

// logSQL are the statements of a log that are used often.
type logSQL struct{ head, state, page string }

func (l *ChangeLog) statements() logSQL {
	return logSQL{
		head:  l.in("SELECT s.epoch, " + newestSeq + ", s.floor FROM $._change_state AS s"),
		state: l.in("SELECT s.epoch, s.floor, " + newestSeq + " FROM $._change_state AS s"),
		page: l.in("SELECT seq, shape, op, old, new FROM $._change WHERE seq > ?1 AND seq <= ?2 AND (op = " + op(LogEvent) +
			" OR shape IN (SELECT shape FROM $._change_table) OR op = " + op(LogBreak) +
			" AND shape IN (SELECT id FROM $._change_shape)) ORDER BY seq LIMIT ?3"),
	}
}

func op(o ChangeOp) string { return strconv.Itoa(int(o)) }

// Head returns the position behind the newest change that is committed.
func (l *ChangeLog) Head(ctx context.Context) (Position, error) {
	if err := l.Install(ctx); err != nil {
		return Position{}, err
	}
	var head Position
	err := l.db.peek(ctx, func(c *conn) (err error) {
		head, err = l.head(c)
		return err
	})
	return head, err
}

func (l *ChangeLog) head(c *conn) (head Position, err error) {
	var floor int64
	err = c.query(context.Background(), l.sql.head, nil, func(row []driver.Value) error {
		head.Epoch, _ = row[0].(string)
		head.Seq, _ = row[1].(int64)
		floor, _ = row[2].(int64)
		return nil
	})
	if err == nil && (head.Epoch == "" || head.Seq < floor) {
		err = fmt.Errorf("sqlite: somebody has deleted from the change log of %s", l.name)
	}
	if err != nil {
		l.there.Store(false) // the next Install puts it in order
	}
	return head, err
}

// HeadExpr returns an SQL expression for the text of Head, to be part of a
// statement that reads: what else the statement reads is what the log is about
// up to there. The log must have been installed.
func (l *ChangeLog) HeadExpr() string {
	return l.in("(SELECT s.epoch || '.' || " + newestSeq + " FROM $._change_state AS s)")
}

// Page returns at most limit changes behind after and up to the change upTo,
// and no more than about 4 MiB of them, but at least one if there is one. What
// it says is about the snapshot of q.
//
// Rows of a table from before its columns have changed are left out: there is
// a LogBreak of the table behind them. So is a row that cannot be read, with a
// LogBreak in its place.
//
// When after is of another epoch or beyond the head, there is a Gap without
// changes, and End is the head or, if that comes before, upTo. Otherwise End is
// not before after, nor before the end of a Gap, even if that is beyond upTo.
func (l *ChangeLog) Page(q Querier, after Position, upTo int64, limit int) (ChangePage, error) {
	var epoch string
	var floor, head int64
	found := false
	err := q.Query(l.sql.state, nil, func(row []driver.Value) error {
		found = true
		epoch, _ = row[0].(string)
		floor, _ = row[1].(int64)
		head, _ = row[2].(int64)
		return nil
	})
	if err == nil && !found {
		err = errors.New("it has lost its state")
	}
	if err != nil {
		l.there.Store(false) // the next Install puts it in order
		return ChangePage{}, fmt.Errorf("sqlite: read the change log of %s: %w", l.name, err)
	}
	page := ChangePage{End: Position{epoch, min(upTo, head)}}
	from := after.Seq
	switch {
	case after.Epoch != epoch || after.Seq > head:
		page.Gap = true
		return page, nil
	case after.Seq < floor:
		page.Gap, from = true, floor
	}
	if page.End.Seq <= from {
		page.End.Seq = from
		return page, nil
	}
	d := decoder{l, q, epoch}
	if err := d.read(&page, from, limit); err != nil {
		return ChangePage{}, fmt.Errorf("sqlite: read the change log of %s: %w", l.name, err)
	}
	return page, nil
}

// decoder reads the entries of one page.
type decoder struct {
	l     *ChangeLog
	q     Querier
	epoch string
}

var errPageFull = errors.New("page is full")

// read appends the entries behind from to page, up to its end, and sets the
// end back when there are more.
func (d *decoder) read(page *ChangePage, from int64, limit int) error {
	// Shapes that are not known yet are looked up later, because a statement
	// is running.
	type raw struct {
		seq, shape, op int64
		old, new       string
		oldOK, newOK   bool
	}
	var entries []raw
	size := 0
	err := d.q.Query(d.l.sql.page, []driver.Value{from, page.End.Seq, int64(max(limit, 1))}, func(row []driver.Value) error {
		var e raw
		e.seq, _ = row[0].(int64)
		e.shape, _ = row[1].(int64)
		e.op, _ = row[2].(int64)
		e.old, e.oldOK = row[3].(string)
		e.new, e.newOK = row[4].(string)
		entries = append(entries, e)
		if size += entryBytes + len(e.old) + len(e.new); size >= maxPageBytes {
			return errPageFull
		}
		return nil
	})
	full := errors.Is(err, errPageFull)
	if err != nil && !full {
		return err
	}
	if n := len(entries); n > 0 && (full || n >= max(limit, 1)) {
		page.End.Seq = entries[n-1].seq
	}
	page.Changes = make([]*Change, 0, len(entries))
	changes := make([]Change, len(entries))
	for i, e := range entries {
		c := &changes[i]
		c.Seq, c.Op, c.Size = e.seq, ChangeOp(e.op), entryBytes+len(e.old)+len(e.new)
		if c.Op == LogEvent {
			c.Channel, c.Event = e.old, []byte(e.new)
			page.Changes = append(page.Changes, c)
			continue
		}
		s, err := d.shape(e.shape)
		if err != nil {
			return err
		}
		c.Table = s.table
		if c.Op != LogBreak {
			if err := s.decode(c, e.old, e.new, e.oldOK, e.newOK); err != nil {
				d.l.db.log.Warn("entry of the change log cannot be read", "database", d.l.name, "seq", e.seq, "table", s.table, "error", err)
				c.Op, c.Columns, c.Old, c.New = LogBreak, nil, nil, nil
			}
		}
		page.Changes = append(page.Changes, c)
	}
	return nil
}

// shape is a row of _change_shape, which is never changed.
type shape struct {
	table string
	names []string // of the columns
	blobs []bool   // which of them are hexadecimal
}

// shapes caches those of one epoch.
type shapes struct {
	mu    sync.Mutex
	epoch string
	byID  map[int64]*shape
}

// maxShapes bounds the cache.
const maxShapes = 4096

func (s *shapes) get(epoch string, id int64) *shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch {
		return nil
	}
	return s.byID[id]
}

func (s *shapes) put(epoch string, id int64, found *shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch || s.byID == nil || len(s.byID) >= maxShapes {
		s.epoch, s.byID = epoch, map[int64]*shape{}
	}
	s.byID[id] = found
}

// shape returns the shape with that id. One that cannot be read has no columns.
func (d *decoder) shape(id int64) (*shape, error) {
	if s := d.l.shapes.get(d.epoch, id); s != nil {
		return s, nil
	}
	s := &shape{}
	err := d.q.Query(d.l.in("SELECT tbl, columns FROM $._change_shape WHERE id = ?"), []driver.Value{id}, func(row []driver.Value) error {
		s.table, _ = row[0].(string)
		text, _ := row[1].(string)
		var columns []loggedColumn
		if err := json.Unmarshal([]byte(text), &columns); err != nil {
			return nil //nolint:nilerr // see above
		}
		for _, c := range columns {
			s.names = append(s.names, c.Name)
			s.blobs = append(s.blobs, c.Encoding == hexValue)
		}
		return nil
	})
	if err != nil || s.table == "" {
		return s, err
	}
	d.l.shapes.put(d.epoch, id, s)
	return s, nil
}

var errImage = errors.New("it is not the image of a row")

// decode sets the values of a change.
func (s *shape) decode(c *Change, before, after string, hasOld, hasNew bool) error {
	switch c.Op {
	case RowInsert, RowUpdate, RowDelete:
	default:
		return fmt.Errorf("unknown operation %d", c.Op)
	}
	if len(s.names) == 0 {
		return errors.New("its shape cannot be read")
	}
	if hasOld == (c.Op == RowInsert) || hasNew == (c.Op == RowDelete) {
		return errImage
	}
	c.Columns = s.names
	var ok bool
	if hasOld {
		if c.Old, ok = decodeImage(before, s.blobs); !ok {
			return errImage
		}
	}
	if hasNew {
		if c.New, ok = decodeImage(after, s.blobs); !ok {
			return errImage
		}
	}
	return nil
}
