package backupproof_test

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
)

var points = flag.Int("points", 12, "to how many points in time to restore")

// TestPointsInTime restores to random times and transactions while the application goes on.
func TestPointsInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	atOnce(t, places(t), place.String, func(t *testing.T, where place) {
		cfg := where.config
		cfg.SyncInterval, cfg.SnapshotInterval = copyEvery, time.Second
		before := time.Now()
		s := serve(t, newDatabase(t), 3*time.Millisecond, cfg)
		h := writeHistory(s)

		_, _, err := h.restore(backup.RestoreOptions{Timestamp: before})
		if !errors.Is(err, backup.ErrNoBackup) {
			t.Errorf("a time before the first commit: got error %v, want %v", err, backup.ErrNoBackup)
		}
		none := h.marks[len(h.marks)-1].txid + 1_000_000
		_, _, err = h.restore(backup.RestoreOptions{TXID: none})
		if !errors.Is(err, backup.ErrNoBackup) || !strings.Contains(err.Error(), strconv.FormatUint(none, 10)) {
			t.Errorf("transaction %d, which does not exist: got error %v, want %v", none, err, backup.ErrNoBackup)
		}
		for range *points / 2 {
			h.restoreTime(h.from.Add(rand.N(h.to.Sub(h.from))))
		}
		for range 3 { // to the millisecond
			p := h.finest[rand.IntN(len(h.finest))]
			h.restoreTime(p.Time)
			if p.TXID > h.finest[0].TXID {
				h.restoreTime(p.Time.Add(-1))
			}
		}
		for range 5 {
			h.restoreTransaction(h.finest[rand.IntN(len(h.finest))].TXID)
		}
		for _, m := range h.marks {
			if n := h.restoreTransaction(m.txid); n != m.n {
				t.Errorf("transaction %d: commit %d is the last, want %d", m.txid, n, m.n)
			}
		}
		t.Logf("%d commits in %v, %d objects of level 0; the oldest state was %v older than what was wanted",
			s.last(), time.Since(before).Round(time.Second), len(h.finest), h.oldest.Round(time.Millisecond))
	})
}

// A history is what a service has made.
type history struct {
	*service
	marks    []marked
	finest   []backup.Point // those of level 0
	from, to time.Time      // when what is in the replica was committed
	oldest   time.Duration
}

// marked is a transaction of which it is known with which commit it ended.
type marked struct {
	txid uint64
	n    int64
}

// writeHistory waits until there are some snapshots and enough marks.
func writeHistory(s *service) *history {
	s.t.Helper()
	h := &history{service: s}
	for snapshots := 0; snapshots < 2 || len(h.marks) < 5; {
		s.awaitCommits(50 + rand.Int64N(150))
		txid, n := s.mark()
		h.marks, h.to = append(h.marks, marked{txid, n}), time.Now()
		all, err := s.replica.Points(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		h.finest, snapshots = nil, 0
		for _, p := range all {
			switch p.Level {
			case 0:
				h.finest = append(h.finest, p)
			case 9:
				snapshots++
			}
		}
	}
	slices.SortFunc(h.finest, func(a, b backup.Point) int { return int(a.TXID) - int(b.TXID) })
	h.from = h.finest[0].Time
	return h
}

// restore restores to a new place and returns the number of the last commit there.
func (h *history) restore(o backup.RestoreOptions) (res backup.Restored, n int64, err error) {
	h.t.Helper()
	dir := h.t.TempDir()
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy.db")
	if res, err = h.replica.Restore(h.t.Context(), path, o); err != nil {
		return res, 0, err
	}
	return res, restored(h.t, path), nil
}

// restoreTransaction restores to a transaction and returns the number of the last commit.
func (h *history) restoreTransaction(txid uint64) int64 {
	h.t.Helper()
	res, n, err := h.restore(backup.RestoreOptions{TXID: txid})
	if err != nil {
		h.t.Fatal(err)
	}
	if res.TXID != txid {
		h.t.Errorf("transaction %d was restored, want %d", res.TXID, txid)
	}
	return n
}

// restoreTime restores to a time.
func (h *history) restoreTime(at time.Time) {
	h.t.Helper()
	res, n, err := h.restore(backup.RestoreOptions{Timestamp: at})
	if err != nil {
		h.t.Fatalf("to %v: %v", at, err)
	}
	want := uint64(0)
	for _, p := range h.finest {
		if !p.Time.After(at) {
			want = max(want, p.TXID)
		}
	}
	if res.TXID != want || res.Time.After(at) {
		h.t.Errorf("to %v: transaction %d of %v was restored, want %d", at, res.TXID, res.Time, want)
	}
	if made, ok := h.times(n); ok && made.began.After(at.Add(time.Millisecond)) { // times are truncated to that
		h.t.Errorf("to %v: commit %d was begun %v later", at, n, made.began.Sub(at))
	}
	if next, ok := h.times(n + 1); ok {
		h.oldest = max(h.oldest, at.Sub(next.ended))
	}
	for _, m := range h.marks {
		if m.txid <= res.TXID && m.n > n || m.txid >= res.TXID && m.n < n {
			h.t.Errorf("to %v: commit %d is the last of transaction %d, but %d that of %d", at, n, res.TXID, m.n, m.txid)
		}
	}
}
