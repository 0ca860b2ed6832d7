package replicator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

func TestRestoreLatest(t *testing.T) {
	t.Parallel()
	s := full(t)
	path, done := restored(t, s.client, wire.Order{})
	if done.Error != "" {
		t.Fatal(done.Error)
	}
	if names := only(t, filepath.Dir(path)); names != "copy.db" {
		t.Errorf("files: %s", names)
	}
	last := s.history[len(s.history)-1]
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	r := done.Restored
	if r.TXID != uint64(last.txid) || r.Bytes != info.Size() || r.Files == 0 || r.Fetched == 0 || !r.Time.After(s.history[0].time) || r.Time.After(last.time) {
		t.Errorf("restored %+v of %d bytes, want transaction %d", r, info.Size(), last.txid)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if n := look(t, path); n != last.rows {
		t.Errorf("%d rows, want %d", n, last.rows)
	}
}

func TestRestoreToTransactionAndTime(t *testing.T) {
	t.Parallel()
	s := full(t)
	for i, m := range s.history {
		path, done := restored(t, s.client, wire.Order{TXID: uint64(m.txid)})
		if done.Error != "" || done.Restored.TXID != uint64(m.txid) {
			t.Fatalf("transaction %d: %+v", m.txid, done)
		}
		if n := look(t, path); n != m.rows {
			t.Errorf("transaction %d: %d rows, want %d", m.txid, n, m.rows)
		}
		for _, at := range []time.Time{m.time, done.Restored.Time} { // the time of a state is not before it
			path, done := restored(t, s.client, wire.Order{Timestamp: at})
			if done.Error != "" || done.Restored.TXID != uint64(m.txid) || look(t, path) != m.rows {
				t.Errorf("time of transaction %d: %+v", m.txid, done.Restored)
			}
		}
		_, done = restored(t, s.client, wire.Order{Timestamp: done.Restored.Time.Add(-time.Microsecond)})
		switch {
		case i == 0 && done.Code != wire.CodeNoBackup:
			t.Errorf("before everything: %+v", done)
		case i > 0 && done.Restored.TXID != uint64(s.history[i-1].txid) && m.txid != s.objects(9)[0].MaxTXID: // which is younger
			t.Errorf("before transaction %d: %+v", m.txid, done.Restored)
		}
	}
}

// Times do not depend on those of files, which change when a replica is copied.
func TestRestoreToTimeOfCopiedReplica(t *testing.T) {
	t.Parallel()
	s := full(t)
	for level := range 10 {
		for _, o := range s.objects(level) {
			s.must(os.Chtimes(s.file(o), time.Now(), time.Now()))
		}
	}
	m := s.history[7]
	path, done := restored(t, s.client, wire.Order{Timestamp: m.time})
	if done.Error != "" || done.Restored.TXID != uint64(m.txid) || look(t, path) != m.rows {
		t.Errorf("%+v", done)
	}
}

func TestRestoreNothing(t *testing.T) {
	t.Parallel()
	s := full(t)
	last := s.history[len(s.history)-1]
	s.remove(0, s.history[17].txid)
	s.remove(1, s.history[17].txid)
	for name, order := range map[string]wire.Order{
		"a later transaction":   {TXID: uint64(last.txid) + 1},
		"one within an object":  {TXID: uint64(s.history[11].txid)},
		"before the first time": {Timestamp: s.history[0].time.Add(-time.Hour)},
	} {
		path, done := restored(t, s.client, order)
		if done.Code != wire.CodeNoBackup {
			t.Errorf("%s: %+v", name, done)
		}
		if names := only(t, filepath.Dir(path)); names != "" {
			t.Errorf("%s: files: %s", name, names)
		}
	}
	s.must(os.RemoveAll(s.dir))
	if _, done := restored(t, s.client, wire.Order{}); done.Code != wire.CodeNoBackup {
		t.Errorf("empty replica: %+v", done)
	}
}

func TestRestoreSizeLimit(t *testing.T) {
	t.Parallel()
	s := full(t)
	_, done := restored(t, s.client, wire.Order{})
	size := done.Restored.Bytes
	if _, done := restored(t, s.client, wire.Order{TXID: done.Restored.TXID, MaxBytes: size}); done.Error != "" {
		// The database was larger before.
		if done.Code != wire.CodeTooLarge {
			t.Errorf("limit %d: %+v", size, done)
		}
	}
	path, done := restored(t, s.client, wire.Order{MaxBytes: size - 1})
	if done.Code != wire.CodeTooLarge {
		t.Errorf("limit %d: %+v", size-1, done)
	}
	if names := only(t, filepath.Dir(path)); names != "" {
		t.Errorf("files: %s", names)
	}
}

func TestRestoreKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.write()
	output := filepath.Join(t.TempDir(), "copy.db")
	s.must(os.WriteFile(output, []byte("mine"), 0o600))
	done := newScript(t, s.client, wire.Order{Output: output}).restore(t.Context())
	if content, err := os.ReadFile(output); done.Error == "" || err != nil || string(content) != "mine" {
		t.Errorf("%+v, %q, %v", done, content, err)
	}
}

func TestRestoreStopped(t *testing.T) {
	t.Parallel()
	s := full(t)
	output := filepath.Join(t.TempDir(), "copy.db")
	c := newScript(t, s.client, wire.Order{Output: output})
	close(c.commands)
	ctx, cancel := c.untilStopped(t.Context())
	defer cancel()
	<-ctx.Done()
	if _, err := c.restoreTo(ctx, output, target{}); err == nil {
		t.Error("it went on")
	}
	if names := only(t, filepath.Dir(output)); names != "" {
		t.Errorf("files: %s", names)
	}
}

// A damaged object is done without where others have what it has, or else the restore fails. It
// never makes another database.
func TestRestoreDamaged(t *testing.T) {
	t.Parallel()
	s := full(t)
	s.remove(0, s.history[14].txid) // compacted
	last := s.history[len(s.history)-1]
	rnd := rand.New(rand.NewPCG(6, 1))
	kinds, refused, avoided := map[int]bool{}, 0, 0
	check := func(o *ltx.FileInfo, what string, at int64) {
		t.Helper()
		orders := []wire.Order{{}, {Timestamp: last.time}}
		if at%4 != 0 && at != 39 { // of the time in the header
			orders = orders[:1]
		}
		for _, order := range orders {
			path, done := restored(t, s.client, order)
			switch {
			case done.Code == wire.CodeCorrupt:
				refused++
				if names := only(t, filepath.Dir(path)); names != "" {
					t.Errorf("files: %s", names)
				}
			case done.Error != "":
				t.Errorf("%s %s at %d of %d: %s %s", objectName(o), what, at, o.Size, done.Code, done.Error)
			case done.Restored.TXID != uint64(last.txid) || look(t, path) != last.rows:
				t.Errorf("%s %s at %d of %d: another database: %+v", objectName(o), what, at, o.Size, done.Restored)
			default:
				avoided++
			}
		}
	}
	for level := range 10 {
		objects := s.objects(level)
		for i, o := range objects {
			if i != 0 && i != len(objects)-1 {
				continue
			}
			kinds[level] = true
			name := s.file(o)
			spots := []int64{0, 4, 8, 12, 16, 24, 32, 39, 50, 64, 80, 99, 100, 104, 106, 109, 110, o.Size - 1, o.Size - 9, o.Size - 17, o.Size - 24, o.Size - 26}
			for range 3 {
				spots = append(spots, 100+rnd.Int64N(o.Size-100))
			}
			for _, at := range spots {
				undo := flip(t, name, at)
				check(o, "flipped", at)
				undo()
			}
			good, err := os.ReadFile(name)
			s.must(err)
			for _, at := range []int64{0, 1, 99, 100, 105, 110, o.Size / 2, o.Size - 43, o.Size - 42, o.Size - 25, o.Size - 24, o.Size - 17, o.Size - 16, o.Size - 8, o.Size - 7, o.Size - 1} {
				undo := overwrite(t, name, good[:max(0, at)])
				check(o, "cut", at)
				undo()
			}
			undo := overwrite(t, name, append(append([]byte{}, good...), 0))
			check(o, "longer", o.Size)
			undo()
		}
	}
	if len(kinds) < 4 || refused == 0 || avoided == 0 {
		t.Errorf("levels %v, %d refused, %d avoided", kinds, refused, avoided)
	}
	t.Logf("levels %v, %d refused, %d avoided", kinds, refused, avoided)
	if _, done := restored(t, s.client, wire.Order{}); done.Error != "" {
		t.Error(done.Error)
	}
}

func TestRestoreMissing(t *testing.T) {
	t.Parallel()
	s := full(t)
	s.remove(0, s.history[len(s.history)-4].txid-1)
	s.remove(1, s.history[20].txid)
	s.remove(2, s.history[20].txid)
	for _, order := range []wire.Order{{}, {Timestamp: time.Now()}} {
		if _, done := restored(t, s.client, order); done.Code != wire.CodeCorrupt {
			t.Errorf("%+v", done)
		}
	}
}

func TestRestoreSwapped(t *testing.T) {
	t.Parallel()
	s := full(t)
	s.remove(0, s.history[18].txid)
	list := s.objects(0)
	one, err := os.ReadFile(s.file(list[1]))
	s.must(err)
	other, err := os.ReadFile(s.file(list[len(list)-1]))
	s.must(err)
	overwrite(t, s.file(list[1]), other)
	if _, done := restored(t, s.client, wire.Order{}); done.Code != wire.CodeCorrupt {
		t.Errorf("another object at its place: %+v", done)
	}
	overwrite(t, s.file(list[len(list)-1]), one)
	if _, done := restored(t, s.client, wire.Order{}); done.Code != wire.CodeCorrupt {
		t.Errorf("swapped: %+v", done)
	}
}

// An older snapshot under a newer name.
func TestRestoreRenamed(t *testing.T) {
	t.Parallel()
	s := full(t)
	shot := s.objects(9)[0]
	last := s.history[len(s.history)-1].txid
	s.must(os.Rename(s.file(shot), s.client.LTXFilePath(9, 1, last)))
	path, done := restored(t, s.client, wire.Order{})
	if done.Error == "" && look(t, path) != s.rows {
		t.Errorf("another database: %+v", done.Restored)
	}
	for level := range 3 {
		s.remove(level, last)
	}
	if _, done := restored(t, s.client, wire.Order{}); done.Code != wire.CodeCorrupt {
		t.Errorf("%+v", done)
	}
}

// An object of another history, under a name that fits, is noticed where it leaves pages out.
func TestRestoreOtherHistory(t *testing.T) {
	t.Parallel()
	s, other := newSource(t), newSource(t)
	for range 3 {
		s.write()
		for range 20 {
			other.exec("BEGIN", "INSERT INTO a VALUES (1, randomblob(9000))", "COMMIT")
		}
		other.write()
	}
	last := s.objects(0)[2]
	content, err := os.ReadFile(other.file(last))
	s.must(err)
	overwrite(t, s.file(last), content)
	if _, done := restored(t, s.client, wire.Order{}); done.Code != wire.CodeCorrupt {
		t.Errorf("%+v", done)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	began := time.Now().Truncate(time.Second) // the times of files are not exact
	s := full(t)
	done := newScript(t, s.client, wire.Order{}).list(t.Context())
	if done.Error != "" {
		t.Fatal(done.Error)
	}
	levels := map[int]int{}
	for _, p := range done.Points {
		levels[p.Level]++
		if p.MinTXID == 0 || p.MinTXID > p.MaxTXID || p.Bytes == 0 || p.Time.Before(began) || p.Time.After(time.Now()) {
			t.Errorf("%+v", p)
		}
	}
	for level, n := range map[int]int{0: len(s.objects(0)), 1: len(s.objects(1)), 2: 1, 9: 1} {
		if levels[level] != n {
			t.Errorf("%d points of level %d, want %d", levels[level], level, n)
		}
	}
}

// A flakyClient is a store whose requests fail half of the time, or break off.
type flakyClient struct {
	litestream.ReplicaClient
	n atomic.Int64
}

func (c *flakyClient) LTXFiles(ctx context.Context, level int, seek ltx.TXID, useMetadata bool) (ltx.FileIterator, error) {
	if c.n.Add(1)%13 == 0 {
		return nil, errors.New("the store is busy")
	}
	return c.ReplicaClient.LTXFiles(ctx, level, seek, useMetadata)
}

func (c *flakyClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	n := c.n.Add(1)
	if n%2 == 0 {
		return nil, errors.New("the store is busy")
	}
	body, err := c.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	if err == nil && n%3 == 0 && size == 0 {
		content, _ := io.ReadAll(io.LimitReader(body, 1000))
		_ = body.Close()
		return io.NopCloser(io.MultiReader(bytes.NewReader(content), iotest.ErrReader(errors.New("the connection broke off")))), nil
	}
	return body, err
}

func TestRestoreFromFlakyStore(t *testing.T) {
	t.Parallel()
	s := full(t)
	path, done := restored(t, &flakyClient{ReplicaClient: s.client}, wire.Order{})
	if done.Error != "" || look(t, path) != s.rows {
		t.Errorf("%+v", done)
	}
}

// Objects that are compacted while they are read are found where they are now.
func TestRestoreRacesCompaction(t *testing.T) {
	t.Parallel()
	s := full(t)
	client := &tamperer{ReplicaClient: s.client}
	var once sync.Once
	client.set(func(_ int, _ ltx.TXID, content []byte) []byte {
		once.Do(func() {
			s.compact(1)
			s.remove(0, s.history[len(s.history)-1].txid-1)
		})
		return content
	})
	path, done := restored(t, client, wire.Order{})
	if done.Error != "" || look(t, path) != s.rows {
		t.Errorf("%+v", done)
	}
}
