package replicator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"

	"github.com/bedplate/bedplate/backup/internal/wire"
)

// prepareState makes sure that Litestream can go on from its local files and what is in the
// replica. Otherwise it would count transactions from 1 again and copy nothing, without an error:
// when the newest objects of level 0 were lost, when a file is damaged, or when the files belong to
// another replica. fresh reports that the history was broken: then a snapshot is due.
func (r *replication) prepareState(ctx context.Context) (fresh bool, err error) {
	dir := stateDir(r.order)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	if err := r.checkReplica(dir); err != nil {
		return false, err
	}
	if err := r.settled.recover(dir); err != nil {
		return false, err
	}
	lostSnapshot, err := r.deleteParts(ctx)
	if err != nil {
		return false, err
	}
	newest, all, err := r.newestOfLevels(ctx)
	if err != nil {
		return false, err
	}
	first, last, err := localRange(dir)
	if err != nil {
		return false, err
	}
	why := ""
	switch {
	case last == 0:
	case verifyFile(litestream.LTXFilePath(dir, 0, last, last)) != nil:
		why = "the newest local file is damaged"
	case newest.MaxTXID < all.MaxTXID:
		why = "the replica has lost what it got last"
	case first > newest.MaxTXID+1:
		why = "local files are missing"
	case first <= newest.MaxTXID && last >= newest.MaxTXID:
		same, err := r.compare(ctx, dir, newest)
		if err != nil {
			return false, err
		}
		if !same {
			why = "the replica holds something else than what was sent"
		}
	}
	if why != "" {
		r.log.Warn("the replica gets a new copy of the whole database", "why", why)
		if err := os.RemoveAll(litestream.LTXDir(dir)); err != nil {
			return false, err
		}
		last = 0
	}
	if all.MaxTXID == 0 {
		return false, nil // the first thing to go there is a whole copy
	}
	if newest.MaxTXID < all.MaxTXID {
		return true, r.seed(ctx, all, all.MaxTXID)
	}
	if last < newest.MaxTXID {
		return true, r.fetchNewest(ctx, newest)
	}
	return lostSnapshot, nil
}

// checkReplica removes the local files when they belong to another replica.
func (r *replication) checkReplica(dir string) error {
	u, err := url.Parse(r.order.URL)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.Join(
		[]string{u.Scheme, u.User.Username(), u.Host, path.Clean("/" + u.Path), u.Query().Get("endpoint")}, "\n")))
	id := hex.EncodeToString(sum[:16])
	file := filepath.Join(dir, "replica")
	text, err := os.ReadFile(file)
	switch {
	case err == nil && strings.TrimSpace(string(text)) == id:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil:
		r.log.Info("the local files belong to another replica, and are removed")
	}
	if err := os.RemoveAll(litestream.LTXDir(dir)); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(id+"\n"), 0o600)
}

// newestOfLevels returns the newest object of level 0, and of all.
func (r *replication) newestOfLevels(ctx context.Context) (newest, all ltx.FileInfo, err error) {
	for level := range litestream.SnapshotLevel + 1 {
		info, err := newestOf(ctx, r.client, level)
		if err != nil {
			return newest, all, err
		}
		if level == 0 {
			newest = info
		}
		if info.MaxTXID > all.MaxTXID {
			all = info
		}
	}
	return newest, all, nil
}

// localRange returns the numbers of the first and last of the local files without a gap, 0 if
// there is none.
func localRange(dir string) (first, last ltx.TXID, err error) {
	files, err := localFiles(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, txid := range files {
		if first == 0 || txid != last+1 {
			first = txid
		}
		last = txid
	}
	return first, last, nil
}

func verifyFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	_, _, _, err = scan(f, mark{})
	return err
}

// compare reports whether the newest object of level 0 is of this database: it begins as the local
// file of that number. The header has the time and the place in the write-ahead log. One that was
// written in part only is written again.
func (r *replication) compare(ctx context.Context, dir string, info ltx.FileInfo) (bool, error) {
	local, err := os.Open(litestream.LTXFilePath(dir, 0, info.MinTXID, info.MaxTXID))
	if err != nil {
		return false, err
	}
	defer local.Close() //nolint:errcheck // it was only read
	size, err := local.Stat()
	if err != nil {
		return false, err
	}
	want := make([]byte, ltx.HeaderSize)
	if _, err := io.ReadFull(local, want); err != nil {
		return false, err
	}
	whole := info.Size == size.Size()
	if info.Size >= ltx.HeaderSize {
		got, err := r.readRange(ctx, object{0, info.MinTXID, info.MaxTXID}, 0, ltx.HeaderSize)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(got, want) {
			return false, nil
		}
	}
	if whole {
		return true, nil
	}
	r.log.Warn("an object of the replica that was written in part is written again", "txid", info.MaxTXID.String())
	if _, err := local.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	_, err = r.client.WriteLTXFile(ctx, 0, info.MinTXID, info.MaxTXID, local)
	return err == nil, err
}

// deleteParts deletes the newest object of a higher level if it was written in part only, which
// Litestream would take for whole, and then delete what it was made of. snapshot reports that one was
// deleted.
func (r *replication) deleteParts(ctx context.Context) (snapshot bool, err error) {
	for level := 1; level <= litestream.SnapshotLevel; level++ {
		info, err := newestOf(ctx, r.client, level)
		if err != nil {
			return false, err
		}
		if info.MaxTXID == 0 {
			continue
		}
		whole, err := r.hasEnd(ctx, info)
		if err != nil {
			return false, err
		}
		if whole {
			continue
		}
		r.log.Error("an object of the replica is there in part only, and is deleted", "level", level, "txid", info.MaxTXID.String(), "bytes", info.Size)
		if err := r.client.DeleteLTXFiles(ctx, []*ltx.FileInfo{&info}); err != nil {
			return false, err
		}
		snapshot = level == litestream.SnapshotLevel
	}
	return snapshot, nil
}

// hasEnd reports whether an object ends as one does: with an index of its pages in order. An index
// that is too long to look at is taken for right.
func (r *replication) hasEnd(ctx context.Context, info ltx.FileInfo) (bool, error) {
	name := object{info.Level, info.MinTXID, info.MaxTXID}
	end := info.Size - ltx.TrailerSize - 8
	if end <= ltx.HeaderSize {
		return false, nil
	}
	tail, err := r.readRange(ctx, name, end, 8)
	if err != nil {
		return false, err
	}
	if len(tail) < 8 {
		return false, fmt.Errorf("read the end of transaction %d at level %d: %w", info.MaxTXID, info.Level, io.ErrUnexpectedEOF)
	}
	size := binary.BigEndian.Uint64(tail)
	switch {
	case size == 0 || size > uint64(end-ltx.HeaderSize): //nolint:gosec // not negative
		return false, nil
	case size > maxIndex:
		return true, nil
	}
	index, err := r.readRange(ctx, name, end-int64(size), int64(size)) //nolint:gosec // compared before
	if err != nil {
		return false, err
	}
	if uint64(len(index)) < size {
		return false, fmt.Errorf("read the index of transaction %d at level %d: %w", info.MaxTXID, info.Level, io.ErrUnexpectedEOF)
	}
	for last := uint64(0); ; {
		page, n := binary.Uvarint(index)
		if n <= 0 {
			return false, nil
		}
		if index = index[n:]; page == 0 {
			return len(index) == 0, nil
		}
		for range 2 { // where it is, and how long
			_, n := binary.Uvarint(index)
			if n <= 0 {
				return false, nil
			}
			index = index[n:]
		}
		if page <= last {
			return false, nil
		}
		last = page
	}
}

// fetchNewest makes the newest object of level 0 the only local file, to go on from there. It is
// overwritten when it is damaged: what it held is lost.
func (r *replication) fetchNewest(ctx context.Context, newest ltx.FileInfo) error {
	var err error
	for range 2 { // what comes through a bad line differs
		if err = r.fetch(ctx, newest); err == nil || codeOf(err) != wire.CodeCorrupt {
			return err
		}
	}
	r.log.Error("the newest object of the replica is damaged; its transaction is lost", "txid", newest.MaxTXID.String(), "error", err)
	before, err := newestBefore(ctx, r.client, newest.MaxTXID)
	if err != nil {
		return err
	}
	if before.MaxTXID == 0 {
		return damaged(newest.MaxTXID, errors.New("it is the only one"))
	}
	return r.seed(ctx, before, newest.MaxTXID)
}

func (r *replication) fetch(ctx context.Context, info ltx.FileInfo) error {
	if info.Size < ltx.HeaderSize+ltx.TrailerSize {
		return damaged(info.MaxTXID, fmt.Errorf("it has only %d bytes", info.Size))
	}
	body, err := r.client.OpenLTXFile(ctx, info.Level, info.MinTXID, info.MaxTXID, 0, 0)
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // it was only read
	read := &failingReader{r: body}
	err = replaceLocal(stateDir(r.order), info.MaxTXID, func(f *os.File) error {
		n, err := io.Copy(f, io.LimitReader(read, info.Size+1))
		if err == nil && n > info.Size {
			err = damaged(info.MaxTXID, fmt.Errorf("it has more than %d bytes", info.Size))
		}
		return err
	})
	var bad *codeError
	if errors.As(err, &bad) && read.err != nil {
		return read.err // it is not the object
	}
	return err
}

// replaceLocal makes the file that write writes the only local one.
func replaceLocal(state string, txid ltx.TXID, write func(f *os.File) error) error {
	if err := os.RemoveAll(litestream.LTXDir(state)); err != nil {
		return err
	}
	return addLocal(state, txid, write)
}

// addLocal adds a local file.
func addLocal(state string, txid ltx.TXID, write func(f *os.File) error) (err error) {
	name := litestream.LTXFilePath(state, 0, txid, txid)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := verifyFile(f.Name()); err != nil {
		return damaged(txid, err)
	}
	return os.Rename(f.Name(), name)
}

// A failingReader remembers the error of a reader that is not its end.
type failingReader struct {
	r   io.Reader
	err error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// newestBefore returns the newest object of all levels that ends before txid.
func newestBefore(ctx context.Context, client litestream.ReplicaClient, txid ltx.TXID) (newest ltx.FileInfo, err error) {
	for level := range litestream.SnapshotLevel + 1 {
		files, err := client.LTXFiles(ctx, level, 0, false)
		if err != nil {
			return newest, err
		}
		for files.Next() {
			if f := files.Item(); f.MaxTXID < txid && f.MaxTXID > newest.MaxTXID {
				newest = *f
			}
		}
		if err := files.Close(); err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// seed writes an object of level 0 that changes nothing with respect to what is given, to the
// replica and as the only local file: from there it goes on with a copy of the whole database.
func (r *replication) seed(ctx context.Context, after ltx.FileInfo, txid ltx.TXID) error {
	header, err := litestream.FetchLTXHeader(ctx, r.client, &after)
	if err != nil {
		return err
	}
	txid = max(txid, 2) // 1 would have to hold everything
	object, err := blank(txid, header.PageSize, header.Commit, header.Timestamp, nowhere)
	if err != nil {
		return err
	}
	r.log.Warn("the newest object of the replica is replaced by one that changes nothing", "txid", txid.String())
	if _, err := r.client.WriteLTXFile(ctx, 0, txid, txid, bytes.NewReader(object)); err != nil {
		return fmt.Errorf("write to the replica: %w", err)
	}
	return replaceLocal(stateDir(r.order), txid, func(f *os.File) error {
		_, err := f.Write(object)
		return err
	})
}

// nowhere is a log that there is not. What comes after it is a copy of the whole database.
var nowhere = walMark{salt1: 1, salt2: 2}

// blank is a file that changes nothing, and after which Litestream goes on at the beginning of the
// log.
func blank(txid ltx.TXID, pageSize, commit uint32, timestamp int64, log walMark) ([]byte, error) {
	var object bytes.Buffer
	enc, err := ltx.NewEncoder(&object)
	if err != nil {
		return nil, err
	}
	if err := enc.EncodeHeader(ltx.Header{
		Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: pageSize, Commit: commit,
		MinTXID: txid, MaxTXID: txid, Timestamp: timestamp,
		WALOffset: litestream.WALHeaderSize, WALSalt1: log.salt1, WALSalt2: log.salt2,
	}); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return object.Bytes(), nil
}
