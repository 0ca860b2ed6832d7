package storetest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// programVariable makes a process of the test binary the program. Its value are its orders.
const programVariable = "BEDPLATE_STORETEST"

func TestMain(m *testing.M) {
	time.Local = time.UTC // fake-gcs-server calls it that in any case
	text := os.Getenv(programVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var o orders
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = program(o)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// orders are what a program is told.
type orders struct {
	Database    string
	URL         string
	Credentials map[string]string
}

// A message is what a program tells, one a line.
type message struct {
	Commit     int64  `json:",omitempty"` // that was acknowledged
	Replicator int    `json:",omitempty"` // process id
	Synced     int64  `json:",omitempty"` // the answer to a line on the standard input: up to that commit
	TXID       uint64 `json:",omitempty"` // of the sync
}

// program commits until it is killed, and syncs for each line that it reads.
func program(o orders) error {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	replica, err := backup.New(backup.Config{
		URL: o.URL, SyncInterval: 50 * time.Millisecond, DrillInterval: -1, Logger: log, FinalSync: patience,
		Credentials: func(context.Context) (map[string]string, error) { return o.Credentials, nil },
	})
	if err != nil {
		return err
	}
	db, err := openDatabase(ctx, o.Database)
	if err != nil {
		return err
	}
	if err := startReplica(ctx, replica, db, o.Database); err != nil {
		return err
	}
	if err := say(message{Replicator: replica.Status().PID}); err != nil {
		return err
	}
	var last atomic.Int64
	var writers sync.WaitGroup
	failed := make(chan error, 3)
	for range 2 {
		writers.Go(func() {
			for range time.Tick(time.Millisecond) {
				n, err := commit(ctx, db)
				for seen := last.Load(); err == nil && n > seen && !last.CompareAndSwap(seen, n); {
					seen = last.Load()
				}
				if err = errors.Join(err, say(message{Commit: n})); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			n := last.Load()
			txid, err := replica.Sync(ctx)
			if err = errors.Join(err, say(message{Synced: n, TXID: txid})); err != nil {
				failed <- err
				return
			}
		}
		failed <- errors.New("the test is gone")
	}()
	return <-failed
}

// say writes a line in one piece.
func say(m message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}

func openDatabase(ctx context.Context, path string) (*sqlite.DB, error) {
	db, err := sqlite.Open(ctx, path, sqlite.Options{Replicated: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, data BLOB NOT NULL, double INTEGER NOT NULL)")
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func startReplica(ctx context.Context, replica *backup.Replica, db *sqlite.DB, path string) error {
	return replica.Start(ctx, path, "", func(ctx context.Context, query string, args ...any) error {
		return db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := tx.ExecContext(ctx, query, args...)
			return err
		})
	})
}

// commit adds one row, and returns its number. What is in it follows from that.
func commit(ctx context.Context, db *sqlite.DB) (n int64, err error) {
	err = db.Update(ctx, func(tx *sqlite.Tx) error {
		if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(n), 0) + 1 FROM entry").Scan(&n); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO entry VALUES (?1, ?2, 2 * ?1)", n, content(n))
		return err
	})
	return n, err
}

// content is up to a few pages that cannot be compressed.
func content(n int64) []byte {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(n))
	random := rand.NewChaCha8(sha256.Sum256(number[:]))
	data := make([]byte, random.Uint64()%10_000)
	_, _ = random.Read(data) // never fails
	return data
}
