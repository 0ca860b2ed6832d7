package backupproof_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	_ "github.com/bedplate/bedplate/backup/file"
	_ "github.com/bedplate/bedplate/backup/s3"
	"github.com/bedplate/bedplate/sqlite"
)

// appEnv holds the orders of a process of the test binary that is to be the application.
const appEnv = "BEDPLATE_BACKUPPROOF"

func TestMain(m *testing.M) {
	if text := os.Getenv(appEnv); text != "" {
		var o orders
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			err = application(o)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if few := runtime.GOMAXPROCS(0); few < atATime && flag.Lookup("test.parallel").Value.String() == strconv.Itoa(few) {
		_ = flag.Set("test.parallel", strconv.Itoa(atATime)) // they mostly wait
	}
	os.Exit(m.Run())
}

// atATime is how many tests run at the same time, at least, unless something else is said.
const atATime = 4

// orders are what an application is told.
type orders struct {
	Database string
	Life     int64 // which one it is
	Bulk     int64 // bytes to fill in first
	Writers  int
	Pace     time.Duration // the least rest between the commits of a writer; 0: none
	Restore  bool          // if the database is missing
	Offline  bool          // there is no replica, and the log begins anew often

	// Of backup.Config.
	URL                                                 string
	Credentials                                         map[string]string
	SyncInterval, SnapshotInterval, Retention, LeaseTTL time.Duration
}

func (o orders) config(log *slog.Logger) backup.Config {
	c := backup.Config{
		URL: o.URL, SyncInterval: o.SyncInterval, SnapshotInterval: o.SnapshotInterval, Retention: o.Retention,
		LeaseTTL: o.LeaseTTL, DrillInterval: -1, FinalSync: finalSync, Logger: log,
	}
	if o.Credentials != nil {
		c.Credentials = func(context.Context) (map[string]string, error) { return o.Credentials, nil }
	}
	return c
}

// finalSync is how long a last sync may take on the slowest machine, which is less than patience.
const finalSync = time.Minute

// A message is what an application tells: one of the fields. There is one a line.
type message struct {
	Commit   *acknowledged  `json:",omitempty"`
	Status   *backup.Status `json:",omitempty"`
	Restored bool           `json:",omitempty"`
	Started  bool           `json:",omitempty"` // the replica
	Synced   *synced        `json:",omitempty"` // the answer to a line on the standard input
	Closed   bool           `json:",omitempty"` // the replica, and everything is in it
}

type acknowledged struct {
	N  int64
	At time.Time
}

type synced struct {
	Up    int64 // to this commit at least
	Error string
}

// application commits until its standard input ends or it is told to terminate.
func application(o orders) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	replica, err := backup.New(o.config(log))
	if err != nil {
		return err
	}
	if o.Restore {
		restored, err := replica.RestoreIfMissing(ctx, o.Database, nil)
		if err != nil {
			return err
		}
		say(message{Restored: restored})
	}
	options := sqlite.Options{Replicated: true, Logger: log}
	if o.Offline {
		options = sqlite.Options{Checkpoint: 100, Logger: log}
	}
	db, err := openWith(ctx, o.Database, options)
	if err != nil {
		return err
	}
	if err := fill(ctx, db, o.Bulk); err != nil {
		return errors.Join(err, db.Close())
	}

	// Its own goroutines end with writing, those that use the replica with the process.
	writing, stop := context.WithCancel(ctx)
	var last atomic.Int64
	var writers sync.WaitGroup
	failed := make(chan error, o.Writers+1)
	for range o.Writers {
		writers.Go(func() {
			if err := write(writing, db, o, &last); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	writers.Go(func() { tellStatus(writing, replica) })
	go func() {
		listen(replica, &last)
		cancel()
	}()
	starting := startReplica(writing, o, replica, db)
	if starting == nil {
		<-ctx.Done()
	} else if ctx.Err() != nil {
		starting = nil // interrupted
	}
	stop()
	writers.Wait()
	close(failed)
	err = errors.Join(starting, <-failed, db.Close(), replica.Close())
	say(message{Closed: err == nil})
	return err
}

func startReplica(ctx context.Context, o orders, replica *backup.Replica, db *sqlite.DB) error {
	if o.Offline {
		return nil
	}
	err := replica.Start(ctx, o.Database, "", func(ctx context.Context, query string, args ...any) error {
		return db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
	})
	say(message{Started: err == nil})
	return err
}

func open(ctx context.Context, path string, log *slog.Logger) (*sqlite.DB, error) {
	return openWith(ctx, path, sqlite.Options{Replicated: true, Logger: log})
}

func openWith(ctx context.Context, path string, options sqlite.Options) (*sqlite.DB, error) {
	db, err := sqlite.Open(ctx, path, options)
	if err != nil {
		return nil, err
	}
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		for _, statement := range schema {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// longestRest is the longest pause between commits.
const longestRest = 200 * time.Millisecond

// write commits until ctx ends, and tells what is acknowledged.
func write(ctx context.Context, db *sqlite.DB, o orders, last *atomic.Int64) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-rest.C:
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		began := time.Now()
		var n int64
		err := db.Update(context.Background(), func(tx *sqlite.Tx) (err error) {
			n, err = commit(context.Background(), tx, o.Life)
			return err
		})
		if err != nil {
			return err
		}
		for before := last.Load(); n > before && !last.CompareAndSwap(before, n); {
			before = last.Load()
		}
		say(message{Commit: &acknowledged{n, time.Now()}})
		if o.Pace > 0 { // on a slow machine, too, others get their turn
			rest.Reset(max(o.Pace, min(4*time.Since(began), longestRest)))
		} else {
			rest.Reset(0)
		}
	}
}

func tellStatus(ctx context.Context, replica *backup.Replica) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s := replica.Status()
			say(message{Status: &s})
		case <-ctx.Done():
			return
		}
	}
}

// listen makes a sync for each line that is read.
func listen(replica *backup.Replica, last *atomic.Int64) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		answer := synced{Up: last.Load()}
		if err := replica.WaitReplicated(ctx); err != nil {
			answer.Error = err.Error()
		}
		cancel()
		say(message{Synced: &answer})
	}
}

// say writes a line in one piece: what was written is read even when the process is killed next.
func say(m message) {
	line, err := json.Marshal(m)
	if err == nil {
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tell the test:", err)
	}
}
