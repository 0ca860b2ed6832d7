package backup

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// firstDrill is how long after the start there is a drill, if none succeeded lately.
	firstDrill = time.Minute

	// After a drill that failed the next one comes sooner than otherwise: after drillRetry, which
	// doubles up to mostDrillRetry.
	drillRetry     = time.Minute
	mostDrillRetry = time.Hour
)

// A driller makes drills one at a time and knows the last result.
type driller struct {
	r *Replica

	mu      sync.Mutex
	busy    chan struct{} // closed when the drill that runs is over; nil: none does
	result  *DrillResult
	failing int // how many drills in a row
}

// last returns the last result; nil: there is none.
func (d *driller) last() *DrillResult {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.result == nil {
		return nil
	}
	res := *d.result
	return &res
}

// run makes a drill now and then, until Close.
func (d *driller) run() {
	r := d.r
	d.load(r)
	if !r.awaitReady() {
		return
	}
	// What a killed process has left. Now no other one has the directory.
	if d.enter(context.Background()) == nil {
		_ = os.RemoveAll(r.drillDir())
		d.leave()
	}
	if r.cfg.DrillInterval < 0 {
		return
	}
	for started := r.cfg.Now(); ; {
		timer := time.NewTimer(d.due(started, r.cfg))
		select {
		case <-timer.C:
		case <-r.stop:
			timer.Stop()
			return
		}
		if d.due(started, r.cfg) > 0 {
			continue // there was one meanwhile
		}
		res, err := r.Drill(context.Background())
		log := r.cfg.Logger.With("txid", res.TXID, "bytes", res.Bytes, "tables", res.Tables, "rows", res.Rows,
			"restore", res.Restore, "duration", res.Duration, "stall", res.Stall, "lag", res.Lag)
		switch {
		case r.isClosing():
			return
		case err != nil:
			log.Error("backup: the trial restore failed", "error", err)
		default:
			log.Info("backup: the trial restore succeeded")
		}
	}
}

// due is how long there is until the next drill.
func (d *driller) due(started time.Time, cfg Config) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := cfg.Now()
	first := started.Add(min(firstDrill, cfg.DrillInterval))
	if d.result == nil {
		return first.Sub(now)
	}
	pause := cfg.DrillInterval
	if d.result.Error != "" {
		retry := drillRetry << min(max(d.failing-1, 0), 10)
		pause = min(pause, retry, mostDrillRetry)
	}
	next := d.result.At.Add(d.result.Duration).Add(pause)
	if next.Sub(now) > pause+clockSlack { // the clock was set back
		next = now
	}
	if next.Before(first) {
		next = first
	}
	return next.Sub(now)
}

// awaitReady waits until the database is replicated, and reports whether it is.
func (r *Replica) awaitReady() bool {
	for {
		r.mu.Lock()
		ready, changed := r.ready, r.changed
		r.mu.Unlock()
		switch {
		case ready:
			return true
		case r.over():
			return false
		}
		select {
		case <-changed:
		case <-r.stop:
			return false
		}
	}
}

// enter waits until no drill runs.
func (d *driller) enter(ctx context.Context) error {
	for {
		d.mu.Lock()
		busy := d.busy
		if busy == nil {
			d.busy = make(chan struct{})
		}
		d.mu.Unlock()
		if busy == nil {
			return nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *driller) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.busy)
	d.busy = nil
}

// record notes a result, so that it is known after a restart too.
func (d *driller) record(r *Replica, res DrillResult) {
	d.mu.Lock()
	d.result = &res
	d.failing++
	if res.Error == "" {
		d.failing = 0
	}
	d.mu.Unlock()
	text, err := json.Marshal(res)
	if err == nil {
		file := drillFile(r)
		if err = os.WriteFile(file+".new", text, 0o600); err == nil {
			err = os.Rename(file+".new", file)
		}
	}
	if err != nil {
		r.cfg.Logger.Warn("backup: note the result of the trial restore", "error", err)
	}
}

func (d *driller) load(r *Replica) {
	var res DrillResult
	text, err := os.ReadFile(drillFile(r))
	if err == nil {
		err = json.Unmarshal(text, &res)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		r.cfg.Logger.Warn("backup: read the result of the last trial restore", "error", err)
	default:
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.result == nil {
			d.result = &res
		}
	}
}

func drillFile(r *Replica) string { return filepath.Join(r.dir, "drill.json") }
