package storetest

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/sqlite"
)

// testStore tests replicas in stores of one kind.
func testStore(t *testing.T, open func(*testing.T) *store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *store)
	}{
		{"killed", testKilled}, {"outage", testOutage}, {"damage", testDamage}, {"slow", testSlow}, {"large", testLarge},
		{"leased", testLeased},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open(t))
		})
	}
}

// A program is killed while it writes. Its replica holds all that was acknowledged, and any state
// before.
func testKilled(t *testing.T, s *store) {
	cfg := s.config("some/where")
	dir := t.TempDir()
	p := start(t, orders{Database: filepath.Join(dir, "app.db"), URL: cfg.URL, Credentials: s.credentials})
	p.await(100)
	up, txid := p.sync()
	p.await(100)
	last := p.kill()

	source := rows(t, p.Database)
	path, _, err := restore(t, cfg, backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	newest := rows(t, path)
	compare(t, "the newest state", newest, source, true)
	if n := entries(newest); n < last {
		t.Errorf("%d entries are restored, %d were acknowledged", n, last)
	}

	path, res, err := restore(t, cfg, backup.RestoreOptions{TXID: txid})
	if err != nil {
		t.Fatal(err)
	}
	then := rows(t, path)
	compare(t, fmt.Sprintf("transaction %d", txid), then, source, false)
	if n := entries(then); n < up || n >= last || res.TXID != txid {
		t.Errorf("transaction %d has %d entries at %d; at least %d were synced, at the end there were %d", txid, n, res.TXID, up, last)
	}

	points, err := newReplica(t, cfg).Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, point := range points {
		if found = point.Level == 0 && point.TXID >= txid; !found {
			continue
		}
		path, res, err := restore(t, cfg, backup.RestoreOptions{Timestamp: point.Time})
		if err != nil {
			t.Fatal(err)
		}
		compare(t, "a point in time", rows(t, path), source, false)
		if res.Time.After(point.Time) || res.TXID < point.TXID {
			t.Errorf("transaction %d of %v for the point %+v", res.TXID, res.Time, point)
		}
		break
	}
	if !found {
		t.Errorf("no point after transaction %d: %+v", txid, points)
	}
	if _, _, err := restore(t, cfg, backup.RestoreOptions{Timestamp: points[0].Time.Add(-time.Hour)}); !errors.Is(err, backup.ErrNoBackup) {
		t.Errorf("a time before the first transaction: %v", err)
	}
	if _, _, err := restore(t, s.config("some"), backup.RestoreOptions{}); !errors.Is(err, backup.ErrNoBackup) {
		t.Errorf("another prefix: %v", err)
	}
}

// entries is how many of rows are entries; those of the schema come before.
func entries(rows []string) int64 { return int64(len(rows) - 1) }

// The store cannot be reached at first, and once more later on. That is told, with the right lag, and
// everything is there when it can be reached.
func testOutage(t *testing.T, s *store) {
	s.cut()
	d := open(t, s.config(""))
	if state := d.replica.Status().State; state != backup.Starting {
		t.Errorf("without a store: %s", state)
	}
	d.commit(3)
	s.mend()
	d.awaitCaughtUp()

	before := d.commit(1)
	d.awaitCaughtUp()
	proven := d.replica.Status().Proven
	if proven.Before(before) {
		t.Errorf("proven at %v, the last commit was at %v", proven, before)
	}
	s.cut()
	committed := d.commit(3)
	await(t, "there is an alarm", func() bool { return d.replica.Status().Alarm != nil })
	asked := time.Now()
	status := d.replica.Status()
	const exact = 2 * time.Second // that is how right it is
	if least, most := asked.Sub(committed)-exact, time.Since(proven)+exact; status.Lag < least || status.Lag > most {
		t.Errorf("lag %v, want %v to %v: %+v", status.Lag, least, most, status)
	}
	if status.State == backup.Refusing || status.State == backup.Fenced {
		t.Errorf("during an outage: %+v", status)
	}
	s.mend()
	d.commit(3)
	d.awaitCaughtUp()
	await(t, "the alarm is over", func() bool { return d.replica.Status().Alarm == nil })
	d.close()
	path, _, err := restore(t, s.config(""), backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "after the outage", rows(t, path), rows(t, d.path), true)
}

// What is damaged or missing in the store is not restored.
func testDamage(t *testing.T, s *store) {
	cfg := s.config("app")
	d := open(t, cfg)
	d.commit(5)
	txid, err := d.replica.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.commit(5)
	d.close()
	source := rows(t, d.path)
	whole, _, err := restore(t, cfg, backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "without damage", rows(t, whole), source, true)

	holding := s.holding(t, "app", txid)
	if len(holding) == 0 {
		t.Fatalf("transaction %d is nowhere: %v", txid, s.objects.keys(t, "app"))
	}
	for _, damage := range []struct {
		name string
		do   func(key string, data []byte)
	}{
		{"a flipped bit", func(key string, data []byte) {
			flipped := append([]byte{}, data...)
			flipped[len(flipped)/2] ^= 1
			s.objects.write(t, key, flipped)
		}},
		{"the second half is missing", func(key string, data []byte) { s.objects.write(t, key, data[:len(data)/2]) }},
		{"nothing is in it", func(key string, _ []byte) { s.objects.write(t, key, nil) }},
		{"it is missing", func(key string, _ []byte) { s.objects.remove(t, key) }},
	} {
		kept := map[string][]byte{}
		for _, key := range holding {
			kept[key] = s.objects.read(t, key)
			damage.do(key, kept[key])
		}
		if path, _, err := restore(t, cfg, backup.RestoreOptions{}); err == nil {
			t.Errorf("%s: %d rows are restored of %d", damage.name, len(rows(t, path)), len(source))
		} else if !errors.Is(err, backup.ErrCorrupt) && !errors.Is(err, backup.ErrNoBackup) {
			t.Errorf("%s: %v", damage.name, err)
		}
		for key, data := range kept {
			s.objects.write(t, key, data)
		}
	}
	if _, _, err := restore(t, cfg, backup.RestoreOptions{}); err != nil {
		t.Errorf("repaired: %v", err)
	}
}

// holding returns the objects that hold a transaction.
func (s *store) holding(t *testing.T, prefix string, txid uint64) (keys []string) {
	t.Helper()
	for _, key := range s.objects.keys(t, prefix+"/ltx/") {
		var first, last uint64
		if _, err := fmt.Sscanf(filepath.Base(key), "%016x-%016x.ltx", &first, &last); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if first <= txid && txid <= last {
			keys = append(keys, key)
		}
	}
	return keys
}

// An object may take its time to be downloaded.
func testSlow(t *testing.T, s *store) {
	cfg := s.config("app")
	d := prepare(t, cfg)
	d.commit(200)
	d.start()
	d.close()
	largest := 0
	for _, key := range s.objects.keys(t, "app/ltx/") {
		largest = max(largest, len(s.objects.read(t, key)))
	}
	if largest == 0 {
		t.Fatal("nothing was copied")
	}
	// Clients of NATS wait for five seconds when they are not told how long to.
	const least = 8 * time.Second
	began := time.Now()
	s.slow(least * portion / time.Duration(largest))
	path, _, err := restore(t, cfg, backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < least {
		t.Errorf("that was not slow: %v", took)
	}
	compare(t, "after a slow download", rows(t, path), rows(t, d.path), true)
}

// An object may be larger than what clients send at once: 16 MiB is what that of Google does.
func testLarge(t *testing.T, s *store) {
	cfg := s.config("app")
	d := prepare(t, cfg)
	const rowSize, size = 1 << 20, 20 << 20
	err := d.db.Update(t.Context(), func(tx *sqlite.Tx) error {
		for n := range size / rowSize {
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO entry VALUES (?1, randomblob(?2), 2 * ?1)", n+1, rowSize); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	d.close()
	largest := 0
	for _, key := range s.objects.keys(t, "app/ltx/") {
		largest = max(largest, len(s.objects.read(t, key)))
	}
	if largest < size {
		t.Errorf("the largest object has %d bytes", largest)
	}
	path, _, err := restore(t, cfg, backup.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "a large object", rows(t, path), rows(t, d.path), true)
}

// A second machine is kept out until the first one is gone.
func testLeased(t *testing.T, s *store) {
	first := open(t, s.config("app"))
	first.commit(1)
	copied := filepath.Join(t.TempDir(), "app.db")
	if _, err := first.replica.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := s.config("app")
	cfg.Adopt, cfg.LeaseTTL = true, 10*time.Minute
	if _, err := newReplica(t, cfg).Restore(t.Context(), copied, backup.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	second := newReplica(t, cfg)
	if err := second.Start(t.Context(), copied, "", nil); !errors.Is(err, backup.ErrLeased) {
		t.Fatalf("a second machine: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	first.close()
	cfg.LeaseTTL = 0 // the default: even if the first one could not release its lease, that is soon over
	third := newReplica(t, cfg)
	defer third.Close()
	if err := third.Start(t.Context(), copied, "", nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the second machine replicates", func() bool { return third.Status().State == backup.Replicating })
}
