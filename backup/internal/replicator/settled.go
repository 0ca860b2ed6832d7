package replicator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// settled knows up to which transaction what was captured is known to count. What comes after that
// stays here.
type settled struct {
	place     string // file with a position
	suspended string // file that exists while Litestream captures what may not count

	mu      sync.Mutex
	txid    ltx.TXID
	changed chan struct{}
}

func newSettled(state string) *settled {
	return &settled{
		place: filepath.Join(state, "position"), suspended: filepath.Join(state, "suspended"), changed: make(chan struct{}),
	}
}

// A position is where in the log the newest local file ends. The checksum is what tells whether it
// is the same log up to there, which it may not be after a loss of power.
type position struct {
	txid ltx.TXID
	end  walMark
	sum  uint64
}

func (p position) String() string {
	return fmt.Sprintf("%016x %08x %08x %08x %08x %016x\n", uint64(p.txid), p.end.salt1, p.end.salt2, p.end.frames, p.end.pageSize, p.sum)
}

// set takes note that everything up to a file is settled. sum is the checksum of the log there.
func (s *settled) set(f localFile, sum uint64) error {
	// A machine that goes down may leave an older one, which does not go with the newest file.
	if err := os.WriteFile(s.place, []byte(position{f.txid, f.end, sum}.String()), 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txid = f.txid
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// position returns what was set last, by whichever process; zero if that is not known.
func (s *settled) position() (p position) {
	text, err := os.ReadFile(s.place)
	if err != nil {
		return position{}
	}
	var txid uint64
	n, err := fmt.Sscanf(string(text), "%016x %08x %08x %08x %08x %016x\n", &txid, &p.end.salt1, &p.end.salt2, &p.end.frames, &p.end.pageSize, &p.sum)
	if p.txid = ltx.TXID(txid); n != 6 || err != nil {
		return position{}
	}
	return p
}

func (s *settled) newest() ltx.TXID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.txid
}

// await returns when txid is settled.
func (s *settled) await(ctx context.Context, txid ltx.TXID) error {
	for {
		s.mu.Lock()
		done, changed := s.txid >= txid, s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// suspend notes what is settled now, for the case that the process ends before it calls resume.
func (s *settled) suspend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return os.WriteFile(s.suspended, []byte(strconv.FormatUint(uint64(s.txid), 10)), 0o600)
}

func (s *settled) resume() error { return os.Remove(s.suspended) }

// recover removes the local files of a process that ended while it was suspended, but for those
// that are settled.
func (s *settled) recover(state string) error {
	text, err := os.ReadFile(s.suspended)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	txid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		txid = 0 // it was being written: nothing was captured since
	}
	if err == nil {
		if err := removeAfter(state, ltx.TXID(txid)); err != nil {
			return err
		}
	}
	return os.Remove(s.suspended)
}

// removeAfter removes the local files of transactions after txid.
func removeAfter(state string, txid ltx.TXID) error {
	files, err := localFiles(state)
	if err != nil {
		return err
	}
	for _, n := range files {
		if n > txid {
			if err := os.Remove(litestream.LTXFilePath(state, 0, n, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// localFiles returns the transactions of which there are local files, oldest first.
func localFiles(state string) ([]ltx.TXID, error) {
	entries, err := os.ReadDir(litestream.LTXLevelDir(state, 0))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []ltx.TXID
	for _, entry := range entries {
		if first, last, err := ltx.ParseFilename(entry.Name()); err == nil && first == last {
			files = append(files, last)
		}
	}
	slices.Sort(files)
	return files, nil
}

// newestLocal returns the newest local file; zero: there is none.
func newestLocal(state string) (localFile, error) {
	files, err := localFiles(state)
	if err != nil || len(files) == 0 {
		return localFile{}, err
	}
	return openLocal(state, files[len(files)-1])
}

// localAfter returns the newest of the local files that follow txid without a gap; its txid if there
// is none. There may be many files, which are not listed.
func localAfter(state string, txid ltx.TXID) (localFile, error) {
	newest := txid
	for {
		next := newest + 1
		if _, err := os.Stat(litestream.LTXFilePath(state, 0, next, next)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return localFile{}, err
		}
		newest = next
	}
	if newest == txid {
		return localFile{txid: txid}, nil
	}
	return openLocal(state, newest)
}

// openLocal reads the head of a local file.
func openLocal(state string, txid ltx.TXID) (localFile, error) {
	f := localFile{txid: txid, name: litestream.LTXFilePath(state, 0, txid, txid)}
	in, err := os.Open(f.name)
	if err != nil {
		return f, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	h, _, err := ltx.PeekHeader(in)
	if err != nil {
		return f, litestream.NewLTXError("decode", f.name, 0, uint64(f.txid), uint64(f.txid), fmt.Errorf("%w: %w", litestream.ErrLTXCorrupted, err))
	}
	f.pageSize, f.commit = h.PageSize, h.Commit
	f.end = walMark{salt1: h.WALSalt1, salt2: h.WALSalt2, pageSize: h.PageSize}
	if bytes := h.WALOffset + h.WALSize - litestream.WALHeaderSize; bytes > 0 {
		f.end.frames = uint32(bytes / f.end.frameSize()) //nolint:gosec // the wal-index has 32 bits
	}
	return f, nil
}
