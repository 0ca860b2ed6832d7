package backup

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// canaryTick is how often the canary looks whether something was written.
	canaryTick = time.Second

	// canaryPatience bounds one write of the canary, and one attempt to read it back.
	canaryPatience = 10 * time.Second
)

// The table of the canary, with one row.
const (
	canaryTable = `CREATE TABLE IF NOT EXISTS %s_backup (
	id      INTEGER PRIMARY KEY CHECK (id = 1),
	replica TEXT NOT NULL, -- which one the database is copied to
	canary  BLOB NOT NULL, -- a random token and a number that grows, written to be looked for there
	written INTEGER NOT NULL -- Unix milliseconds
)`
	canaryWrite = `INSERT INTO %s_backup (id, replica, canary, written) VALUES (1, ?, ?, ?)
	ON CONFLICT (id) DO UPDATE SET replica = excluded.replica, canary = excluded.canary, written = excluded.written`
	canaryRead = `SELECT replica FROM _backup WHERE id = 1`
)

// A canary is a row that is written to the database again and again, and looked for in what the
// replica holds. What it measures no counter can get wrong.
type canary struct {
	r      *Replica
	exec   Exec
	schema string  // "" or name and a dot
	own    *sql.DB // behind exec, if Start was given none

	token [16]byte

	quit    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	number  uint64    // of the newest that was written
	waiting []written // those that have not been seen in the replica, oldest first
	dirty   time.Time // the first change that no canary was written behind; zero: there is none
	proven  written   // the newest that has
	began   time.Time
	claimed bool      // the row may be written: the database belongs to the replica
	failed  time.Time // since when it cannot be written; zero: it can
	failure error
	missing error // why it was not seen the last time
	alarm   *Alarm
	healed  time.Time // when the replicator was started again for that
}

type written struct {
	number uint64
	at     time.Time
	since  time.Time // of the oldest change that it covers
}

// open prepares the table and reports whether the database was copied to this replica before.
func (c *canary) open(ctx context.Context, r *Replica, schema string, exec Exec) (known bool, err error) {
	c.exec = exec
	c.mu.Lock()
	c.began = r.cfg.Now()
	c.mu.Unlock()
	if schema != "" {
		c.schema = `"` + strings.ReplaceAll(schema, `"`, `""`) + `".`
	}
	if _, err := rand.Read(c.token[:]); err != nil {
		return false, err
	}
	db, err := r.cfg.open(r.path)
	if err != nil {
		return false, err
	}
	defer func() {
		if c.own == nil || err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if _, err := os.Stat(r.path); err != nil {
		return false, err
	}
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return false, err
	}
	if mode != "wal" {
		return false, fmt.Errorf("the journal mode of the database is %s, WAL is needed", mode)
	}
	if c.exec == nil {
		if _, err := db.ExecContext(ctx, "PRAGMA busy_timeout = 10000"); err != nil {
			return false, err
		}
		c.own = db
		c.exec = func(ctx context.Context, query string, args ...any) error {
			_, err := db.ExecContext(ctx, query, args...)
			return err
		}
	}
	if err := c.exec(ctx, fmt.Sprintf(canaryTable, c.schema)); err != nil {
		return false, err
	}
	var replica string
	err = db.QueryRowContext(ctx, canaryRead).Scan(&replica)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claimed = replica == r.id
	return c.claimed, err
}

func (c *canary) isClaimed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claimed
}

// mayWrite reports whether there is a point in another canary.
func (c *canary) mayWrite() bool {
	return c.isClaimed() && !c.r.over()
}

// occupy notes to which replica the database belongs.
func (c *canary) occupy(ctx context.Context) error {
	_, err := c.write(ctx)
	return err
}

// close ends run. It comes before the replicator is told to stop: who closes a database last removes
// its log, and that should be the replicator, which knows what it has of it.
func (c *canary) close() {
	close(c.quit)
	c.running.Wait()
	if c.own != nil {
		_ = c.own.Close() // it has only ever written canaries
	}
}

// write writes the next canary.
func (c *canary) write(ctx context.Context) (uint64, error) {
	now := c.r.cfg.Now()
	c.mu.Lock()
	c.number++
	number, since := c.number, c.dirty
	c.mu.Unlock()
	if since.IsZero() {
		since = now
	}
	err := c.exec(ctx, fmt.Sprintf(canaryWrite, c.schema), c.r.id, c.blob(number), now.UnixMilli())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failure = err
		if c.failed.IsZero() {
			c.failed = now
		}
		return 0, err
	}
	c.claimed, c.failed, c.failure = true, time.Time{}, nil
	c.dirty = time.Time{}
	c.waiting = append(c.waiting, written{number, now, since})
	if len(c.waiting) > 1000 { // of the oldest only the age matters
		c.waiting = append(c.waiting[:1], c.waiting[2:]...)
	}
	return number, nil
}

// blob is what is written: the token, and number in 8 bytes, big endian.
func (c *canary) blob(number uint64) []byte {
	b := append([]byte(nil), c.token[:]...)
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(number>>shift))
	}
	return b
}

// start runs run.
func (c *canary) start() { c.running.Go(c.run) }

// run writes a canary when the database has changed, and from time to time when it has not, until
// close.
func (c *canary) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	defer func() { cancel(); reading.Wait() }()
	wake := make(chan struct{}, 1) // there is a newer one to look for
	reading.Go(func() { c.prove(ctx, wake) })

	tick := time.NewTicker(canaryTick)
	defer tick.Stop()
	var last walState
	lastWrite := time.Now().Add(-max(c.r.cfg.SyncInterval, c.r.cfg.CanaryInterval))
	again := true // what was written right after a canary needs one of its own
	for {
		select {
		case <-c.quit:
			return
		case <-tick.C:
		}
		changed := stateOf(c.r.path) != last
		if changed {
			c.soil()
		}
		since := time.Since(lastWrite) + canaryTick/10 // ticks are not exact
		if due := changed || again || since >= c.r.cfg.CanaryInterval; due && since >= c.r.cfg.SyncInterval && c.mayWrite() {
			writing, done := context.WithTimeout(ctx, canaryPatience)
			_, err := c.write(writing)
			done()
			if err == nil {
				last, again, lastWrite = stateOf(c.r.path), changed, time.Now()
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		}
		c.judge()
	}
}

// soil takes note that something was written which no canary covers yet.
func (c *canary) soil() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty.IsZero() {
		c.dirty = c.r.cfg.Now()
	}
}

// A walState is what shows that somebody has written.
type walState struct {
	size    int64
	changed time.Time
}

func stateOf(path string) walState {
	info, err := os.Stat(path + "-wal")
	if err != nil {
		return walState{}
	}
	return walState{info.Size(), info.ModTime()}
}

// prove looks for the newest canary in the replica as long as there is one that was not seen.
func (c *canary) prove(ctx context.Context, wake <-chan struct{}) {
	retry := time.NewTicker(canaryTick)
	defer retry.Stop()
	for {
		select {
		case <-wake:
		case <-retry.C:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		number, waiting := c.number, len(c.waiting) > 0
		if waiting {
			number = c.waiting[len(c.waiting)-1].number
		}
		c.mu.Unlock()
		if !waiting {
			continue
		}
		trying, done := context.WithTimeout(ctx, canaryPatience)
		e, err := c.r.call(trying, wire.Command{
			Op: wire.Prove, Token: c.token[:], Number: number, Deadline: time.Now().Add(canaryPatience * 3 / 4),
		})
		done()
		c.seen(e.Number, err)
	}
}

// seen takes note that canaries up to number are in the replica.
func (c *canary) seen(number uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.missing = err
	if err != nil {
		return
	}
	for len(c.waiting) > 0 && c.waiting[0].number <= number {
		c.proven = c.waiting[0]
		c.waiting = c.waiting[1:]
	}
}

// lag is the age of the oldest commit that may not be in the replica. c.mu is held.
func (c *canary) lag(now time.Time) time.Duration {
	switch {
	case len(c.waiting) > 0:
		return max(now.Sub(c.waiting[0].since), 0)
	case c.proven.number == 0:
		return max(now.Sub(c.began), 0)
	case !c.dirty.IsZero():
		return max(now.Sub(c.dirty), 0)
	default:
		return 0
	}
}

// report fills in what the canary knows.
func (c *canary) report(s *Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		return // not started
	}
	s.Lag, s.Proven = c.lag(c.r.cfg.Now()), c.proven.at
	if c.missing != nil && s.Error == "" && len(c.waiting) > 0 && !errors.Is(c.missing, context.DeadlineExceeded) {
		s.Error = c.missing.Error()
	}
	if c.alarm != nil {
		alarm := *c.alarm
		s.Alarm = &alarm
	}
}

// judge raises the alarm, or ends it.
func (c *canary) judge() {
	s := c.r.Status()
	now := c.r.cfg.Now()
	c.mu.Lock()
	text := ""
	switch {
	case s.State == Refusing:
		text = "replication is refused: " + s.Why
	case s.State == Fenced:
		text = "another machine has taken over the replica"
	case !c.failed.IsZero() && now.Sub(c.failed) > c.r.cfg.AlarmAfter:
		text = fmt.Sprintf("nothing can be written to the database: %v", c.failure)
	case s.Lag > c.r.cfg.AlarmAfter:
		text = "the replica lags behind"
		if s.Error != "" {
			text += ": " + s.Error
		} else if s.Why != "" {
			text += ": " + s.Why
		}
	case s.Drill != nil && s.Drill.Error != "":
		text = "the last trial restore failed: " + s.Drill.Error
	}
	var told *Alarm
	switch {
	case text != "" && c.alarm == nil:
		c.alarm = &Alarm{Text: text, Since: now}
		told = c.alarm
	case text != "":
		c.alarm = &Alarm{Text: text, Since: c.alarm.Since}
	case c.alarm != nil:
		told = &Alarm{Text: c.alarm.Text, Since: c.alarm.Since, Over: true}
		c.alarm = nil
	}
	c.mu.Unlock()
	if s.Lag > c.r.cfg.AlarmAfter {
		c.heal()
	}
	if told == nil {
		return
	}
	log := c.r.cfg.Logger
	if told.Over {
		log.Info("backup: all is well again", "was", told.Text, "since", told.Since)
	} else {
		log.Error("backup: ALARM", "why", told.Text, "lag", s.Lag.Round(time.Second))
	}
	if c.r.cfg.OnAlarm != nil {
		c.r.callbacks.call(func() { c.r.cfg.OnAlarm(*told) })
	}
}

// After what time a replicator that does not keep up is started again: one to which the store does not
// listen, as its credentials may have expired, and one with which nothing moves, as it may have got
// stuck. A request to which there is no answer it ends by itself.
const (
	healDenied = 10 * time.Second
	healStuck  = 5 * time.Minute
)

// heal starts the replicator again if that could help.
func (c *canary) heal() {
	c.mu.Lock()
	var reply *replyError
	denied := errors.As(c.missing, &reply) && reply.code == wire.CodeDenied
	pause := healStuck
	if denied = (denied || c.r.deniedLast()) && c.r.cfg.Credentials != nil; denied {
		pause = healDenied
	}
	now := c.r.cfg.Now()
	due := now.Sub(c.healed) >= pause && (denied || c.r.idle() >= healStuck)
	if due {
		c.healed = now
	}
	c.mu.Unlock()
	if due {
		c.r.restart()
	}
}
