package replicator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// lookEvery is how many intervals may pass with looks at level 0 only. That is where something
	// new appears, but not where a stall shows.
	lookEvery = 10

	// followBackoff is the longest pause after failures.
	followBackoff = 15 * time.Second

	// maxCatchUps is how many commands may wait.
	maxCatchUps = 16

	defaultFollow = time.Second
)

// follow keeps a copy at Order.Output up to date until it is told to stop.
//
// The copy is a database in rollback mode that any number of processes can read. It changes by
// SQLite transactions, one for each object of the replica, which are committed only when the whole
// object was right: a reader sees the state after an object or that before it, also when this
// process is killed at any time.
func (c *child) follow(ctx context.Context) wire.Event {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &follower{c: c, catchUps: make(chan *catchUp, maxCatchUps), damaged: map[ltx.FileInfo]bool{}}
	go func() {
		defer c.guard()
		f.serve(ctx)
		cancel(errEnded)
	}()
	var telling sync.WaitGroup
	telling.Go(func() {
		defer c.guard()
		f.tell(ctx)
	})
	f.run(ctx)
	cancel(nil)
	telling.Wait()
	f.close()
	return wire.Event{Kind: wire.Done, TXID: uint64(f.state().applied)}
}

// A follower is a child that follows. But for what mu guards, it is for one goroutine.
type follower struct {
	c        *child
	catchUps chan *catchUp

	db      *pageDB // nil: there is no copy yet
	ticks   int     // since the last look at all levels
	damaged map[ltx.FileInfo]bool
	other   bool // the replica was behind the copy: its transactions are other ones

	mu   sync.Mutex
	told following
}

// following is what a follower tells.
type following struct {
	applied ltx.TXID
	newest  ltx.TXID // in the replica
	err     error
}

func (f *follower) state() following {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told
}

func (f *follower) tellNewest(newest ltx.TXID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told.newest = max(newest, f.told.applied)
}

// serve takes commands until there are no more.
func (f *follower) serve(ctx context.Context) {
	for command := range f.c.commands {
		reply := wire.Event{Kind: wire.Reply, ID: command.ID}
		switch command.Op {
		case wire.Stop:
			return
		case wire.Status:
			f.sendState()
		case wire.CatchUp:
			select {
			case f.catchUps <- f.newCatchUp(command):
				continue
			default:
				reply.Error = "too many commands at the same time"
			}
		default:
			reply.Error = fmt.Sprintf("%s is not for this mode", command.Op)
		}
		if ctx.Err() != nil {
			return
		}
		f.c.send(reply)
	}
}

// tell tells the program each second how it goes.
func (f *follower) tell(ctx context.Context) {
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.sendState()
		case <-ctx.Done():
			return
		}
	}
}

func (f *follower) sendState() {
	s := f.state()
	e := wire.Event{Kind: wire.State, TXID: uint64(s.applied), ReplicaTXID: uint64(s.newest), RSS: residentBytes()}
	if s.err != nil {
		e.Code, e.Error = codeOf(s.err), f.c.redact.text(s.err.Error())
	}
	f.c.send(e)
}

func (f *follower) run(ctx context.Context) {
	interval := f.c.order.Interval
	if interval <= 0 {
		interval = defaultFollow
	}
	for failures := 0; ; {
		if err := f.step(ctx, false); err != nil {
			failures = min(failures+1, 10)
		} else {
			failures = 0
		}
		timer := time.NewTimer(max(interval, min(interval<<failures>>1, followBackoff)))
		select {
		case <-timer.C:
		case wanted := <-f.catchUps:
			f.catchUp(ctx, wanted)
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// A catchUp is a command that is answered once: when it is done, or by its deadline.
type catchUp struct {
	f       *follower
	command wire.Command
	late    *time.Timer
	once    sync.Once
}

func (f *follower) newCatchUp(command wire.Command) *catchUp {
	u := &catchUp{f: f, command: command}
	if command.Deadline.IsZero() {
		u.command.Deadline = time.Now().Add(mostCommandTime)
	}
	u.late = time.AfterFunc(time.Until(u.command.Deadline), func() {
		defer f.c.guard()
		err := f.state().err
		if err == nil {
			err = errors.New("it was not done in time")
		}
		u.reply(&codeError{wire.CodeNotInTime, err})
	})
	return u
}

func (u *catchUp) reply(err error) {
	u.once.Do(func() {
		u.late.Stop()
		e := wire.Event{Kind: wire.Reply, ID: u.command.ID, TXID: uint64(u.f.state().applied)}
		if err != nil {
			e.Code, e.Error = codeOf(err), u.f.c.redact.text(err.Error())
		}
		u.f.c.send(e)
	})
}

// catchUp applies everything that is in the replica now.
func (f *follower) catchUp(ctx context.Context, wanted *catchUp) {
	ctx, cancel := context.WithDeadline(ctx, wanted.command.Deadline)
	defer cancel()
	err := f.step(ctx, true)
	if s := f.state(); err == nil && s.applied < s.newest {
		err = fmt.Errorf("the copy is at transaction %d, the replica at %d", s.applied, s.newest)
	}
	wanted.reply(err)
}

// step makes a first copy, or applies what is new. With all it looks at all levels.
func (f *follower) step(ctx context.Context, all bool) error {
	err := f.advance(ctx, all)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && ctx.Err() == nil && (f.told.err == nil || f.told.err.Error() != err.Error()) {
		f.c.log.Warn("the copy does not get on", "error", err)
	}
	f.told.err = err
	return err
}

func (f *follower) advance(ctx context.Context, all bool) error {
	if f.db == nil {
		db, err := openPages(ctx, f.c.order.Output, f.c.order.MaxBytes)
		switch {
		case errors.Is(err, errNoCopy):
			f.c.log.Info("a new copy is made", "because", err)
			return f.begin(ctx)
		case err != nil:
			return err
		}
		f.use(db)
		all = true
	}
	if f.ticks++; f.ticks >= lookEvery {
		all = true
	}
	if !all {
		done, err := f.advanceFast(ctx)
		if done || err != nil {
			return err
		}
	}
	return f.advanceFully(ctx)
}

// use begins to work with a copy, and tells that it is there.
func (f *follower) use(db *pageDB) {
	f.db = db
	f.mu.Lock()
	f.told.applied, f.told.newest = db.txid, max(f.told.newest, db.txid)
	f.mu.Unlock()
	f.c.send(wire.Event{Kind: wire.Ready, TXID: uint64(db.txid)})
}

// begin makes a new copy. Processes that have an older one open go on reading that.
func (f *follower) begin(ctx context.Context) error {
	output := f.c.order.Output
	fresh := output + "-fresh"
	if err := removeFiles(fresh, fresh+".partial"); err != nil {
		return err
	}
	res, err := f.c.restoreTo(ctx, fresh, target{})
	if err != nil {
		return err
	}
	f.close()
	if err := putCopy(fresh, output, ltx.TXID(res.TXID)); err != nil {
		return err
	}
	db, err := openPages(ctx, output, f.c.order.MaxBytes)
	if err != nil {
		return err
	}
	f.use(db)
	f.other = false
	clear(f.damaged)
	return nil
}

func (f *follower) close() {
	if f.db == nil {
		return
	}
	if err := f.db.close(); err != nil {
		f.c.log.Warn("close the copy", "error", err)
	}
	f.db = nil
}

// advanceFast applies what follows in level 0. It reports whether that is all there can be, as far
// as one sees there.
func (f *follower) advanceFast(ctx context.Context) (done bool, err error) {
	objects, err := listLevel(ctx, f.c.client, 0, f.db.txid+1, false, maxObjects)
	if err != nil {
		return false, err
	}
	if len(objects) == 0 {
		return true, nil
	}
	f.tellNewest(objects[len(objects)-1].MaxTXID)
	for _, o := range objects {
		if o.MaxTXID <= f.db.txid {
			continue
		}
		if o.MinTXID > f.db.txid+1 || f.damaged[*o] {
			return false, nil
		}
		if err := f.apply(ctx, o); err != nil {
			return false, err
		}
	}
	return true, nil
}

// advanceFully looks at all levels and applies what leads on. When nothing does although there is
// more, because it was deleted before it was seen or is damaged, a new copy is made, if there is a
// snapshot that goes further.
func (f *follower) advanceFully(ctx context.Context) error {
	f.ticks = 0
	objects, err := readCatalog(ctx, f.c.client, fastTimes)
	if err != nil {
		return err
	}
	newest := objects.newest()
	f.tellNewest(newest)
	if f.other && newest >= f.db.txid {
		f.c.log.Warn("a new copy is made", "because", "the replica was behind the copy for a time")
		return f.begin(ctx)
	}
	clear(f.damaged)
	var broken error
	for f.db.txid < newest {
		path := objects.path(f.db.txid, func(o *ltx.FileInfo) bool { return !f.damaged[*o] })
		if len(path) == 0 {
			return f.beginBeyond(ctx, objects, broken)
		}
		for _, o := range path {
			err := f.apply(ctx, o)
			var found *damagedError
			if errors.As(err, &found) {
				broken = err
				break // and look for another way
			}
			if err != nil {
				return err
			}
		}
	}
	switch {
	case newest == 0:
		return &codeError{wire.CodeNoBackup, errors.New("the replica is empty; the copy stays as it is")}
	case newest < f.db.txid:
		f.other = true
		return fmt.Errorf("the replica goes to transaction %d only, the copy to %d: it has lost something, or is another one; the copy stays as it is", newest, f.db.txid)
	}
	return nil
}

// beginBeyond makes a new copy if there is a snapshot that is newer than the copy.
func (f *follower) beginBeyond(ctx context.Context, objects *catalog, broken error) error {
	at := f.db.txid
	if broken == nil {
		broken = &codeError{wire.CodeCorrupt, &gapError{at, objects.newest()}}
	}
	for _, o := range objects[litestream.SnapshotLevel] {
		if o.MaxTXID > at {
			f.c.log.Warn("a new copy is made", "because", broken)
			if err := f.begin(ctx); err != nil {
				return fmt.Errorf("%w; %w", broken, err)
			}
			return nil
		}
	}
	return broken
}

// apply changes the copy by an object.
func (f *follower) apply(ctx context.Context, o *ltx.FileInfo) error {
	err := f.db.apply(ctx, f.c.client, o)
	var broken *damagedError
	switch {
	case err == nil:
		f.mu.Lock()
		f.told.applied = f.db.txid
		f.told.newest = max(f.told.newest, f.db.txid)
		f.mu.Unlock()
	case errors.As(err, &broken):
		f.damaged[*o] = true
	case errors.Is(err, errNoCopy): // somebody else has changed it
		f.close()
	}
	return err
}
