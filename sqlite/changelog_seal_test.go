package sqlite_test

import (
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/sqlitetest"
	"github.com/bedplate/bedplate/sqlite"
)

func TestSealer(t *testing.T) {
	t.Parallel()
	db := sqlitetest.Open(t, "CREATE TABLE t (id INTEGER PRIMARY KEY) STRICT")
	log, err := db.ChangeLog("main")
	if err != nil {
		t.Fatal(err)
	}
	head, err := log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sealer := func(epoch string) *sqlite.Sealer {
		t.Helper()
		s, err := log.Sealer(t.Context(), epoch)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := sealer(head.Epoch)
	var sealed string
	for _, seq := range []int64{0, 1, 1 << 40, 1<<63 - 1} {
		sealed = s.Seal(seq)
		if got, ok := s.Open(sealed); !ok || got != seq {
			t.Errorf("%d: opened as %d, %v", seq, got, ok)
		}
		if sealed == s.Seal(seq) {
			t.Errorf("%d: sealed twice in the same way", seq)
		}
		if strings.ContainsAny(sealed, "+/= \r\n\x00") {
			t.Errorf("%q does not fit into a URL", sealed)
		}
	}
	if _, ok := s.Open(s.Seal(-1)); ok {
		t.Error("a negative position was opened")
	}
	prefix := head.Epoch + "."
	for _, text := range []string{
		"", ".", head.String(), prefix, "x" + sealed, sealed + "A", sealed[:len(sealed)-1], prefix + sealed,
		strings.TrimPrefix(sealed, prefix), "other." + strings.TrimPrefix(sealed, prefix),
		prefix + strings.Repeat("A", 22), prefix + strings.Repeat("\n", 22), sealed[:len(sealed)-1] + "\n",
	} {
		if seq, ok := s.Open(text); ok {
			t.Errorf("%q: opened as %d", text, seq)
		}
	}
	if err := log.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Sealer(t.Context(), "none"); err == nil {
		t.Error("a sealer for an epoch that never was")
	}
	now, err := log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := sealer(now.Epoch).Open(sealed); ok {
		t.Error("a position of the epoch before was opened")
	}
	// The key is another one, too, so that the epoch is not all that differs.
	if _, ok := sealer(now.Epoch).Open(now.Epoch + "." + strings.TrimPrefix(sealed, prefix)); ok {
		t.Error("a position of the epoch before was opened under the new name")
	}
}

func BenchmarkSeal(b *testing.B) {
	db := sqlitetest.Open(b, "")
	log, err := db.ChangeLog("main")
	if err != nil {
		b.Fatal(err)
	}
	head, err := log.Head(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	s, err := log.Sealer(b.Context(), head.Epoch)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_ = s.Seal(4711)
	}
}
