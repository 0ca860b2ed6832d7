package replicator_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// What is proven is what the replica holds, whatever the replicator believes to have sent.
func TestProve(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		code   wire.Code
		damage func(s *source, object string) error
	}{
		{"nothing", "", func(*source, string) error { return nil }},
		{"missing", wire.CodeNotThere, func(s *source, object string) error { return os.Remove(object) }},
		{"damaged", wire.CodeCorrupt, func(s *source, object string) error { return flip(object) }},
		{"cut", wire.CodeCorrupt, func(s *source, object string) error { return cut(object, 43) }},
		{"empty", wire.CodeCorrupt, func(s *source, object string) error { return os.Truncate(object, 0) }},
		{"another database", wire.CodeOtherOwner, func(s *source, object string) error { return os.WriteFile(object, foreign(t, object), 0o600) }},
		{"compacted", "", func(s *source, object string) error { // it has become a part of a larger one
			dir := filepath.Join(s.replica, "ltx", "1")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			return os.Rename(object, filepath.Join(dir, filepath.Base(object)))
		}},
	} {
		for _, size := range []string{"small", "large"} {
			t.Run(test.name+" "+size, func(t *testing.T) {
				t.Parallel()
				s := newSource(t)
				c := s.replicate()
				s.sing()
				if e := s.prove(c); e.Error != "" || e.Number != 1 {
					t.Fatalf("%+v", e)
				}
				tx, err := s.db.Begin()
				if err != nil {
					t.Fatal(err)
				}
				s.number++
				blob := binary.BigEndian.AppendUint64(append([]byte(nil), s.token...), s.number)
				if _, err := tx.Exec("UPDATE canary SET b = ?", blob); err != nil {
					t.Fatal(err)
				}
				if size == "large" {
					if _, err := tx.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 4000)
						INSERT INTO t (v) SELECT hex(randomblob(2000)) FROM n`); err != nil {
						t.Fatal(err)
					}
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
				if e := s.prove(c); e.Error != "" || e.Number != 2 {
					t.Fatalf("%+v", e)
				}
				object := s.largest()
				info, err := os.Stat(object)
				if err != nil {
					t.Fatal(err)
				}
				if large := info.Size() > 8<<20; large != (size == "large") {
					t.Fatalf("the object has %d bytes", info.Size())
				}
				if err := test.damage(s, object); err != nil {
					t.Fatal(err)
				}
				e := s.prove(c)
				if size == "large" && (test.name == "damaged" || test.name == "cut") {
					return // that is somewhere else: only the page is read
				}
				if e.Code != test.code || (test.code == "") != (e.Error == "") || test.code == "" && e.Number != 2 {
					t.Errorf("%+v, want code %q", e, test.code)
				}
			})
		}
	}
}

// A page may hold the remains of older canaries, and a token may be all there is of one.
func TestProveWhichNumber(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	c := s.replicate()
	for range 20 {
		s.sing()
		s.exec("INSERT INTO t (v) VALUES (?)", s.token)
		if e := s.prove(c); e.Number != s.number {
			t.Fatalf("%+v, want %d", e, s.number)
		}
	}
	s.number++
	if e := s.prove(c); e.Code != wire.CodeNotThere {
		t.Errorf("a number that was never written: %+v", e)
	}
	if e := c.call(wire.Command{Op: wire.Prove}); e.Error == "" {
		t.Error("no token is needed")
	}
}

// largest returns the largest object of level 0 but for the first, which holds everything.
func (s *source) largest() (name string) {
	s.t.Helper()
	most := int64(-1)
	for _, object := range s.objects(0)[1:] {
		info, err := os.Stat(object)
		if err != nil {
			s.t.Fatal(err)
		}
		if info.Size() >= most {
			name, most = object, info.Size()
		}
	}
	return name
}

// foreign is what another replicator would have written at the name.
func foreign(t *testing.T, name string) []byte {
	first, last, err := ltx.ParseFilename(filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	enc, err := ltx.NewEncoder(&b)
	if err != nil {
		t.Fatal(err)
	}
	header := ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 4096, Commit: 1, MinTXID: first, MaxTXID: last, Timestamp: 1}
	if err := enc.EncodeHeader(header); err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodePage(ltx.PageHeader{Pgno: 1}, fmt.Appendf(make([]byte, 0, 4096), "%4096s", "x")); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
