package replicator

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// What is left in the log of a transaction that did not fit into memory is written over at once.
func TestGuardAfterRollback(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	ctx := context.Background()
	g, err := openGuard(ctx, s.path)
	s.must(err)
	defer g.close()
	const pages = 400
	s.exec("PRAGMA cache_size = 5", "BEGIN", "CREATE TABLE large (v BLOB)")
	for range pages {
		s.exec("INSERT INTO large VALUES (randomblob(4000))")
	}
	s.exec("ROLLBACK")
	end, err := g.index.read(ctx)
	s.must(err)
	if info, err := os.Stat(s.path + "-wal"); err != nil || info.Size() < end.offset()+pages/2*end.frameSize() {
		t.Fatalf("the transaction has left no frames: %v %v", info, err)
	}
	if more, err := g.index.goesOn(end); err != nil || !more {
		t.Fatal("nothing was found behind the end of the log", err)
	}
	before, after, err := g.write(ctx)
	s.must(err)
	if !before.sameLog(end) || before.frames != end.frames+1 || after.frames != before.frames+1 {
		t.Errorf("%v, then %v and %v", end, before, after)
	}
	if more, err := g.index.goesOn(after); err != nil || more {
		t.Errorf("it goes on: %v %v", more, err)
	}
}

// The first frames of a log that has begun anew are found, too.
func TestGoesOnAtTheBeginning(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.stop() // it reads
	ctx := context.Background()
	g, err := openGuard(ctx, s.path)
	s.must(err)
	defer g.close()
	s.exec("PRAGMA wal_checkpoint(RESTART)", "PRAGMA cache_size = 5", "BEGIN", "CREATE TABLE large (v BLOB)")
	for range 100 {
		s.exec("INSERT INTO large VALUES (randomblob(4000))")
	}
	s.exec("ROLLBACK")
	end, err := g.index.read(ctx)
	s.must(err)
	if more, err := g.index.goesOn(end); err != nil || !more || end.frames != 0 {
		t.Errorf("%v: %v %v", end, more, err)
	}
}

// Other files in the place of those that are open are noticed.
func TestOtherFiles(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", "-shm"} {
		s := newSource(t)
		g, err := openGuard(context.Background(), s.path)
		s.must(err)
		s.must(g.keep())
		s.must(os.Rename(s.path+suffix, s.path+".away"))
		if err := g.keep(); (suffix == "") == errors.Is(err, errOtherFiles) || err == nil {
			t.Errorf("%q is missing: %v", suffix, err)
		}
		s.must(os.WriteFile(s.path+suffix, nil, 0o600))
		if err := g.keep(); !errors.Is(err, errOtherFiles) {
			t.Errorf("%q is another file: %v", suffix, err)
		}
		s.must(os.Rename(s.path+".away", s.path+suffix))
		g.close()
	}
}

// What may be there in part is not listed, whoever asks next.
func TestDoubtsStay(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.write()
	s.compact(1)
	list := s.objects(1)
	d := newDoubts()
	d.add(object{1, list[0].MinTXID, list[0].MaxTXID})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 2 {
		c := &sureClient{ReplicaClient: s.client, settled: newSettled(t.TempDir()), uploaded: func() uint64 { return 0 }, doubts: d, snapshots: make(chan struct{}, 1)}
		files, err := c.LTXFiles(ctx, 1, 0, false)
		s.must(err)
		if files.Next() {
			t.Errorf("%+v is listed", files.Item())
		}
		s.must(files.Close())
	}
}
