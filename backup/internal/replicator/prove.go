package replicator

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

const (
	// maxTokenBytes bounds the token of a canary.
	maxTokenBytes = 64

	// maxWhole is the size up to which an object is read back whole, so that its checksum counts;
	// of larger ones only the page with the canary is.
	maxWhole = 8 << 20

	// maxSearched bounds how many of the newest local files are searched for the canary.
	maxSearched = 64

	// maxAbove bounds the size of an object of a higher level that is searched.
	maxAbove = 256 << 20
)

// mostAhead is how much further than wanted a canary can be that was written meanwhile. Greater
// numbers are something else that follows the token.
const mostAhead = 1 << 20

// A mark is what a canary looks like: a token, and a number of at most most.
type mark struct {
	token []byte
	most  uint64
}

// A finder remembers in which page the canary was last, which saves decoding all others.
type finder struct {
	mu   sync.Mutex
	page uint32 // 0: not known
}

// A sighting is a canary in a captured file.
type sighting struct {
	txid   ltx.TXID
	file   string
	page   uint32
	number uint64
}

// prove reads a canary back from the replica. What a local file says about that proves nothing; it
// only tells where to look.
func (r *replication) prove(ctx context.Context, command wire.Command) (wire.Event, error) {
	if len(command.Token) == 0 || len(command.Token) > maxTokenBytes {
		return wire.Event{}, errors.New("a token is missing")
	}
	txid, there, err := r.sync(ctx, true)
	if err != nil {
		return wire.Event{}, err
	}
	e := wire.Event{TXID: txid, ReplicaTXID: there}
	m := mark{command.Token, command.Number + mostAhead}
	seen, err := r.findLocal(ctx, m, command.Number)
	if err != nil {
		return wire.Event{}, err
	}
	if seen != nil {
		e.Number, err = r.readBack(ctx, seen, m)
		if !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
	}
	// It may have become a part of a larger object.
	e.Number, err = r.findAbove(ctx, m, command.Number)
	return e, err
}

// findLocal looks for a canary in the captured files, the newest first. nil: it is in none of
// them.
func (r *replication) findLocal(ctx context.Context, m mark, least uint64) (*sighting, error) {
	dir := litestream.LTXLevelDir(stateDir(r.order), 0)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	slices.Reverse(entries) // names sort by number
	searched := 0
	for _, entry := range entries {
		_, txid, err := ltx.ParseFilename(entry.Name())
		if err != nil {
			continue
		}
		if searched++; searched > maxSearched || ctx.Err() != nil {
			break
		}
		seen, err := r.finder.find(filepath.Join(dir, entry.Name()), m)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was put away meanwhile
		case err != nil:
			return nil, fmt.Errorf("look for the canary in %s: %w", entry.Name(), err)
		case seen != nil && seen.number >= least:
			seen.txid = txid
			return seen, nil
		}
	}
	return nil, ctx.Err()
}

// find looks for a canary in one file. nil: it is not there.
func (f *finder) find(file string, m mark) (*sighting, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	if f.page != 0 {
		frame, _, err := pageFrame(in, f.page)
		if err != nil {
			return nil, err
		}
		if frame == nil {
			return nil, nil // nothing was written there, most likely
		}
		_, data, err := ltx.DecodePageData(frame)
		if err != nil {
			return nil, err
		}
		if number, ok := m.in(data); ok {
			return &sighting{file: file, page: f.page, number: number}, nil
		}
	}
	page, number, _, err := scan(in, m)
	if err != nil || page == 0 {
		return nil, err
	}
	f.page = page
	return &sighting{file: file, page: page, number: number}, nil
}

// readBack reads the object of the replica that corresponds to a captured file.
func (r *replication) readBack(ctx context.Context, seen *sighting, m mark) (uint64, error) {
	local, err := os.Open(seen.file)
	if err != nil {
		return 0, err
	}
	defer local.Close() //nolint:errcheck // it was only read
	info, err := local.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() <= maxWhole {
		return r.readWhole(ctx, seen, m, local, info.Size())
	}
	return r.readPage(ctx, seen, m, local)
}

// readWhole compares the object with the file, decodes it with its checksum, and looks for the
// canary.
func (r *replication) readWhole(ctx context.Context, seen *sighting, m mark, local *os.File, size int64) (uint64, error) {
	body, err := r.client.OpenLTXFile(ctx, 0, seen.txid, seen.txid, 0, 0)
	if err != nil {
		return 0, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	remote, err := io.ReadAll(io.LimitReader(body, maxWhole+1))
	if err != nil {
		return 0, err
	}
	page, number, header, err := scan(bytes.NewReader(remote), m)
	if err != nil {
		return 0, damaged(seen.txid, err)
	}
	captured := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(local, 0, size), captured); err != nil {
		return 0, err
	}
	switch {
	case !bytes.Equal(remote, captured):
		return 0, otherOwner(seen.txid)
	case header.MinTXID != seen.txid || header.MaxTXID != seen.txid:
		return 0, damaged(seen.txid, errors.New("it says that it is another one"))
	case page == 0:
		return 0, notThere(seen.txid)
	}
	return number, nil
}

// readPage compares the header and the page of the canary, of an object that is too large to be
// read whole each time.
func (r *replication) readPage(ctx context.Context, seen *sighting, m mark, local *os.File) (uint64, error) {
	captured, offset, err := pageFrame(local, seen.page)
	if err != nil {
		return 0, err
	}
	header := make([]byte, ltx.HeaderSize)
	if _, err := local.ReadAt(header, 0); err != nil {
		return 0, err
	}
	remoteHeader, err := r.readRange(ctx, object{0, seen.txid, seen.txid}, 0, ltx.HeaderSize)
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(remoteHeader, header) {
		var h ltx.Header
		if len(remoteHeader) != ltx.HeaderSize || h.UnmarshalBinary(remoteHeader) != nil || h.Validate() != nil {
			return 0, damaged(seen.txid, errors.New("its header makes no sense"))
		}
		return 0, otherOwner(seen.txid)
	}
	remote, err := r.readRange(ctx, object{0, seen.txid, seen.txid}, offset, int64(len(captured)))
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(remote, captured) {
		return 0, damaged(seen.txid, errors.New("it is not what was sent"))
	}
	_, data, err := ltx.DecodePageData(remote)
	if err != nil {
		return 0, damaged(seen.txid, err)
	}
	number, ok := m.in(data)
	if !ok {
		return 0, notThere(seen.txid)
	}
	return number, nil
}

func (r *replication) readRange(ctx context.Context, o object, offset, size int64) ([]byte, error) {
	body, err := r.client.OpenLTXFile(ctx, o.level, o.first, o.last, offset, size)
	if err != nil {
		return nil, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(body, size))
}

// findAbove looks for a canary in the newest objects of the higher levels.
func (r *replication) findAbove(ctx context.Context, m mark, least uint64) (uint64, error) {
	for level := 1; level <= litestream.SnapshotLevel; level++ {
		newest, err := newestOf(ctx, r.client, level)
		if err != nil {
			return 0, err
		}
		if newest.MaxTXID == 0 || newest.Size > maxAbove {
			continue
		}
		body, err := r.client.OpenLTXFile(ctx, level, newest.MinTXID, newest.MaxTXID, 0, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return 0, err
		}
		page, number, _, err := scan(io.LimitReader(body, newest.Size+1), m)
		_ = body.Close()
		if err != nil {
			return 0, damaged(newest.MaxTXID, err)
		}
		if page != 0 && number >= least {
			return number, nil
		}
	}
	return 0, &codeError{wire.CodeNotThere, errors.New("the canary is not in the replica")}
}

// scan decodes a whole file with its checksum, and returns where the canary is in it, page 0 if
// nowhere.
func scan(in io.Reader, m mark) (page uint32, number uint64, header ltx.Header, err error) {
	defer func() { // the decoder does that for some lengths that are too short
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", litestream.ErrLTXCorrupted, p)
		}
	}()
	dec := ltx.NewDecoder(in)
	if err := dec.DecodeHeader(); err != nil {
		return 0, 0, header, err
	}
	header = dec.Header()
	data := make([]byte, header.PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, data); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, 0, header, err
		}
		if n, ok := m.in(data); ok && (page == 0 || n > number) {
			page, number = h.Pgno, n
		}
	}
	if err := dec.Close(); err != nil {
		return 0, 0, header, err
	}
	return page, number, header, nil
}

// in returns the greatest number of a canary in a page. A page may also hold what was overwritten,
// which has smaller ones.
func (m mark) in(page []byte) (number uint64, ok bool) {
	for {
		i := bytes.Index(page, m.token)
		if len(m.token) == 0 || i < 0 || len(page) < i+len(m.token)+8 {
			return number, ok
		}
		page = page[i+len(m.token):]
		if n := binary.BigEndian.Uint64(page); n <= m.most {
			number, ok = max(number, n), true
		}
	}
}

// maxIndex bounds the page index of a file in bytes.
const maxIndex = 256 << 20

// pageFrame returns a page as it is in a file, and where. nil: it is not in it.
func pageFrame(in *os.File, page uint32) (frame []byte, offset int64, err error) {
	info, err := in.Stat()
	if err != nil {
		return nil, 0, err
	}
	tail := make([]byte, 8)
	end := info.Size() - ltx.TrailerSize - int64(len(tail))
	if end < ltx.HeaderSize {
		return nil, 0, fmt.Errorf("%w: it is too short", litestream.ErrLTXCorrupted)
	}
	if _, err := in.ReadAt(tail, end); err != nil {
		return nil, 0, err
	}
	size := binary.BigEndian.Uint64(tail)
	if size > maxIndex || int64(size) > end-ltx.HeaderSize { //nolint:gosec // compared before
		return nil, 0, fmt.Errorf("%w: it has no index", litestream.ErrLTXCorrupted)
	}
	index := make([]byte, size)
	if _, err := in.ReadAt(index, end-int64(size)); err != nil { //nolint:gosec // compared before
		return nil, 0, err
	}
	for len(index) > 0 {
		var fields [3]uint64 // page, offset, size
		for i := range fields {
			value, n := binary.Uvarint(index)
			if n <= 0 {
				return nil, 0, fmt.Errorf("%w: its index cannot be read", litestream.ErrLTXCorrupted)
			}
			if index = index[n:]; i == 0 && value == 0 {
				return nil, 0, nil
			}
			fields[i] = value
		}
		if fields[0] != uint64(page) {
			continue
		}
		if fields[1] > uint64(end) || fields[2] > 1<<20 { //nolint:gosec // not negative
			return nil, 0, fmt.Errorf("%w: its index makes no sense", litestream.ErrLTXCorrupted)
		}
		frame = make([]byte, fields[2])
		_, err := in.ReadAt(frame, int64(fields[1])) //nolint:gosec // compared before
		return frame, int64(fields[1]), err          //nolint:gosec // compared before
	}
	return nil, 0, nil
}

func damaged(txid ltx.TXID, err error) error {
	return &codeError{wire.CodeCorrupt, fmt.Errorf("transaction %d in the replica is damaged: %w", txid, err)}
}

func otherOwner(txid ltx.TXID) error {
	return &codeError{wire.CodeOtherOwner, fmt.Errorf(
		"transaction %d in the replica is not what was sent there: somebody else writes to it", txid)}
}

func notThere(txid ltx.TXID) error {
	return &codeError{wire.CodeNotThere, fmt.Errorf("transaction %d in the replica does not hold the canary", txid)}
}

// newestOf returns what the newest object of a level is; zero: there is none.
func newestOf(ctx context.Context, client litestream.ReplicaClient, level int) (newest ltx.FileInfo, err error) {
	files, err := client.LTXFiles(ctx, level, 0, false)
	if err != nil {
		return newest, err
	}
	for files.Next() {
		if f := files.Item(); f.MaxTXID > newest.MaxTXID {
			newest = *f
		}
	}
	return newest, files.Close()
}
