package backupproof_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/backup"
	"github.com/bedplate/bedplate/internal/backuptest"
)

var flips = flag.Int("flips", 2, "how many random bits to flip in each kind of object, beside those in each of its parts")

// TestDamage damages each kind of object of a replica in every way, and wants to be told when what
// it holds is to be restored: nothing has changed then.
func TestDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes, which takes seconds")
	}
	t.Parallel()
	full, last := writeReplica(t)
	lean, merged := full.since(t, full.long(9)), full.since(t, full.pick(1, 0))
	cases := []damageCase{
		{name: "nothing at all", in: full, do: func(*replicaDir) {}, right: true},
		{name: "nothing, from the snapshot", in: lean, do: func(*replicaDir) {}, right: true},
		{name: "nothing, from the merged", in: merged, do: func(*replicaDir) {}, right: true},
		{name: "a gap", in: lean, do: func(r *replicaDir) { r.remove(r.pick(0, -2)) }},
		{name: "no beginning", in: lean, do: func(r *replicaDir) { r.remove(r.pick(9, -1)) }},
		{name: "two swapped", in: lean, do: func(r *replicaDir) { r.swap(r.pick(0, -2), r.pick(0, -3)) }},
		{name: "the last two swapped", in: lean, do: func(r *replicaDir) { r.swap(r.pick(0, -1), r.pick(0, -2)) }},
		{name: "a snapshot of less", in: lean, do: func(r *replicaDir) { r.write(r.pick(9, -1), full.read(full.pick(0, 0))) }},
		{name: "a snapshot as the last", in: lean, do: func(r *replicaDir) { r.write(r.pick(0, -1), r.read(r.pick(9, -1))) }},
	}
	for _, kind := range []struct {
		name         string
		in           *replicaDir
		level, index int
	}{
		{"the snapshot", lean, 9, -1},
		{"the merged", merged, 1, -1},
		{"a single one", lean, 0, -3},
		{"the last", lean, 0, -1},
	} {
		object := kind.in.pick(kind.level, kind.index)
		for how, change := range damages(kind.in.read(object)) {
			cases = append(cases, damageCase{
				name: kind.name + ", " + how, in: kind.in,
				do: func(r *replicaDir) { r.write(object, change(r.read(object))) },
			})
		}
	}
	for i := range *flips {
		// There is more than one way to most states.
		cases = append(cases, damageCase{name: fmt.Sprintf("any, %d", i), in: full, either: true, do: func(r *replicaDir) {
			object := r.objects[rand.IntN(len(r.objects))]
			r.write(object, flip(0, 1)(r.read(object)))
		}})
	}
	server := backuptest.NewS3(t)
	slots := make(chan struct{}, 4)
	atOnce(t, cases, damageCase.String, func(t *testing.T, c damageCase) {
		slots <- struct{}{}
		defer func() { <-slots }()
		c.run(t, server, full.database, last)
	})
	t.Logf("%d ways", len(cases))
	lose(t, full, last)
}

// lose does what no checksum tells: whoever can write to the replica can put back what was there
// before. Nothing in it says that there was more.
func lose(t *testing.T, full *replicaDir, last int64) {
	for name, do := range map[string]func(r *replicaDir){
		"the last object is lost": func(r *replicaDir) { r.remove(r.pick(0, -1)) },
		"an old state is put back": func(r *replicaDir) {
			for _, object := range slices.Clone(r.objects) {
				if object.to > full.long(9).to {
					r.remove(object)
				}
			}
		},
	} {
		r := full.copy(t)
		do(r)
		path := newDatabase(t)
		if _, err := r.replica(t, nil).Restore(t.Context(), path, backup.RestoreOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := restored(t, path); n >= last {
			t.Errorf("%s: commit %d is the last, of %d", name, n, last)
		}
	}
}

// damages returns what can be done to an object.
func damages(object []byte) map[string]func([]byte) []byte {
	p := partsOf(object)
	ways := map[string]func([]byte) []byte{
		"emptied":     func([]byte) []byte { return nil },
		"a byte more": func(b []byte) []byte { return append(b, 0) },
		"twice":       func(b []byte) []byte { return append(b, b...) },
		"zeros":       func(b []byte) []byte { return make([]byte, len(b)) },
	}
	for i, part := range p {
		ways["a bit of "+part.name] = flip(part.from, part.to)
		ways["cut in "+part.name] = cut(part.from + rand.IntN(part.to-part.from))
		if i > 0 {
			ways["cut before "+part.name] = cut(part.from)
		}
	}
	for n := 1; n < 8; n += 3 { // decoders have been seen to panic
		ways[fmt.Sprintf("cut %d bytes into the index", n)] = cut(p[4].from + n)
	}
	for i := range *flips {
		ways[fmt.Sprintf("a random bit, %d", i)] = flip(0, len(object))
	}
	return ways
}

// A part is a range of the bytes of an object.
type part struct {
	name     string
	from, to int
}

// partsOf returns the parts of an object as they are laid out in the LTX format
// (https://github.com/superfly/ltx#file-format).
func partsOf(object []byte) []part {
	const header, pageHeader, pageSize, trailer = 100, 6, 4, 16
	end := len(object) - trailer
	index := end - 8 - int(binary.BigEndian.Uint64(object[end-8:]))
	return []part{
		{"the header", 0, header},
		{"a page's header", header, header + pageHeader},
		{"a page's size", header + pageHeader, header + pageHeader + pageSize},
		{"the pages", header + pageHeader + pageSize, index},
		{"the index", index, end - 8},
		{"the size of the index", end - 8, end},
		{"the trailer", end, len(object)},
	}
}

// flip flips a random bit of a range. 1 stands for the end.
func flip(from, to int) func([]byte) []byte {
	return func(b []byte) []byte {
		if to <= from+1 {
			to = len(b)
		}
		b[from+rand.IntN(to-from)] ^= 1 << rand.IntN(8)
		return b
	}
}

func cut(length int) func([]byte) []byte { return func(b []byte) []byte { return b[:length] } }

// A damageCase is a replica that is damaged.
type damageCase struct {
	name string
	in   *replicaDir // to be copied
	do   func(r *replicaDir)

	// right: it can be restored all the same; either: or not. What is restored is always right.
	right, either bool
}

func (c damageCase) String() string { return c.name }

// run restores the damaged replica over a database that is there, or to a place where none is.
func (c damageCase) run(t *testing.T, server *backuptest.S3, database string, last int64) {
	r := c.in.copy(t)
	c.do(r)
	if rand.IntN(2) == 0 {
		server = nil
	}
	replica := r.replica(t, server)
	path := newDatabase(t)
	over := rand.IntN(2) == 0
	t.Logf("on S3: %v, over a database: %v", server != nil, over)
	if over {
		if err := copyFile(path, database); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, filepath.Dir(path))
	var err error
	if over {
		_, err = replica.Restore(t.Context(), path, backup.RestoreOptions{Replace: true})
	} else {
		_, err = replica.RestoreIfMissing(t.Context(), path, nil)
	}
	if err == nil {
		if !c.right && !c.either {
			t.Error("it was restored")
		}
		if n := restored(t, path); n != last {
			t.Errorf("commit %d is the last that was restored, want %d", n, last)
		}
		return
	}
	if c.right || !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got error %v", err)
	}
	if after := contents(t, filepath.Dir(path)); !maps.Equal(before, after) {
		t.Errorf("the restore that failed has changed something:\n%v\n%v", before, after)
	}
}

// contents returns the hash of each file below a directory by its name.
func contents(t *testing.T, dir string) map[string][sha256.Size]byte {
	t.Helper()
	found := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found[path] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A replicaDir is a replica in a directory.
type replicaDir struct {
	dir      string
	database string   // from which it was made, and which is closed
	objects  []object // by their last transaction
}

// An object is a file of a replica.
type object struct {
	name     string // below the directory
	level    int
	from, to uint64 // transactions
}

// writeReplica makes a database and its replica, with objects of levels 0, 1 and 9, and returns the
// last commit.
func writeReplica(t *testing.T) (r *replicaDir, last int64) {
	t.Helper()
	dir, path := filepath.Join(t.TempDir(), "replica"), newDatabase(t)
	for life := range 2 { // a replicator that starts merges what it finds, and otherwise twice a minute
		s := serve(t, path, 3*time.Millisecond, backup.Config{
			URL: fileURL(dir), SyncInterval: copyEvery, SnapshotInterval: time.Second, LeaseTTL: -1,
		})
		if life > 0 {
			s.awaitObjects(dir)
		}
		for range 4 {
			s.awaitCommits(5)
			s.mark()
		}
		if err := s.end(); err != nil {
			t.Fatal(err)
		}
		last = s.last()
	}
	r = openReplica(t, dir)
	r.database = path
	return r, last
}

// awaitObjects waits until the replica in a directory has objects of levels 0, 1 and 9, with a
// snapshot of more than the first transaction.
func (s *service) awaitObjects(dir string) {
	s.t.Helper()
	s.await("there are all kinds of objects", func() bool {
		levels := map[int]bool{}
		for _, o := range openReplica(s.t, dir).objects {
			levels[o.level] = levels[o.level] || o.level != 9 || o.to > 1
		}
		return levels[0] && levels[1] && levels[9]
	})
}

func openReplica(t *testing.T, dir string) *replicaDir {
	t.Helper()
	r := &replicaDir{dir: dir}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || !strings.HasSuffix(path, ".ltx") {
			return nil
		}
		o := object{name: strings.TrimPrefix(path, dir)}
		if _, e := fmt.Sscanf(filepath.Base(path), "%016x-%016x.ltx", &o.from, &o.to); e != nil {
			return fmt.Errorf("%s: %w", path, e)
		}
		_, e := fmt.Sscanf(filepath.Base(filepath.Dir(path)), "%d", &o.level)
		r.objects = append(r.objects, o)
		return errors.Join(err, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.objects, func(a, b object) int { return int(a.to) - int(b.to) })
	return r
}

// copy returns a copy of its own.
func (r *replicaDir) copy(t *testing.T) *replicaDir {
	t.Helper()
	c := &replicaDir{dir: filepath.Join(t.TempDir(), "replica"), database: r.database, objects: slices.Clone(r.objects)}
	for _, o := range r.objects {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(c.dir, o.name)), 0o700); err != nil {
			t.Fatal(err)
		}
		c.write(o, r.read(o))
	}
	return c
}

// since returns a copy with one object that begins with the first transaction, and with those of
// level 0 that follow: there is only one way to its newest state.
func (r *replicaDir) since(t *testing.T, begin object) *replicaDir {
	t.Helper()
	c := r.copy(t)
	if begin.from != 1 {
		t.Fatalf("object %s does not begin with transaction 1", begin.name)
	}
	for _, o := range r.objects {
		if o != begin && (o.level != 0 || o.to <= begin.to) {
			c.remove(o)
		}
	}
	return c
}

// long returns the first object of a level with more than the first transaction.
func (r *replicaDir) long(level int) object {
	i := slices.IndexFunc(r.objects, func(o object) bool { return o.level == level && o.to > 1 })
	return r.objects[i]
}

// pick returns the i-th object of a level, or the -i-th from the end.
func (r *replicaDir) pick(level, i int) object {
	found := r.level(level)
	if i < 0 {
		i += len(found)
	}
	return found[i]
}

// level returns the objects of a level.
func (r *replicaDir) level(level int) []object {
	return slices.DeleteFunc(slices.Clone(r.objects), func(o object) bool { return o.level != level })
}

func (r *replicaDir) read(o object) []byte {
	data, err := os.ReadFile(filepath.Join(r.dir, o.name))
	if err != nil {
		panic(err) // the test is wrong
	}
	return data
}

func (r *replicaDir) write(o object, data []byte) {
	if err := os.WriteFile(filepath.Join(r.dir, o.name), data, 0o600); err != nil {
		panic(err)
	}
}

func (r *replicaDir) remove(o object) {
	r.objects = slices.DeleteFunc(r.objects, func(other object) bool { return other == o })
	if err := os.Remove(filepath.Join(r.dir, o.name)); err != nil {
		panic(err)
	}
}

func (r *replicaDir) swap(a, b object) {
	first, second := r.read(a), r.read(b)
	r.write(a, second)
	r.write(b, first)
}

// replica returns what can be restored from it, or from a copy on server if that is not nil.
func (r *replicaDir) replica(t *testing.T, server *backuptest.S3) *backup.Replica {
	t.Helper()
	cfg := backup.Config{URL: fileURL(r.dir), LeaseTTL: -1, Logger: slog.New(slog.DiscardHandler)}
	if server != nil {
		prefix := strings.ReplaceAll(strings.Trim(r.dir, "/"), "/", "-")
		for _, o := range r.objects {
			server.Write(fmt.Sprintf("%s/%04x/%s", prefix, o.level, filepath.Base(o.name)), r.read(o))
		}
		cfg.URL, cfg.Credentials = server.URL(prefix), server.Credentials
	}
	replica, err := backup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return replica
}
