package backupproof_test

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

var latency = flag.Int("latency", 0, "in how many rounds to compare the times of commits with and without replication; 0: not at all")

// What replication may cost: the medians over all rounds of a round's percentiles.
const (
	medianLimit = 1.10
	tailLimit   = 1.50
)

const (
	latencyCommits = 2400                 // of a round, of which the first copy is a small part
	latencyPace    = 5 * time.Millisecond // between them
)

// TestLatency measures an application with one writer, by turns with and without replication.
func TestLatency(t *testing.T) {
	if *latency == 0 {
		t.Skip("measures only with -latency=N")
	}
	onReplicas(t, true, func(t *testing.T, _ int, o orders) {
		var medians, tails [2][]time.Duration // without and with
		for round := range *latency {
			for turn := range 2 {
				with := (round + turn) % 2
				times := timeCommits(t, o, with == 1)
				medians[with] = append(medians[with], times[len(times)/2])
				tails[with] = append(tails[with], times[len(times)*99/100])
			}
		}
		for _, m := range []struct {
			name  string
			times [2][]time.Duration
			limit float64
		}{{"p50", medians, medianLimit}, {"p99", tails, tailLimit}} {
			without, with := median(m.times[0]), median(m.times[1])
			ratio := float64(with) / float64(without)
			t.Logf("%s: %v without, %v with replication, ratio %.2f", m.name, without, with, ratio)
			if ratio > m.limit {
				t.Errorf("%s: %.2f times what it is without replication, %.2f are allowed", m.name, ratio, m.limit)
			}
		}
	})
}

// timeCommits returns how long commits to a new database take, sorted.
func timeCommits(t *testing.T, o orders, replicated bool) []time.Duration {
	t.Helper()
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	o.Database = filepath.Join(dir, "app.db")
	db, err := open(ctx, o.Database, log)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if replicated {
		config := o.config(log)
		config.Adopt = true // what the round before has left
		replica, err := backup.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := startReplica(ctx, o, replica, db); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := replica.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	tick := time.NewTicker(latencyPace)
	defer tick.Stop()
	times := make([]time.Duration, 0, latencyCommits)
	for range latencyCommits {
		<-tick.C
		began := time.Now()
		err := db.Update(ctx, func(tx *sqlite.Tx) error {
			_, err := commit(ctx, tx, 1)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	return times
}

func median(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}
