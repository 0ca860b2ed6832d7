package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// ChangeLogOptions say how much of its history a [ChangeLog] keeps: the
// newest entries, as far as all limits allow, and always the newest one. The
// limits are kept to within a tenth, roughly. They are not kept in the file:
// those of whoever has it open count, and of several the narrowest.
type ChangeLogOptions struct {
	// MaxRows bounds the number of entries; default 100,000, none if
	// negative.
	MaxRows int

	// MaxBytes bounds the size of the entries; default 64 MiB, none if
	// negative.
	MaxBytes int64

	// MaxAge bounds the age of the entries, by the clock of Options.Now;
	// default 24 hours, none if negative.
	MaxAge time.Duration
}

func (o ChangeLogOptions) withDefaults() ChangeLogOptions {
	if o.MaxRows == 0 {
		o.MaxRows = 100_000
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxAge == 0 {
		o.MaxAge = 24 * time.Hour
	}
	return o
}

const (
	pruneEvery = time.Minute
	pruneSoon  = time.Second // after a commit
	pruneBatch = 1000        // entries at a time, so that writes need not wait long

	// A mark is set when a twentieth of what may be kept is new, or so many
	// entries, or after a thousandth of the time.
	marksPerLimit = 20
	marksPerAge   = 1000
	maxUnmarked   = 10_000
)

// full reports whether there must be a mark behind so many entries.
func (o ChangeLogOptions) full(rows, bytes int64) bool {
	return rows >= maxUnmarked ||
		o.MaxRows > 0 && rows >= max(1, int64(o.MaxRows/marksPerLimit)) ||
		o.MaxBytes > 0 && bytes >= max(1, o.MaxBytes/marksPerLimit)
}

// pruner deletes the oldest entries of all logs in the background.
type pruner struct {
	db     *DB
	kick   chan struct{} // one slot: there were writes
	stop   context.CancelFunc
	exited chan struct{}
}

func (p *pruner) start(db *DB) {
	p.db = db
	p.kick = make(chan struct{}, 1)
	p.exited = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go p.run(ctx)
}

func (p *pruner) close() {
	p.stop()
	<-p.exited
}

// wrote tells the pruner that there may be new entries.
func (p *pruner) wrote() {
	for _, l := range p.db.logs {
		if l.there.Load() {
			select {
			case p.kick <- struct{}{}:
			default:
			}
			return
		}
	}
}

func (p *pruner) run(ctx context.Context) {
	defer close(p.exited)
	every := time.NewTicker(pruneEvery)
	defer every.Stop()
	soon := time.NewTimer(0)
	defer soon.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-p.kick:
			soon.Reset(pruneSoon)
			select {
			case <-ctx.Done():
				return
			case <-soon.C:
			}
		}
		for _, l := range p.db.logs {
			if !l.there.Load() {
				continue
			}
			if err := l.prune(ctx, false); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
				p.db.log.Warn("prune the change log", "database", l.name, "error", err)
			}
		}
	}
}

// Prune deletes now what is to be deleted, see [ChangeLogOptions]. In the
// background that is done every minute, and a second after any commit of this
// handle.
func (l *ChangeLog) Prune(ctx context.Context) error {
	if err := l.Install(ctx); err != nil {
		return err
	}
	if err := l.prune(ctx, true); err != nil {
		return fmt.Errorf("sqlite: prune the change log of %s: %w", l.name, err)
	}
	return nil
}

// A logMark is a row of _change_mark.
type logMark struct{ seq, at, bytes int64 }

// prune sets marks, if need be or if force is set, and deletes what is beyond
// the limits.
func (l *ChangeLog) prune(ctx context.Context, force bool) error {
	var marks, fresh []logMark
	var floor, head int64
	err := l.db.peek(ctx, func(c *conn) (err error) {
		position, err := l.head(c)
		if err != nil {
			return err
		}
		head = position.Seq
		if floor, err = l.floor(c); err != nil {
			return err
		}
		if marks, err = l.marks(c); err != nil {
			return err
		}
		fresh, err = l.freshMarks(ctx, c, marks, floor, head, force)
		return err
	})
	if err != nil {
		return err
	}
	if len(fresh) > 0 {
		if err := l.writeMarks(ctx, marks, fresh); err != nil {
			return err
		}
		marks = append(marks, fresh...)
	}
	target := l.db.opts.ChangeLog.target(marks, floor, head, l.db.opts.Now(), force)
	for floor < target {
		if floor, err = l.raiseFloor(ctx, target); err != nil {
			return err
		}
	}
	return nil
}

// target returns the newest entry to be deleted. Unless exact is set, a few
// entries too many are left until they are worth a write.
func (o ChangeLogOptions) target(marks []logMark, floor, head int64, now time.Time, exact bool) int64 {
	target, rows := floor, int64(o.MaxRows)
	if rows > 0 && (exact || head-floor >= rows+max(1, rows/marksPerLimit)) {
		target = max(target, head-rows)
	}
	var total int64
	for _, m := range marks {
		total += m.bytes
	}
	for _, m := range marks {
		if o.MaxAge > 0 && m.at <= now.Add(-o.MaxAge).UnixMilli() || o.MaxBytes > 0 && total > o.MaxBytes {
			target = max(target, m.seq)
		}
		total -= m.bytes
	}
	return min(target, head-1)
}

func (l *ChangeLog) floor(c *conn) (floor int64, err error) {
	err = c.query(context.Background(), l.in("SELECT floor FROM $._change_state"), nil, func(row []driver.Value) error {
		floor, _ = row[0].(int64)
		return nil
	})
	return floor, err
}

func (l *ChangeLog) marks(c *conn) (marks []logMark, err error) {
	err = c.query(context.Background(), l.in("SELECT seq, at, bytes FROM $._change_mark ORDER BY seq"), nil, func(row []driver.Value) error {
		marks = append(marks, logMark{row[0].(int64), row[1].(int64), row[2].(int64)})
		return nil
	})
	return marks, err
}

// freshMarks returns marks for the entries since the last one, without
// reading more than their sizes.
func (l *ChangeLog) freshMarks(ctx context.Context, c *conn, marks []logMark, floor, head int64, force bool) (fresh []logMark, err error) {
	o, now := l.db.opts.ChangeLog, l.db.opts.Now()
	m := logMark{seq: floor}
	var last int64
	if n := len(marks); n > 0 {
		m.seq, last = max(floor, marks[n-1].seq), marks[n-1].at
	}
	begin := m.seq
	add := func() {
		m.at = now.UnixMilli()
		fresh = append(fresh, m)
		m.bytes, begin = 0, m.seq
	}
	err = c.query(context.Background(), l.in(`SELECT seq, coalesce(octet_length(old), 0) + coalesce(octet_length(new), 0)
		FROM $._change WHERE seq > ? AND seq <= ? ORDER BY seq`), []driver.Value{m.seq, head}, func(row []driver.Value) error {
		m.seq = row[0].(int64)
		m.bytes += row[1].(int64) + entryBytes
		if o.full(m.seq-begin, m.bytes) {
			add()
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	if m.seq > begin && (force || o.MaxAge > 0 && (last == 0 || now.Sub(time.UnixMilli(last)) >= o.MaxAge/marksPerAge)) {
		add()
	}
	return fresh, nil
}

// writeMarks adds marks, unless another process has done so meanwhile.
func (l *ChangeLog) writeMarks(ctx context.Context, marks, fresh []logMark) error {
	var last int64
	if n := len(marks); n > 0 {
		last = marks[n-1].seq
	}
	return l.db.writer.do(ctx, &request{own: func(c *conn) error {
		last := last // it may be run again
		for _, m := range fresh {
			err := c.query(context.Background(), l.in(`INSERT INTO $._change_mark (seq, at, bytes)
				SELECT ?1, ?2, ?3 WHERE coalesce((SELECT max(seq) FROM $._change_mark WHERE seq < ?1), 0) <= ?4 ON CONFLICT DO NOTHING`),
				[]driver.Value{m.seq, m.at, m.bytes, last}, nil)
			if err != nil {
				return err
			}
			last = max(last, m.seq)
		}
		return nil
	}})
}

// raiseFloor deletes the oldest entries up to target, some of them, and
// returns the floor after that.
func (l *ChangeLog) raiseFloor(ctx context.Context, target int64) (floor int64, err error) {
	err = l.db.writer.do(ctx, &request{own: func(c *conn) error {
		bg := context.Background()
		if floor, err = l.floor(c); err != nil || floor >= target {
			return err
		}
		to := target
		err := c.query(bg, l.in("SELECT min(seq) FROM $._change"), nil, func(row []driver.Value) error {
			if first, ok := row[0].(int64); ok {
				to = min(to, max(first, floor+1)+pruneBatch-1)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, text := range []string{
			"DELETE FROM $._change WHERE seq <= ?",
			"UPDATE $._change_state SET floor = ?",
			"DELETE FROM $._change_mark WHERE seq <= ?",
			"DELETE FROM $._change_shape WHERE ended <= ?",
		} {
			if err := c.query(bg, l.in(text), []driver.Value{to}, nil); err != nil {
				return err
			}
		}
		floor = to
		return nil
	}})
	return floor, err
}
